"""The pictures that an export is checked, and int8 calibrated, on."""

from collections.abc import Iterator, Sequence
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
from ..inference.prediction import ImageSource

GENERATED = 'generated pictures'


class Pictures(NamedTuple):
    """Images as the test pipeline of a config makes them of files."""

    inputs: list[Tensor]  # (3, H, W) of 8 bits, BGR
    samples: list[Any]  # their data samples
    origin: str  # where they are from

    def batches(self) -> Iterator[dict[str, list]]:
        """Two, as ``test_step`` takes them: the first picture as it is, and three cuts of another size."""
        yield pseudo_collate([dict(inputs=self.inputs[0], data_samples=self.samples[0])])
        height, width = (_odd(min(each.shape[axis] for each in self.inputs) * 4 // 5) for axis in (1, 2))
        yield self.cut(height, width)

    def batches_of(self, height: int, width: int) -> Iterator[dict[str, list]]:
        """Two of one size: a single picture, and three."""
        for number in (1, 3):
            sized = [
                torch.from_numpy(cv2.resize(each.permute(1, 2, 0).numpy(), (width, height))).permute(2, 0, 1)
                for each in self.inputs[:number]
            ]
            yield Pictures(sized, self.samples, self.origin).cut(height, width, number)

    def cut(self, height: int, width: int, number: int = 3) -> dict[str, list]:
        """A batch of cuts of the pictures, which are at least as large."""
        items, most = [], max(1, number - 1)
        for i in range(number):
            image = self.inputs[i % len(self.inputs)]
            top, left = ((image.shape[1] - height) * i // most, (image.shape[2] - width) * i // most)
            sizes = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape'), (height, width))
            sample = type(self.samples[0])(metainfo=dict(sizes, scale_factor=(1.0, 1.0)))
            items.append(dict(inputs=image[:, top : top + height, left : left + width], data_samples=sample))
        return pseudo_collate(items)


def read_pictures(cfg: Config, folder: Path | None, most: int = 3) -> Pictures:
    """At most so many pictures, from all over a folder: that of the test data of a config, if none is given. UserError:
    there is none that can be read, or the pipeline makes no images of 8 bits of them."""
    images, origin = _read(cfg, folder, most)
    pipeline = Compose([step for step in _test_data(cfg).pipeline if 'Load' not in str(step['type'])])
    packed = []
    for i, image in enumerate(images):
        size = dict(img_shape=image.shape[:2], ori_shape=image.shape[:2], img_path=None)
        packed.append(pipeline(dict(img=image, img_id=i, **size)))
    inputs = [each['inputs'] for each in packed]
    if any(each.dtype != torch.uint8 for each in inputs):
        raise UserError('The test pipeline of this config makes no images of 8 bits, which an exported model takes.')
    return Pictures(inputs, [each['data_samples'] for each in packed], origin)


def _read(cfg: Config, folder: Path | None, most: int) -> tuple[Sequence[np.ndarray], str]:
    given, folder = folder is not None, folder or _test_folder(cfg)
    if given or folder.is_dir():
        source = ImageSource(folder)
        if not source.fps:
            step = max(1, len(source.files) // most)
            source.files = source.files[::step][:most]
        images = [frame.image for frame in source if frame.image is not None][:most]
        if not images:
            raise UserError(f'{folder}: none of its images can be read; give another folder with --images.')
        return images, str(folder)
    rng = np.random.default_rng(0)
    return [make_scene(rng, 256)[0] for _ in range(most)], GENERATED


def _test_data(cfg: Config) -> Any:
    return next(leaves(cfg.test_dataloader.dataset))


def _test_folder(cfg: Config) -> Path:
    return image_folder(_test_data(cfg)) or Path()


def _odd(size: int) -> int:
    """Sizes that no stride divides are the hard ones."""
    return max(3, size - 1 + size % 2)
