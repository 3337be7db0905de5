"""tools/checkpoint.py: looking into checkpoints, and publishing their weights."""

import hashlib
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.registry import MODELS, init_default_scope
from safetensors.torch import load_file

import mlp_dense
from mlp_dense.backbones import FAMILIES
from mlp_dense.checkpoints.inspection import recognise
from mlp_dense.checkpoints.reading import Checkpoint, read_checkpoint
from mlp_dense.checkpoints.writing import publish
from mlp_dense.errors import CheckpointError
from reference import reference_of
from support.checkpoints import prefixed
from support.configs import DETECTION, SEGMENTATION
from support.models import ARCHS, SMALL, differing, official
from support.tools import call


@pytest.fixture
def inspect(capsys):
    """Runs the tool on a file; returns what it prints, by topic."""

    def run(*args) -> dict[str, str]:
        assert call('checkpoint', 'inspect', *args) == 0
        return {line[:12].strip(): line[12:] for line in capsys.readouterr().out.splitlines()}

    return run


@pytest.fixture(params=[DETECTION, SEGMENTATION], ids=['detection', 'segmentation'])
def trained(request, save):
    """(config, checkpoint, weights) as a training leaves them."""
    cfg = Config.fromfile(request.param)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    classes = tuple('abcde' if request.param == DETECTION else 'abcdef')
    meta = dict(dataset_meta=dict(classes=classes, palette=[(i, 0, 0) for i in range(len(classes))]), epoch=1)
    return request.param, save(dict(state_dict=model.state_dict(), meta=meta, optimizer={}, message_hub={})), model


# What is in a file


@pytest.mark.parametrize('form', ['our', 'official'])
@pytest.mark.parametrize('inside', ['', 'backbone.'])
@pytest.mark.parametrize('cls, arch', ARCHS)
def test_every_arch_is_recognised(cls, arch, inside, form):
    with torch.device('meta'):
        if form == 'our':
            weights = cls(arch).state_dict()
        else:
            shapes = reference_of(cls).official_shapes(cls.archs[arch], (1, 2, 3), 10 * (not inside))
            weights = {name: torch.empty(shape) for name, shape in shapes.items()}
    backbone, loads = recognise(Checkpoint('file', None, prefixed(inside, weights)), FAMILIES)
    assert backbone == f'{cls.__name__} {arch}, {form} names{" inside `backbone.`" if inside else ""}'
    assert f'{cls.__name__}: loaded ' in loads and ('fresh: norms.0' in loads) == (form == 'official')


def test_other_sizes(family):
    arch = dict(depths=(1, 2, 1), dims=(8, 16, 24), mlp_ratios=(2, 4, 4))
    weights = family(arch, out_indices=(0, 1, 2)).state_dict()
    backbone, loads = recognise(Checkpoint('file', None, weights), FAMILIES)
    size = 'of custom size (depths (1, 2, 1), dims (8, 16, 24), mlp_ratios (2, 4, 4))'
    assert backbone == f'{family.__name__} {size}, our names' and 'loaded' in loads


def test_what_is_said_of_a_file(save, inspect):
    path = save(dict(model=official(mlp_dense.HireMLP, classes=10, norms=()), epoch=3, args=None))
    said = inspect(path)
    assert said['file'].startswith(path) and said['weights'] == "under 'model'" and said['beside them'] == 'epoch, args'
    assert said['sha256'] == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    parameters = sum(p.numel() for p in mlp_dense.HireMLP(SMALL, out_norm=False).parameters()) + 2 * 24 + 11 * 24 - 14
    weights = read_checkpoint(path)['model']
    counts = len(weights), sum(not t.is_floating_point() for t in weights.values())
    assert said['tensors'] == (
        f'{counts[0]} ({counts[0] - counts[1]} float64, {counts[1]} int64), {parameters / 1e6:.2f} M parameters'
    )
    assert said['as backbone'].startswith('HireMLP: loaded ') and 'classifier head' in said['as backbone']
    assert 'whole model' not in said and 'classes' not in said
    assert inspect(save(official(mlp_dense.HireMLP)))['weights'] == 'a plain state dict'


