"""Exported files instead of checkpoints: in tools/test.py, tools/predict.py, Python, and programs of others."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Resize

import mlp_dense
from mlp_dense.checkpoints.files import sha256_of
from mlp_dense.errors import UserError
from mlp_dense.export.check import read_check_images
from mlp_dense.export.runtime import ExportedFile
from support.configs import ROOT
from support.tools import call

SCRIPT = re.search(r'```python\n(# run\.py.*?)```', (ROOT / 'docs' / 'deployment.md').read_text(), re.DOTALL)[1]
TASKS = dict(segmentation='segmentation/hire_mlp_upernet_shapes', detection='detection/hire_mlp_mask_rcnn_shapes')


@pytest.fixture(scope='module', params=TASKS)
def exported(request, tiny, weights_of, shapes, tmp_path_factory) -> tuple[Path, Path, Path]:
    """Return (config, checkpoint, file)."""
    config = tiny(TASKS[request.param], 'CycleMLP')
    weights, out = weights_of(config), tmp_path_factory.mktemp('exported') / 'new' / 'model.onnx'
    assert call('export', config, weights, out, '--data-root', shapes) == 0
    return config, weights, out


@pytest.fixture(scope='module')
def predicted(exported, shapes, tmp_path_factory) -> list[Path]:
    """Return the folders of the predictions of the checkpoint and of the file."""
    config, *models = exported
    folders = [tmp_path_factory.mktemp('predicted') / model.suffix for model in models]
    for model, folder in zip(models, folders, strict=True):
        assert call('predict', shapes / 'val', config, model, '--out-dir', folder, '--score-thr', 0.1) == 0
    return folders


@pytest.fixture(scope='module')
def labelled(exported, predicted, shapes, tmp_path_factory) -> Path:
    """Return data labelled with the predictions of PyTorch; random weights detect none of the true objects."""
    data, predictions = tmp_path_factory.mktemp('data') / 'labelled', predicted[0]
    shutil.copytree(shapes, data)
    for label_map in predictions.glob('labels/*.png'):
        cv2.imwrite(str(data / 'labels' / 'val' / label_map.name), cv2.imread(str(label_map), 0) + 1)
    if (predictions / 'predictions.json').exists():
        file = data / 'annotations' / 'instances_val.json'
        objects = json.loads((predictions / 'predictions.json').read_text())
        for i, annotation in enumerate(objects):
            annotation.update(id=i + 1, iscrowd=0, area=annotation['bbox'][2] * annotation['bbox'][3])
        file.write_text(json.dumps(json.loads(file.read_text()) | dict(annotations=objects)))
    return data


def test_metrics_equal_those_of_pytorch(exported, labelled, tmp_path):
    config, *models = exported
    metrics = []
    for model in models:
        folder = tmp_path / model.suffix
        assert call('test', config, model, '--data-root', labelled, '--work-dir', folder) == 0
        metrics.append(json.loads((folder / 'metrics.json').read_text()))
    (first, second) = ({name: value or 0.0 for name, value in values.items()} for values in metrics)
    percent = 100 if 'mIoU' in first else 1
    assert first == pytest.approx(second, abs=1e-3 * percent)
    assert first.get('mIoU', first.get('coco/segm_mAP')) > 0.4 * percent, 'the data have objects'


def test_predictions_equal_those_of_pytorch(predicted):
    first, second = predicted
    assert (first / 'images.json').read_text() == (second / 'images.json').read_text()
    for label_map in first.glob('labels/*.png'):
        a, b = (cv2.imread(str(file), 0) for file in (label_map, second / 'labels' / label_map.name))
        assert (a != b).mean() < 0.01
    if (first / 'predictions.json').exists():
        a, b = (json.loads((folder / 'predictions.json').read_text()) for folder in (first, second))
        assert len(a) == pytest.approx(len(b), rel=0.02) and len(a) > 10
        np.testing.assert_allclose(a[0]['bbox'], b[0]['bbox'], atol=0.1)


def test_script_of_the_document_needs_no_pytorch(exported, shapes, tmp_path):
    """The script needs numpy, onnxruntime and OpenCV alone."""
    config, weights, file = exported
    (tmp_path / 'run.py').write_text(SCRIPT)
    blocked = "import sys; sys.modules.update(dict.fromkeys(('torch', 'mmengine', 'mlp_dense'))); sys.argv.pop(0);"
    image = shapes / 'val' / '000003.jpg'
    command = [sys.executable, '-c', f'{blocked} exec(open("run.py").read())', 'run.py', file, image]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    drawn = cv2.imread(str(tmp_path / 'drawn.png'))
    assert drawn.shape == cv2.imread(str(image)).shape
    model = mlp_dense.load_model(config, weights, 'cpu')
    if 'decode_head' in model.cfg.model:
        from mmseg.apis import inference_model

        expected = inference_model(model, str(image)).pred_sem_seg.data[0].numpy()
        colours = np.array(model.dataset_meta['palette'], np.uint8)[expected][..., ::-1]
        assert (drawn != colours).any(2).mean() < 0.01
    else:
        from mmdet.apis import inference_detector

        expected = inference_detector(model, str(image)).pred_instances
        assert abs(len(done.stdout.splitlines()) - (expected.scores > 0.3).sum()) <= 1


@pytest.mark.parametrize(
    'transform',
    [
        dict(scale=(64, 40)),
        dict(scale=(64, 40), keep_ratio=False),
        dict(scale=(64, 40), keep_ratio=True),
        dict(scale_factor=0.7),
        dict(scale_factor=(0.5, 2.0)),
    ],
    ids=str,
)
def test_script_of_the_document_resizes_as_the_pipeline(transform, shapes, tmp_path, monkeypatch):
    file = str(shapes / 'val' / '000003.jpg')
    metadata = dict(preprocessing=dict(resizing=[transform]), outputs=['labels'], palette=[[0, 0, 0]])
    texts = {key: json.dumps(value) for key, value in metadata.items()}
    session = Mock(**{'get_modelmeta.return_value.custom_metadata_map': texts})
    session.run.return_value = [np.zeros((1, 4, 4), np.int64)]
    monkeypatch.setitem(sys.modules, 'onnxruntime', Mock(**{'InferenceSession.return_value': session}))
    monkeypatch.setattr(sys, 'argv', ['run.py', 'model.onnx', file])
    monkeypatch.chdir(tmp_path)
    exec(SCRIPT, {})
    resized = Resize(**transform)(dict(img=cv2.imread(file)))['img']
    np.testing.assert_array_equal(session.run.call_args.args[1]['images'][0].transpose(1, 2, 0), resized)


def test_metadata_describes_model_and_preprocessing(exported):
    _, weights, file = exported
    about = ExportedFile(file).metadata
    task = 'mmseg' if 'labels' in about['outputs'] and 'boxes' not in about['outputs'] else 'mmdet'
    assert about['task'] == task and about['part'] == 'model' and about['precision'] == 'fp32'
    assert about['checkpoint_sha256'] == sha256_of(weights) and about['checkpoint'] == weights.name
    assert len(about['palette']) == len(about['classes']) and {'onnxruntime', 'torch'} <= about['versions'].keys()
    assert about['preprocessing']['images'] == dict(layout='NCHW', channels='BGR', dtype='uint8')
    in_graph = about['preprocessing']['in_graph']
    assert in_graph['to_rgb'] and in_graph['mean'] == [123.675, 116.28, 103.53]
    assert in_graph['size_divisor'] == (32 if task == 'mmdet' else 1)
    assert "type='mlp_dense.CycleMLP'" in about['config']


def test_existing_file_is_not_overwritten(exported, capsys):
    file, before = exported[2], exported[2].stat().st_mtime_ns
    assert call('export', *exported) == 2
    assert capsys.readouterr().err == f'error: {file} exists already and is not overwritten; choose another name.\n'
    assert file.stat().st_mtime_ns == before


def test_wrong_graph_is_detected_and_leaves_no_file(exported, tmp_path, monkeypatch, shapes, capsys):
    """The file contains other weights than the checkpoint."""
    config, weights, file = exported
    content = torch.load(weights, weights_only=False)
    changed = [key for key in content['state_dict'] if key.startswith('backbone.norms.') and key.endswith('.bias')]
    content['state_dict'].update({key: content['state_dict'][key] + 1 for key in changed})
    torch.save(content, tmp_path / 'changed.pth')
    monkeypatch.setattr('mlp_dense.export.exporting.trace', lambda *_: None)
    monkeypatch.setattr('mlp_dense.export.conversion.to_onnx', lambda *_: file.read_bytes())
    arguments = [config, tmp_path / 'changed.pth', tmp_path / 'new' / 'model.onnx', '--data-root', shapes]
    assert changed and call('export', *arguments) == 2
    assert 'error: The exported graph is wrong at ' in capsys.readouterr().err
    assert not list((tmp_path / 'new').iterdir())


def test_int8_file_quantizes_weights_and_keeps_metadata(exported, shapes):
    from mlp_dense.export.conversion import to_int8

    config, _, file = exported
    cfg = mlp_dense.load_model(config, file).cfg
    check_images = read_check_images(cfg, shapes / 'val', 2)
    int8 = to_int8(file.read_bytes(), check_images.inputs)
    images = check_images.inputs[0][None].numpy()
    expected, actual = ExportedFile(file)(images), ExportedFile(int8, '.onnx')(images)
    assert all(np.isfinite(values).all() for values in actual.values()) and expected.keys() == actual.keys()
    assert b'QuantizeLinear' in int8 and ExportedFile(int8, '.onnx').metadata['task'] == cfg.default_scope
    if 'scores' in expected and 'boxes' not in expected:
        difference = np.abs(expected['scores'] - actual['scores']).max()
        assert 0 < difference < np.abs(expected['scores']).max() / 4, 'also on CPUs without VNNI'


def test_file_of_another_task_or_with_other_classes_is_refused(exported):
    exported_file = ExportedFile(exported[2])
    task = exported_file.metadata['task']
    with pytest.raises(UserError, match=r'contains the model of a model of mm\w+; export a whole model of mm\w+ \('):
        exported_file.check('mmdet' if task == 'mmseg' else 'mmseg', None)
    with pytest.raises(UserError, match='has other classes than'):
        exported_file.check(task, ['other'])


def test_predict_and_draw_of_an_exported_file(exported, shapes):
    config, _, file = exported
    image, model = str(shapes / 'val' / '000003.jpg'), mlp_dense.load_model(config, file)
    drawn = model.draw(image, model.predict(image))
    assert drawn.dtype == np.uint8 and drawn.shape == (384, 384, 3)
