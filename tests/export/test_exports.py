"""Exported files compute what PyTorch computes: every family, head and format."""

import re

import numpy as np
import pytest
import torch

from mlp_dense.backbones import FAMILIES
from mlp_dense.errors import UserError
from mlp_dense.export import graphs
from mlp_dense.export.runtime import ExportedFile
from support.tools import call

UPERNET = 'segmentation/hire_mlp_upernet_shapes'
FPN = 'segmentation/cycle_mlp_b1_semantic_fpn_camvid-240x180'
RETINANET = 'detection/cycle_mlp_b1_retinanet_1x_coco'
MASK_RCNN = 'detection/hire_mlp_mask_rcnn_shapes'
CASCADE = 'detection/hire_mlp_small_cascade_mask_rcnn_3x_coco'
UNSCALED = 'test_dataloader.dataset.pipeline.1.scale'


@pytest.fixture
def export(tiny, weights_of, shapes, tmp_path, capsys):
    """Export a small model by the tool, which checks it; return the file and the output of the tool."""

    def export(name: str, family: str, *args: str, suffix: str = '.onnx'):
        config, out = tiny(name, family), tmp_path / f'model{suffix}'
        images = ['--images', shapes / 'val']
        small = ['--cfg-options', f'{UNSCALED}=(96,96)', 'model.test_cfg.nms_pre=200'] if 'coco' in name else []
        assert call('export', config, weights_of(config), out, *images, *args, *small) == 0
        printed = capsys.readouterr()
        return out, printed.out + printed.err

    return export


STATIC = ['--static', '96x128']
CASES = [
    (FPN, 'CycleMLP', []),
    (RETINANET, 'MLPMixer', []),
    (FPN, 'VisionPermutator', ['--part', 'neck']),
    (CASCADE, 'CycleMLP', ['--fuse', *STATIC]),
    (MASK_RCNN, 'HireMLP', ['--dtype', 'fp16', *STATIC]),
]
"""Each head, part and option once, with one fixed-grid family as detector; `test_exported_models.py` has more heads."""
OF_ANY_SIZE = {family for _, family, args in CASES if '--static' not in args}
CASES += [(UPERNET, cls.__name__, ['--part', 'backbone']) for cls in FAMILIES if cls.__name__ not in OF_ANY_SIZE]


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'family', 'args'),
    CASES,
    ids=lambda value: '-'.join(value) if isinstance(value, list) else value.rpartition('/')[2],
)
def test_export_equals_pytorch_for_every_family_and_head(export, name, family, args):
    out, printed = export(name, family, *args)
    checks = re.findall(r'fp\d+ (\d)x3x(\d+)x(\d+): (.+)', printed)
    assert len(checks) == 2 and checks[0][0] == '1' and checks[1][0] == '3'
    assert '--static' in args or checks[0][1:3] != checks[1][1:3], 'two sizes are checked'
    assert out.stat().st_size < 10e6


@pytest.mark.slow
def test_torch_export_program_equals_pytorch(export):
    out, printed = export(MASK_RCNN, 'CycleMLP', suffix='.pt2')
    assert 'objects are the same' in printed
    exported = ExportedFile(out)
    assert exported.metadata['classes'][0] == 'disc'
    assert exported(np.zeros((2, 3, 70, 50), np.uint8))['masks'].shape == (2, 100, 28, 28)


@pytest.mark.parametrize('bins', [1, 2, 3, 6])
@pytest.mark.parametrize('size', [(1, 1), (5, 7), (12, 18)])
def test_average_pool_equals_adaptive_pooling(bins, size):
    x = torch.randn(2, 3, *size)
    expected = torch.nn.AdaptiveAvgPool2d(bins)(x)
    torch.testing.assert_close(graphs.AveragePool(bins)(x), expected)


@pytest.mark.slow
def test_model_of_five_bands_equals_pytorch(tiny, tmp_path, capsys):
    out = tmp_path / 'model.onnx'
    assert call('export', tiny(MASK_RCNN.replace('shapes', 'bands'), 'CycleMLP'), 'none', out) == 0
    printed = capsys.readouterr().out
    assert len(re.findall(r'fp32 \dx5x\d+x\d+: ', printed)) == 2 and 'generated images' in printed
    exported = ExportedFile(out)
    with pytest.raises(UserError, match='takes images of 5 bands, not 3; pass such images'):
        exported.images(torch.zeros(1, 3, 32, 32))
    values = torch.full((1, 5, 64, 64), 5000.5)
    assert exported.images(values).dtype == np.float32
    assert exported(exported.images(values)).keys() == set(exported.metadata['outputs'])
