"""What cannot be exported, said in one sentence, before anything is computed."""

import pytest

from support.configs import DETECTION, SEGMENTATION, config
from support.tools import call

CASES = {
    'suffix': (SEGMENTATION, ['model.bin'], 'the name of an exported model ends in .onnx or .pt2.'),
    'bf16': (SEGMENTATION, ['model.onnx', '--dtype', 'bf16'], 'give fp16, or a .pt2 file.'),
    'int8': (SEGMENTATION, ['model.pt2', '--int8'], '--int8 goes with .onnx and without --dtype.'),
    'neck': (SEGMENTATION, ['model.pt2', '--part', 'neck'], 'this model has none; give backbone or model.'),
    'images': (SEGMENTATION, ['model.pt2', '--images', 'nowhere'], 'nowhere does not exist'),
    'nms': (
        DETECTION,
        ['model.pt2', '--cfg-options', 'model.test_cfg.rcnn.nms.type=soft_nms'],
        "only dict(type='nms', iou_threshold=...) can be exported.",
    ),
    'proposals': (DETECTION, ['model.pt2', '--cfg-options', 'model.test_cfg.rpn.nms_pre=-1'], 'rpn.nms_pre'),
}


@pytest.mark.parametrize(('file', 'args', 'sentence'), CASES.values(), ids=CASES)
def test_errors(file, args, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert call('export', file, 'none', *args) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if line.startswith('error: ')]) == 1 and sentence in lines[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('size', ['512', '0x32', 'axb'])
def test_sizes(size, capsys):
    assert call('export', SEGMENTATION, 'none', 'model.onnx', '--static', size) == 2
    assert 'give HEIGHTxWIDTH in pixels' in capsys.readouterr().err


def test_what_to_install(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr('mlp_dense.export.conversion.find_spec', lambda name: None)
    assert call('export', SEGMENTATION, 'none', tmp_path / 'model.onnx') == 2
    said = capsys.readouterr().err
    assert "error: onnx is not installed: pip install -e '.[export]' in the folder of mlp_dense." in said


def test_a_classifier(tmp_path, capsys):
    assert call('export', config('classification/hire_mlp_shapes'), 'none', tmp_path / 'model.onnx') == 2
    assert 'is a classifier; give a config of a detector or segmentor.' in capsys.readouterr().err


def test_what_is_no_exported_file(tmp_path, capsys):
    for name in ('broken.onnx', 'broken.pt2'):
        (tmp_path / name).write_bytes(b'nothing')
        assert call('predict', tmp_path, SEGMENTATION, tmp_path / name, '--out-dir', tmp_path / 'out') == 2
