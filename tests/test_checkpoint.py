"""Weights are read from every published form of file, safely and loudly."""

import argparse
import builtins
import contextlib
import functools
import http.server
import os
import pathlib
import sys
import threading
import types

import numpy as np
import pytest
import torch
from conftest import BACKBONES, SMALL, differing, official, picture
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModule
from mmengine.runner import load_checkpoint
from mmengine.runner.checkpoint import load_state_dict as mmengine_load_state_dict
from plain_statements import forward

import mlp_dense
from mlp_dense.checkpoint import read_checkpoint
from mlp_dense.errors import CheckpointError, UserError


class Detector(BaseModule):
    """The two parts that matter here of every detector and segmentor."""

    def __init__(self, backbone: torch.nn.Module):
        super().__init__()
        self.backbone = backbone
        self.head = torch.nn.Linear(3, 2)


class FromYacs(dict):
    """Stands in for yacs.config.CfgNode while a file is written."""

    def __init__(self, **items):
        super().__init__(items)
        self.__dict__['__immutable__'] = True


FromYacs.__module__, FromYacs.__qualname__, FromYacs.__name__ = 'yacs.config', 'CfgNode', 'CfgNode'


def prefixed(prefix: str, weights: dict) -> dict:
    return {prefix + name: tensor for name, tensor in weights.items()}


def mmengine_extras() -> dict:
    history = HistoryBuffer([1.5, 0.5], [1, 1])
    scalars = dict(loss=history, best=np.float64(0.5), step=np.int64(3), curve=np.arange(3, dtype=np.float32))
    return dict(
        meta=dict(epoch=1, cfg='model = dict()'), message_hub=scalars, optimizer=dict(state={}, param_groups=[{}])
    )


CONTAINERS = {
    'plain': lambda w: w,
    'model': lambda w: dict(model=w, optimizer=dict(state={}), lr_scheduler={}, epoch=299, max_accuracy=81.3),
    'model_ema': lambda w: dict(model_ema=w, epoch=1),
    'model with argparse.Namespace': lambda w: dict(
        model=w, args=argparse.Namespace(lr=0.1, nested=argparse.Namespace(a=[1]), output_dir=pathlib.Path('out'))
    ),
    'model with yacs.CfgNode': lambda w: dict(model=w, config=FromYacs(MODEL=FromYacs(NAME='as'), LR=0.1)),
    'state_dict': lambda w: dict(meta={}, state_dict=w),
    'module.': lambda w: prefixed('module.', w),
    'model with module.': lambda w: dict(model=prefixed('module.', w)),
    'detector': lambda w: dict(meta={}, state_dict={**prefixed('backbone.', w), 'rpn_head.weight': torch.ones(2)}),
    'parallel detector': lambda w: dict(state_dict=prefixed('module.backbone.', w)),
    'classifier of mmpretrain': lambda w: dict(
        state_dict={**prefixed('backbone.', w), 'head.fc.weight': torch.ones(2)}
    ),
    'mmengine': lambda w: dict(state_dict=prefixed('backbone.', w), **mmengine_extras()),
}


@pytest.fixture
def save(tmp_path, monkeypatch):
    """Writes a checkpoint; returns its path. The lookalike of yacs is gone when the file is read."""

    def save(content, name='weights.pth', **kwargs) -> str:
        with monkeypatch.context() as patch:
            yacs = types.ModuleType('yacs.config')
            yacs.CfgNode = FromYacs
            patch.setitem(sys.modules, 'yacs', types.ModuleType('yacs'))
            patch.setitem(sys.modules, 'yacs.config', yacs)
            torch.save(content, tmp_path / name, **kwargs)
        return str(tmp_path / name)

    return save


def pretrained(cls: type, path: str, arch: dict = SMALL, **arguments) -> torch.nn.Module:
    model = cls(arch, init_cfg=dict(type='Pretrained', checkpoint=path), **arguments)
    model.init_weights()
    return model


def assert_computes(model: torch.nn.Module, weights: dict):
    """The model gives what the plain statement gives with these official weights."""
    x = picture(1, 3, 40, 36, dtype=torch.float64)
    expected = forward(type(model).__name__, weights, x, model.arch)
    with torch.no_grad():
        outs = model.double().eval()(x)
    for out, i in zip(outs, model.out_indices, strict=True):
        torch.testing.assert_close(out, expected[i], rtol=1e-5, atol=1e-5)


# Every container, every way


@pytest.mark.parametrize('container', CONTAINERS)
def test_containers_through_init_cfg(family, save, container):
    weights = official(family)
    assert_computes(pretrained(family, save(CONTAINERS[container](weights))), weights)


def test_file_of_an_old_torch(family, save):
    weights = official(family)
    path = save(CONTAINERS['model with argparse.Namespace'](weights), _use_new_zipfile_serialization=False)
    assert_computes(pretrained(family, path), weights)


