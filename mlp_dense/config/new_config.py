"""A config for own data, written from what the data contain: classes, counts, paths and image sizes."""

import math
import os
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .. import formats
from ..backbones import FAMILIES
from ..datasets import SUFFIXES
from ..errors import UserError, counted, some
from ..formats import DataSet, Place

BACKBONES = dict(zip(('hire', 'as', 'cycle', 'wave', 'mixer', 'vip', 'sparse'), FAMILIES, strict=True))
HEADS = ('mask_rcnn', 'retinanet', 'upernet', 'semantic_fpn', 'classifier')
SPLITS = ('train', 'val', 'test')
UNBALANCED = 10
"""Ratio of the most to the least frequent class from which on training compensates."""
COCO_EPOCHS, COCO_IMAGES, MAX_EPOCHS = 12, 118_287, 100
"""The schedule 1x of COCO. Smaller data get epochs in inverse proportion to the square root of their images."""


class Plan(NamedTuple):
    """Values of a config that do not depend on its head."""

    command: str
    family: str
    arch: str
    head: str
    weights: str | None
    batch_size: int
    epochs: int
    images: dict[str, int]
    """Number of images of each split."""
    size: tuple[int, int]
    """Long and short side of the images for the network."""

    @property
    def iterations(self) -> int:
        return max(200, math.ceil(self.images['train'] * self.epochs / self.batch_size))

    def backbone(self) -> str:
        init = f", init_cfg=dict(type='Pretrained', checkpoint={self.weights!r})" if self.weights else ''
        return f"dict(type='mlp_dense.{BACKBONES[self.family].__name__}', arch={self.arch!r}, drop_path_rate=0.1{init})"


def new_config(
    data_folder: Path,
    out: Path,
    command: str,
    family: str = 'hire',
    arch: str | None = None,
    head: str | None = None,
    weights: str | None = None,
    colors: Path | None = None,
    seed: int = 0,
) -> tuple[Path, list[str]]:
    """Write ``out/NAME.py`` for the data in a folder, and return its path and the lines to print.

    Annotations that mmdet or mmsegmentation cannot read in place are written into ``out/annotations``; images stay
    where they are. Without a validation split, a fifth of the images becomes one.

    Args:
        data_folder: Folder of the data in any format of :mod:`mlp_dense.formats`, or of a folder for each class in
            ``train/`` and ``val/``.
        out: New folder.
        command: The command line, for the first line of the config.
        family: Class of the backbone.
        arch: Its variant; the smallest one by default.
        head: One of ``HEADS``; by default the one that suits the annotations.
        weights: File of pretrained weights of the backbone.
        colors: File with the colours of the classes of label maps.
        seed: Seed of the split.

    Raises:
        UserError: The data cannot be read, or do not suit the head; `out` exists.
    """
    if head not in (None, *HEADS):
        raise UserError(f'The head {head!r} does not exist; choose one of {", ".join(HEADS)}.')
    if family not in BACKBONES:
        raise UserError(f'The family {family!r} does not exist; choose one of {", ".join(BACKBONES)}.')
    archs = BACKBONES[family].archs
    arch = arch or next(iter(archs))
    if arch not in archs:
        raise UserError(f'The family {family} has no arch {arch!r}; choose one of {", ".join(archs)}.')
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f'{out} exists and is not an empty folder; choose another folder with --out.')
    root = data_folder.resolve()
    if head == 'classifier' or (head is None and class_folders(root)):
        text, lines = _classifier(root, command, family, arch, weights)
    else:
        text, lines = _annotated(root, out, command, family, arch, head, weights, colors, seed)
    out.mkdir(parents=True, exist_ok=True)
    config = out / f'{out.resolve().name}.py'
    config.write_text(text, encoding='utf-8')
    return config, lines


def class_folders(root: Path) -> dict[str, Counter[str]]:
    """Return the number of images of each class in ``train/CLASS`` and ``val/CLASS``; empty if they do not exist."""
    splits = {}
    for split in SPLITS:
        folders = [path for path in (root / split).glob('[!._]*') if path.is_dir()]
        counts = {path.name: sum(file.suffix.lower() in SUFFIXES for file in path.rglob('[!.]*')) for path in folders}
        if counts and all(counts.values()):
            splits[split] = Counter(counts)
    same = len({frozenset(counts) for counts in splits.values()}) == 1
    return splits if same and {'train', 'val'} <= splits.keys() else {}