def test_what_would_load_into_a_config(trained, inspect, save):
    config, path, model = trained
    said = inspect(path, '--config', config)
    count = len(model.state_dict())
    assert said['whole model'] == f'loads: {count} of its {count} tensors fit'
    assert said['classes'].startswith('5: a, b, c, d, e' if config == DETECTION else '6: a, b, c, d, e, ...')
    weights = {key: value for key, value in model.state_dict().items() if not key.endswith('conv_seg.bias')}
    last = next(reversed(weights))
    weights = {**weights, last: torch.ones(1, 2, 3), 'extra.weight': torch.ones(1)}
    said = inspect(save(weights), '--config', config)['whole model']
    assert said.startswith('does not load: ') and '1 unexpected: extra.weight' in said
    assert f'1 of another shape: {last} (1, 2, 3) for ' in said
    assert ('2 missing: decode_head.conv_seg.bias' in said) == (config == SEGMENTATION)


def test_backbone_that_does_not_fit(trained, inspect, save):
    config, _, model = trained
    weights = {key: value for key, value in model.state_dict().items() if 'channel_mixing.fc2.bias' not in key}
    said = inspect(save(weights), '--config', config)
    for text in (said['as backbone'], said['whole model']):
        assert ' missing: stages.0.blocks.0.channel_mixing.fc2.bias, ' in text
    assert said['whole model'].startswith('does not load: ')


def test_file_of_something_else(save, inspect):
    said = inspect(save({'conv1.weight': torch.ones(2), 'stages.0.blocks.0.norm1.weight': torch.ones(())}))
    assert said['backbone'] == 'none of this package' and 'as backbone' not in said


# Publishing


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_published_file(trained, tmp_path, capsys, suffix):
    config, path, model = trained
    before = read_checkpoint(path)
    assert call('checkpoint', 'publish', path, tmp_path / 'new' / f'hire{suffix}') == 0
    (file,) = (tmp_path / 'new').iterdir()
    assert capsys.readouterr().out == f'{file}\n'
    assert file.name == f'hire-{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}{suffix}'
    content = read_checkpoint(file)
    assert content.keys() == {'state_dict', 'meta'} and content['meta'].keys() == {'dataset_meta'}
    assert content['state_dict'].keys() == before['state_dict'].keys()
    loaded = mlp_dense.load_model(config, file, 'cpu')
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in loaded.state_dict().items())
    classes = before['meta']['dataset_meta']['classes']
    assert loaded.dataset_meta == dict(classes=classes, palette=[(i, 0, 0) for i in range(len(classes))])
    assert os.stat(file).st_mode & 0o777 == os.stat(tmp_path / 'weights.pth').st_mode & 0o777