@pytest.mark.parametrize('form', ['official', 'own'])
@pytest.mark.parametrize('load', [torch.nn.Module.load_state_dict, mmengine_load_state_dict], ids=['torch', 'mmengine'])
def test_state_dict_of_a_whole_detector(family, load, form):
    weights = official(family)
    detector = Detector(family(SMALL))
    state = prefixed('backbone.', weights)
    if form == 'own':
        source = family(SMALL)
        source.load_state_dict(weights)
        state = prefixed('backbone.', source.state_dict())
    load(detector, {**state, 'head.weight': torch.ones(2, 3), 'head.bias': torch.zeros(2)})
    assert (detector.head.weight == 1).all()
    assert_computes(detector.backbone, weights)


@pytest.mark.parametrize('container', ['plain', 'model', 'detector'])
def test_backbone_load_state_dict_takes_a_whole_checkpoint(family, container):
    weights = official(family)
    model = family(SMALL)
    content = CONTAINERS[container](weights)
    before = dict(content)
    result = model.load_state_dict(content)
    assert result.missing_keys == result.unexpected_keys == []
    assert content.keys() == before.keys()
    assert_computes(model, weights)


def test_detector_hands_init_weights_on(family, save):
    weights = official(family)
    init_cfg = dict(type='Pretrained', checkpoint=save(CONTAINERS['detector'](weights)), prefix='backbone')
    detector = Detector(family(SMALL, init_cfg=init_cfg))
    detector.init_weights()
    assert_computes(detector.backbone, weights)


def test_own_checkpoint_loads_bit_for_bit_and_once(family, save):
    saved = family(SMALL)
    model = pretrained(family, save(saved.state_dict()))
    assert differing(model.state_dict(), saved.state_dict()) == []
    assert model.is_init
    torch.nn.init.constant_(model.stem.conv.weight, 0.5)
    model.init_weights()  # as everywhere in mmengine, the second call changes nothing
    assert differing(model.state_dict(), saved.state_dict()) == ['stem.conv.weight']


