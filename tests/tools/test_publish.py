"""tools/checkpoint.py publish writes the weights alone, with their hash in the name."""

import hashlib
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.hooks import EMAHook
from safetensors.torch import load_file

import mlp_dense
from mlp_dense.checkpoints.reading import read_checkpoint
from mlp_dense.checkpoints.writing import publish
from support.checkpoints import prefixed
from support.tools import call


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_published_file_loads_with_its_classes(checkpoint, tmp_path, capsys, suffix):
    config, path, model = checkpoint
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


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_published_tensors_are_contiguous_float32(save, tmp_path, suffix):
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
def test_equal_weights_have_equal_names_and_no_file_is_overwritten(save, tmp_path, suffix, capsys):
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
def test_invalid_output_is_refused(save, tmp_path, capsys, out, reason):
    source = save(dict(w=torch.ones(2)))
    assert call('checkpoint', 'publish', source, tmp_path / out) == 2
    assert reason in capsys.readouterr().err and [path.name for path in tmp_path.iterdir()] == ['weights.pth']


@pytest.mark.parametrize('key', ['model_ema', 'state_dict_ema'])
def test_ema_of_official_files_is_published(save, tmp_path, key):
    path = save({'model': dict(w=torch.ones(2)), 'state_dict': dict(w=torch.ones(2)), key: dict(w=torch.zeros(2))})
    weights = [load_file(publish(path, tmp_path / f'{ema}.safetensors', ema))['w'].tolist() for ema in (False, True)]
    assert weights == [[1, 1], [0, 0]]


def test_ema_of_mmengine_is_published(save, tmp_path, inspect):
    """Its hook saves averaged weights as `state_dict` and trained weights as `ema_state_dict`."""
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


def test_missing_ema_is_refused(save, tmp_path, capsys):
    path = save(dict(state_dict=dict(w=torch.ones(2)), meta={}))
    assert call('checkpoint', 'publish', path, tmp_path / 'w.pth', '--ema') == 2
    assert 'holds no EMA weights' in capsys.readouterr().err
