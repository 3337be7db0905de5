"""Options that scale a config: ``--img-scale``, ``--crop-size``, ``--epochs`` and ``--iters``."""

from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.config import Config, ConfigDict

from ..datasets.layout import leaves
from ..errors import UserError
from .reading import Edits, need, setting, walk

SCALES = {  # key of the sizes (long side, short side), in any order, by the transform that resizes
    'Resize': 'scale',
    'FixScaleResize': 'scale',
    'RandomResize': 'scale',
    'RandomChoiceResize': 'scales',
}
SIZES = {  # key of a size that scales in proportion, by the transform that crops or pads
    'RandomCrop': 'crop_size',
    'CenterCrop': 'crop_size',
    'Pad': 'size',
    'BatchFixedSizePad': 'size',
}
OF_ANY_SIZE = ('ResizeToMultiple',)
CLASSIFIER = 'TimmTransform'


def set_image_sizes(
    edits: Edits,
    cfg: Config,
    loaders: Sequence[str],
    img_scale: Sequence[int] | None = None,
    crop_size: Sequence[int] | None = None,
) -> None:
    """Resize the images of the given loaders to `img_scale`, and crop them to `crop_size`.

    `img_scale` (long side, short side, or one number for both, in pixels) replaces the size to which the config resizes
    its test images, or its training images if test images keep their size. Other sizes, crops and padding scale in
    proportion. Loaders that resize nothing get a transform that does. `crop_size` is (height, width) in pixels.

    Raises:
        UserError: a size is impossible, or the config has nothing that it could change.
    """
    if img_scale is not None:
        if len(img_scale) > 2 or min(img_scale) < 1 or img_scale[0] < img_scale[-1]:
            remedy = 'pass the long and the short side, or one number for both, of 1 pixel or more'
            raise UserError(f'--img-scale {_text(img_scale)}: {remedy}.')
        _rescale(edits, cfg, loaders, (img_scale[0], img_scale[-1]))
    if crop_size is not None:
        if min(crop_size) < 1:
            raise UserError(f'--crop-size {_text(crop_size)}: pass a height and a width of 1 pixel or more.')
        _crop(edits, cfg, loaders, tuple(crop_size))


def _rescale(edits: Edits, cfg: Config, loaders: Sequence[str], new: tuple[int, int]) -> None:
    old = next(filter(None, (_largest(cfg, name) for name in ('test', 'val', 'train'))), None)
    ratio = (new[0] / old[0], new[1] / old[1]) if old else None
    same = ratio and (ratio[1], ratio[1])  # for crops and padding, which need not have the shape of an image
    for path, name, transform in _transforms(cfg, loaders):
        in_pipeline = 'pipeline' in path or 'augments' in path
        if name == CLASSIFIER:
            if new[0] != new[1]:
                raise UserError(f'--img-scale {_text(new)}: the images of a classifier are square; pass one number.')
            edits.set(transform, 'input_size', new[0], f'{path}.input_size')
        elif ratio and name in SCALES and SCALES[name] in transform:
            edits.set(transform, SCALES[name], _resized(transform[SCALES[name]], ratio), f'{path}.{SCALES[name]}')
        elif name in SCALES and isinstance(transform.get('scale_factor'), (int, float)):
            factor = transform.scale_factor
            edits.remove(transform, 'scale_factor', f'{path}.scale_factor')
            edits.set(transform, 'scale', tuple(max(1, round(side * factor)) for side in new), f'{path}.scale')
            edits.set(transform, 'keep_ratio', True, f'{path}.keep_ratio')
        elif name in SIZES:
            if same and transform.get(SIZES[name]) and not transform.get('crop_type', '').startswith('relative'):
                edits.set(transform, SIZES[name], _resized(transform[SIZES[name]], same), f'{path}.{SIZES[name]}')
        elif in_pipeline and name not in (*SCALES, *OF_ANY_SIZE) and ('Resize' in name or 'img_scale' in transform):
            raise UserError(f'--img-scale cannot change {path}, a {name}; set --cfg-options {path}.KEY=VALUE.')
    for name in loaders:
        _add_resize(edits, cfg, name, new)
    preprocessor, test_cfg = cfg.model.get('data_preprocessor') or {}, cfg.model.get('test_cfg') or {}
    if same and 'train' in loaders and preprocessor.get('size'):
        edits.set(preprocessor, 'size', _resized(preprocessor['size'], same), 'model.data_preprocessor.size')
    if same and test_cfg.get('mode') == 'slide':
        for key in ('crop_size', 'stride'):
            edits.set(test_cfg, key, _resized(test_cfg[key], same), f'model.test_cfg.{key}')


