"""Text of a config for user data: what differs from the base files of this package, with the reasons as comments."""

import math
import os
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import counted
from ..formats import Place
from .training_plan import Plan, scaled_rate

UNBALANCED = 10
"""Ratio of the most to the least frequent class from which on training compensates."""
WIDTH, LINES = 120, 30
BASES = dict(
    mask_rcnn=('models/mask_rcnn', 'datasets/coco_instance', 'schedules/detection_1x', 'runtime_detection'),
    retinanet=('models/retinanet', 'datasets/coco_detection', 'schedules/detection_1x', 'runtime_detection'),
    upernet=('models/upernet', 'datasets/ade20k', 'schedules/segmentation_80k', 'runtime_segmentation'),
    semantic_fpn=('models/semantic_fpn', 'datasets/ade20k', 'schedules/segmentation_80k', 'runtime_segmentation'),
    classifier=('models/classifier', 'datasets/imagenet', 'schedules/imagenet', 'runtime_classification'),
)
METAINFO = 'metainfo = ...'  # replaced at the end
PIPELINES = (
    'train_pipeline, test_pipeline, tta_pipeline = _base_.train_pipeline, _base_.test_pipeline, _base_.tta_pipeline'
)


class Classes(NamedTuple):
    """Names of the classes, and their amounts in the data."""

    unit: str
    """Objects, images, or percentages of pixels."""
    names: Sequence[str]
    amounts: Sequence[float]
    frequencies: Sequence[float] = ()
    """Fraction of images that contain each class; empty for label maps and classifiers."""

    def line(self) -> str:
        """Return a line for the user that fits into a comment."""
        amounts = [
            ' '.join(f'{name} {round(amount, 2):,}'.split())
            for name, amount in zip(self.names, self.amounts, strict=True)
        ]
        start = f'{counted(len(self.names), "class")}, {self.unit}: '
        text = start + ', '.join(amounts)
        while len(text) > WIDTH - 2 and amounts:  # the start of the list, complete
            amounts.pop()
            text = start + ', '.join([*amounts, '...'])
        return text


def detector(plan: Plan, classes: Classes, places: Mapping[str, Place], root: Path) -> str:
    """Return the config of a detector."""
    count, channels = len(classes.names), plan.channels()
    heads = f'bbox_head=dict(num_classes={count})'
    if plan.head == 'mask_rcnn':
        heads = f'roi_head=dict({heads}, mask_head=dict(num_classes={count}))'
    else:
        channels = channels[1:]
    folder = data_root(places, root)
    preprocessor = f'data_preprocessor=dict({plan.preprocessor()}), ' if plan.preprocessor() else ''
    lines = [
        *_first_lines(plan),
        f'# {classes.line()}',
        METAINFO,
        f'data_root = {folder!r}',
        *_sizes(plan),
        PIPELINES,
        "train_pipeline[2]['scale'] = test_pipeline[1]['scale'] = tta_pipeline[1]['transforms'][0][0]['scale'] = scale",
        "own = dict(type='mlp_dense.CocoDataset', metainfo=metainfo, data_root=data_root)",
        f'train = dict(own, {_annotations(places["train"], folder)},',
        '             pipeline=train_pipeline, filter_cfg=dict(filter_empty_gt=False, min_size=1))'
        '  # uses images without objects',
        f'val = dict(own, {_annotations(places["val"], folder)}, pipeline=test_pipeline)',
        *(f'test = dict(val, {_annotations(place, folder)})' for name, place in places.items() if name == 'test'),
        *_balanced(classes.frequencies),
        "train_dataloader = dict(batch_size=batch_size, sampler=dict(type='InfiniteSampler'), dataset=train)",
        *_test_loaders(places),
        _evaluators(places, folder),
        f'model = dict(backbone={plan.backbone()},',
        f'             {preprocessor}neck=dict(in_channels={channels}),',
        f'             {heads})',
        *_schedule(plan, 1e-4),
        "train_cfg = dict(_delete_=True, type='mlp_dense.IterLoop', max_iters=max_iters, val_interval=interval)",
        'default_hooks, log_processor = dict(checkpoint=dict(by_epoch=False, interval=interval)), dict(by_epoch=False)',
    ]
    return _joined(lines, classes)