@pytest.mark.slow
def test_tools_take_published_safetensors(trained, shapes, tmp_path):
    """As the checkpoint of a test, and as `init_cfg` of a backbone."""
    config, path, model = trained
    file = publish(path, tmp_path / 'w.safetensors')
    where = ['--data-root', shapes, '--work-dir', tmp_path / 'run']
    options = ['--cfg-options', 'test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False']
    assert call('test', config, file, *where, *options) == 0
    assert (tmp_path / 'run' / 'metrics.json').is_file()
    backbone = type(model.backbone)(model.backbone.arch, init_cfg=dict(type='Pretrained', checkpoint=str(file)))
    backbone.init_weights()
    assert differing(backbone.state_dict(), model.backbone.state_dict()) == []


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_published_tensors_are_plain(save, tmp_path, suffix):
    large, shared = torch.randn(1000, 4), torch.ones(3)
    weights = dict(
        half=torch.ones(2).half(), brain=torch.ones(2).bfloat16(), double=torch.ones(2).double(), steps=torch.tensor(7),
        view=large[:2].t(), a=shared, b=shared, parameter=torch.nn.Parameter(torch.ones(2)), flag=torch.tensor(True),
    )  # fmt: skip
    file = publish(save(dict(model=prefixed('module.', weights))), tmp_path / f'w{suffix}')
    published = load_file(file) if suffix == '.safetensors' else torch.load(file, weights_only=True)['state_dict']
    assert published.keys() == weights.keys() and file.stat().st_size < 5000
    for name, tensor in published.items():
        expected = weights[name].detach()
        assert torch.equal(tensor, expected.float() if expected.is_floating_point() else expected)
        assert type(tensor) is torch.Tensor and tensor.is_contiguous() and not tensor.requires_grad
    assert 'classes' not in read_checkpoint(file).get('meta', {})


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_same_weights_are_the_same_file_and_nothing_is_overwritten(save, tmp_path, suffix, capsys):
    meta = dict(dataset_meta=dict(classes=('a', 'b'), palette=np.ones((2, 3))))
    source = save(dict(state_dict=dict(w=torch.ones(2), v=torch.ones(3)), meta=meta))
    file = publish(source, tmp_path / f'a{suffix}')
    assert publish(source, tmp_path / f'b{suffix}').name[1:] == file.name[1:]
    file.write_text('mine')
    assert call('checkpoint', 'publish', source, tmp_path / f'a{suffix}') == 2
    assert f'{file} exists already, and is not overwritten' in capsys.readouterr().err
    assert file.read_text() == 'mine' and not list(tmp_path.glob('.*')), 'unfinished files are removed'


@pytest.mark.parametrize(
    'out, reason', [('w.pt', 'must end in'), ('w', 'must end in'), ('weights.pth/w.pth', 'cannot')]
)
def test_output_that_cannot_be(save, tmp_path, capsys, out, reason):
    source = save(dict(w=torch.ones(2)))
    assert call('checkpoint', 'publish', source, tmp_path / out) == 2
    assert reason in capsys.readouterr().err and [path.name for path in tmp_path.iterdir()] == ['weights.pth']


def test_full_disk_leaves_nothing(save, tmp_path, monkeypatch, capsys):
    def full(content, file):
        file.write(b'begun')
        raise RuntimeError('PytorchStreamWriter failed writing file')

    source = save(dict(w=torch.ones(2)))
    monkeypatch.setattr(torch, 'save', full)
    assert call('checkpoint', 'publish', source, tmp_path / 'out.pth') == 2
    assert 'cannot be written' in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['weights.pth']


@pytest.mark.parametrize('key', ['model_ema', 'state_dict_ema'])
def test_ema_of_official_files(save, tmp_path, key):
    path = save({'model': dict(w=torch.ones(2)), 'state_dict': dict(w=torch.ones(2)), key: dict(w=torch.zeros(2))})
    weights = [load_file(publish(path, tmp_path / f'{ema}.safetensors', ema))['w'].tolist() for ema in (False, True)]
    assert weights == [[1, 1], [0, 0]]


def test_ema_of_mmengine(save, tmp_path, inspect):
    """Its hook saves the averaged weights as `state_dict`, and the trained ones as `ema_state_dict`."""
    model = torch.nn.Linear(1, 1)
    hook = EMAHook()
    hook.before_run(SimpleNamespace(model=model))
    with torch.no_grad():
        model.weight.fill_(1.0)
        hook.ema_model.module.weight.fill_(0.5)
    checkpoint = dict(state_dict=model.state_dict(), meta={})
    hook.before_save_checkpoint(None, checkpoint)
    assert {'module.weight', 'steps'} <= checkpoint['ema_state_dict'].keys()
    path = save(checkpoint)
    assert inspect(path)['weights'] == "under 'state_dict' (averaged; ema_state_dict holds the trained ones)"
    for ema in (False, True):  # averaged weights are what its files are meant to be used with
        published = load_file(publish(path, tmp_path / f'{ema}.safetensors', ema))
        assert published.keys() == {'weight', 'bias'} and published['weight'].item() == 0.5
    alone = save(dict(ema_state_dict=checkpoint['ema_state_dict']))
    assert load_file(publish(alone, tmp_path / 'alone.safetensors')).keys() == {'weight', 'bias'}


