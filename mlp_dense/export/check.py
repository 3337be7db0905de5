"""Check of an exported file: the images it runs on, and the comparison with the model in PyTorch."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from torch import Tensor

from ..datasets.layout import image_folder, leaves
from ..datasets.shapes import make_scene
from ..errors import UserError
from ..inference.prediction import ImageSource, pipeline_of
from ..registry import MODELS
from ..tasks import task_of
from .runtime import ExportedFile, to_uint8


class Tolerance(NamedTuple):
    """Allowed difference between an exported file and PyTorch's fp32."""

    values: float  # of scores and feature maps, relative to the largest
    fraction: float  # of pixels or objects that may differ, since rounding decides between equal scores
    pixels: float  # of the corners of a box


TOLERANCES = dict(
    fp32=Tolerance(1e-3, 0.01, 0.5),
    fp16=Tolerance(0.05, 0.1, 4.0),
    bf16=Tolerance(0.2, 0.25, 16.0),
    int8=Tolerance(math.inf, 1.0, 4.0),  # tools/test.py measures the loss of int8
)


class CheckImages(NamedTuple):
    """Images after the test pipeline of a config."""

    inputs: list[Tensor]  # (3, H, W) uint8, BGR
    samples: list[Any]  # their data samples
    origin: str  # their folder, or GENERATED

    def batches(self) -> Iterator[dict[str, list]]:
        """Yield two batches for ``test_step``: the first image, and three crops of another size."""
        yield pseudo_collate([dict(inputs=self.inputs[0], data_samples=self.samples[0])])
        height, width = (_odd(min(image.shape[axis] for image in self.inputs) * 4 // 5) for axis in (1, 2))
        yield self.crop(height, width)

    def batches_of(self, height: int, width: int) -> Iterator[dict[str, list]]:
        """Yield two batches of one size: a single image, and three."""
        for number in (1, 3):
            inputs = [_resize(image, height, width) for image in self.inputs[:number]]
            yield self._replace(inputs=inputs).crop(height, width, number)

    def singles(self, size: tuple[int, int] | None = None) -> Iterator[np.ndarray]:
        """Yield each image (1, 3, H, W), resized to `size` (height, width) if given."""
        for image in self.inputs:
            yield (_resize(image, *size) if size else image).unsqueeze(0).numpy()

    def crop(self, height: int, width: int, number: int = 3) -> dict[str, list]:
        """Return a batch of crops of the images, which must be at least as large."""
        items, last = [], max(1, number - 1)
        for i in range(number):
            image = self.inputs[i % len(self.inputs)]
            top, left = ((image.shape[1] - height) * i // last, (image.shape[2] - width) * i // last)
            sizes = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape'), (height, width))
            sample = type(self.samples[0])(metainfo=dict(sizes, scale_factor=(1.0, 1.0)))
            items.append(dict(inputs=image[:, top : top + height, left : left + width], data_samples=sample))
        return pseudo_collate(items)


GENERATED = 'generated images'


def read_check_images(cfg: Config, folder: Path | None, most: int = 3) -> CheckImages:
    """Read at most `most` images, spread over a folder, and apply the test pipeline of a config.

    Without a folder, the test data of the config are used; if they are absent, images are generated.

    Raises:
        UserError: no image can be decoded, or the pipeline does not return 8-bit images.
    """
    images, origin = _read(cfg, folder, most)
    pipeline: Compose = pipeline_of(cfg)
    packed = []
    for i, image in enumerate(images):
        size = dict(img_shape=image.shape[:2], ori_shape=image.shape[:2], img_path=None)
        packed.append(pipeline(dict(img=image, img_id=i, **size)))
    inputs = [item['inputs'] for item in packed]
    if any(image.dtype != torch.uint8 for image in inputs):
        raise UserError('An exported model takes 8-bit images: remove normalization and to_float32 from the pipeline.')
    return CheckImages(inputs, [item['data_samples'] for item in packed], origin)


def _read(cfg: Config, folder: Path | None, most: int) -> tuple[Sequence[np.ndarray], str]:
    if folder is None:
        folder = image_folder(next(leaves(cfg.test_dataloader.dataset)))
        if folder is None or not folder.is_dir():
            rng = np.random.default_rng(0)
            return [make_scene(rng, 256)[0] for _ in range(most)], GENERATED
    source = ImageSource(folder)
    if not source.fps:
        source.files = source.files[:: max(1, len(source.files) // most)][:most]
    images = [frame.image for frame in source if frame.image is not None][:most]
    if not images:
        raise UserError(f'{source.path}: no image can be decoded; choose another folder with --images.')
    return images, str(source.path)


def _resize(image: Tensor, height: int, width: int) -> Tensor:
    return torch.from_numpy(cv2.resize(image.permute(1, 2, 0).numpy(), (width, height))).permute(2, 0, 1)


def _odd(size: int) -> int:
    """Return an odd size, which no stride divides; such sizes are the difficult ones."""
    return max(3, size - 1 + size % 2)


class Comparison(NamedTuple):
    """Result of one batch."""

    summary: str  # empty if there was nothing to compare
    is_close: bool


def compare(model: Any, file: ExportedFile, batches: Iterable[Mapping[str, Any]], precision: str) -> list[str]:
    """Compare an exported file with the model in PyTorch and fp32; return a line for each batch.

    Raises:
        UserError: a result differs by more than the tolerance of `precision`, or no batch has an object to compare.
    """
    lines, num_empty = [], 0
    compare_batch = _compare_results if file.metadata['part'] == 'model' else _compare_maps
    for batch in batches:
        size = 'x'.join(map(str, (len(batch['inputs']), *batch['inputs'][0].shape)))
        comparison = compare_batch(model, file, batch, TOLERANCES[precision])
        num_empty += not comparison.summary
        lines.append(f'{size}: {comparison.summary or "no object"}')
        if not comparison.is_close:
            raise UserError(
                f'The exported graph is wrong at {size}: {comparison.summary}. No file was written. '
                'Report the config as a bug, or export another --part.'
            )
    if num_empty == len(lines):
        raise UserError(
            'The model detects no object in the images, so the exported graph could not be checked. No file was '
            'written. Pass --images with a folder of images in which the model detects objects.'
        )
    return lines


def _compare_results(model: Any, file: ExportedFile, batch: Mapping[str, Any], tolerance: Tolerance) -> Comparison:
    task = task_of(model.cfg.default_scope)
    exported = MODELS.build(dict(type=task.exported, file=file, model=model.cfg.model)).eval()
    with torch.no_grad():
        expected = [sample.clone() for sample in model.test_step(_copy(batch))]
        actual = exported.test_step(_copy(batch))
    return (_compare_label_maps if task.label_map else _compare_objects)(expected, actual, tolerance)


def _compare_maps(model: Any, file: ExportedFile, batch: Mapping[str, Any], tolerance: Tolerance) -> Comparison:
    with torch.no_grad():
        x = model.data_preprocessor(_copy(batch), False)['inputs']
        expected = model.backbone(x) if file.metadata['part'] == 'backbone' else model.extract_feat(x)
        actual = file(to_uint8(torch.stack(list(batch['inputs']))))
    pairs = zip(expected, actual.items(), strict=True)
    comparisons = [_compare_values(name, a, torch.from_numpy(b), tolerance) for a, (name, b) in pairs]
    summary = ', '.join(comparison.summary for comparison in comparisons)
    return Comparison(summary, all(comparison.is_close for comparison in comparisons))


def _compare_label_maps(expected: Sequence[Any], actual: Sequence[Any], tolerance: Tolerance) -> Comparison:
    scores = [torch.cat([sample.seg_logits.data.flatten() for sample in samples]) for samples in (expected, actual)]
    labels = [torch.cat([sample.pred_sem_seg.data.flatten() for sample in samples]) for samples in (expected, actual)]
    summary, is_close = _compare_values('scores', scores[0], scores[1], tolerance)
    fraction = (labels[0] != labels[1]).float().mean().item()
    summary += f', labels differ at {fraction:.3%} of the pixels'
    return Comparison(summary, is_close and fraction <= tolerance.fraction)


def _compare_values(name: str, expected: Tensor, actual: Tensor, tolerance: Tolerance) -> Comparison:
    if expected.shape != actual.shape:
        return Comparison(f'{name} have shape {tuple(actual.shape)} instead of {tuple(expected.shape)}', False)
    difference, largest = (expected - actual).abs().max().item(), expected.abs().max().item()
    summary = f'{name} differ by at most {difference:.1e}, of {largest:.2g}'
    return Comparison(summary, difference <= tolerance.values * max(largest, 1e-3))  # False for NaN


def _compare_objects(expected: Sequence[Any], actual: Sequence[Any], tolerance: Tolerance) -> Comparison:
    total = unmatched = wrong_pixels = mask_area = 0
    box_difference = score_difference = 0.0
    for expected_sample, actual_sample in zip(expected, actual, strict=True):
        a, b = expected_sample.pred_instances, actual_sample.pred_instances
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
        return Comparison('', True)
    summary = (
        f'{total - unmatched} of {total} objects are the same; boxes differ by at most {box_difference:.1e} pixels, '
        f'scores by {score_difference:.1e}'
    ) + (f', masks at {wrong_pixels / mask_area:.2%} of their pixels' if mask_area else '')
    is_close = unmatched < total and unmatched <= max(tolerance.fraction * total, 1)
    return Comparison(summary, is_close and wrong_pixels <= tolerance.fraction * mask_area + 1)


def _match(a: Any, b: Any, tolerance: Tolerance) -> list[tuple[int, int]]:
    """Pair the objects of two results that have the same class, and boxes and scores within the tolerance."""
    pairs, free = [], set(range(len(b)))
    distance = (a.bboxes[:, None] - b.bboxes[None]).abs().amax(2)
    matches = (
        (distance <= tolerance.pixels)
        & (a.labels[:, None] == b.labels)
        & ((a.scores[:, None] - b.scores).abs() <= max(tolerance.values, 1e-3))
    )
    for i in range(len(a)):
        choices = [j for j in matches[i].nonzero().flatten().tolist() if j in free]
        if choices:
            j = min(choices, key=lambda j: distance[i, j].item())
            free.remove(j)
            pairs.append((i, j))
    return pairs


def _copy(batch: Mapping[str, Any]) -> dict[str, list]:
    return dict(inputs=list(batch['inputs']), data_samples=[sample.clone() for sample in batch['data_samples']])
