"""Image size, batch size and length of a training run, from the data and the memory of the machine."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from ..backbones import FAMILIES, MLPMixer
from ..backbones.base import MLPBackbone
from ..errors import UserError

BACKBONES: dict[str, type[MLPBackbone]] = dict(
    zip(('hire', 'as', 'cycle', 'wave', 'mixer', 'vip', 'sparse'), FAMILIES, strict=True)
)
HEADS = ('mask_rcnn', 'retinanet', 'upernet', 'semantic_fpn', 'classifier')
SPLITS = ('train', 'val', 'test')
TITLES = dict(zip(HEADS, ('Mask R-CNN', 'RetinaNet', 'UPerNet', 'Semantic FPN', 'Classifier'), strict=True))
COCO_EPOCHS, COCO_IMAGES, MAX_EPOCHS = 12, 118_287, 100
"""The schedule 1x of COCO. Smaller data get epochs in inverse proportion to the square root of their images."""
LONGEST, SHORTEST, LEAST = 1333, 800, 128
"""Greatest long and short side of images, as for COCO, and the least short side, which has pixels for all strides."""
ACTIVATIONS = dict(mask_rcnn=1.6, retinanet=1.1, upernet=3.3, semantic_fpn=1.5, classifier=1.0)
"""Memory of a training run for an image, relative to what its backbone keeps for the gradients.

Measured with Hire-MLP tiny at 640x448 and 320x224, as the growth of the memory with the batch size.
"""
FIXED = 1.5e9
"""Bytes of a training run that do not depend on its images: process, libraries, weights, gradients and moments."""


class Plan(NamedTuple):
    """Values of a training run that do not depend on the classes."""

    command: str
    family: str
    arch: str
    head: str
    weights: str | None
    images: dict[str, int]
    """Number of images of each split."""
    median: tuple[int, int]
    """Width and height of the images, the median of each."""
    size: tuple[int, int]
    """Width and height to which such images are resized."""
    batch_size: int
    epochs: int

    @property
    def iterations(self) -> int:
        return max(200, math.ceil(self.images['train'] * self.epochs / self.batch_size))

    @property
    def scale(self) -> tuple[int, int]:
        """Long and short side."""
        return max(self.size), min(self.size)

    def backbone(self) -> str:
        """Return the section of a config."""
        cls = BACKBONES[self.family]
        norm = ", norm_cfg=dict(type='SyncBN')" if 'SyncBN' in cls.norms_allowed else ''
        init = f",\n{' ' * 27}init_cfg=dict(type='Pretrained', checkpoint={self.weights!r})" if self.weights else ''
        return f"dict(type='mlp_dense.{cls.__name__}', arch={self.arch!r}, drop_path_rate=0.1{norm}{init})"

    def preprocessor(self) -> str:
        """Return the normalization that the published weights of the family require, if it is not the usual one."""
        return 'mean=[127.5] * 3, std=[127.5] * 3' if BACKBONES[self.family] is MLPMixer else ''

    def channels(self) -> list[int]:
        """Return the channels of the feature maps of the backbone."""
        with torch.device('meta'):
            return list(BACKBONES[self.family](self.arch).out_channels)

    def title(self) -> str:
        """Return a line about the model and the images."""
        images = ' and '.join(f'{self.images[name]:,} {name}' for name in SPLITS if name in self.images)
        resized = '' if self.size == self.median else f', resized to {_by(self.size)}'
        model = f'{TITLES[self.head]} with {BACKBONES[self.family].__name__} {self.arch}'
        return f'{model} for {images} images of about {_by(self.median)}{resized}'

    def lines(self) -> list[str]:
        """Return a summary for the user."""
        lines = [f'{self.title()}; {self.epochs} epochs, {self.batch_size} images at once.']
        if not self.weights and self.head != 'classifier':
            lines.append(
                'The backbone starts from random weights; --weights FILE uses published ones (docs/training.md).'
            )
        return lines


def _by(size: Sequence[int]) -> str:
    return 'x'.join(map(str, size))


def check_choices(family: str, arch: str | None, head: str | None) -> str:
    """Return the arch, the smallest one by default. Raises UserError if a name does not exist."""
    if head not in (None, *HEADS):
        raise UserError(f'The head {head!r} does not exist; choose one of {", ".join(HEADS)}.')
    if family not in BACKBONES:
        raise UserError(f'The family {family!r} does not exist; choose one of {", ".join(BACKBONES)}.')
    archs = BACKBONES[family].archs
    if arch not in (None, *archs):
        raise UserError(f'The family {family} has no arch {arch!r}; choose one of {", ".join(archs)}.')
    return arch or next(iter(archs))


def plan(
    command: str, family: str, arch: str, head: str, weights: str | None, images: dict[str, int],
    sizes: Sequence[tuple[int, int]],
) -> Plan:  # fmt: skip
    """Return the plan of a training run on images of the given sizes (width, height)."""
    median = (
        int(statistics.median(width for width, _ in sizes)),
        int(statistics.median(height for _, height in sizes)),
    )
    size = classifier_size(median) if head == 'classifier' else limited(median)
    epochs = min(MAX_EPOCHS, max(COCO_EPOCHS, round(COCO_EPOCHS * math.sqrt(COCO_IMAGES / images['train']))))
    batch_size = images_at_once(images['train'], images_in_memory(family, arch, head, size), head)
    return Plan(command, family, arch, head, weights, images, median, size, batch_size, epochs)


def images_at_once(images: int, fitting: int, head: str) -> int:
    """Return the batch size for a number of images, of which some number fits into the memory."""
    if head == 'classifier':
        return max(2, min(128, images // 4, fitting) // 2 * 2)  # Mixup requires pairs
    largest = min(16 if torch.cuda.is_available() else 4, images // 10)
    return max(2, min(largest, fitting))  # BatchNorm of UPerNet's pooling requires two


def limited(size: tuple[int, int]) -> tuple[int, int]:
    """Return a size reduced to the greatest sides, or enlarged to the least short side."""
    ratio = min(LONGEST / max(size), SHORTEST / min(size), max(1, LEAST / min(size)))
    return (max(1, round(size[0] * ratio)), max(1, round(size[1] * ratio)))


def classifier_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return 224 as for ImageNet, or for small images the nearest multiple of 32."""
    side = 224 if min(size) >= 160 else max(32, round(min(size) / 32) * 32)
    return side, side


