"""The size of the images: what ``--img-scale`` and ``--crop-size`` change in a config."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from ..errors import UserError
from .reading import Edits, leaves, need, setting, walk

SCALES = {  # of steps that resize, where they keep the sizes: (long side, short side), in any order
    'Resize': 'scale',
    'FixScaleResize': 'scale',
    'RandomResize': 'scale',
    'RandomChoiceResize': 'scales',
}
SIZES = {  # of steps that crop, pad or join, whose sizes follow in proportion
    'RandomCrop': 'crop_size',
    'CenterCrop': 'crop_size',
    'Pad': 'size',
    'BatchFixedSizePad': 'size',
    'Mosaic': 'img_scale',
    'CachedMosaic': 'img_scale',
    'RandomMosaic': 'img_scale',
    'MixUp': 'img_scale',
    'CachedMixUp': 'img_scale',
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
    """Resizes the images of the given loaders into `img_scale`, and crops to `crop_size`.

    The size into which a config resizes its test images (or if they stay as they are, its training images) becomes
    `img_scale`; its other sizes, crops and padding follow in proportion. Where nothing is resized, images are from now
    on, before labels that keep their size.

    Args:
        img_scale: (long side, short side) in pixels, or one number for both; of a classifier one number.
        crop_size: (height, width) in pixels.

    Raises:
        UserError: a size is impossible, or the config has nothing that it could change.
    """
    if img_scale is not None:
        _rescale(edits, cfg, loaders, _checked_scale(img_scale))
    if crop_size is not None:
        if min(crop_size) < 1:
            raise UserError(f'--crop-size {_shown(crop_size)}: give a height and a width of 1 pixel or more.')
        _crop(edits, cfg, loaders, tuple(crop_size))


def _checked_scale(img_scale: Sequence[int]) -> tuple[int, int]:
    if len(img_scale) > 2 or min(img_scale) < 1 or img_scale[0] < img_scale[-1]:
        advice = 'give the long and the short side, or one number for both, of 1 pixel or more'
        raise UserError(f'--img-scale {_shown(img_scale)}: {advice}.')
    return img_scale[0], img_scale[-1]


def _rescale(edits: Edits, cfg: Config, loaders: Sequence[str], new: tuple[int, int]) -> None:
    old = next(filter(None, (_largest(cfg, name) for name in ('test', 'val', 'train'))), None)
    ratio = tuple(after / before for after, before in zip(new, old, strict=True)) if old else None
    for path, kind, step in _steps(cfg, loaders):
        if kind == CLASSIFIER:
            if new[0] != new[1]:
                raise UserError(f'--img-scale {_shown(new)}: the images of a classifier are square; give one number.')
            edits.set(step, 'input_size', new[0], f'{path}.input_size')
        elif kind in SCALES and SCALES[kind] in step:
            edits.set(step, SCALES[kind], _resized(step[SCALES[kind]], ratio), f'{path}.{SCALES[kind]}')
        elif kind in SCALES and isinstance(step.get('scale_factor'), (int, float)):
            factor = step.scale_factor
            edits.remove(step, 'scale_factor', f'{path}.scale_factor')
            edits.set(step, 'scale', tuple(max(1, round(side * factor)) for side in new), f'{path}.scale')
            edits.set(step, 'keep_ratio', True, f'{path}.keep_ratio')
        elif kind in SIZES and ratio and step.get(SIZES[kind]) and step.get('crop_type', '')[:8] != 'relative':
            edits.set(step, SIZES[kind], _in_proportion(step[SIZES[kind]], ratio[1]), f'{path}.{SIZES[kind]}')
        elif 'Resize' in kind and kind not in (*SCALES, *OF_ANY_SIZE) and ('pipeline' in path or 'augments' in path):
            raise UserError(f'--img-scale: {path} is a {kind}, which only --cfg-options {path}.KEY=VALUE can change.')
    for name in loaders:
        _resize_what_is_not(edits, cfg, name, new)
    preprocessor, whole = cfg.model.get('data_preprocessor') or {}, cfg.model.get('test_cfg') or {}
    if ratio and 'train' in loaders and preprocessor.get('size'):
        size = _in_proportion(preprocessor['size'], ratio[1])
        edits.set(preprocessor, 'size', size, 'model.data_preprocessor.size')
    for key in ('crop_size', 'stride') if ratio and whole.get('mode') == 'slide' else ():
        edits.set(whole, key, _in_proportion(whole[key], ratio[1]), f'model.test_cfg.{key}')


def _crop(edits: Edits, cfg: Config, loaders: Sequence[str], size: tuple[int, int]) -> None:
    cropping = [
        (path, step)
        for path, kind, step in _steps(cfg, loaders)
        if kind in ('RandomCrop', 'CenterCrop') and step.get('crop_type', 'absolute') == 'absolute'
    ]
    for path, step in cropping:
        edits.set(step, 'crop_size', size, f'{path}.crop_size')
    preprocessor, whole = cfg.model.get('data_preprocessor') or {}, cfg.model.get('test_cfg') or {}
    if cropping and 'train' in loaders and preprocessor.get('size'):
        edits.set(preprocessor, 'size', size, 'model.data_preprocessor.size')
    if whole.get('mode') == 'slide':
        old = whole['crop_size'] if isinstance(whole['crop_size'], (list, tuple)) else [whole['crop_size']] * 2
        stride = whole['stride'] if isinstance(whole['stride'], (list, tuple)) else [whole['stride']] * 2
        stride = tuple(max(1, round(s * after / before)) for s, after, before in zip(stride, size, old, strict=True))
        edits.set(whole, 'crop_size', size, 'model.test_cfg.crop_size')
        edits.set(whole, 'stride', stride, 'model.test_cfg.stride')
    elif not cropping:
        use = 'training' if 'train' in loaders else 'test'
        raise UserError(f'--crop-size: the {use} of {cfg.filename} crops no image to a fixed size; leave it out.')


def _steps(cfg: Config, loaders: Sequence[str]) -> Iterator[tuple[str, str, ConfigDict]]:
    """Path, type without its scope, and settings of every part of the config that may deal with images."""
    roots = [f'{name}_dataloader' for name in loaders] + ['tta_pipeline'] * ('test' in loaders)
    roots += ['custom_hooks', 'model'] * ('train' in loaders)
    yield from _steps_in({root: cfg[root] for root in roots if cfg.get(root)})


def _steps_in(parts: dict) -> Iterator[tuple[str, str, ConfigDict]]:
    for path, _, _, value in walk(parts):
        if isinstance(value, dict) and isinstance(value.get('type'), str):
            yield path, value['type'].rpartition('.')[2], value


def _largest(cfg: Config, loader: str) -> tuple[int, int] | None:
    """The largest (long side, short side) into which a loader resizes its images; None if they keep their size."""
    found = [
        pair
        for _, kind, step in _steps_in(cfg.get(f'{loader}_dataloader') or {})
        if kind in SCALES
        for pair in _pairs(step.get(SCALES[kind]))
    ]
    return max(found, default=None)


def _pairs(value: Any) -> Iterator[tuple[int, int]]:
    if isinstance(value, int):
        yield value, value
    elif isinstance(value, (list, tuple)) and all(isinstance(side, int) for side in value):
        yield max(value), min(value)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _pairs(each)


def _resized(value: Any, ratio: Sequence[float]) -> Any:
    """A size, or several, times the ratios of the long and the short side."""
    if isinstance(value, int):
        return max(1, round(value * ratio[1]))
    if all(isinstance(side, int) for side in value):
        ratio = ratio if value[0] >= value[-1] else ratio[::-1]
        return tuple(max(1, round(side * each)) for side, each in zip(value, ratio, strict=True))
    return [_resized(each, ratio) for each in value]


def _in_proportion(size: Any, ratio: float) -> Any:
    if isinstance(size, (list, tuple)):
        return tuple(_in_proportion(side, ratio) for side in size)
    return max(1, round(size * ratio))


def _resize_what_is_not(edits: Edits, cfg: Config, loader: str, scale: tuple[int, int]) -> None:
    """Lets a loader whose pipelines resize nothing do so: with the labels in training, else the image alone."""
    if setting(cfg, f'{loader}_dataloader.dataset') is None:
        return
    if any(kind in (*SCALES, CLASSIFIER) for _, kind, _ in _steps_in(cfg[f'{loader}_dataloader'])):
        return
    nodes = {id(node): path for path, *_, node in walk(cfg._cfg_dict) if isinstance(node, list)}
    for dataset in leaves(cfg[f'{loader}_dataloader'].dataset):
        steps = dataset.get('pipeline') or []
        loading = [i for i, step in enumerate(steps) if 'Load' in str(step['type'])]
        if not loading:
            raise UserError(f'--img-scale: the {loader} data of {cfg.filename} load no image that it could resize.')
        place = (loading[-1] if loader == 'train' else loading[0]) + 1
        edits.insert(steps, place, ConfigDict(type='Resize', scale=scale, keep_ratio=True), nodes[id(steps)])


def _shown(sizes: Sequence[int]) -> str:
    return ' '.join(map(str, sizes))


FOREVER = 10**9
WARMUP = 0.1  # of the training at most: of a warm-up whose share of it is unknown
MOST = 10  # validations of a training that counts iterations; and as many lines of the log at least
LEAST = dict(milestones=1, step_size=1, T_max=1, total_iters=1, total_steps=1, periods=1, length=1)
FRACTIONS = ('begin', 'end', 'length', 'warmup')  # that need not be whole where epochs are converted to iterations
SWITCHES = ('switch_epoch', 'num_last_epochs', 'begin_epoch', 'begin_iter', 'switch_iter')  # of hooks


def set_duration(edits: Edits, cfg: Config, epochs: int | None = None, iters: int | None = None) -> None:
    """Makes a training so many epochs or iterations long; its schedule, warm-up, validations and checkpoints keep their
    share of it. A config that counts the other way counts so from now on. UserError: the number is impossible."""
    if epochs is None and iters is None:
        return
    option, new = ('--epochs', epochs) if iters is None else ('--iters', iters)
    if new < 1:
        raise UserError(f'{option} {new}: give 1 or more.')
    need(cfg, 'train_cfg')
    loop = cfg.train_cfg
    by_epoch = 'max_epochs' in loop
    old = loop.get('max_epochs' if by_epoch else 'max_iters')
    if not isinstance(old, int) or old < 1:
        raise UserError(f'{option}: {cfg.filename} has neither train_cfg.max_epochs nor train_cfg.max_iters.')
    to_epochs = iters is None
    ratio = new / old
    _set_loop(edits, cfg, by_epoch, to_epochs, new, ratio)
    schedulers = cfg.get('param_scheduler') or []
    several = isinstance(schedulers, list)
    kept = []
    for i, scheduler in enumerate(schedulers if several else [schedulers]):
        path = f'param_scheduler.{i}' if several else 'param_scheduler'
        _set_scheduler(edits, scheduler, path, by_epoch, to_epochs, new, ratio)
        if _is_nothing(scheduler):
            edits.lines.append(f'{path}: {scheduler.type} -> left out, it would be shorter than 2 iterations')
        else:
            kept.append(scheduler)
    if len(kept) < (len(schedulers) if several else 1):
        cfg.param_scheduler = kept
    for i, hook in enumerate(cfg.get('custom_hooks') or ()):
        for key in SWITCHES:
            if isinstance(hook.get(key), int) and hook[key] > 0:
                edits.set(hook, key, max(1, round(hook[key] * ratio)), f'custom_hooks.{i}.{key}')


def without_nothing(schedulers: Any, epoch_length: Callable[[], int]) -> Any:
    """The schedules of a learning rate without linear and constant parts that are converted from epochs, of so many
    iterations, to less than two iterations: they would never reach their end. The log names them."""
    if not isinstance(schedulers, list):
        return schedulers
    kept = []
    for each in schedulers:
        converted = isinstance(each, dict) and each.get('convert_to_iter_based')
        if converted and _is_nothing(each, epoch_length()):
            print_log(f'{each["type"]} is left out: it would be shorter than 2 iterations.', logger='current')
        else:
            kept.append(each)
    return kept


def _set_loop(edits: Edits, cfg: Config, by_epoch: bool, to_epochs: bool, new: int, ratio: float) -> None:
    loop, hooks = cfg.train_cfg, cfg.get('default_hooks') or {}
    if by_epoch != to_epochs:
        counted = 'max_epochs' if by_epoch else 'max_iters'
        edits.remove(loop, counted, f'train_cfg.{counted}')
        loop.pop('by_epoch', None)
        edits.set(loop, 'type', _loop_type(loop, to_epochs), 'train_cfg.type')
        _count_otherwise(edits, cfg, to_epochs)
    key = 'max_epochs' if to_epochs else 'max_iters'
    edits.set(loop, key, new, f'train_cfg.{key}')
    default = 1 if by_epoch else 1000  # mmengine's
    least = 1 if to_epochs else max(1, new // MOST)
    edits.set(loop, 'val_interval', _scaled(loop.get('val_interval', default), ratio, least), 'train_cfg.val_interval')
    if loop.get('val_begin', 1) > 1:
        edits.set(loop, 'val_begin', _scaled(loop.val_begin, ratio, 1), 'train_cfg.val_begin')
    if loop.get('dynamic_intervals'):
        pairs = [(_scaled(begin, ratio, 0), _scaled(every, ratio, least)) for begin, every in loop.dynamic_intervals]
        edits.set(loop, 'dynamic_intervals', pairs, 'train_cfg.dynamic_intervals')
    saving = hooks.get('checkpoint') or {}
    counts_alike = by_epoch == to_epochs or saving.get('by_epoch', True) == to_epochs
    if isinstance(saving.get('interval'), int) and saving.interval > 0 and counts_alike:
        interval = _scaled(saving.interval, ratio, least)
        edits.set(saving, 'interval', interval, 'default_hooks.checkpoint.interval')
    logger = hooks.get('logger') or {}
    if not to_epochs and 'type' in logger:
        interval = min(logger.get('interval', 10), max(1, new // MOST))
        edits.set(logger, 'interval', interval, 'default_hooks.logger.interval')


def _loop_type(loop: Any, to_epochs: bool) -> str:
    """Return the type of the loop that counts otherwise: exact if the loop is."""
    exact = str(loop.get('type')).rpartition('.')[2] in ('EpochLoop', 'IterLoop')
    types = ('mlp_dense.EpochLoop', 'mlp_dense.IterLoop') if exact else ('EpochBasedTrainLoop', 'IterBasedTrainLoop')
    return types[0] if to_epochs else types[1]


def _count_otherwise(edits: Edits, cfg: Config, to_epochs: bool) -> None:
    """What logs, saves and samples knows what the training counts."""
    hooks, sampler = cfg.get('default_hooks') or {}, cfg.train_dataloader.get('sampler') or {}
    if 'checkpoint' in hooks and hooks.checkpoint.get('by_epoch', True) != to_epochs:
        edits.set(hooks.checkpoint, 'by_epoch', to_epochs, 'default_hooks.checkpoint.by_epoch')
    if 'logger' in hooks:
        edits.set(hooks.logger, 'log_metric_by_epoch', to_epochs, 'default_hooks.logger.log_metric_by_epoch')
    if 'log_processor' in cfg:
        edits.set(cfg.log_processor, 'by_epoch', to_epochs, 'log_processor.by_epoch')
    if to_epochs and sampler.get('type') == 'InfiniteSampler':  # has no end
        edits.set(sampler, 'type', 'DefaultSampler', 'train_dataloader.sampler.type')
        # As before, every batch is a full one.
        edits.set(cfg.train_dataloader, 'drop_last', True, 'train_dataloader.drop_last')


def _set_scheduler(
    edits: Edits, scheduler: Any, path: str, by_epoch: bool, to_epochs: bool, new: int, ratio: float
) -> None:
    in_epochs = scheduler.get('by_epoch', True)
    if by_epoch != to_epochs and in_epochs and not by_epoch:  # a step at the end, if that
        return
    if by_epoch != to_epochs and in_epochs != by_epoch:
        # A warm-up in iterations of a training in epochs: nobody knows yet how many iterations those have.
        ratio = min(1.0, WARMUP * new / scheduler['end']) if scheduler.get('end', FOREVER) < FOREVER else 1.0
    elif by_epoch != to_epochs:
        edits.set(scheduler, 'by_epoch', to_epochs, f'{path}.by_epoch')
        if to_epochs:
            edits.set(scheduler, 'convert_to_iter_based', True, f'{path}.convert_to_iter_based')
        else:
            edits.remove(scheduler, 'convert_to_iter_based', f'{path}.convert_to_iter_based')
    fractional = scheduler.get('convert_to_iter_based', False)
    for key in ('begin', 'end', 'warmup', *LEAST):
        value = scheduler.get(key)
        if isinstance(value, (list, tuple)):
            last = max(1, new - 1) if key == 'milestones' else FOREVER
            scaled = [min(last, _scaled(each, ratio, LEAST[key])) for each in value]
        elif not isinstance(value, (int, float)) or value >= FOREVER:
            continue
        else:
            exact = round(value * ratio, 6)
            whole = exact == int(exact) or not (fractional and key in FRACTIONS)
            scaled = _scaled(value, ratio, LEAST.get(key, 0)) if whole else exact
        edits.set(scheduler, key, scaled, f'{path}.{key}')


def _is_nothing(scheduler: Any, epoch_length: int | None = None) -> bool:
    """Whether a part of a schedule has no iteration, or as a warm-up none after the first, whose factor would stay."""
    begin, end = scheduler.get('begin', 0), scheduler.get('end', FOREVER)
    if scheduler.get('convert_to_iter_based'):
        if epoch_length is None:  # it is not known yet
            return False
        begin, end = int(begin * epoch_length), int(end * epoch_length)
    return end - begin < (2 if str(scheduler['type']).startswith(('Linear', 'Constant')) else 1)


def _scaled(value: float, ratio: float, least: int) -> int:
    return max(least, round(value * ratio))
