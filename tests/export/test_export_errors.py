"""Errors of the export: one sentence, before anything is computed, and no file."""

import sys

import pytest

from support.configs import DETECTION, SEGMENTATION, config
from support.tools import call

CLASSIFIER, OPTION = config('classification/hire_mlp_shapes'), ['--cfg-options']
CASES = {
    'suffix': (SEGMENTATION, ['model.bin'], 'use a file name that ends in .onnx or .pt2.'),
    'bf16': (SEGMENTATION, ['model.onnx', '--dtype', 'bf16'], 'use fp16, or a .pt2 file.'),
    'int8': (SEGMENTATION, ['model.pt2', '--int8'], '--int8 requires an .onnx file and fp32'),
    'size': (SEGMENTATION, ['model.onnx', '--static', '512'], 'use HEIGHTxWIDTH in pixels'),
    'zero': (SEGMENTATION, ['model.onnx', '--static', '0x32'], 'use HEIGHTxWIDTH in pixels'),
    'neck': (SEGMENTATION, ['model.pt2', '--part', 'neck'], 'this model has no neck; use --part backbone or model.'),
    'images': (SEGMENTATION, ['model.pt2', '--images', 'nowhere'], 'nowhere does not exist'),
    'nms': (DETECTION, ['model.pt2', *OPTION, 'model.test_cfg.rcnn.nms.type=soft_nms'], "set it to dict(type='nms', "),
    'proposals': (DETECTION, ['model.pt2', *OPTION, 'model.test_cfg.rpn.nms_pre=-1'], 'set rpn.nms_pre'),
    'classifier': (CLASSIFIER, ['model.onnx'], 'is a classifier; use the config of a detector or segmentor.'),
}


@pytest.mark.parametrize(('file', 'args', 'sentence'), CASES.values(), ids=CASES)
def test_export_refuses_unsupported_arguments(file, args, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert call('export', file, 'none', *args) == 2
    error = capsys.readouterr().err
    assert error.count('error: ') == 1 and sentence in error.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_missing_package_is_named_with_its_extra(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    monkeypatch.delitem(sys.modules, 'mlp_dense.export.conversion', raising=False)
    assert call('export', SEGMENTATION, 'none', tmp_path / 'model.onnx') == 2
    error = capsys.readouterr().err
    assert "onnxscript is not installed: pip install 'mlp_dense[export]'." in error


@pytest.mark.parametrize(
    ('name', 'message'),
    [('broken.onnx', 'onnxruntime cannot run'), ('broken.pt2', 'cannot be read as a program of torch.export')],
)
def test_broken_file_is_refused(name, message, tmp_path, capsys):
    (tmp_path / name).write_bytes(b'nothing')
    (tmp_path / 'image.png').write_bytes(b'')
    assert call('predict', tmp_path, SEGMENTATION, tmp_path / name, '--out-dir', tmp_path / 'out') == 2
    error = capsys.readouterr().err
    assert name in error and message in error
