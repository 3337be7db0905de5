"""The metafiles, the zoo page and the counter of operations behind it."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from torch import nn

import mlp_dense
from mlp_dense.errors import UserError
from mlp_dense.inference.complexity import _macs, complexity

ROOT = Path(__file__).parents[2]
CONFIGS = {f'{path.parent.name}/{path.stem}' for path in ROOT.glob('configs/*/*.py') if path.parent.name != '_base_'}


@pytest.fixture(scope='module')
def zoo():
    sys.path.insert(0, str(ROOT / 'tools'))
    spec = importlib.util.spec_from_file_location('model_zoo', ROOT / 'tools' / 'model_zoo.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(ROOT / 'tools'))


def test_metafiles_hold_every_config_once(zoo):
    models = zoo.read_metafiles()
    assert all((ROOT / model['Config']).is_file() for model in models)
    assert all(model['Name'] == Path(model['Config']).stem for model in models)
    listed = [model['Config'].removeprefix('configs/').removesuffix('.py') for model in models]
    assert len(listed) == len(set(listed))
    for short in CONFIGS - set(listed):
        text = (ROOT / 'configs' / f'{short}.py').read_text().splitlines()
        assert len(text) == 2 and text[1].startswith('_base_ = '), f'{short} is in no metafile'


def test_metafiles_have_the_openmmlab_form():
    for name in yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']:
        file = yaml.safe_load((ROOT / name).read_text())
        (collection,) = file['Collections']
        assert {'Name', 'Metadata', 'Paper', 'README', 'Code', 'Converted From'} <= set(collection)
        assert collection['Paper'].keys() == {'URL', 'Title'}
        assert (ROOT / collection['Code']['URL']).is_file() and (ROOT / collection['README']).is_file()
        for model in file['Models']:
            assert model['In Collection'] == collection['Name']
            published = model['Metadata'].get('Published')
            assert bool(model.get('Results')) <= bool(published and published['Confirmed']), 'a result to be doubted'
            for result in model.get('Results', []):
                assert result['Dataset'] == model['Metadata']['Training Data']
                assert all(isinstance(value, float) for value in result['Metrics'].values())


@pytest.mark.slow
def test_page_is_reproduced(zoo):
    assert '\n'.join(zoo.page_lines()) + '\n' == (ROOT / 'docs' / 'model_zoo.md').read_text(encoding='utf-8')


def test_published_size_that_differs_is_explained(zoo):
    model = next(model for model in zoo.read_metafiles() if model['Name'] == 'as_mlp_tiny_mask_rcnn_1x_coco')
    model['Metadata']['Published']['GMACs'] = 300
    with pytest.raises(UserError, match='explain it as Note'):
        zoo.row(model, (800, 1280), [])
    model['Metadata']['Published']['Note'] = 'counted with more proposals'
    notes = []
    assert '[^1]' in zoo.row(model, (800, 1280), notes) and notes[0].endswith('counted with more proposals')


@pytest.mark.parametrize('name', ['detection/hire_mlp_mask_rcnn_shapes', 'segmentation/hire_mlp_upernet_shapes'])
def test_counts_what_mmengine_counts(name):
    cfg = Config.fromfile(ROOT / 'configs' / f'{name}.py')
    init_default_scope(cfg.default_scope)
    backbone = mlp_dense.HireMLP(**{key: value for key, value in cfg.model.backbone.items() if key != 'type'}).eval()
    counted = FlopAnalyzer(backbone, torch.zeros(1, 3, 96, 160))
    operators = counted.unsupported_ops_warnings(False).by_operator()
    products = sum(operators[key] for key in ('conv', 'linear', 'matmul', 'addmm') if key in operators)
    assert complexity(cfg.model, 96, 160).backbone_macs == products


def test_convolution_and_linear_map_by_hand():
    init_default_scope('mmseg')
    backbone = dict(type='mlp_dense.CycleMLP', arch=dict(depths=(1,), dims=(12,)), out_indices=(0,))
    head = dict(type='FCNHead', in_channels=12, channels=8, num_convs=1, num_classes=5, kernel_size=1)
    head |= dict(concat_input=False, in_index=0)
    counts = complexity(ConfigDict(type='EncoderDecoder', backbone=backbone, decode_head=head), 32, 64)
    pixels = 8 * 16
    block = pixels * (4 * 12 * 12 + 2 * 12 * 48) + 12 * 3 + 3 * 36
    assert counts.backbone_macs == pixels * 3 * 49 * 12 + block
    assert counts.macs == counts.backbone_macs + pixels * (12 * 8 + 8 * 5)


def test_unknown_operator_is_an_error():
    x, linear = torch.ones(2, 3), nn.Linear(3, 5)
    assert _macs(lambda: linear(x)) == 30
    with pytest.raises(UserError, match=r'cdist'):
        _macs(lambda: torch.cdist(x, x))
