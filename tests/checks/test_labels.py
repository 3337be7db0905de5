"""Label maps and tests that would give wrong metrics silently."""

import json

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mlp_dense.checks.data_config import check_class_count, check_label_map
from mlp_dense.datasets.shapes import write_shapes
from mlp_dense.errors import UserError
from support.configs import DETECTION, SEGMENTATION
from support.tools import call
from support.trainings import write_config


def spoil(labels: np.ndarray, problem: str) -> np.ndarray:
    if problem == 'a label that is not a class':
        labels[:5] = 200
    return {
        '16 bits': labels.astype(np.uint16) * 256,
        'colours': np.dstack([labels, labels + 1, labels]),
        'another size': labels[:50],
    }.get(problem, labels)


MESSAGES = {
    'a label that is not a class': 'contains the label 200, but there are 6 classes (1 to 6, and 0 and 255 for ignored',
    '16 bits': 'has 16 bits per pixel',
    'colours': 'has colours; save a label map with one channel',
    'another size': 'is 96x50, but its image 96x96 pixels',
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ('problem', 'split'), [*((problem, 'train') for problem in MESSAGES), ('a label that is not a class', 'val')]
)
def test_wrong_label_map_is_refused(data, train, problem, split):
    for file in (data / 'labels' / split).iterdir():
        cv2.imwrite(str(file), spoil(cv2.imread(str(file), cv2.IMREAD_UNCHANGED), problem))
    status, _, errors = train(SEGMENTATION)
    assert status == 2 and MESSAGES[problem] in errors and f'labels/{split}/' in errors


def test_ignore_index_of_a_data_set_is_allowed(tmp_path):
    """255 is always allowed too."""
    labels, file = np.array([[0, 3, 11, 255]], np.uint8), tmp_path / 'x.png'
    cv2.imwrite(str(file), labels)
    check_label_map(file, labels, (1, 4), classes=4, ignored=11)
    for classes, ignored, allowed in (
        (4, 255, 'label 11, .*0 to 3, and 255'),
        (3, 11, 'label 3, .*0 to 2, and 11 and 255'),
    ):
        with pytest.raises(UserError, match=f'contains the {allowed} for ignored pixels'):
            check_label_map(file, labels, (1, 4), classes, ignored=ignored)


@pytest.mark.slow
def test_metrics_without_a_detection_are_0(train, tmp_path, capsys):
    status, output, _ = train(DETECTION, **{'model.test_cfg.rcnn.score_thr': 1.0})
    run = tmp_path / 'run'
    assert call('test', tmp_path / 'config.py', run / 'epoch_1.pth', '--work-dir', run) == status == 0
    metrics = json.loads((run / 'metrics.json').read_text())
    assert metrics['coco/bbox_mAP'] == metrics['coco/segm_mAP'] == 0.0
    assert 'Nothing was detected in any image: all metrics are 0.' in output + capsys.readouterr().out


@pytest.mark.slow
def test_undefined_metric_is_null(train, tmp_path, capsys, monkeypatch):
    run = tmp_path / 'run'
    assert train(SEGMENTATION)[0] == 0
    monkeypatch.setattr('mmseg.evaluation.IoUMetric.compute_metrics', lambda *_: dict(mIoU=float('nan'), aAcc=1.0))
    assert call('test', tmp_path / 'config.py', run / 'iter_4.pth', '--work-dir', run) == 0
    text = (run / 'metrics.json').read_text()
    assert json.loads(text) == dict(mIoU=None, aAcc=1.0) and 'NaN' not in text
    assert 'Undefined, and null in metrics.json: mIoU' in capsys.readouterr().out


@pytest.mark.slow
def test_training_without_validation_runs(train, tmp_path):
    assert train(SEGMENTATION, **dict.fromkeys(('val_dataloader', 'val_cfg', 'val_evaluator')))[0] == 0
    assert (tmp_path / 'run' / 'iter_4.pth').exists()


@pytest.mark.slow
def test_images_of_one_name_in_two_folders_are_drawn_separately(data, tmp_path):
    """The data set is also a concatenation of two."""
    other = tmp_path / 'other'
    data.rename(tmp_path / 'one')
    write_shapes(other, num_train=8, num_val=4, size=96, seed=1)
    changes = {'train_cfg.max_iters': 2, 'train_cfg.val_interval': 2, 'default_hooks.checkpoint.interval': 2}
    file = write_config(SEGMENTATION, tmp_path, tmp_path / 'one', **changes)
    cfg = Config.fromfile(file)
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        both = [loader.dataset, loader.dataset.copy()]
        both[1].data_root = str(other)
        loader.dataset = dict(type='ConcatDataset', datasets=both)
    cfg.dump(file)
    assert call('train', file, '--work-dir', tmp_path / 'run') == 0
    drawn = tmp_path / 'drawn'
    assert call('test', file, tmp_path / 'run' / 'iter_2.pth', '--work-dir', tmp_path, '--show-dir', drawn) == 0
    assert {path.relative_to(drawn).parts[0] for path in drawn.rglob('*.png')} == {'one', 'other'}
    assert len(list(drawn.rglob('*.png'))) == 4


def head(classes: int, **more) -> dict:
    return dict(num_classes=classes, **more)


@pytest.mark.parametrize(
    ('model', 'fits'),
    [
        (dict(roi_head=dict(bbox_head=[head(3), head(3)], mask_head=head(3))), True),
        (dict(roi_head=dict(bbox_head=[head(3), head(80)])), False),
        (dict(decode_head=head(19)), False),
        (dict(decode_head=head(19), test_cfg=dict(check_num_classes=False)), True),
        (dict(roi_head=dict(bbox_head=head(3), semantic_head=head(183))), True),  # HTC, DetectoRS, SCNet
        (dict(decode_head=head(3), auxiliary_head=[head(2, type='STDCHead')]), True),
        (dict(bbox_head=head(80), panoptic_fusion_head=dict(num_stuff_classes=53)), True),
    ],
)
def test_class_counts_of_heads_are_compared(model, fits):
    try:
        check_class_count(model, ('a', 'b', 'c'), 'the data')
    except UserError as error:
        assert not fits and 'the data have 3 classes (a, b, c); set num_classes=3, or metainfo=' in str(error)
    else:
        assert fits