def test_address(save, tmp_path, monkeypatch):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    monkeypatch.setenv('no_proxy', '*')
    weights = official(mlp_dense.HireMLP)
    save(dict(model=weights))
    handler = functools.partial(Handler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(('localhost', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f'http://localhost:{server.server_port}'
        assert_computes(pretrained(mlp_dense.HireMLP, f'{address}/weights.pth'), weights)
        with pytest.raises(CheckpointError, match=r'absent\.pth cannot be downloaded'):
            read_checkpoint(f'{address}/absent.pth')
        server.shutdown()
    assert_computes(pretrained(mlp_dense.HireMLP, f'{address}/weights.pth'), weights)  # kept


def test_file_address_is_read_anew_after_a_change(save, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    for value in (1.0, 2.0):
        path = pathlib.Path(save(dict(value=torch.tensor(value))))
        assert read_checkpoint(path.as_uri())['value'] == value


# What is said


def test_log_line_for_a_classifier(family, save, log_lines):
    weights = official(family, norms=(), classes=10)
    model = pretrained(family, path := save(dict(model=weights)))
    line = next(line for line in log_lines if 'loaded' in line)
    loaded = len(family(SMALL, out_norm=False).state_dict())
    head = 7 if family is mlp_dense.HireMLP else 4
    assert f'{family.__name__}: loaded {loaded} tensors from {path}' in line and '\n' not in line
    assert f'left out {head} (classifier head and norm)' in line
    assert ('left out 18 (CycleFC offsets)' in line) == (family is mlp_dense.CycleMLP)
    assert 'norms that start fresh: norms.0, norms.1, norms.2, norms.3' in line
    assert all((norm.weight == 1).all() for norm in model.norms)


def test_detection_file_without_norm0(family, save, log_lines):
    """RetinaNet does not use the first map, and the official code then drops its norm."""
    weights = official(family, norms=(1, 2, 3))
    pretrained(family, path := save(CONTAINERS['detector'](weights)))
    line = next(line for line in log_lines if 'loaded' in line)
    assert line.endswith('norms that start fresh: norms.0') and 'left out 1 (outside the backbone)' in line
    assert_computes(pretrained(family, path, out_indices=(1, 2, 3)), weights)
    assert 'fresh' not in log_lines[-1]


@pytest.mark.parametrize('out_indices', [(0,), (1, 2), (3,)])
def test_out_indices_take_their_part_of_a_file(family, save, log_lines, out_indices):
    weights = official(family)
    model = pretrained(family, save(weights), out_indices=out_indices)
    assert_computes(model, weights)
    line = next(line for line in log_lines if 'loaded' in line)
    assert f'loaded {len(model.state_dict())} tensors' in line
    assert '(stages and norms not selected by out_indices and out_norm)' in line and 'fresh' not in line


# What is refused


class Evil:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    'function, argument, offender',
    [
        (os.system, 'touch {}', 'system'),
        (builtins.eval, 'open({!r}, "w")', 'eval'),
        (builtins.exec, 'open({!r}, "w")', 'exec'),
        (pathlib.Path.touch, None, 'pathlib.Path'),
        (HistoryBuffer.register_statistics, None, 'getattr'),
        (torch.load, '{}', 'torch.serialization.load'),
    ],
)
@pytest.mark.parametrize('hide', ['beside', 'in args', 'in weights', 'alone'])
def test_file_that_runs_code_is_refused(save, tmp_path, hide, function, argument, offender):
    mark = tmp_path / 'executed'
    evil = Evil(function, pathlib.PosixPath(mark) if argument is None else argument.format(str(mark)))
    weights = official(mlp_dense.HireMLP)
    content = {
        'beside': dict(model=weights, extra=evil),
        'in args': dict(model=weights, args=argparse.Namespace(lr=evil)),
        'in weights': dict(model={**weights, 'patch_embed.proj.weight': evil}),
        'alone': evil,
    }[hide]
    path = save(content, 'evil.pth')
    with pytest.raises(CheckpointError) as error:
        pretrained(mlp_dense.HireMLP, path)
    assert not mark.exists()
    assert 'evil.pth' in str(error.value) and offender in str(error.value) and '\n' not in str(error.value)


class Custom:
    pass


def test_object_of_an_unknown_class_is_refused(save):
    with pytest.raises(CheckpointError, match=r'own\.pth is refused.* test_checkpoint\.Custom,'):
        read_checkpoint(save(dict(model={}, note=Custom()), 'own.pth'))


@pytest.mark.parametrize(
    'damage',
    [lambda data: data[: len(data) // 2], lambda data: data[:10], lambda data: b'', lambda data: b'<html>' * 99],
)
@pytest.mark.parametrize('zipped', [True, False])
def test_damaged_file(save, damage, zipped):
    path = pathlib.Path(save(official(mlp_dense.HireMLP), 'damaged.pth', _use_new_zipfile_serialization=zipped))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match=r'damaged\.pth') as error:
        read_checkpoint(path)
    assert not any(text in str(error.value) for text in ('\n', 'weights_only', 'run code'))


@pytest.mark.parametrize(
    'content', [[1, 2], torch.ones(2), {}, dict(model={}), dict(epoch=1, meta={}), dict(model=None)]
)
def test_file_without_weights(save, content):
    with pytest.raises(CheckpointError, match=r'other\.pth holds'):
        pretrained(mlp_dense.HireMLP, save(content, 'other.pth'))


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / 'no.pth', tmp_path):
        with pytest.raises(UserError, match=path.name):
            pretrained(mlp_dense.HireMLP, str(path))


def without(weights: dict, name: str) -> dict:
    assert name in weights
    return {key: tensor for key, tensor in weights.items() if key != name}


MISMATCHES = {
    'deeper arch': (lambda cls: official(cls, dict(SMALL, depths=(2, 2, 5, 1))), ['left over', '.4.']),
    'shallower arch': (lambda cls: official(cls, dict(SMALL, depths=(2, 1, 4, 1))), ['missing', 'stages.1.blocks.1.']),
    'wider arch': (lambda cls: official(cls, dict(SMALL, dims=(8, 12, 20, 28))), ['of another shape', '28', '24']),
    'one tensor missing': (
        lambda cls: without(official(cls), 'patch_embed.proj.bias'),
        ['1 missing: stem.conv.bias', 'tensors match'],
    ),
    'one tensor left over': (lambda cls: {**official(cls), 'gate.weight': torch.ones(2)}, ['1 left over: gate.weight']),
    'one wrong shape': (
        lambda cls: {**official(cls), 'patch_embed.proj.bias': torch.ones(9)},
        ['1 of another shape: patch_embed.proj.bias (9,) for (8,)'],
    ),
    'nothing matches': (lambda cls: {'conv1.weight': torch.ones(2)}, [' 0 of its tensors match']),
    'only output norms': (
        lambda cls: {name: t for name, t in official(cls).items() if name.startswith('norm')},
        [' 0 of its tensors match'],
    ),
}
WAYS = {
    'init_cfg': lambda cls, path: pretrained(cls, path),
    'not strict': lambda cls, path: cls(SMALL).load_state_dict(torch.load(path), strict=False),
    'detector': lambda cls, path: load_checkpoint(Detector(cls(SMALL)), path),
}


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('mismatch', MISMATCHES)
def test_mismatch_is_an_error_that_names_it(family, save, mismatch, way):
    make, needed = MISMATCHES[mismatch]
    path = save(prefixed('backbone.', make(family)))
    with pytest.raises(CheckpointError) as error:
        WAYS[way](family, path)
    assert [text for text in [family.__name__, *needed] if text not in str(error.value)] == []
    assert len(str(error.value)) < 1000 and '\n' not in str(error.value)


@pytest.mark.parametrize('other', BACKBONES, ids=lambda cls: cls.__name__)
def test_file_of_another_family_is_an_error(family, save, other):
    path = save(dict(model=official(other, classes=10, norms=())))
    with contextlib.nullcontext() if other is family else pytest.raises(CheckpointError, match='family'):
        pretrained(family, path)


def test_model_file_never_silently_loads_nothing_into_a_detector(family, save):
    path = save(dict(model=official(family, classes=10, norms=())))
    detector = Detector(family(SMALL))
    with pytest.raises(CheckpointError, match='0 of its tensors match'):
        load_checkpoint(detector, path)
    with pytest.raises(CheckpointError, match='0 of its tensors match'):
        detector.load_state_dict(torch.load(path), strict=False)
