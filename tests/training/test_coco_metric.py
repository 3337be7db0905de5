"""AP of detectors, whatever the ids of the annotations are."""

import json

import pytest
import torch

from mlp_dense.training.mmdet_fixes import CocoMetric
from support.detections import random_coco

IDS = {
    'from 0': lambda i: i,
    'from 1': lambda i: i + 1,
    'strings': 'id-{}'.format,
    'repeated in each image': lambda i: i % 3,
}


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
