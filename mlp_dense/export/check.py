"""Check of an exported file: the images it runs on, and the comparison with the model in PyTorch."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from mmengine.config import Config
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..checks.band_agreement import band_count, check_image
from ..datasets.layout import image_folder
from ..datasets.shapes import make_band_scene, make_scene
from ..errors import UserError
from ..inference import ImageSource, pipeline_of, reader_of, test_data
from ..registry import MODELS
from ..tasks import task_of
from .runtime import ExportedFile, to_uint8


class Tolerance(NamedTuple):
    """Allowed difference between an exported file and PyTorch's fp32."""

    values: float  # of scores and feature maps, relative to the largest
    fraction: float  # of pixels or objects that may differ, since rounding decides between equal scores
    pixels: float  # of the corners of a box


Comparison = tuple[str, bool]  # summary of a batch, empty without objects to compare; whether the results are close
TOLERANCES = dict(
    fp32=Tolerance(1e-3, 0.01, 0.5),
    fp16=Tolerance(0.05, 0.1, 4.0),
    bf16=Tolerance(0.2, 0.25, 16.0),
    int8=Tolerance(math.inf, 1.0, 4.0),  # tools/test.py measures the loss of int8
)


class CheckImages(NamedTuple):
    """Images after the test pipeline of a config."""

    inputs: list[Tensor]  # (3, H, W) uint8, BGR; float32 (C, H, W) with LoadMultiBandImage
    sample_type: Any  # type of their data samples
    origin: str  # their folder, or `generated images`

    def resized(self, size: Sequence[int] | None) -> list[Tensor]:
        """Return the images, resized to `size` (height, width) if given."""
        if size is None:
            return self.inputs
        arrays = (cv2.resize(image.permute(1, 2, 0).numpy(), size[::-1]) for image in self.inputs)
        # OpenCV drops the axis of a single band
        return [torch.from_numpy(array.reshape(*size, -1)).permute(2, 0, 1) for array in arrays]

    def batches(self, size: Sequence[int] | None = None) -> Iterator[dict[str, list]]:
        """Yield batches of one and of three images for ``test_step``: of `size` (height, width), or of two sizes."""
        images = self.resized(size)
        yield self._batch(images[:1])
        smallest = (min(image.shape[axis] for image in images) for axis in (1, 2))
        height, width = size or (max(3, (side * 4 // 5 - 1) | 1) for side in smallest)  # odd: no stride divides it
        crops = []
        for i, image in zip(range(3), cycle(images)):
            top, left = (image.shape[1] - height) * i // 2, (image.shape[2] - width) * i // 2
            crops.append(image[:, top : top + height, left : left + width])
        yield self._batch(crops)

    def _batch(self, images: Sequence[Tensor]) -> dict[str, list]:
        sizes = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape'), tuple(images[0].shape[1:]))
        samples = [self.sample_type(metainfo=dict(sizes, scale_factor=(1.0, 1.0))) for _ in images]
        return dict(inputs=list(images), data_samples=samples)


def read_check_images(cfg: Config, folder: Path | None, most: int = 3) -> CheckImages:
    """Read at most `most` images, spread over a folder, and apply the test pipeline of a config.

    Without a folder, the test data of the config are used; if they are absent, images are generated. Raise UserError
    if no image can be decoded, or if the pipeline returns values that are not 8-bit integers.
    """
    reader, bands = reader_of(cfg), band_count(cfg)
    if folder is None and (test_folder := image_folder(test_data(cfg))) and test_folder.is_dir():
        folder = test_folder
    if folder is None:
        rng = np.random.default_rng(0)
        images, origin = [make_image(rng, bands) for _ in range(most)], 'generated images'
    else:
        source, origin = ImageSource(folder, reader), str(folder)
        source.files = source.files[:: max(1, len(source.files) // most)]
        images = [frame.image for frame in islice(source, most) if frame.image is not None]
    if not images:
        raise UserError(f'{origin}: no image can be decoded; choose another folder with --images.')
    prepare = pipeline_of(cfg)
    for image in images:
        check_image(f'An image of {origin}', image.shape[2], bands)
    packed = [prepare(image, i) for i, image in enumerate(images)]
    tensors = [item['inputs'] for item in packed]
    inputs = [x.float() if reader.loader else torch.from_numpy(to_uint8(x)) for x in tensors]
    return CheckImages(inputs, type(packed[0]['data_samples']), origin)


def make_image(rng: np.random.Generator, bands: int) -> np.ndarray:
    """Return an image of the generated data set, (256, 256, bands)."""
    if bands == 3:
        return make_scene(rng, 256)[0]
    return make_band_scene(rng, 256, max(bands, 4))[0][..., :bands].astype(np.float32)


def compare(model: Any, file: ExportedFile, batches: Iterable[Mapping[str, Any]], precision: str) -> list[str]:
    """Compare an exported file with the model in PyTorch and fp32; return a line for each batch.

    Raise UserError if a result differs by more than the tolerance of `precision`, or if no batch has an object.
    """
    lines = []
    compare_batch = _compare_results if file.metadata['part'] == 'model' else _compare_maps
    for batch in batches:
        size = 'x'.join(map(str, (len(batch['inputs']), *batch['inputs'][0].shape)))
        summary, is_close = compare_batch(model, file, batch, TOLERANCES[precision])
        lines.append(f'{size}: {summary or "no object"}')
        if not is_close:
            raise UserError(
                f'The exported graph is wrong at {size}: {summary}. No file was written. '
                'Report the config as a bug, or export another --part.'
            )
    if all(line.endswith('no object') for line in lines):
        raise UserError(
            'The model detects no object in the images, so the exported graph could not be checked. No file was '
            'written. Pass --images with a folder of images in which the model detects objects.'
        )
    return lines


def _compare_results(model: Any, file: ExportedFile, batch: Mapping[str, Any], tolerance: Tolerance) -> Comparison:
    task = task_of(model.cfg.default_scope)
    exported = MODELS.build(dict(type=task.exported, file=file, model=model.cfg.model)).eval()
    compare_samples = _compare_label_maps if task.label_map else _compare_objects
    with torch.no_grad():
        # copies, since models add their results to the data samples
        return compare_samples(model.test_step(deepcopy(batch)), exported.test_step(deepcopy(batch)), tolerance)


def _compare_maps(model: Any, file: ExportedFile, batch: Mapping[str, Any], tolerance: Tolerance) -> Comparison:
    with torch.no_grad():
        x = model.data_preprocessor(batch, False)['inputs']
        expected = model.backbone(x) if file.metadata['part'] == 'backbone' else model.extract_feat(x)
        actual = file(file.images(torch.stack(list(batch['inputs']))))
    pairs = zip(expected, actual.items(), strict=True)
    comparisons = [_compare_values(name, a, torch.from_numpy(b), tolerance) for a, (name, b) in pairs]
    return ', '.join(summary for summary, _ in comparisons), all(is_close for _, is_close in comparisons)


def _compare_label_maps(expected: Sequence[Any], actual: Sequence[Any], tolerance: Tolerance) -> Comparison:
    scores, labels = (
        [torch.cat([sample.get(name).data.flatten() for sample in samples]) for samples in (expected, actual)]
        for name in ('seg_logits', 'pred_sem_seg')
    )
    summary, is_close = _compare_values('scores', scores[0], scores[1], tolerance)
    fraction = (labels[0] != labels[1]).float().mean().item()
    return f'{summary}, labels differ at {fraction:.3%} of the pixels', is_close and fraction <= tolerance.fraction


def _compare_values(name: str, expected: Tensor, actual: Tensor, tolerance: Tolerance) -> Comparison:
    if expected.shape != actual.shape:
        return f'{name} have shape {tuple(actual.shape)} instead of {tuple(expected.shape)}', False
    difference, largest = (expected - actual).abs().max().item(), expected.abs().max().item()
    is_close = difference <= tolerance.values * max(largest, 1e-3)  # False for NaN
    return f'{name} differ by at most {difference:.1e}, of {largest:.2g}', is_close


def _compare_objects(expected: Sequence[Any], actual: Sequence[Any], tolerance: Tolerance) -> Comparison:
    total = unmatched = wrong_pixels = mask_area = 0
    box_difference = score_difference = 0.0
    for a, b in zip(*([sample.pred_instances for sample in samples] for samples in (expected, actual)), strict=True):
        pairs = _match(a, b, tolerance)
        total += max(len(a), len(b))
        unmatched += max(len(a), len(b)) - len(pairs)
        for i, j in pairs:
            box_difference = max(box_difference, (a.bboxes[i] - b.bboxes[j]).abs().max().item())
            score_difference = max(score_difference, (a.scores[i] - b.scores[j]).abs().item())
            if 'masks' in a:
                wrong_pixels += (a.masks[i] != b.masks[j]).sum().item()
                mask_area += a.masks[i].sum().item()
    if not total:
        return '', True
    masks = f', masks at {wrong_pixels / mask_area:.2%} of their pixels' if mask_area else ''
    summary = (
        f'{total - unmatched} of {total} objects are the same; boxes differ by at most {box_difference:.1e} pixels, '
        f'scores by {score_difference:.1e}{masks}'
    )
    is_close = unmatched < total and unmatched <= max(tolerance.fraction * total, 1)
    return summary, is_close and wrong_pixels <= tolerance.fraction * mask_area + 1


def _match(a: Any, b: Any, tolerance: Tolerance) -> list[tuple[int, int]]:
    """Pair the objects of two results that have the same class, and boxes and scores within the tolerance."""
    distance = (a.bboxes[:, None] - b.bboxes).abs().amax(2)
    matches = (distance <= tolerance.pixels) & (a.labels[:, None] == b.labels)
    matches &= (a.scores[:, None] - b.scores).abs() <= max(tolerance.values, 1e-3)
    pairs = zip(*linear_sum_assignment(torch.where(matches, distance, 1e6).numpy()), strict=True)
    return [(i, j) for i, j in pairs if matches[i, j]]