# Detection and segmentation


def _annotated(
    root: Path, out: Path, command: str, family: str, arch: str, head: str | None, weights: str | None,
    colors: Path | None, seed: int,
) -> tuple[str, list[str]]:  # fmt: skip
    data = formats.read(root, colors=colors)
    head = head or _head_for(data)
    _check_head(data, head)
    lines = data.lines()
    data.splits = _named(data.splits)
    if 'val' not in data.splits:
        data = formats.split(data, (0.8, 0.2), seed)
        lines.append('There is no validation split: a fifth of the images becomes one.')
    written = formats.places_of(data, out / 'annotations')
    sizes = [(record.width, record.height) for record in data.splits['train']]
    plan = _plan(command, family, arch, head, weights, {k: len(v) for k, v in data.splits.items()}, sizes)
    write = _segmentor if data.format == 'labels' else _detector
    return write(plan, data, written.places), [*lines, *written.lines]


def _named(splits: dict[str, Any]) -> dict[str, Any]:
    """Use a test split for validation if there is no other, and a single split for both after it is divided."""
    if 'train' in splits and 'val' not in splits and 'test' in splits:
        return {'train': splits['train'], 'val': splits['test']}
    return splits


def _head_for(data: DataSet) -> str:
    if data.format == 'labels':
        return 'upernet'
    objects = [annotation for record in data.records() for annotation in record.annotations if not annotation.crowd]
    return 'mask_rcnn' if objects and all(each.polygons or each.rle for each in objects) else 'retinanet'


def _check_head(data: DataSet, head: str) -> None:
    if (data.format == 'labels') != (head in ('upernet', 'semantic_fpn')):
        suited = 'upernet or semantic_fpn' if data.format == 'labels' else 'mask_rcnn or retinanet'
        raise UserError(f'{data.found} The head {head} cannot use them; pass --head {suited}.')
    if head == 'mask_rcnn':
        objects = [annotation for record in data.records() for annotation in record.annotations]
        boxes = [annotation.origin for annotation in objects if not annotation.polygons and not annotation.rle]
        if boxes:
            text = f'{len(boxes)} of {counted(len(objects), "object")} have no outline ({some(boxes)})'
            raise UserError(f'{text}; pass --head retinanet, or remove these objects.')


def _plan(
    command: str, family: str, arch: str, head: str, weights: str | None, images: dict[str, int],
    sizes: Sequence[tuple[int, int]],
) -> Plan:  # fmt: skip
    long, short = (int(statistics.median(sorted(size)[i] for size in sizes)) for i in (1, 0))
    ratio = min(1.0, 1333 / long, 800 / short)
    size = tuple(max(32, round(side * ratio / 32) * 32) for side in (long, short))
    epochs = min(MAX_EPOCHS, max(COCO_EPOCHS, round(COCO_EPOCHS * math.sqrt(COCO_IMAGES / images['train']))))
    has_gpu = torch.cuda.is_available()
    largest = (16 if has_gpu else 4) if images['train'] >= 100 else 2
    fits = int(free_memory() / memory_per_image(family, arch, size))
    return Plan(command, family, arch, head, weights, max(1, min(largest, fits)), epochs, images, size)


