"""Options that scale a config: ``--img-scale``, ``--crop-size``, ``--epochs`` and ``--iters``."""

from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.config import Config, ConfigDict

from ..datasets.layout import leaves
from ..errors import UserError
from .config_file import Edits, need, setting, walk

# key of the sizes (long side, short side), in any order, by the transform that resizes
SCALES = dict(Resize='scale', FixScaleResize='scale', RandomResize='scale', RandomChoiceResize='scales')
# key of a size that scales in proportion, by the transform that crops or pads
SIZES = dict(RandomCrop='crop_size', CenterCrop='crop_size', Pad='size', BatchFixedSizePad='size')
CLASSIFIER = 'TimmTransform'

FOREVER = 10**9
LINES = 10  # least number of log lines with --iters, least log interval with --epochs
# keys of a schedule that count epochs or iterations, and their least value
LEAST = dict(begin=0, end=0, warmup=0)
LEAST |= dict.fromkeys(('milestones', 'step_size', 'T_max', 'total_iters', 'total_steps', 'periods', 'length'), 1)


def set_image_sizes(
    edits: Edits, loaders: Sequence[str], img_scale: Sequence[int] | None, crop_size: Sequence[int] | None
) -> None:
    """Resize the images of the given loaders to `img_scale`, and crop them to `crop_size`.

    `img_scale` (long side, short side, or one number for both, in pixels) replaces the size to which the config resizes
    its test images, or its training images if test images keep their size. Other sizes, crops and padding scale in
    proportion. Loaders that resize nothing get a transform that does. `crop_size` is (height, width) in pixels.
    """
    if img_scale is not None:
        if len(img_scale) > 2 or min(img_scale) < 1 or img_scale[0] < img_scale[-1]:
            text = f'--img-scale {" ".join(map(str, img_scale))}'
            raise UserError(f'{text}: pass the long and the short side, or one number for both, of 1 pixel or more.')
        _rescale(edits, loaders, (img_scale[0], img_scale[-1]))
    if crop_size is not None:
        if min(crop_size) < 1:
            text = f'--crop-size {" ".join(map(str, crop_size))}'
            raise UserError(f'{text}: pass a height and a width of 1 pixel or more.')
        _crop(edits, loaders, tuple(crop_size))


def _rescale(edits: Edits, loaders: Sequence[str], new: tuple[int, int]) -> None:
    cfg = edits.cfg
    old = scale_of(cfg)
    ratio = (new[0] / old[0], new[1] / old[1]) if old else None
    short = ratio and ratio[1:] * 2  # for crops and padding, which need not have the shape of an image
    for path, name, transform in _transforms(cfg, loaders):
        scale, size = SCALES.get(name, ''), SIZES.get(name, '')
        if name == CLASSIFIER:
            if new[0] != new[1]:
                problem = f'--img-scale {new[0]} {new[1]}: the images of a classifier are square'
                raise UserError(f'{problem}; pass one number.')
            edits.set(transform, 'input_size', new[0])
        elif ratio and scale in transform:
            edits.set(transform, scale, _resized(transform[scale], ratio))
        elif scale and isinstance(factor := transform.get('scale_factor'), (int, float)):
            edits.set(transform, 'scale_factor', None)
            edits.set(transform, 'scale', tuple(max(1, round(side * factor)) for side in new))
            edits.set(transform, 'keep_ratio', True)
        elif size:
            if short and transform.get(size) and not transform.get('crop_type', '').startswith('relative'):
                edits.set(transform, size, _resized(transform[size], short))
        elif 'pipeline' in path or 'augments' in path:
            if not scale and name != 'ResizeToMultiple' and ('Resize' in name or 'img_scale' in transform):
                raise UserError(f'--img-scale cannot change {path}, a {name}; set --cfg-options {path}.KEY=VALUE.')
    for name in loaders:
        _add_resize(edits, name, new)
    if short:
        for node, key in _model_sizes(cfg, loaders):
            edits.set(node, key, _resized(node[key], short))


def _crop(edits: Edits, loaders: Sequence[str], size: tuple[int, ...]) -> None:
    crops = [node for _, name, node in _transforms(edits.cfg, loaders) if name in ('RandomCrop', 'CenterCrop')]
    crops = [node for node in crops if node.get('crop_type', 'absolute') == 'absolute']
    for node in crops:
        edits.set(node, 'crop_size', size)
    in_model = [(node, key) for node, key in _model_sizes(edits.cfg, loaders) if crops or key != 'size']
    if not crops and not in_model:
        use = f'{"training" if "train" in loaders else "test"} of {edits.cfg.filename}'
        raise UserError(f'--crop-size: the {use} has no crop of a fixed size; remove the option.')
    for node, key in in_model:
        if key == 'stride':
            old, stride = ([v, v] if isinstance(v, int) else v for v in (node['crop_size'], node['stride']))
            new = tuple(max(1, round(s * after / before)) for s, after, before in zip(stride, size, old, strict=True))
        edits.set(node, key, new if key == 'stride' else size)


def _model_sizes(cfg: Config, loaders: Sequence[str]) -> Iterator[tuple[dict, str]]:
    """Yield node and key of the sizes of batches in training and of sliding windows, the stride first."""
    preprocessor, test_cfg = cfg.model.get('data_preprocessor') or {}, cfg.model.get('test_cfg') or {}
    if 'train' in loaders and preprocessor.get('size'):
        yield preprocessor, 'size'
    for key in ('stride', 'crop_size') if test_cfg.get('mode') == 'slide' else ():
        yield test_cfg, key


