"""The size of the images: what ``--img-scale`` and ``--crop-size`` change in a config."""

from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.config import Config, ConfigDict

from ..errors import UserError
from .configs import Edits, leaves, setting, walk

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