def segmentor(plan: Plan, classes: Classes, places: Mapping[str, Place], root: Path) -> str:
    """Return the config of a model for label maps."""
    count, channels = len(classes.names), plan.channels()
    width, height = (min(512, side) for side in plan.size)
    loss = ["loss = dict(type='CrossEntropyLoss', use_sigmoid=False)"]
    if max(classes.amounts) >= UNBALANCED * min(classes.amounts):
        median = statistics.median(amount for amount in classes.amounts if amount)
        # The square root, because the full ratio makes training unstable.
        weights = [
            round(min(4, max(0.25, math.sqrt(median / amount))), 2) if amount else 1 for amount in classes.amounts
        ]
        loss = [
            "loss = dict(type='mlp_dense.WeightedCrossEntropyLoss',  # square root of (median / pixels), up to 4",
            f'            class_weight={weights})',
        ]
    neck = f'neck=dict(in_channels={channels}), ' if plan.head == 'semantic_fpn' else ''
    heads = [f'{neck}decode_head=dict(num_classes={count}, loss_decode=loss))']
    if plan.head == 'upernet':
        heads = [
            f'decode_head=dict(in_channels={channels}, num_classes={count}, loss_decode=loss),',
            f'auxiliary_head=dict(in_channels={channels[2]}, num_classes={count}))',
        ]
    folder = data_root(places, root)
    suffixes = 'img_suffix={!r}, seg_map_suffix={!r}'.format(*(places['train'].suffixes or ('.jpg', '.png')))
    preprocessor = ', '.join(filter(None, ['size=crop_size', plan.preprocessor()]))
    scale = '(long, short) side of the images' if plan.size == plan.median else 'images are resized to (long, short)'
    lines = [
        *_first_lines(plan),
        f'# {classes.line()}',
        METAINFO,
        f'data_root = {folder!r}',
        f'scale, crop_size = {plan.scale}, {(height, width)}  # {scale}, and (height, width) of crops',
        _length(plan),
        PIPELINES,
        "train_pipeline[2]['scale'] = test_pipeline[1]['scale'] = scale",
        "train_pipeline[3]['crop_size'], tta_pipeline[1]['transforms'][0] = crop_size, [test_pipeline[1]]",
        f"own = dict(type='BaseSegDataset', metainfo=metainfo, data_root=data_root, {suffixes})",
        f'train = dict(own, {_label_maps(places["train"], folder)}, pipeline=train_pipeline)',
        f'val = dict(own, {_label_maps(places["val"], folder)}, pipeline=test_pipeline)',
        *(f'test = dict(val, {_label_maps(place, folder)})' for name, place in places.items() if name == 'test'),
        'train_dataloader = dict(batch_size=batch_size, dataset=train)',
        *_test_loaders(places),
        *loss,
        f'model = dict(backbone={plan.backbone()},',
        f'             data_preprocessor=dict({preprocessor}),',
        *(f'             {head}' for head in heads),
        *_schedule(plan, 6e-5),
        'train_cfg, default_hooks = '
        'dict(max_iters=max_iters, val_interval=interval), dict(checkpoint=dict(interval=interval))',
    ]
    return _joined(lines, classes)


def classifier(plan: Plan, classes: Classes, test: bool, root: Path) -> str:
    """Return the config of a classifier of images in folders; `test` is whether there is a test split."""
    preprocessor = f'data_preprocessor=dict({plan.preprocessor()}), ' if plan.preprocessor() else ''
    mean = ', mean=(0.5,) * 3' if plan.preprocessor() else ''
    rate = scaled_rate(1e-3, plan.batch_size, 1024)
    lines = [
        *_first_lines(plan),
        f'# {classes.line()}',
        METAINFO,
        f'data_root = {str(root)!r}',
        f'size, batch_size, max_epochs = {plan.size[0]}, {plan.batch_size}, {plan.epochs}  # size of the square images',
        'train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline',
        f'train_pipeline[1].update(input_size=size, scale=(0.35, 1.0){mean})  # crops of at least 35 % of the area',
        "test_pipeline[1]['input_size'] = size",
        "own = dict(_delete_=True, type='mlp_dense.ClassFolders', metainfo=metainfo, data_root=data_root)",
        "train = dict(own, data_prefix=dict(img_path='train'), pipeline=train_pipeline)",
        "val = dict(own, data_prefix=dict(img_path='val'), pipeline=test_pipeline)",
        *(["test = dict(val, data_prefix=dict(img_path='test'))"] if test else []),
        'train_dataloader = dict(batch_size=batch_size, num_workers=2, dataset=train)',
        'val_dataloader = dict(batch_size=batch_size, num_workers=2, dataset=val)',
        f'test_dataloader = dict(batch_size=batch_size, num_workers=2, dataset={"test" if test else "val"})',
        f'model = dict(backbone={plan.backbone()},',
        f'             {preprocessor}head=dict(num_classes={len(classes.names)}))',
        f'optim_wrapper = dict(optimizer=dict(lr={rate}), clip_grad=dict(max_norm=5.0))'
        '  # 1e-3 for 1024; it follows the root',
        'auto_scale_lr = dict(base_batch_size=batch_size)',
        'train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs // 10)',
        'param_scheduler = dict(length=max_epochs, warmup=max_epochs // 10, convert_to_iter_based=True)',
        'default_hooks = dict(checkpoint=dict(interval=max_epochs // 10))',
    ]
    return _joined(lines, classes)