def _transforms(cfg: Config, loaders: Sequence[str]) -> Iterator[tuple[str, str, ConfigDict]]:
    """Yield path, type without its scope, and settings of each section of the config that may process images."""
    roots = [f'{name}_dataloader' for name in loaders] + ['tta_pipeline'] * ('test' in loaders)
    roots += ['custom_hooks', 'model'] * ('train' in loaders)
    yield from _typed({root: cfg[root] for root in roots if cfg.get(root)})


def _typed(node: dict) -> Iterator[tuple[str, str, ConfigDict]]:
    for path, _, _, value in walk(node):
        if isinstance(value, dict) and isinstance(value.get('type'), str):
            yield path, value['type'].rpartition('.')[2], value


def scale_of(cfg: Config) -> tuple[int, int] | None:
    """Return (long side, short side) of resized test images, else of training images, None if they keep their size."""
    return next(filter(None, (largest_scale(cfg, name) for name in ('test', 'val', 'train'))), None)


def largest_scale(cfg: Config, loader: str) -> tuple[int, int] | None:
    """Return the largest (long side, short side) to which a loader resizes images, None if they keep their size."""
    resizes = [(name, node) for _, name, node in _typed(cfg.get(f'{loader}_dataloader') or {}) if name in SCALES]
    return max((pair for name, node in resizes for pair in _pairs(node.get(SCALES[name]))), default=None)


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


def _add_resize(edits: Edits, loader: str, scale: tuple[int, int]) -> None:
    """Add a Resize to a loader that has none: of image and labels in training, otherwise of the image alone."""
    cfg = edits.cfg
    dataset = setting(cfg, f'{loader}_dataloader.dataset')
    if dataset is None or any(name in (*SCALES, CLASSIFIER) for _, name, _ in _typed(cfg[f'{loader}_dataloader'])):
        return
    for leaf in leaves(dataset):
        pipeline = leaf.get('pipeline') or []
        loading = [i for i, transform in enumerate(pipeline) if 'Load' in str(transform['type'])]
        if not loading:
            raise UserError(
                f'--img-scale: the {loader} pipeline of {cfg.filename} has no transform that loads an image; add one.'
            )
        index = (loading[-1] if loader == 'train' else loading[0]) + 1
        pipeline.insert(index, ConfigDict(type='Resize', scale=scale, keep_ratio=True))
        edits.lines.append(f'{edits.path(pipeline)}.{index}: new, {pipeline[index]}')


def set_duration(edits: Edits, epochs: int | None, iters: int | None) -> None:
    """Set the number of epochs or iterations of a training run, and scale its schedule in proportion.

    Intervals of validations and checkpoints stay, but are at most the new duration: a quick trial validates once, at
    its end. The interval of the log shrinks, so that a quick trial prints some lines.
    """
    unit, new = ('epochs', epochs) if iters is None else ('iters', iters)
    if new is None:
        return
    if new < 1:
        raise UserError(f'--{unit} {new}: pass 1 or more.')
    cfg = edits.cfg
    need(cfg, 'train_cfg')
    loop, hooks, key = cfg.train_cfg, cfg.get('default_hooks') or {}, f'max_{unit}'
    if not isinstance(loop.get(key), int) or loop[key] < 1:
        other = 'epochs' if unit == 'iters' else 'iters'
        remedy = f'use --{other}' if f'max_{other}' in loop else f'set it, or remove --{unit}'
        raise UserError(f'--{unit}: {cfg.filename} has no valid train_cfg.{key}; {remedy}.')
    ratio = new / loop[key]
    edits.set(loop, key, new)
    for name in ('val_interval', 'val_begin'):
        if isinstance(loop.get(name), int):
            edits.set(loop, name, min(loop[name], new))
    saving, logger = hooks.get('checkpoint') or {}, hooks.get('logger') or {}
    if isinstance(saving.get('interval'), int) and saving.get('by_epoch', True) == (unit == 'epochs'):
        edits.set(saving, 'interval', min(saving['interval'], new))
    if 'type' in logger:
        longest = max(1, new // LINES) if unit == 'iters' else max(LINES, round(logger.get('interval', 10) * ratio))
        edits.set(logger, 'interval', min(logger.get('interval', 10), longest))
    _scale_schedules(edits, new, ratio)


def _scale_schedules(edits: Edits, new: int, ratio: float) -> None:
    schedules = edits.cfg.get('param_scheduler') or []
    schedules = schedules if isinstance(schedules, list) else [schedules]
    kept = []
    for schedule in schedules:
        for key, least in LEAST.items():
            value = schedule.get(key)
            if isinstance(value, (list, tuple)):
                last = max(1, new - 1) if key == 'milestones' else FOREVER
                scaled = [min(last, max(least, round(count * ratio))) for count in value]
                edits.set(schedule, key, scaled)
            elif isinstance(value, (int, float)) and value < FOREVER:
                edits.set(schedule, key, max(least, round(value * ratio)))
        steps = schedule.get('end', FOREVER) - schedule.get('begin', 0)
        warmup = str(schedule.type).startswith(('Linear', 'Constant')) and not schedule.get('convert_to_iter_based')
        if steps < (2 if warmup else 1):  # a warm-up of one step would keep its first factor
            removed = f'{schedule.type} -> removed: too short to have an effect'
            edits.lines.append(f'{edits.path(schedule)}: {removed}')
        else:
            kept.append(schedule)
    if len(kept) < len(schedules):
        edits.cfg.param_scheduler = kept