def scaled_rate(rate: float, batch_size: int, base_batch_size: int) -> float:
    """Return the learning rate of AdamW for another batch size, by the square-root rule (arXiv 2205.10287)."""
    return float(f'{rate * math.sqrt(batch_size / base_batch_size):.2g}')


# Memory


def images_in_memory(family: str, arch: str, head: str, size: tuple[int, int]) -> int:
    """Return the number of images of a size that a training run can process at once."""
    return int((free_memory() - FIXED) / memory_per_image(family, arch, head, size))


def memory_per_image(family: str, arch: str, head: str, size: tuple[int, int]) -> float:
    """Return an estimate of the bytes that a training run needs for an image of a size, in float32."""
    saved = 0

    def count(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal saved
        saved += 0 if isinstance(tensor, torch.nn.Parameter) else tensor.nbytes
        return tensor

    with torch.device('meta'), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        BACKBONES[family](arch).train()(torch.zeros(2, 3, size[1], size[0]))  # BatchNorm requires two small images
    return ACTIVATIONS[head] * saved / 2


def free_memory() -> float:
    """Return the bytes of memory that training may use: four fifths of the GPU's, or half of the free memory."""
    if torch.cuda.is_available():
        return 0.8 * torch.cuda.get_device_properties(0).total_memory
    meminfo, limit = Path('/proc/meminfo'), Path('/sys/fs/cgroup/memory.max')  # the second is that of a container
    if not meminfo.is_file():
        return 4e9  # unknown on this system
    (line,) = (line for line in meminfo.read_text().splitlines() if line.startswith('MemAvailable'))
    text = limit.read_text().strip() if limit.is_file() else ''
    return 0.5 * min(int(line.split()[1]) * 1024, int(text) if text.isdecimal() else math.inf)
