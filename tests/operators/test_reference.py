"""Stored outputs of mmcv's compiled operators: equal indices, and values to 1e-9."""

import hashlib
import json

import pytest
import torch
from mmcv.ops import RoIAlign, batched_nms, nms

from support.boxes import clustered_boxes


def cases_of(shared, operator: str) -> list[dict]:
    cases = json.loads((shared / 'reference' / 'operators.json').read_text())['cases']
    return [case for case in cases if case['op'] == operator]


def digest(kept: torch.Tensor) -> str:
    return hashlib.sha256(','.join(map(str, kept.tolist())).encode()).hexdigest()


def test_nms_equals_the_stored_indices(shared, fallback):
    for case in cases_of(shared, 'nms'):
        boxes, scores = clustered_boxes(case['n'], case['seed'], case['quantum'])
        _, kept = nms(boxes, scores, case['iou_threshold'], offset=case['offset'])
        assert digest(kept) == case['keep']['sha256'], case


def test_batched_nms_equals_the_stored_indices(shared, fallback):
    for case in cases_of(shared, 'batched_nms'):
        boxes, scores = clustered_boxes(case['n'], case['seed'])
        g = torch.Generator().manual_seed(case['class_seed'])
        classes = torch.randint(case['classes'], (case['n'],), generator=g)
        _, kept = batched_nms(boxes, scores, classes, dict(type='nms', iou_threshold=case['iou_threshold']))
        assert digest(kept) == case['keep']['sha256'], case


def test_roi_align_equals_the_stored_values(shared, fallback):
    for case in cases_of(shared, 'roi_align'):
        g = torch.Generator().manual_seed(case['seed'])
        x = torch.randn(case['input'], generator=g).double().requires_grad_()
        image = torch.randint(case['input'][0], (case['n'], 1), generator=g)
        rois = torch.cat([image, clustered_boxes(case['n'], case['box_seed'])[0] * 1.3 - 90], 1).double()
        names = ('output_size', 'spatial_scale', 'sampling_ratio', 'pool_mode', 'aligned')
        y = RoIAlign(**{name: case[name] for name in names})(x, rois)
        y.backward(torch.randn(y.shape, generator=g, dtype=torch.float64))
        for actual, expected in ((y.detach(), case['out']), (x.grad, case['grad'])):
            assert list(actual.shape) == expected['shape']
            values = actual.flatten()[expected['idx']].tolist()
            assert values == pytest.approx(expected['values'], abs=1e-9)
            assert actual.sum().item() == pytest.approx(expected['sum'], abs=1e-9)