def memory_per_image(family: str, arch: str, size: tuple[int, int]) -> float:
    """Return an estimate of the bytes that a training needs for an image of a size.

    It is twice what the backbone saves for its gradients: the other half is that of neck and heads.
    """
    saved = 0

    def count(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal saved
        saved += 0 if isinstance(tensor, torch.nn.Parameter) else tensor.nbytes
        return tensor

    with torch.device('meta'), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        BACKBONES[family](arch).train()(torch.zeros(2, 3, size[1], size[0]))
    return saved  # of two images, for backbone and heads of one


def free_memory() -> float:
    """Return the bytes of memory that a training may use: four fifths of the GPU's, or half of the free memory."""
    if torch.cuda.is_available():
        return 0.8 * torch.cuda.get_device_properties(0).total_memory
    meminfo = Path('/proc/meminfo')
    if meminfo.is_file():
        (line,) = (line for line in meminfo.read_text().splitlines() if line.startswith('MemAvailable'))
        return 0.5 * int(line.split()[1]) * 1024
    return 4e9  # unknown on this system


def channels_of(plan: Plan) -> list[int]:
    """Return the channels of the feature maps of a backbone."""
    with torch.device('meta'):
        return list(BACKBONES[plan.family](plan.arch).out_channels)


def _detector(plan: Plan, data: DataSet, places: dict[str, Place]) -> str:
    records = data.splits['train']
    labels = Counter(each.label for record in records for each in record.annotations if not each.crowd)
    amounts = [labels[i] for i in range(len(data.classes))]
    masks, channels, root = plan.head == 'mask_rcnn', channels_of(plan), common_root(places)
    heads = f'bbox_head=dict(num_classes={len(amounts)})'
    if masks:
        heads = f'roi_head=dict({heads}, mask_head=dict(num_classes={len(amounts)}))'
    lines = [
        *_first_lines(
            plan, f'models/{plan.head}', f'datasets/coco_{"instance" if masks else "detection"}', 'detection'
        ),
        f'metainfo = dict(classes={_tuple(data.classes)})  # objects in the training data: {_amounts(amounts)}',
        f'data_root = {str(root)!r}',
        f'scale = {plan.size}  # long and short side of the images for the network: the median of the images',
        *_length(plan),
        "train_pipeline[2]['scale'] = test_pipeline[1]['scale'] = tta_pipeline[1]['transforms'][0][0]['scale'] = scale",
        'own = dict(metainfo=metainfo, data_root=data_root)',
    ]
    for name, place in places.items():
        lines.append(f'{name} = dict(**own, {_annotations(place, root)},')
        rest = ', filter_cfg=dict(filter_empty_gt=False, min_size=1))  # uses images without objects'
        lines.append(f'{" " * len(name)}        pipeline={_pipeline(name)}{rest if name == "train" else ")"}')
    if max(amounts) >= UNBALANCED * max(1, min(amounts)):
        lines += [
            "train = dict(_delete_=True, type='ClassBalancedDataset', oversample_thr=0.1,  # repeats rare classes",
            '             dataset=dict(_base_.train_dataloader.dataset, **train))',
        ]
    test = 'test' if 'test' in places else 'val'
    files = [f"dict(ann_file=data_root + '/{_relative(places[name].annotations, root)}')" for name in ('val', test)]
    lines += [
        "train_dataloader = dict(batch_size=batch_size, sampler=dict(type='InfiniteSampler'), dataset=train)",
        f'val_dataloader, test_dataloader = dict(dataset=val), dict(dataset={test})',
        f'val_evaluator = {"test_evaluator = " if test == "val" else ""}{files[0]}',
        *([f'test_evaluator = {files[1]}'] if test == 'test' else []),
        f'model = dict(backbone={plan.backbone()},',
        f'             neck=dict(in_channels={channels if masks else channels[1:]}),',
        f'             {heads})',
    ]
    return '\n'.join([*lines, *_schedule(plan, 1e-4)]) + '\n'


def _segmentor(plan: Plan, data: DataSet, places: dict[str, Place]) -> str:
    pixels = [data.pixels[i] for i in range(len(data.classes))]
    percentages = [round(100 * amount / max(1, sum(pixels)), 1) for amount in pixels]
    channels, count, root = channels_of(plan), len(pixels), common_root(places)
    crop = (min(512, plan.size[1]), min(512, plan.size[0]))
    suffixes = 'img_suffix={!r}, seg_map_suffix={!r}'.format(*(places['train'].suffixes or ('.jpg', '.png')))
    loss = "loss = dict(type='CrossEntropyLoss', use_sigmoid=False)"
    if max(pixels) >= UNBALANCED * max(1, min(pixels)):  # the root, because full weights make training unstable
        median = statistics.median(pixels)
        weights = [round(min(4.0, max(0.25, math.sqrt(median / max(1, amount)))), 2) for amount in pixels]
        loss = f"loss = dict(type='mlp_dense.WeightedCrossEntropyLoss',\n            class_weight={weights})"
    heads = [f'decode_head=dict(num_classes={count}, loss_decode=loss']
    if plan.head == 'upernet':
        heads[0] += f', in_channels={channels}),'
        heads.append(f'auxiliary_head=dict(in_channels={channels[2]}, num_classes={count})')
    else:
        heads = [f'neck=dict(in_channels={channels}),', f'{heads[0]})']
    lines = [
        *_first_lines(plan, f'models/{plan.head}', 'datasets/ade20k', 'segmentation'),
        f'metainfo = dict(classes={_tuple(data.classes)})  # per cent of pixels: {_amounts(percentages)}',
        f'data_root = {str(root)!r}',
        f'scale, crop_size = {plan.size}, {crop}  # (long, short) side of the images: the median; (height, width)',
        *_length(plan),
        "train_pipeline[2]['scale'] = test_pipeline[1]['scale'] = scale",
        "train_pipeline[3]['crop_size'] = crop_size",
        "tta_pipeline[1]['transforms'][0] = [dict(type='Resize', scale=scale, keep_ratio=True)]",
        f"own = dict(type='BaseSegDataset', metainfo=metainfo, data_root=data_root, {suffixes})",
    ]
    for name, place in places.items():
        lines.append(f'{name} = dict(**own, pipeline={_pipeline(name)}, {_label_maps(place, root)})')
    test = 'test' if 'test' in places else 'val'
    lines += [
        'train_dataloader = dict(batch_size=batch_size, dataset=train)',
        f'val_dataloader, test_dataloader = dict(dataset=val), dict(dataset={test})',
        loss,
        f'model = dict(data_preprocessor=dict(size=crop_size), backbone={plan.backbone()},',
        f'             {heads[0]} {heads[1]})',
    ]
    return '\n'.join([*lines, *_schedule(plan, 6e-5)]) + '\n'


def _first_lines(plan: Plan, model: str, data: str, task: str, schedule: str | None = None) -> list[str]:
    counts = ', '.join(f'{plan.images[name]} {name}' for name in SPLITS if name in plan.images)
    schedule = schedule or dict(detection='detection_1x', segmentation='segmentation_80k')[task]
    return [
        f'# {plan.command}',
        f'# {counts} images. The other settings are those of the base files: add --print-config to a training.',
        "_base_ = [f'mlp_dense::_base_/{name}.py' for name in (",
        f'    {model!r}, {data!r}, {"schedules/" + schedule!r}, {"runtime_" + task!r})]',
    ]


def _length(plan: Plan) -> list[str]:
    epochs = f'{plan.epochs} epochs of {counted(plan.images["train"], "image")}'
    return [
        f'batch_size, max_iters = {plan.batch_size}, {plan.iterations}  # {epochs}',
        'train_pipeline, test_pipeline, tta_pipeline = '
        "map(_base_.get, ('train_pipeline', 'test_pipeline', 'tta_pipeline'))",
    ]


def _schedule(plan: Plan, base_rate: float) -> list[str]:
    """Return the lines of a schedule that counts iterations, with ten validations."""
    rate = scaled_rate(base_rate, plan.batch_size, 16)
    return [
        f'optim_wrapper = dict(optimizer=dict(lr={rate}))  # {base_rate} for 16 images; it grows with the root',
        f'auto_scale_lr = dict(base_batch_size={plan.batch_size})',
        "train_cfg = dict(_delete_=True, type='mlp_dense.IterLoop', max_iters=max_iters, val_interval=max_iters // 10)",
        'param_scheduler = [',
        "    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=max_iters // 10),",
        "    dict(type='CosineAnnealingLR', by_epoch=False, begin=max_iters // 10, end=max_iters, eta_min=0.0)]",
        'default_hooks = dict(checkpoint=dict(by_epoch=False, interval=max_iters // 10))',
        'log_processor = dict(by_epoch=False)',
    ]


def scaled_rate(rate: float, batch_size: int, base_batch_size: int) -> float:
    """Return the learning rate of AdamW for another batch size, by the square-root rule (arXiv 2205.10287)."""
    return float(f'{rate * math.sqrt(batch_size / base_batch_size):.2g}')


def common_root(places: dict[str, Place]) -> Path:
    """Return the folder that contains all files of the splits."""
    return Path(os.path.commonpath([str(path) for place in places.values() for path in place[:2]]))


def _annotations(place: Place, root: Path) -> str:
    prefix = _relative(place.images, root)
    return f'ann_file={_relative(place.annotations, root)!r}, data_prefix=dict(img={prefix and prefix + "/"!r})'


def _label_maps(place: Place, root: Path) -> str:
    images, labels = _relative(place.images, root), _relative(place.annotations, root)
    return f'data_prefix=dict(img_path={images!r}, seg_map_path={labels!r})'


def _relative(path: Path | None, root: Path) -> str:
    assert path is not None  # places_of has written it
    return '/'.join(path.relative_to(root).parts)


def _pipeline(split: str) -> str:
    return 'train_pipeline' if split == 'train' else 'test_pipeline'


def _tuple(names: Sequence[str]) -> str:
    return f'({", ".join(map(repr, names))}{"," * (len(names) == 1)})'


def _amounts(values: Sequence[float]) -> str:
    return ' '.join(f'{value:,}' for value in values[:20]) + (' ...' if len(values) > 20 else '')


# Classification


def _classifier(root: Path, command: str, family: str, arch: str, weights: str | None) -> tuple[str, list[str]]:
    from PIL import Image

    splits = class_folders(root)
    if not splits:
        raise UserError(
            f'{root} has no folders train/CLASS and val/CLASS with images of the same classes; put the images there.'
        )
    files = [file for file in sorted((root / 'train').rglob('[!.]*')) if file.suffix.lower() in SUFFIXES]
    sizes = [Image.open(file).size for file in files[:: max(1, len(files) // 100)]]
    short = int(statistics.median(map(min, sizes)))
    size = 224 if short >= 160 else max(32, round(short / 32) * 32)
    images = {name: counts.total() for name, counts in splits.items()}
    classes = sorted(splits['train'])
    amounts = [splits['train'][name] for name in classes]
    plan = _plan(command, family, arch, 'classifier', weights, images, [(size, size)])
    batch, epochs = max(1, min(128, images['train'] // 4)), min(300, max(20, plan.epochs))
    rate = scaled_rate(1e-3, batch, 1024)
    test = 'test' if 'test' in splits else 'val'
    text = '\n'.join([
        *_first_lines(plan, 'models/classifier', 'datasets/imagenet', 'classification', 'imagenet'),
        f'metainfo = dict(classes={_tuple(classes)})  # training images: {_amounts(amounts)}',
        f'data_root = {str(root)!r}',
        f'size, batch_size, max_epochs = {size}, {batch}, {epochs}',
        'train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline',
        "train_pipeline[1].update(input_size=size, scale=(0.35, 1.0))",
        "test_pipeline[1]['input_size'] = size",
        "own = dict(type='mlp_dense.ClassFolders', metainfo=metainfo, data_root=data_root)",
        "train = dict(**own, data_prefix=dict(img_path='train'), pipeline=train_pipeline)",
        "val = dict(**own, data_prefix=dict(img_path='val'), pipeline=test_pipeline)",
        f"test = dict(val, data_prefix=dict(img_path={test!r}))",
        'train_dataloader = dict(batch_size=batch_size, num_workers=2, dataset=train)',
        'val_dataloader = dict(batch_size=batch_size, num_workers=2, dataset=val)',
        'test_dataloader = dict(batch_size=batch_size, num_workers=2, dataset=test)',
        f'model = dict(backbone={plan.backbone()}, head=dict(num_classes={len(classes)}))',
        f'optim_wrapper = dict(optimizer=dict(lr={rate}), clip_grad=dict(max_norm=5.0))  # 1e-3 for 1024 images',
        'auto_scale_lr = dict(base_batch_size=batch_size)',
        'train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs // 10)',
        'param_scheduler = dict(length=max_epochs, warmup=max_epochs // 10, convert_to_iter_based=True)',
        'default_hooks = dict(checkpoint=dict(interval=max_epochs // 10))',
    ]) + '\n'  # fmt: skip
    counts = '; '.join(f'{name} {counted(amount, "image")}' for name, amount in images.items())
    return text, [f'{root}: folders of {counted(len(classes), "class")}; {counts}.']
