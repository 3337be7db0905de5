"""Weights are read from all published types of files."""

import argparse
import json
import pathlib
import zipfile

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import load_state_dict as mmengine_load_state_dict
from safetensors.torch import save_file

from mlp_dense import WaveMLP
from mlp_dense.checkpoints.reading import Checkpoint, read_checkpoint
from mlp_dense.errors import CheckpointError
from support.checkpoints import Detector, FromYacs, assert_computes, prefixed, pretrained
from support.models import SMALL, differing, first_bias, official

SCALARS = dict(loss=HistoryBuffer([1.5, 0.5], [1, 1]), best=np.float64(0.5), step=np.int64(3))
MMENGINE = dict(meta=dict(epoch=1, cfg='model = dict()'), optimizer=dict(state={}, param_groups=[{}]))
MMENGINE['message_hub'] = dict(SCALARS, curve=np.arange(3, dtype=np.float32))
CONTAINERS = {
    'bare': lambda w: w,
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
    'mmpretrain': lambda w: dict(state_dict={**prefixed('backbone.', w), 'head.fc.weight': torch.ones(2)}),
    'timm': lambda w: dict(epoch=299, arch='t', state_dict=w, optimizer={}, version=2, args=argparse.Namespace(lr=0.1)),
    'mmengine': lambda w: dict(state_dict=prefixed('backbone.', w), **MMENGINE),
}


@pytest.mark.parametrize('container', CONTAINERS)
def test_every_container_loads_through_init_cfg(family, save, container):
    weights = official(family)
    assert_computes(pretrained(family, save(CONTAINERS[container](weights))), weights)


def test_file_name_with_two_suffixes_loads(save):
    weights = official(WaveMLP)
    assert_computes(pretrained(WaveMLP, save(CONTAINERS['timm'](weights), 'WaveMLP_T.pth.tar')), weights)


def test_file_of_an_old_pytorch_loads(family, save):
    weights = official(family)
    path = save(CONTAINERS['model with argparse.Namespace'](weights), _use_new_zipfile_serialization=False)
    assert_computes(pretrained(family, path), weights)


@pytest.mark.parametrize('names', ['official', 'ours'])
@pytest.mark.parametrize('load', [torch.nn.Module.load_state_dict, mmengine_load_state_dict], ids=['torch', 'mmengine'])
def test_state_dict_of_a_complete_detector_loads(family, load, names):
    weights = official(family)
    detector = Detector(family(SMALL))
    state = prefixed('backbone.', weights)
    if names == 'ours':
        source = family(SMALL)
        source.load_state_dict(weights)
        state = prefixed('backbone.', source.state_dict())
    load(detector, {**state, 'head.weight': torch.ones(2, 3), 'head.bias': torch.zeros(2)})
    assert (detector.head.weight == 1).all()
    assert_computes(detector.backbone, weights)


@pytest.mark.parametrize('container', ['bare', 'model', 'detector'])
def test_backbone_loads_a_complete_checkpoint(family, container):
    weights = official(family)
    model = family(SMALL)
    content = CONTAINERS[container](weights)
    before = dict(content)
    result = model.load_state_dict(content)
    assert result.missing_keys == result.unexpected_keys == []
    assert content.keys() == before.keys()
    assert_computes(model, weights)


def test_detector_initialises_its_backbone(family, save):
    weights = official(family)
    init_cfg = dict(type='Pretrained', checkpoint=save(CONTAINERS['detector'](weights)), prefix='backbone')
    detector = Detector(family(SMALL, init_cfg=init_cfg))
    detector.init_weights()
    assert_computes(detector.backbone, weights)


def test_our_checkpoint_loads_bit_for_bit_and_once(family, save):
    saved = family(SMALL)
    model = pretrained(family, save(saved.state_dict()))
    assert differing(model.state_dict(), saved.state_dict()) == []
    assert model.is_init
    name = first_bias(family)
    torch.nn.init.constant_(model.get_parameter(name), 0.5)
    model.init_weights()  # as everywhere in mmengine, the second call changes nothing
    assert differing(model.state_dict(), saved.state_dict()) == [name]


@pytest.mark.parametrize('container', ['bare', 'module.', 'parallel detector'])
def test_safetensors_loads(family, tmp_path, container):
    weights = official(family)
    content = CONTAINERS[container](weights)
    save_file(content.get('state_dict', content), tmp_path / 'weights.SAFETENSORS')
    assert_computes(pretrained(family, str(tmp_path / 'weights.SAFETENSORS')), weights)


def test_classes_are_read_from_every_type_of_file(tmp_path):
    classes, palette = ('cat', 'dog'), [[1, 2, 3], [4, 5, 6]]
    both = dict(classes=classes, palette=palette)
    path, metadata = tmp_path / 'w.safetensors', dict(dataset_meta=json.dumps(both), format='pt')
    save_file(dict(w=torch.ones(2)), path, metadata)
    for content in (
        read_checkpoint(path),
        dict(meta=dict(dataset_meta=dict(CLASSES=list(classes), PALETTE=np.array(palette)))),
        dict(meta=dict(CLASSES=classes, PALETTE=[(1, 2, 3), (4, 5, 6)], epoch=1)),
    ):
        assert Checkpoint('file', None, content).dataset_meta == both
    for content in ({}, dict(meta=None), dict(meta=dict(dataset_meta=[1])), dict(meta=dict(CLASSES=None))):
        assert Checkpoint('file', None, content).dataset_meta == {}
    random_colours = dict(meta=dict(CLASSES=classes, PALETTE='random'))
    assert Checkpoint('file', None, random_colours).dataset_meta == dict(classes=classes)
    with pytest.raises(CheckpointError, match='file: the classes in its meta data are not a list of names'):
        _ = Checkpoint('file', None, dict(meta=dict(dataset_meta=dict(classes=5)))).dataset_meta


@pytest.mark.parametrize('name', ['pathlib.PosixPath', 'pathlib._local.PosixPath', 'pathlib._local.WindowsPath'])
def test_pickled_paths_of_every_python_version_are_read(save, name):
    """Python 3.13 pickles paths under another name than other versions."""
    path = save(dict(model=dict(w=torch.ones(2)), args=pathlib.PurePosixPath('out')))
    with zipfile.ZipFile(path) as archive:
        files = {file: archive.read(file) for file in archive.namelist()}
    new = 'c{0}\n{2}\n'.format(*name.rpartition('.')).encode()
    changed = {file: data.replace(b'cpathlib\nPurePosixPath\n', new) for file, data in files.items()}
    assert changed != files
    with zipfile.ZipFile(path, 'w') as archive:
        for file, data in changed.items():
            archive.writestr(file, data)
    assert read_checkpoint(path)['model'].keys() == {'w'}
