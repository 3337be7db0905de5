"""Exported files compute what PyTorch computes: every family, head and format."""

import re

import cv2
import numpy as np
import pytest
import torch

from mlp_dense.backbones import FAMILIES
from mlp_dense.datasets.shapes import write_shapes
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

    def export(name: str, family: str, *args: str, **changes):
        config, out = tiny(name, family, **changes), tmp_path / 'model.onnx'
        images = ['--images', shapes / 'val']
        small = ['--cfg-options', f'{UNSCALED}=(96,96)'] if 'coco' in name else []
        assert call('export', config, weights_of(config), out, *images, *args, *small) == 0
        printed = capsys.readouterr()
        return out, printed.out + printed.err

    return export


STATIC = ['--static', '96x128']
CASES = [
    (FPN, 'VisionPermutator', [], (0, 3)),
    (FPN, 'WaveMLP', ['--part', 'neck'], (0, 1)),
    (RETINANET, 'SparseMLP', [], (3,)),
    (CASCADE, 'HireMLP', ['--fuse', '--dtype', 'fp16', *STATIC], (0, 1)),
    (UPERNET, 'HireMLP', ['--part', 'backbone'], (0, 1)),
    (UPERNET, 'ASMLP', ['--part', 'backbone'], (0, 1)),
]
"""Each head, part and option once. Sparse-MLP begins with blocks of MLP-Mixer."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'family', 'args', 'stages'),
    CASES,
    ids=lambda value: value.rpartition('/')[2] if isinstance(value, str) else '-'.join(map(str, value)),
)
def test_export_equals_pytorch_for_every_family_and_head(export, name, family, args, stages):
    out, printed = export(name, family, *args, stages=stages)
    checks = re.findall(r'fp\d+ (\d)x3x(\d+)x(\d+): (.+)', printed)
    assert len(checks) == 2 and checks[0][0] == '1' and checks[1][0] == '3'
    assert '--static' in args or checks[0][1:3] != checks[1][1:3], 'two sizes are checked'
    assert out.stat().st_size < 10e6


def test_every_family_is_exported_for_any_size():
    """`test_exported_models.py` exports CycleMLP; MLP-Mixer is a part of Sparse-MLP."""
    of_any_size = {family for _, family, args, _ in CASES if '--static' not in args}
    assert {cls.__name__ for cls in FAMILIES} == of_any_size | {'CycleMLP', 'MLPMixer'}


@pytest.mark.parametrize('bins', [1, 2, 3, 6])
@pytest.mark.parametrize('size', [(1, 1), (5, 7), (12, 18)])
def test_average_pool_equals_adaptive_pooling(bins, size):
    x = torch.randn(2, 3, *size)
    expected = torch.nn.AdaptiveAvgPool2d(bins)(x)
    torch.testing.assert_close(graphs.AveragePool(bins)(x), expected)


@pytest.mark.slow
def test_torch_export_program_of_five_bands_equals_pytorch(tiny, tmp_path, capsys):
    out = tmp_path / 'model.pt2'
    assert call('export', tiny(MASK_RCNN.replace('shapes', 'bands'), 'CycleMLP'), 'none', out) == 0
    printed = capsys.readouterr().out
    assert len(re.findall(r'fp32 \dx5x\d+x\d+: ', printed)) == 2 and 'generated images' in printed
    assert 'objects are the same' in printed
    exported = ExportedFile(out)
    assert exported.metadata['classes'][0] == 'cold disc'
    with pytest.raises(UserError, match='takes images of 5 bands, not 3; pass such images'):
        exported.images(torch.zeros(1, 3, 32, 32))
    images = exported.images(torch.full((2, 5, 70, 50), 5000.5))
    assert images.dtype == np.float32
    results = exported(images)
    assert results.keys() == set(exported.metadata['outputs']) and results['masks'].shape == (2, 100, 28, 28)


@pytest.mark.slow
def test_exported_segmentor_of_five_bands_predicts_like_the_checkpoint(tiny, weights_of, tmp_path, capsys):
    pytest.importorskip('tifffile', reason="tifffile of the extra 'data' is not installed")
    data, exported = tmp_path / 'shapes_bands', tmp_path / 'model.onnx'
    write_shapes(data, num_train=1, num_val=2, size=96, bands=5)
    file = tiny(UPERNET.replace('shapes', 'bands'), 'CycleMLP')
    weights = weights_of(file, data / 'val')
    assert call('export', file, weights, exported, '--data-root', data) == 0
    assert len(re.findall(r'fp32 \dx5x\d+x\d+: ', capsys.readouterr().out)) == 2
    description = ExportedFile(exported).metadata['preprocessing']['images']
    assert description == dict(layout='NCHW', channels='in the order of the file', bands=5, dtype='float32')
    for model in (weights, exported):
        assert call('predict', data / 'val', file, model, '--out-dir', tmp_path / model.suffix) == 0
    drawn, labels = (sorted((tmp_path / '.pth').glob(f'{folder}/*.png')) for folder in ('vis', 'labels'))
    assert len(drawn) == len(labels) == 2
    for path in labels:
        first, second = (cv2.imread(str(each), 0) for each in (path, tmp_path / '.onnx' / 'labels' / path.name))
        assert first.std() > 0 and (first != second).mean() < 0.01
    assert [path.name for path in drawn] == sorted(path.name for path in tmp_path.glob('.onnx/vis/*'))