def test_no_ema(save, tmp_path, capsys):
    path = save(dict(state_dict=dict(w=torch.ones(2)), meta={}))
    assert call('checkpoint', 'publish', path, tmp_path / 'w.pth', '--ema') == 2
    assert 'holds no EMA weights' in capsys.readouterr().err


# Files that mean harm


class Evil:
    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f'touch {self.mark}',)


HOSTILE = {
    'code': ('evil.pth', lambda mark: dict(state_dict=dict(w=torch.ones(2)), meta=Evil(mark)), 'could run code'),
    'page': ('page.pth', b'<html><body>Log in</body></html>', 'cannot be read'),
    'empty': ('empty.pth', b'', 'cannot be read'),
    'pickle named safetensors': ('w.safetensors', lambda mark: dict(w=torch.ones(2)), 'as a safetensors file'),
    'huge header': ('w.safetensors', b'\xff' * 7 + b'\x7f{}', 'as a safetensors file'),
    'no tensors': ('w.pth', lambda mark: dict(model='resnet'), 'holds no weights'),
    'no names': ('w.pth', lambda mark: {1: torch.ones(2)}, 'holds no weights'),
    'classes': ('w.pth', lambda mark: dict(model=dict(w=torch.ones(2)), meta=dict(CLASSES=9)), 'no list of names'),
}


@pytest.mark.parametrize('command', ['inspect', 'publish'])
@pytest.mark.parametrize('kind', HOSTILE)
def test_hostile_file(save, tmp_path, capsys, kind, command):
    name, content, reason = HOSTILE[kind]
    mark, path = tmp_path / 'executed', tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        save(content(mark), name)
    assert call('checkpoint', command, path, *([tmp_path / 'out.pth'] if command == 'publish' else [])) == 2
    error = capsys.readouterr().err
    assert reason in error and error.startswith('error: ') and error.count('\n') == 1
    assert not mark.exists() and [file.name for file in tmp_path.iterdir()] == [name]


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(CheckpointError):
        call('checkpoint', 'inspect', tmp_path / 'absent.pth', '--debug')


def test_truncated_file(save, capsys):
    path = Path(save(official(mlp_dense.HireMLP)))
    path.write_bytes(path.read_bytes()[:-100])
    assert call('checkpoint', 'inspect', path) == 2
    assert 'is it complete?' in capsys.readouterr().err


def test_names_that_mean_harm(save, inspect):
    weights = {f'stages.{10**9 * i}.blocks.{10**9}.norm1.weight': torch.ones(2) for i in range(2)}
    said = inspect(save(dict(model={'\x1b[31m\nbackbone': torch.ones(1), **weights}, **{'\x1b]0;title\x07': 1})))
    assert said['backbone'] == 'none of this package' and said['beside them'] == '?]0;title?'
    weights = {f'stages.{i}.blocks.0.norm1.weight': torch.ones(10**12, device='meta') for i in range(4)}
    weights |= {f'stages.{i}.blocks.0.channel_mixing.fc1.weight': torch.ones(1, 1) for i in range(4)}
    assert inspect(save(weights))['backbone'] == 'none of this package'


def test_tensors_that_are_not_plain(save, tmp_path, capsys):
    for tensor in (torch.eye(3).to_sparse(), torch.ones(10**12, device='meta')):
        assert call('checkpoint', 'publish', save(dict(w=tensor)), tmp_path / 'out.pth') == 2
        assert 'w is no plain tensor' in capsys.readouterr().err
