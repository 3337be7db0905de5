"""Check of an exported file: the images it runs on, and the comparison with the model in PyTorch."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch import Tensor

from ..datasets.layout import image_folder
from ..datasets.shapes import make_scene
from ..errors import UserError
from ..inference.prediction import ImageSource, pipeline_of, test_data
from ..registry import MODELS
from ..tasks import task_of
from .runtime import NOT_UINT8, ExportedFile, to_uint8


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

    inputs: list[Tensor]  # (3, H, W) uint8, BGR
    samples: list[Any]  # their data samples
    origin: str  # their folder, or `generated images`

    def batches(self, size: Sequence[int] | None = None) -> Iterator[dict[str, list]]:
        """Yield a batch of one image and one of three for ``test_step``, of one `size` (height, width) or of two."""
        if size:
            resized = self._replace(inputs=[_resize(image, *size) for image in self.inputs[:3]])
            yield from (resized.crop(size[0], size[1], number) for number in (1, 3))
        else:
            yield pseudo_collate([dict(inputs=self.inputs[0], data_samples=self.samples[0])])
            smallest = (min(image.shape[axis] for image in self.inputs) for axis in (1, 2))
            yield self.crop(*(max(3, (side * 4 // 5 - 1) | 1) for side in smallest))  # odd: no stride divides it

    def singles(self, size: Sequence[int] | None = None) -> Iterator[np.ndarray]:
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


def read_check_images(cfg: Config, folder: Path | None, most: int = 3) -> CheckImages:
    """Read at most `most` images, spread over a folder, and apply the test pipeline of a config.

    Without a folder, the test data of the config are used; if they are absent, images are generated.

    Raises:
        UserError: no image can be decoded, or the pipeline does not return 8-bit images.
    """
    images, origin = _read(cfg, folder, most)
    prepare = pipeline_of(cfg)
    packed = [prepare(image, i) for i, image in enumerate(images)]
    inputs = [item['inputs'] for item in packed]
    if any(image.dtype != torch.uint8 for image in inputs):
        raise UserError(NOT_UINT8)
    return CheckImages(inputs, [item['data_samples'] for item in packed], origin)


def _read(cfg: Config, folder: Path | None, most: int) -> tuple[Sequence[np.ndarray], str]:
    if folder is None:
        folder = image_folder(test_data(cfg))
        if folder is None or not folder.is_dir():
            rng = np.random.default_rng(0)
            return [make_scene(rng, 256)[0] for _ in range(most)], 'generated images'
    source = ImageSource(folder)
    if not source.fps:
        source.files = source.files[:: max(1, len(source.files) // most)][:most]
    images = [frame.image for frame in source if frame.image is not None][:most]
    if not images:
        raise UserError(f'{source.path}: no image can be decoded; choose another folder with --images.')
    return images, str(source.path)


def _resize(image: Tensor, height: int, width: int) -> Tensor:
    return torch.from_numpy(cv2.resize(image.permute(1, 2, 0).numpy(), (width, height))).permute(2, 0, 1)


def compare(model: Any, file: ExportedFile, batches: Iterable[Mapping[str, Any]], precision: str) -> list[str]:
    """Compare an exported file with the model in PyTorch and fp32; return a line for each batch.

    Raises:
        UserError: a result differs by more than the tolerance of `precision`, or no batch has an object to compare.
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
        return compare_samples(model.test_step(_copy(batch)), exported.test_step(_copy(batch)), tolerance)


def _compare_maps(model: Any, file: ExportedFile, batch: Mapping[str, Any], tolerance: Tolerance) -> Comparison:
    with torch.no_grad():
        x = model.data_preprocessor(_copy(batch), False)['inputs']
        expected = model.backbone(x) if file.metadata['part'] == 'backbone' else model.extract_feat(x)
        actual = file(to_uint8(torch.stack(list(batch['inputs']))))
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
    pairs, free = [], set(range(len(b)))
    distance = (a.bboxes[:, None] - b.bboxes[None]).abs().amax(2)
    matches = (distance <= tolerance.pixels) & (a.labels[:, None] == b.labels)
    matches &= (a.scores[:, None] - b.scores).abs() <= max(tolerance.values, 1e-3)
    for i in range(len(a)):
        if choices := [j for j in matches[i].nonzero().flatten().tolist() if j in free]:
            j = min(choices, key=lambda j: distance[i, j].item())
            free.remove(j)
            pairs.append((i, j))
    return pairs


def _copy(batch: Mapping[str, Any]) -> dict[str, list]:
    return dict(inputs=list(batch['inputs']), data_samples=[sample.clone() for sample in batch['data_samples']])
