"""tools/checkpoint.py inspect describes the contents of a file, also of a malicious one."""

import hashlib
import os
from pathlib import Path

import pytest
import torch

import mlp_dense
from mlp_dense.backbones import FAMILIES
from mlp_dense.checkpoints.inspection import recognise
from mlp_dense.checkpoints.reading import Checkpoint, read_checkpoint
from reference import reference_of
from support.checkpoints import prefixed
from support.configs import DETECTION, SEGMENTATION
from support.models import ARCHS, SMALL, official
from support.tools import call


@pytest.mark.parametrize(('inside', 'form'), [('', 'official'), ('backbone.', 'our')], ids=['published', 'trained'])
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
    assert f'{cls.__name__}: loaded ' in loads and ('random weights: norms.0' in loads) == (form == 'official')


def test_other_bands_are_recognised(family):
    with torch.device('meta'):
        weights = family(next(iter(family.archs)), in_channels=5).state_dict()
    backbone, loads = recognise(Checkpoint('file', None, weights), FAMILIES)
    assert backbone == f'{family.__name__} {next(iter(family.archs))} for 5 bands, our names' and 'loaded' in loads


def test_custom_sizes_are_recognised(family):
    arch = dict(depths=(1, 2, 1), dims=(16, 32, 48), mlp_ratios=(2, 4, 4))
    weights = family(arch, out_indices=(0, 1, 2)).state_dict()
    backbone, loads = recognise(Checkpoint('file', None, weights), FAMILIES)
    size = 'of custom size (depths (1, 2, 1), dims (16, 32, 48), mlp_ratios (2, 4, 4))'
    assert backbone == f'{family.__name__} {size}, our names' and 'loaded' in loads


def test_description_of_a_published_file(save, inspect):
    path = save(dict(model=official(mlp_dense.HireMLP, classes=10, norms=()), epoch=3, args=None))
    topics = inspect(path)
    assert topics['file'].startswith(path) and topics['weights'] == "under 'model'"
    assert topics['also holds'] == 'epoch, args'
    assert topics['sha256'] == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    parameters = sum(p.numel() for p in mlp_dense.HireMLP(SMALL, out_norm=False).parameters()) + 2 * 64 + 11 * 64 - 14
    weights = read_checkpoint(path)['model']
    counts = len(weights), sum(not t.is_floating_point() for t in weights.values())
    assert topics['tensors'] == (
        f'{counts[0]} ({counts[0] - counts[1]} float64, {counts[1]} int64), {parameters / 1e6:.2f} M parameters'
    )
    assert topics['as backbone'].startswith('HireMLP: loaded ') and 'classifier head' in topics['as backbone']
    assert 'complete model' not in topics and 'classes' not in topics
    assert inspect(save(official(mlp_dense.HireMLP)))['weights'] == 'a bare state dict'


def test_tensors_that_fit_a_config_are_counted(checkpoint, inspect, save):
    config, path, model = checkpoint
    topics = inspect(path, '--config', config)
    count = len(model.state_dict())
    assert topics['complete model'] == f'loads: {count} tensors'
    assert topics['classes'].startswith('5: a, b, c, d, e' if config == DETECTION else '6: a, b, c, d, e, ...')
    weights = {key: value for key, value in model.state_dict().items() if not key.endswith('conv_seg.bias')}
    last = next(reversed(weights))
    weights = {**weights, last: torch.ones(1, 2, 3), 'extra.weight': torch.ones(1)}
    text = inspect(save(weights), '--config', config)['complete model']
    assert text.startswith('does not load: ') and 'unexpected key in source state_dict: extra.weight' in text
    assert f'size mismatch for {last}: copying a param with shape torch.Size([1, 2, 3]) from ' in text
    assert ('missing keys in source state_dict: decode_head.conv_seg.bias' in text) == (config == SEGMENTATION)


def test_mismatched_backbone_is_described(checkpoint, inspect, save):
    config, _, model = checkpoint
    weights = {key: value for key, value in model.state_dict().items() if 'channel_mixing.fc2.bias' not in key}
    topics = inspect(save(weights), '--config', config)
    for text in (topics['as backbone'], topics['complete model']):
        assert ' missing: stages.0.blocks.0.channel_mixing.fc2.bias, ' in text
    assert topics['complete model'].startswith('does not load: ')


def test_foreign_file_is_not_recognised(save, inspect):
    topics = inspect(save({'conv1.weight': torch.ones(2), 'stages.0.blocks.0.norm1.weight': torch.ones(())}))
    assert topics['backbone'] == 'not of this package' and 'as backbone' not in topics


# Malicious files


class Evil:
    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f'touch {self.mark}',)


HOSTILE = {
    'code': ('evil.pth', lambda mark: dict(state_dict=dict(w=torch.ones(2)), meta=Evil(mark)), 'could run code'),
    'page': ('page.pth', b'<html><body>Log in</body></html>', 'cannot be read'),
    'huge header': ('w.safetensors', b'\xff' * 7 + b'\x7f{}', 'as a safetensors file'),
    'no tensors': ('w.pth', lambda mark: dict(model='resnet'), 'holds no weights'),
    'classes': ('w.pth', lambda mark: dict(model=dict(w=torch.ones(2)), meta=dict(CLASSES=9)), 'not a list of names'),
}


@pytest.mark.parametrize('command', ['inspect', 'publish'])
@pytest.mark.parametrize('kind', HOSTILE)
def test_malicious_file_is_refused(save, tmp_path, capsys, kind, command):
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


def test_control_characters_in_names_are_replaced(save, inspect):
    weights = {f'stages.{10**9 * i}.blocks.{10**9}.norm1.weight': torch.ones(2) for i in range(2)}
    topics = inspect(save(dict(model={'\x1b[31m\nbackbone': torch.ones(1), **weights}, **{'\x1b]0;title\x07': 1})))
    assert topics['backbone'] == 'not of this package' and topics['also holds'] == '?]0;title?'
    weights = {f'stages.{i}.blocks.0.norm1.weight': torch.ones(10**12, device='meta') for i in range(4)}
    weights |= {f'stages.{i}.blocks.0.channel_mixing.fc1.weight': torch.ones(1, 1) for i in range(4)}
    assert inspect(save(weights))['backbone'] == 'not of this package'


def test_sparse_and_meta_tensors_are_refused(save, tmp_path, capsys):
    for tensor, message in (
        (torch.eye(3).to_sparse(), 'holds torch._utils._rebuild_sparse_tensor'),
        (torch.ones(10**12, device='meta'), 'w is sparse, quantized or without values'),
    ):
        assert call('checkpoint', 'publish', save(dict(w=tensor)), tmp_path / 'out.pth') == 2
        assert message in capsys.readouterr().err
