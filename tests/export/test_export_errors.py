"""Errors of the export: one sentence, before anything is computed, and no file."""

import io
import logging
import sys
import zipfile
from unittest.mock import patch

import pytest
import torch

from mlp_dense.errors import UserError
from mlp_dense.export.runtime import ExportedFile
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
    [('broken.onnx', 'onnxruntime cannot run'), ('broken.pt2', 'it is damaged or of another version; export it again')],
)
def test_broken_file_is_refused(name, message, tmp_path, capsys):
    (tmp_path / name).write_bytes(b'nothing')
    (tmp_path / 'image.png').write_bytes(b'')
    assert call('predict', tmp_path, SEGMENTATION, tmp_path / name, '--out-dir', tmp_path / 'out') == 2
    error = capsys.readouterr().err
    assert name in error and message in error


@pytest.mark.parametrize('text', [b'nothing', b'{}'])
def test_damaged_program_prints_no_traceback_of_pytorch(text):
    """PyTorch logs the traceback of the error that it raises."""
    archive, log = io.BytesIO(), logging.getLogger('torch.export')
    with zipfile.ZipFile(archive, 'w') as file:
        file.writestr('archive_format', text)
    with patch.object(log, 'handle') as handle, pytest.raises(UserError, match='the exported model cannot be read'):
        ExportedFile(archive.getvalue(), '.pt2')
    assert not handle.called


@pytest.mark.parametrize('texts', [{}, dict(outputs='['), dict(outputs='["labels"]')], ids=str)
def test_program_of_other_tools_is_refused(texts):
    program, file = torch.export.export(torch.nn.ReLU(), (torch.zeros(1),)), io.BytesIO()
    torch.export.save(program, file, extra_files=texts)
    with pytest.raises(UserError, match=r'was not written by mlp-dense export'):
        ExportedFile(file.getvalue(), '.pt2')