def _crop(edits: Edits, cfg: Config, loaders: Sequence[str], size: tuple[int, ...]) -> None:
    crops = [
        (path, transform)
        for path, name, transform in _transforms(cfg, loaders)
        if name in ('RandomCrop', 'CenterCrop') and transform.get('crop_type', 'absolute') == 'absolute'
    ]
    for path, transform in crops:
        edits.set(transform, 'crop_size', size, f'{path}.crop_size')
    preprocessor, test_cfg = cfg.model.get('data_preprocessor') or {}, cfg.model.get('test_cfg') or {}
    if crops and 'train' in loaders and preprocessor.get('size'):
        edits.set(preprocessor, 'size', size, 'model.data_preprocessor.size')
    if test_cfg.get('mode') == 'slide':
        old, stride = (
            test_cfg[key] if isinstance(test_cfg[key], (list, tuple)) else [test_cfg[key]] * 2
            for key in ('crop_size', 'stride')
        )
        stride = tuple(max(1, round(s * after / before)) for s, after, before in zip(stride, size, old, strict=True))
        edits.set(test_cfg, 'crop_size', size, 'model.test_cfg.crop_size')
        edits.set(test_cfg, 'stride', stride, 'model.test_cfg.stride')
    elif not crops:
        use = 'training' if 'train' in loaders else 'test'
        raise UserError(f'--crop-size: the {use} of {cfg.filename} has no crop of a fixed size; remove the option.')


def _transforms(cfg: Config, loaders: Sequence[str]) -> Iterator[tuple[str, str, ConfigDict]]:
    """Yield path, type without its scope, and settings of each section of the config that may process images."""
    roots = [f'{name}_dataloader' for name in loaders] + ['tta_pipeline'] * ('test' in loaders)
    roots += ['custom_hooks', 'model'] * ('train' in loaders)
    yield from _typed({root: cfg[root] for root in roots if cfg.get(root)})


def _typed(node: dict) -> Iterator[tuple[str, str, ConfigDict]]:
    for path, _, _, value in walk(node):
        if isinstance(value, dict) and isinstance(value.get('type'), str):
            yield path, value['type'].rpartition('.')[2], value


def _largest(cfg: Config, loader: str) -> tuple[int, int] | None:
    """Return the largest (long side, short side) to which a loader resizes images, None if they keep their size."""
    transforms = _typed(cfg.get(f'{loader}_dataloader') or {})
    return max(
        (pair for _, name, t in transforms if name in SCALES for pair in _pairs(t.get(SCALES[name]))), default=None
    )


def _pairs(value: Any) -> Iterator[tuple[int, int]]:
    if isinstance(value, int):
        yield value, value
    elif isinstance(value, (list, tuple)) and all(isinstance(side, int) for side in value):
        yield max(value), min(value)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _pairs(item)


def _resized(value: Any, ratio: Sequence[float]) -> Any:
    """Scale one or several sizes by the ratios of the long and the short side."""
    if isinstance(value, int):
        return max(1, round(value * ratio[1]))
    if all(isinstance(side, int) for side in value):
        ratios = ratio if value[0] >= value[-1] else ratio[::-1]
        return tuple(max(1, round(side * factor)) for side, factor in zip(value, ratios, strict=True))
    return [_resized(item, ratio) for item in value]


def _add_resize(edits: Edits, cfg: Config, loader: str, scale: tuple[int, int]) -> None:
    """Let a loader that resizes nothing do so: with the labels in training, otherwise the image alone."""
    if setting(cfg, f'{loader}_dataloader.dataset') is None:
        return
    if any(name in (*SCALES, CLASSIFIER) for _, name, _ in _typed(cfg[f'{loader}_dataloader'])):
        return
    paths = {id(node): path for path, *_, node in walk(cfg._cfg_dict) if isinstance(node, list)}
    for dataset in leaves(cfg[f'{loader}_dataloader'].dataset):
        pipeline = dataset.get('pipeline') or []
        loading = [i for i, transform in enumerate(pipeline) if 'Load' in str(transform['type'])]
        if not loading:
            raise UserError(f'--img-scale: the {loader} data of {cfg.filename} load no image that it could resize.')
        index = (loading[-1] if loader == 'train' else loading[0]) + 1
        edits.insert(pipeline, index, ConfigDict(type='Resize', scale=scale, keep_ratio=True), paths[id(pipeline)])


