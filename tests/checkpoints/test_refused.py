"""Files that could run code, are damaged or do not fit are refused with one sentence."""

import argparse
import builtins
import contextlib
import json
import os
import pathlib
import pickle
import struct

import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import load_checkpoint
from safetensors.torch import save_file

import mlp_dense
from mlp_dense.backbones import FAMILIES
from mlp_dense.checkpoints.reading import read_checkpoint
from mlp_dense.errors import CheckpointError, UserError
from reference import reference_of
from support.checkpoints import Call, Detector, prefixed, pretrained
from support.models import SMALL, first_bias, official


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
@pytest.mark.parametrize('location', ['next to weights', 'in args', 'in weights', 'alone'])
def test_file_that_runs_code_is_refused(save, tmp_path, location, function, argument, offender):
    mark = tmp_path / 'executed'
    evil = Call(function, pathlib.PosixPath(mark) if argument is None else argument.format(str(mark)))
    weights = official(mlp_dense.HireMLP)
    content = {
        'next to weights': dict(model=weights, extra=evil),
        'in args': dict(model=weights, args=argparse.Namespace(lr=evil)),
        'in weights': dict(model={**weights, 'patch_embed.proj.weight': evil}),
        'alone': evil,
    }[location]
    path = save(content, 'evil.pth')
    with pytest.raises(CheckpointError) as error:
        pretrained(mlp_dense.HireMLP, path)
    assert not mark.exists()
    assert 'evil.pth' in str(error.value) and offender in str(error.value) and '\n' not in str(error.value)


def _safetensors(header: dict) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack('<Q', len(text)) + text + bytes(8)


class Custom:
    pass


def test_object_of_an_unknown_class_is_refused(save):
    with pytest.raises(CheckpointError, match=r'own\.pth is refused.* \S*test_refused\.Custom,'):
        read_checkpoint(save(dict(model={}, note=Custom()), 'own.pth'))


@pytest.mark.parametrize('kept', [lambda size: size // 2, lambda size: 10], ids=['half', 'ten bytes'])
@pytest.mark.parametrize('zipped', [True, False])
def test_truncated_file_is_an_error(save, kept, zipped):
    path = pathlib.Path(save(official(mlp_dense.HireMLP), 'damaged.pth', _use_new_zipfile_serialization=zipped))
    path.write_bytes((data := path.read_bytes())[: kept(len(data))])
    with pytest.raises(CheckpointError, match=r'damaged\.pth') as error:
        read_checkpoint(path)
    assert not any(text in str(error.value) for text in ('\n', 'weights_only', 'run code'))


@pytest.mark.parametrize(
    'content',
    [
        b'',
        b'<html>',
        struct.pack('<Q', 2**60) + b'{}',
        struct.pack('<Q', 5) + b'[1,2]',
        struct.pack('<Q', 4) + b'null',
        _safetensors({'w': {'dtype': 'F32', 'shape': [2**40, 2**40], 'data_offsets': [0, 8]}}),
        _safetensors({'w': {'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 2**40]}}),
        _safetensors({'w': {'dtype': 'X9', 'shape': [2], 'data_offsets': [0, 8]}}),
        _safetensors({'__metadata__': {'dataset_meta': '[' * 100_000}}),
        pickle.dumps(dict(w=1)),
    ],
)
def test_damaged_safetensors_is_an_error(tmp_path, content):
    path = tmp_path / 'damaged.safetensors'
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r'damaged\.safetensors cannot be read as a safetensors file \(') as error:
        read_checkpoint(path)
    assert '\n' not in str(error.value)


def test_truncated_safetensors_is_an_error(tmp_path):
    save_file(official(mlp_dense.HireMLP), path := tmp_path / 'damaged.safetensors')
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match='use a complete file'):
        pretrained(mlp_dense.HireMLP, str(path))


@pytest.mark.parametrize(
    'content', [[1, 2], torch.ones(2), {}, dict(model={}), dict(epoch=1, meta={}), dict(model=None), {1: torch.ones(2)}]
)
def test_file_without_weights_is_an_error(save, content):
    with pytest.raises(CheckpointError, match=r'other\.pth holds'):
        pretrained(mlp_dense.HireMLP, save(content, 'other.pth'))


def test_missing_file_and_folder_are_an_error(tmp_path):
    for path in (tmp_path / 'no.pth', tmp_path):
        with pytest.raises(UserError, match=path.name):
            pretrained(mlp_dense.HireMLP, str(path))


MISMATCHES = {
    'deeper arch': (lambda cls: official(cls, dict(SMALL, depths=(3, 2, 4, 1))), ['unexpected', '{third_block}.']),
    'shallower arch': (lambda cls: official(cls, dict(SMALL, depths=(2, 1, 4, 1))), ['missing', 'stages.1.blocks.1.']),
    'wider arch': (lambda cls: official(cls, dict(SMALL, dims=(16, 32, 48, 80))), ['of another shape', '80', '64']),
    'one tensor missing': (
        lambda cls: {key: w for key, w in official(cls).items() if key != f'{reference_of(cls).stem}.bias'},
        ['1 missing: {ours}', 'tensors match'],
    ),
    'one tensor left over': (
        lambda cls: {**official(cls), 'gate.weight': torch.ones(2)},
        ['1 unexpected: gate.weight'],
    ),
    'one wrong shape': (
        lambda cls: {**official(cls), f'{reference_of(cls).stem}.bias': torch.ones(9)},
        ['1 of another shape: {official} (9,) for (16,)'],
    ),
    'nothing matches': (lambda cls: {'conv1.weight': torch.ones(2)}, [' 0 of its tensors match']),
    'only output norms': (
        lambda cls: {
            f'{reference_of(cls).output_norm_name(i)}.weight': torch.ones(dim) for i, dim in enumerate(SMALL['dims'])
        },
        [' 0 of its tensors match'],
    ),
}
LOADERS = {
    'not strict': lambda cls, path: cls(SMALL).load_state_dict(torch.load(path), strict=False),
    'detector': lambda cls, path: load_checkpoint(Detector(cls(SMALL)), path),
}


@pytest.mark.parametrize(
    ('mismatch', 'loader'),
    [*((name, 'init_cfg') for name in MISMATCHES), *(('one tensor missing', name) for name in LOADERS)],
)
def test_error_names_the_mismatch(family, save, mismatch, loader):
    (make, expected), reference = MISMATCHES[mismatch], reference_of(family)
    third_block = reference.block_name(0, 2, {**reference.defaults, **SMALL})
    names = dict(ours=first_bias(family), official=f'{reference.stem}.bias', third_block=third_block)
    path = save(prefixed('backbone.', make(family)))
    with pytest.raises(CheckpointError) as error:
        LOADERS.get(loader, pretrained)(family, path)
    assert [text for text in [family.__name__, *expected] if text.format(**names) not in str(error.value)] == []
    assert len(str(error.value)) < 1000 and '\n' not in str(error.value)


@pytest.mark.parametrize('other', FAMILIES, ids=lambda cls: cls.__name__)
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
