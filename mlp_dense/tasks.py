"""Table of the tasks: one row each. A new task is a row here and a module ``reports/NAME.py``."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from .datasets.coco_json import read_json
from .datasets.layout import annotation_file
from .errors import UserError

COCO_IDS = [i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]  # of 80 classes


@dataclass(frozen=True)
class Task:
    """Properties of a task that this package does not leave to mmdet and mmsegmentation."""

    name: str  # also that of its module in reports/
    scope: str  # default_scope of its configs
    package: str  # the package that its configs need
    main_metric: str  # ending of the metric's name
    dump: str  # type of the metric that writes predictions (tools/test.py --out)
    field: str  # data samples hold ground truth and predictions as gt_FIELD and pred_FIELD
    drawing: str  # function of visualization/drawing.py
    run_heads: Callable[[Any, Any], None]  # runs neck and heads on images, to count their MACs
    keep_results: Callable[[list, Path], list]  # metrics of a test that write the input of a report into a folder
    dense: bool = True  # whether it needs a pretrained backbone and mmcv's operators
    dumped_as: tuple[str, ...] = ('.pkl', '.pickle')  # suffixes of the file that `dump` writes
    # ids of the classes, from the config of a data set and the names
    category_ids: Callable[[Any, Sequence[str]], Sequence[int]] = lambda dataset, classes: range(len(classes))
    objects: Callable[[Any, int, Sequence[int]], Iterator[dict]] | None = None  # predictions, image id, ids to results
    label_map: Callable[[Any], Any] | None = None  # predictions to an array (H, W)
    flag: str = 'color'  # mmcv's flag for reading an image, with or without its EXIF orientation
    exported: str | None = None  # type of the model that runs an exported file; None: complete models are not exported

    @property
    def draw(self) -> Callable[..., Any]:
        """Drawing function, imported on first use: training needs neither OpenCV nor Matplotlib for it."""
        return resolve_name(f'mlp_dense.visualization.drawing:{self.drawing}')

    def labels_of(self, sample: Any, side: str, score_thr: float = 0.0) -> Any:
        """Return ground truth (``gt``) or predictions (``pred``, scored `score_thr` or more) of a sample, or None."""
        labels = sample.get(f'{side}_{self.field}')
        return labels[labels.scores >= score_thr] if labels is not None and 'scores' in labels else labels


def task_of(scope: str | None) -> Task:
    """Return the task of a ``default_scope``. Raises UserError if no task has it."""
    if scope not in TASKS:
        raise UserError(f'default_scope is {scope!r}; set it to {", ".join(TASKS)}.')
    return TASKS[scope]


def coco_category_ids(dataset: Any, classes: Sequence[str]) -> list[int]:
    """Return COCO's ids for its classes, else those in the annotation file of the test data, else 1, 2, ..."""
    from mmdet.datasets import CocoDataset

    if tuple(classes) == CocoDataset.METAINFO['classes']:
        return COCO_IDS
    file = annotation_file(dataset)
    if file and file.suffix == '.json' and file.is_file():
        categories = read_json(file).get('categories', ())
        ids = {category['name']: category['id'] for category in categories}
        if set(classes) <= ids.keys():
            return [ids[name] for name in classes]
    return list(range(1, len(classes) + 1))


def _coco_results(instances: Any, image_id: int, ids: Sequence[int]) -> Iterator[dict]:
    from mmdet.structures.mask import encode_mask_results

    instances = instances.numpy()
    masks = encode_mask_results(instances.masks) if 'masks' in instances else [None] * len(instances)
    columns = instances.labels.tolist(), instances.bboxes.tolist(), instances.scores.tolist(), masks
    for label, (left, top, right, bottom), score, mask in zip(*columns, strict=True):
        segmentation = dict(segmentation=dict(mask, counts=mask['counts'].decode())) if mask else {}
        box = [left, top, right - left, bottom - top]
        yield dict(image_id=image_id, category_id=ids[label], bbox=box, score=score, **segmentation)


def _class_results(prediction: Any, image_id: int, ids: Sequence[int]) -> Iterator[dict]:
    for label, score in zip(prediction.labels.tolist(), prediction.probability.tolist(), strict=True):
        yield dict(image_id=image_id, category_id=ids[label], score=score)


def _keep_coco_results(metrics: list, folder: Path) -> list:
    coco = [metric for metric in metrics if metric.type.endswith('CocoMetric') and metric.get('ann_file')]
    if not coco:
        raise UserError('--report: test_evaluator has no CocoMetric with an ann_file; add one to get a report.')
    coco[0].outfile_prefix = str(folder / 'predictions')
    return metrics


def _run_detector(model: Any, image: Any) -> None:
    """Run a detector, its RoI heads on 1000 proposals and 100 masks at every stage of a cascade, without RoIAlign."""
    maps = model.extract_feat(image)
    if not hasattr(model, 'roi_head'):
        model.bbox_head(maps)
        return
    model.rpn_head(maps)
    for name, count in (('bbox', 1000), ('mask', 100)):
        extractors, heads = (getattr(model.roi_head, f'{name}_{suffix}') for suffix in ('roi_extractor', 'head'))
        cascaded = hasattr(heads, '__iter__')  # a ModuleList
        for extractor, head in zip(extractors, heads, strict=True) if cascaded else [(extractors, heads)]:
            head(maps[0].new_empty(count, extractor.out_channels, *extractor.roi_layers[0].output_size))


DETECTION = Task(
    name='detection', scope='mmdet', package='mmdet', main_metric='mAP', field='instances',
    dump='mmdet.DumpDetResults', exported='mlp_dense.ExportedDetector', drawing='draw_instances',
    run_heads=_run_detector, keep_results=_keep_coco_results, category_ids=coco_category_ids, objects=_coco_results,
)  # fmt: skip
SEGMENTATION = Task(
    name='segmentation', scope='mmseg', package='mmseg', main_metric='mIoU', field='sem_seg',
    dump='mlp_dense.DumpLabelMaps', exported='mlp_dense.ExportedSegmentor', drawing='draw_label_map',
    run_heads=lambda model, image: model.decode_head(model.extract_feat(image)),
    keep_results=lambda metrics, folder: [*metrics, dict(type='mlp_dense.WriteLabelMaps', folder=str(folder))],
    label_map=lambda prediction: prediction.data[0].cpu().numpy(),
)  # fmt: skip
CLASSIFICATION = Task(
    name='classification', scope='mlp_dense', package='timm', main_metric='top1', field='class',
    dump='mlp_dense.DumpClasses', dumped_as=('.json',), drawing='draw_class', dense=False,
    run_heads=lambda model, image: None,  # the head is in the backbone
    keep_results=lambda metrics, folder: [
        *metrics, dict(type='mlp_dense.DumpClasses', out_file_path=str(folder / 'predictions.json'))
    ],
    objects=_class_results, flag='color_ignore_orientation',  # as timm
)  # fmt: skip
TASKS = {task.scope: task for task in (DETECTION, SEGMENTATION, CLASSIFICATION)}
