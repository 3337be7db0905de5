"""Check that loader, transforms, data preprocessor and backbone agree on the bands of the images."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile
from torch import nn

from ..config.config_file import setting, walk
from ..datasets.bands import multi_band_loader, type_name
from ..datasets.layout import leaves
from ..errors import UserError

ANY, NOT_THREE, ABOVE_FOUR = ((lambda count: True), (lambda count: count != 3), (lambda count: count > 4))
REFUSED = (  # for which numbers of bands a transform is refused, and why
    (
        ANY,
        'needs RGB images of 8 bits',
        'AdjustGamma AutoAugment AutoContrast Brightness CLAHE Color ColorJitter ColorTransform Contrast Corrupt '
        'Equalize FancyPCA HueSaturationValue ISONoise ImageCompression InstaBoost Invert JpegCompression '
        'PhotoMetricDistortion Posterize RGB2Gray RGBShift RandAugment RandomBrightnessContrast RandomGamma '
        'RandomGrayscale RandomToneCurve Rerange Sharpen Sharpness Solarize SolarizeAdd TimmTransform ToGray ToSepia '
        'YOLOXHSVRandomAug',
    ),
    (ANY, 'needs volumes', 'BioMedicalGaussianBlur BioMedicalGaussianNoise BioMedicalRandomGamma'),
    (
        NOT_THREE,
        'fills areas with three bands',
        'CachedMixUp CachedMosaic CutOut Expand MixUp Mosaic RandomCenterCropPad RandomCutOut ShearX ShearY '
        'TranslateX TranslateY',
    ),
    (ABOVE_FOUR, 'is limited to four bands by OpenCV', 'GeomTransform Pad RandomAffine RandomRotate Rotate'),
)
"""Transforms of mmcv, mmdet, mmsegmentation, albumentations and this package."""
READERS = ('DetVisualizationHook', 'SegVisualizationHook')
"""Hooks that read the files of the images again, as 8-bit RGB."""


def band_count(cfg: Config | Mapping) -> int:
    """Return the number of bands that the backbone of a config takes."""
    model = cfg.get('model') or {}
    model = model.get('module', model)  # inside of test-time augmentation
    model = model.get('model', model)  # an exported model holds the config of the original one
    return setting(model, 'backbone.in_channels') or 3


def check_bands(cfg: Config, loaders: Sequence[str]) -> None:
    """Raise UserError if a setting contradicts the number of bands, in the model or in some loaders of a config.

    `loaders` are ``train``, ``val`` and ``test``. Nothing is checked for RGB images of 8 bits.
    """
    count, used = band_count(cfg), {f'{name}_dataloader': cfg.get(f'{name}_dataloader') or {} for name in loaders}
    pipelines = [leaf.get('pipeline') for loader in used.values() for leaf in leaves(loader.get('dataset') or {})]
    multi_band = {multi_band_loader(pipeline) is not None for pipeline in pipelines if pipeline}
    if multi_band == {True, False}:
        raise UserError('Only some data sets use LoadMultiBandImage, whose bands have another order; use it for all.')
    if count == 3 and not any(multi_band):
        return
    for path, _, _, node in walk(used):
        if 'pipeline' in path and isinstance(node, Mapping) and 'type' in node:
            _check_transform(path, node, count)
    preprocessor = setting(cfg, 'model.data_preprocessor') or {}
    for key in ('mean', 'std'):
        values = preprocessor.get(key)
        if values is not None and len(values) not in (1, count):
            problem = f'has {len(values)} values, but model.backbone.in_channels is {count}'
            remedy = 'set one value for each band, measured on the training data'
            raise UserError(f'model.data_preprocessor.{key} {problem}; {remedy}.')
    for key in ('bgr_to_rgb', 'rgb_to_bgr'):
        if any(multi_band) and preprocessor.get(key):
            problem = f'model.data_preprocessor.{key} is True, but LoadMultiBandImage keeps the order of the bands'
            raise UserError(f'{problem}; set it to False.')
    if count not in (1, 3) and preprocessor.get('type') in ('DetDataPreprocessor', 'mmdet.DetDataPreprocessor'):
        problem = f'model.data_preprocessor.type is {preprocessor["type"]}, which takes 1 or 3 bands, not {count}'
        raise UserError(f'{problem}; set it to mlp_dense.DetDataPreprocessor.')
    hooks = {f'default_hooks.{key}': hook for key, hook in (cfg.get('default_hooks') or {}).items()}
    for path, hook in hooks.items() if any(multi_band) and 'train' in loaders else ():
        if hook and type_name(hook) in READERS and hook.get('draw'):
            raise UserError(f'{path}: {type_name(hook)} reads images of 8 bits; set {path}.draw=False.')


def _check_transform(path: str, transform: Mapping, count: int) -> None:
    name = type_name(transform)
    rgb_loader = name in ('LoadImageFromFile', 'LoadImage') and transform.get('color_type', 'color') == 'color'
    if rgb_loader and count != 3:
        problem = f'{path}: {name} returns 3 bands, but model.backbone.in_channels is {count}'
        raise UserError(f'{problem}; use mlp_dense.LoadMultiBandImage.')
    for applies, reason, names in REFUSED:
        if name in names.split() and applies(count):
            problem = f'{path}: {name} {reason}, but this config loads {count} bands as float32'
            raise UserError(f'{problem}; remove the transform.')
    if name == 'Normalize' and transform.get('to_rgb', True):
        raise UserError(f'{path}: Normalize exchanges the first and the third band; set to_rgb=False.')
    if count > 4 and transform.get('interpolation') == 'area':
        raise UserError(f'{path}.interpolation is area, which OpenCV limits to four bands; use bilinear.')


def guard_bands(model: nn.Module) -> None:
    """Let a model raise UserError for an image whose number of bands differs from that of its backbone."""
    backbone = getattr(model, 'backbone', None)
    count = getattr(backbone, 'in_channels', None) or getattr(backbone, 'in_chans', None)
    preprocessor = getattr(model, 'data_preprocessor', None)
    if isinstance(count, int) and isinstance(preprocessor, nn.Module):
        preprocessor.register_forward_pre_hook(partial(_check_batch, count))


def _check_batch(count: int, _: nn.Module, args: tuple) -> None:
    batch = args[0] if args and isinstance(args[0], dict) else {}
    samples = batch.get('data_samples') or ()
    for i, image in enumerate(batch.get('inputs', ())):
        if isinstance(image, torch.Tensor) and image.ndim == 3 and image.shape[0] != count:
            sample = samples[i] if i < len(samples) else {}
            check_image(sample.get('img_path') or f'image {i} of the batch', image.shape[0], count)


def check_image(name: Any, found: int, expected: int) -> None:
    """Raise UserError if an image has another number of bands than the model takes."""
    if found != expected:
        remedy = f'use images with {expected} bands, or train with model.backbone.in_channels={found}'
        raise UserError(f'{name} has {found} bands, but the model takes {expected}; {remedy}.')


def lost_by_opencv(file: Path, loaded: np.ndarray) -> str:
    """Return the problem that mmcv's LoadImageFromFile dropped a part of an image; '' if nothing of importance.

    The lower 8 of 16 bits are important if a sensor has at most 14 bits, so that the upper 8 are at most 63.
    """
    with suppress(OSError, ValueError), Image.open(file) as image:
        if image.format == 'TIFF' and (pages := getattr(image, 'n_frames', 1)) > 1:
            return f'images have {pages} pages, of which LoadImageFromFile reads the first'
        bits = image.tag_v2.get(258, (8,)) if isinstance(image, TiffImageFile) else ()
        is_deep = image.mode.startswith('I;16') or max(bits, default=8) > 8 or _png_bits(file) > 8
        if is_deep and loaded.max(initial=0) < 64:
            return '16-bit images use mainly their lower 8 bits, which LoadImageFromFile drops'
    return ''


def _png_bits(file: Path) -> int:
    """Return the bits of a PNG, for which Pillow may report 8 although the file has 16; 0 for another file."""
    with file.open('rb') as opened:
        header = opened.read(25)
    return header[24] if header.startswith(b'\x89PNG') and len(header) == 25 else 0
