"""What differs between the tasks: one row each."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import ConfigDict
from torch import Tensor, nn

from .errors import UserError
from .visualization.drawing import draw_class, draw_instances, draw_label_map

PICKLE = ('.pkl', '.pickle')
COCO_IDS = [i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]  # of 80 classes


@dataclass(frozen=True)
class Task:
    """A task, as far as this package does not leave it to mmdet and mmsegmentation."""

    scope: str  # the default_scope of its configs
    main_metric: str  # what its name ends in
    dump: str  # the type of the metric that writes predictions (tools/test.py --out)
    dumped_as: tuple[str, ...]  # what the name of that file may end in
    field: str  # data samples keep ground truth and predictions as gt_FIELD and pred_FIELD
    draw: Callable[..., np.ndarray]  # draws them, as reports.drawing.draw_instances does
    # The number in what is written of every class, from the config of the test data set and the class names.
    category_ids: Callable[[ConfigDict, Sequence[str]], Sequence[int]]
    # Predictions, image id and category ids to results in COCO's format; None: there are none.
    objects: Callable[[Any, int, Sequence[int]], Iterator[dict]] | None
    label_map: Callable[[Any], np.ndarray] | None  # predictions to (H, W); None: there is no label map
    flag: str  # with which OpenCV reads an image as the data set does: with or without its orientation in EXIF
    run_heads: Callable[[nn.Module, Tensor], None]  # on images, as the field counts the MACs of neck and heads
    exported: str | None  # the type of the model that stands in for an exported one; None: whole ones are not exported

    def labels_of(self, sample: Any, side: str, score_thr: float = 0.0) -> Any:
        """The ground truth (``gt``) or predictions (``pred``, scored above `score_thr`) of a data sample, or None."""
        found = sample.get(f'{side}_{self.field}')
        return found[found.scores > score_thr] if found is not None and 'scores' in found else found


def task_of(scope: str) -> Task:
    """The task of a ``default_scope``. UserError: there is none."""
    if scope not in TASKS:
        raise UserError(f'default_scope is {scope!r}; allowed: {", ".join(TASKS)}.')
    return TASKS[scope]


def coco_category_ids(dataset: ConfigDict, classes: Sequence[str]) -> list[int]:
    """COCO's numbers, else those in the annotation file of the test data if it is there, else 1, 2, ..."""
    from mmdet.datasets import CocoDataset

    if tuple(classes) == CocoDataset.METAINFO['classes']:
        return COCO_IDS
    file = Path(dataset.get('data_root') or '', dataset.get('ann_file') or '')
    if file.suffix == '.json' and file.is_file():
        ids = {c['name']: c['id'] for c in json.loads(file.read_text(encoding='utf-8')).get('categories', ())}
        if set(classes) <= ids.keys():
            return [ids[name] for name in classes]
    return list(range(1, len(classes) + 1))


def _coco_results(found: Any, image_id: int, ids: Sequence[int]) -> Iterator[dict]:
    from mmdet.structures.mask import encode_mask_results

    found = found.numpy()
    masks = encode_mask_results(found.masks) if 'masks' in found else [None] * len(found)
    rows = zip(found.labels.tolist(), found.bboxes.tolist(), found.scores.tolist(), masks, strict=True)
    for label, (left, top, right, bottom), score, mask in rows:
        segmentation = dict(segmentation=dict(mask, counts=mask['counts'].decode())) if mask else {}
        box = [left, top, right - left, bottom - top]
        yield dict(image_id=image_id, category_id=ids[label], bbox=box, score=score, **segmentation)


def _class_results(found: Any, image_id: int, ids: Sequence[int]) -> Iterator[dict]:
    for label, score in zip(found.labels.tolist(), found.probability.tolist(), strict=True):
        yield dict(image_id=image_id, category_id=ids[label], score=score)


def _run_detector(model: nn.Module, image: Tensor) -> None:
    """With a RoI head on 1000 proposals and 100 masks, at every stage of a cascade; without RoIAlign."""
    maps = model.extract_feat(image)
    if not hasattr(model, 'roi_head'):
        model.bbox_head(maps)
        return
    model.rpn_head(maps)
    for kind, num in (('bbox', 1000), ('mask', 100)):
        extractors = getattr(model.roi_head, f'{kind}_roi_extractor')
        heads = getattr(model.roi_head, f'{kind}_head')
        stages = zip(extractors, heads, strict=True) if isinstance(heads, nn.ModuleList) else [(extractors, heads)]
        for extractor, head in stages:
            size = extractor.roi_layers[0].output_size
            head(maps[0].new_empty(num, extractor.out_channels, *size))


DETECTION = Task(
    scope='mmdet',
    main_metric='mAP',
    dump='mmdet.DumpDetResults',
    dumped_as=PICKLE,
    field='instances',
    draw=draw_instances,
    category_ids=coco_category_ids,
    objects=_coco_results,
    label_map=None,
    flag='color',
    run_heads=_run_detector,
    exported='mlp_dense.ExportedDetector',
)
SEGMENTATION = Task(
    scope='mmseg',
    main_metric='mIoU',
    dump='mlp_dense.DumpLabelMaps',
    dumped_as=PICKLE,
    field='sem_seg',
    draw=draw_label_map,
    category_ids=lambda dataset, classes: range(len(classes)),
    objects=None,
    label_map=lambda found: found.data[0].cpu().numpy(),
    flag='color',
    run_heads=lambda model, image: model.decode_head(model.extract_feat(image)),
    exported='mlp_dense.ExportedSegmentor',
)
CLASSIFICATION = Task(
    scope='mlp_dense',
    main_metric='top1',
    dump='mlp_dense.DumpClasses',
    dumped_as=('.json',),
    field='class',
    draw=draw_class,
    category_ids=lambda dataset, classes: range(len(classes)),
    objects=_class_results,
    label_map=None,
    flag='color_ignore_orientation',  # as timm
    run_heads=lambda model, image: None,  # the head is in the backbone
    exported=None,
)
TASKS = {task.scope: task for task in (DETECTION, SEGMENTATION, CLASSIFICATION)}