def data_root(places: Mapping[str, Place], root: Path) -> str:
    """Return the folder of the data, or the one that contains all images if they are elsewhere."""
    folders = [place.images for place in places.values()]
    inside = all(folder.is_relative_to(root) for folder in folders)
    return root.as_posix() if inside else Path(os.path.commonpath(folders)).as_posix()


def _first_lines(plan: Plan) -> list[str]:
    first, second, third, fourth = (f"'mlp_dense::_base_/{name}.py'" for name in BASES[plan.head])
    return [
        '# ' + ' '.join(plan.command.split('\n')),
        f'# {plan.title()}.',
        f'_base_ = [{first}, {second},',
        f'          {third}, {fourth}]',
    ]


def _sizes(plan: Plan) -> list[str]:
    changed = '' if plan.size == plan.median else f', of about {"x".join(map(str, plan.median))}'
    return [f'scale = {plan.scale}  # images{changed} are resized to fit into this long and short side', _length(plan)]


def _length(plan: Plan) -> str:
    interval = plan.iterations // 10
    reason = f'{plan.epochs} epochs of {plan.images["train"]:,} images, with ten validations'
    return f'batch_size, max_iters, interval = {plan.batch_size}, {plan.iterations}, {interval}  # {reason}'


def _schedule(plan: Plan, base_rate: float) -> list[str]:
    """Return the lines of a schedule that counts iterations."""
    reason = f'{base_rate:.0e} for 16 images; scaled by the square root of the batch size'.replace('e-0', 'e-')
    return [
        f'optim_wrapper = dict(optimizer=dict(lr={scaled_rate(base_rate, plan.batch_size, 16)}))  # {reason}',
        'auto_scale_lr = dict(base_batch_size=batch_size)',
        "param_scheduler = [dict(type='LinearLR', start_factor=0.001, by_epoch=False, end=interval), dict(",
        "    type='CosineAnnealingLR', by_epoch=False, begin=interval, end=max_iters, eta_min=0.0)]",
    ]


def _test_loaders(places: Mapping[str, Place]) -> list[str]:
    test = 'test' if 'test' in places else 'val'
    return [f'val_dataloader, test_dataloader = dict(dataset=val), dict(dataset={test})']


def _evaluators(places: Mapping[str, Place], folder: str) -> str:
    inside = all(place.annotations and place.annotations.is_relative_to(folder) for place in places.values())
    file = "data_root + '/' + {}['ann_file']" if inside else "{}['ann_file']"
    if 'test' in places:
        file = file.format('data')
        return f'val_evaluator, test_evaluator = (dict(ann_file={file}) for data in (val, test))'
    return f'val_evaluator = test_evaluator = dict(ann_file={file.format("val")})'


def _balanced(frequencies: Sequence[float]) -> list[str]:
    present = [frequency for frequency in frequencies if frequency]
    threshold = min(0.1, statistics.median(present))
    if min(present) >= threshold or max(present) < UNBALANCED * min(present):
        return []
    options = f"_delete_=True, type='ClassBalancedDataset', oversample_thr={threshold:.2g}"
    return [f'train = dict({options}, dataset=train)  # repeats rare classes']


def _annotations(place: Place, folder: str) -> str:
    file, prefix = _below(place.annotations, folder), _below(place.images, folder)
    return f'ann_file={file!r}, data_prefix=dict(img={prefix and prefix + "/"!r})'


def _label_maps(place: Place, folder: str) -> str:
    prefixes = f'img_path={_below(place.images, folder)!r}, seg_map_path={_below(place.annotations, folder)!r}'
    return f'data_prefix=dict({prefixes})'


def _below(path: Path | None, folder: str) -> str:
    """Return a path relative to a folder, or as it is if it lies elsewhere."""
    assert path is not None  # `places_of` has written it
    text = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.as_posix()
    return '' if text == '.' else text


def _joined(lines: list[str], classes: Classes) -> str:
    """Return the text of a config with the names of the classes, which are wrapped if the lines suffice."""
    names = f'({", ".join(map(repr, classes.names))}{"," * (len(classes.names) == 1)})'
    metainfo = [f'metainfo = dict(classes={names})']
    if '\\' not in names and not any(' ' in name for name in classes.names):
        wrapped = textwrap.wrap(
            metainfo[0], WIDTH, subsequent_indent=' ' * 25, break_long_words=False, break_on_hyphens=False
        )
        metainfo = wrapped if len(lines) - 1 + len(wrapped) <= LINES else metainfo
    index = lines.index(METAINFO)
    return '\n'.join([*lines[:index], *metainfo, *lines[index + 1 :]]) + '\n'