def _text(sizes: Sequence[int]) -> str:
    return ' '.join(map(str, sizes))


FOREVER = 10**9
LINES = 10  # least number of log lines in a training of `--iters`, and largest log interval in one short epoch
LEAST = dict(begin=0, end=0, warmup=0)
LEAST |= dict.fromkeys(('milestones', 'step_size', 'T_max', 'total_iters', 'total_steps', 'periods', 'length'), 1)
"""Keys of a schedule that count epochs or iterations, and their least value."""


def set_duration(edits: Edits, cfg: Config, epochs: int | None = None, iters: int | None = None) -> None:
    """Set the number of epochs or iterations of a training, and scale its schedule in proportion.

    Intervals of validations and checkpoints stay, but are at most the new duration: a quick trial validates once, at
    its end. The interval of the log shrinks, so that a quick trial prints some lines.

    Raises:
        UserError: the number is impossible, or the config counts in the other unit.
    """
    if epochs is None and iters is None:
        return
    option, unit, new = ('--epochs', 'epochs', epochs) if iters is None else ('--iters', 'iters', iters)
    if new is None or new < 1:
        raise UserError(f'{option} {new}: pass 1 or more.')
    need(cfg, 'train_cfg')
    loop, hooks, key = cfg.train_cfg, cfg.get('default_hooks') or {}, f'max_{unit}'
    if not isinstance(loop.get(key), int) or loop[key] < 1:
        if 'max_epochs' in loop or 'max_iters' in loop:
            shorter = '--cfg-options train_dataloader.dataset.indices=N shortens an epoch to N images'
            remedy = f'use --epochs; {shorter}' if unit == 'iters' else 'use --iters'
            counted = 'epochs' if unit == 'iters' else 'iterations'
            raise UserError(f'{option}: {cfg.filename} counts its training in {counted}; {remedy}.')
        raise UserError(f'{option}: {cfg.filename} has neither train_cfg.max_epochs nor train_cfg.max_iters.')
    ratio = new / loop[key]
    edits.set(loop, key, new, f'train_cfg.{key}')
    for name in ('val_interval', 'val_begin'):
        if isinstance(loop.get(name), int):
            edits.set(loop, name, min(loop[name], new), f'train_cfg.{name}')
    saving, logger = hooks.get('checkpoint') or {}, hooks.get('logger') or {}
    if isinstance(saving.get('interval'), int) and saving.get('by_epoch', True) == (unit == 'epochs'):
        edits.set(saving, 'interval', min(saving['interval'], new), 'default_hooks.checkpoint.interval')
    if 'type' in logger:
        longest = max(1, new // LINES) if unit == 'iters' else max(LINES, round(logger.get('interval', 10) * ratio))
        edits.set(logger, 'interval', min(logger.get('interval', 10), longest), 'default_hooks.logger.interval')
    _scale_schedules(edits, cfg, new, ratio)


def _scale_schedules(edits: Edits, cfg: Config, new: int, ratio: float) -> None:
    schedules = cfg.get('param_scheduler') or []
    several, kept = isinstance(schedules, list), []
    for i, schedule in enumerate(schedules if several else [schedules]):
        path = f'param_scheduler.{i}' if several else 'param_scheduler'
        for key, least in LEAST.items():
            value = schedule.get(key)
            if isinstance(value, (list, tuple)):
                last = max(1, new - 1) if key == 'milestones' else FOREVER
                edits.set(schedule, key, [min(last, _scaled(v, ratio, least)) for v in value], f'{path}.{key}')
            elif isinstance(value, (int, float)) and value < FOREVER:
                edits.set(schedule, key, _scaled(value, ratio, least), f'{path}.{key}')
        steps = schedule.get('end', FOREVER) - schedule.get('begin', 0)
        warmup = str(schedule.type).startswith(('Linear', 'Constant')) and not schedule.get('convert_to_iter_based')
        if steps < (2 if warmup else 1):  # a warm-up of one step would keep its first factor
            edits.lines.append(f'{path}: {schedule.type} -> removed, it is too short to have an effect')
        else:
            kept.append(schedule)
    if len(kept) < (len(schedules) if several else 1):
        cfg.param_scheduler = kept


def _scaled(value: float, ratio: float, least: int) -> int:
    return max(least, round(value * ratio))
