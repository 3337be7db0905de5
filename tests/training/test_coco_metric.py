"""Data sets equal those of mmdet, and AP does not depend on the ids of the annotations."""

import json

import pytest
import torch
from mmdet.datasets import CocoDataset as MMDetCocoDataset

from mlp_dense.training.mmdet_fixes import CocoDataset, CocoMetric
from support.detections import random_coco

IDS = {
    'from 0': lambda i: i,
    'from 1': lambda i: i + 1,
    'strings': 'id-{}'.format,
    'repeated in each image': lambda i: i % 3,
}


PIPELINE = [dict(type='LoadAnnotations', with_bbox=True, with_mask=True, _scope_='mmdet')]


@pytest.mark.parametrize('filter_cfg', [None, dict(filter_empty_gt=True, min_size=200)])
@pytest.mark.parametrize('classes', [['person'], ['person', 'car', 'dog']])
def test_dataset_equals_that_of_mmdet(filter_cfg, classes, shared):
    root = shared / 'data' / 'coco_tiny'
    settings = dict(
        ann_file=str(root / 'annotations' / 'instances_train2017.json'), data_prefix=dict(img='train2017'),
        metainfo=dict(classes=classes), filter_cfg=filter_cfg, pipeline=PIPELINE,
    )  # fmt: skip
    dataset, expected = CocoDataset(**settings), MMDetCocoDataset(**settings)
    assert len(dataset) == len(expected) > 20 and dataset.cat_ids == expected.cat_ids
    assert all(dataset.get_data_info(i) == expected.get_data_info(i) for i in range(len(dataset)))


@pytest.mark.parametrize('ids', IDS)
def test_ground_truth_as_detections_has_an_ap_of_1(ids, tmp_path):
    content, _ = random_coco(images=12, classes=3, seed=0)
    for i, annotation in enumerate(content['annotations']):
        annotation.update(id=IDS[ids](i), iscrowd=0)
    (tmp_path / 'annotations.json').write_text(json.dumps(content))
    metric = CocoMetric(ann_file=str(tmp_path / 'annotations.json'), metric='bbox')
    metric.dataset_meta = dict(classes=[category['name'] for category in content['categories']])
    for image in content['images']:
        objects = [a for a in content['annotations'] if a['image_id'] == image['id']]
        boxes = torch.tensor([a['bbox'] for a in objects]).reshape(-1, 4)
        labels = torch.tensor([a['category_id'] // 2 for a in objects], dtype=torch.long)
        corners = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
        predictions = dict(bboxes=corners, labels=labels, scores=torch.rand(len(objects)))
        metric.process({}, [dict(img_id=image['id'], ori_shape=(240, 320), pred_instances=predictions)])
    assert metric.evaluate(len(content['images']))['coco/bbox_mAP'] == pytest.approx(1.0)
