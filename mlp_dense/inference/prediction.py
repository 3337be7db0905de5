"""Prediction on images and videos: reading, batches, drawing, and files in formats that other tools read."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate

from ..datasets import SUFFIXES
from ..datasets.layout import leaves
from ..errors import UserError
from ..tasks import task_of
from ..visualization.drawing import draw_labels


class Frame(NamedTuple):
    """Image, or a frame of a video."""

    info: dict  # `id`, `file_name`, and `frame` of a video, as in COCO's `images`
    name: str  # of the files written for it: a relative path without a suffix
    image: Any  # BGR array (H, W, 3), or None if it cannot be decoded


class ImageSource:
    """Images of a path, sorted by name: an image, a folder with its sub-folders, or the frames of a video.

    ``id`` is the number in the name, as in COCO, if all names are different numbers; else the position from 0.
    """

    length: int  # 0 if unknown
    fps = 0.0  # frames per second of a video

    def __init__(self, path: Path, flag: str = 'color'):
        self.path, self.flag = path, flag
        if path.is_dir():
            self.files = sorted(file for file in path.rglob('*') if file.suffix.lower() in SUFFIXES and file.is_file())
            if not self.files:
                raise UserError(f'{path} contains no images; choose a folder with files of {", ".join(SUFFIXES)}.')
        elif path.suffix.lower() in SUFFIXES and path.is_file():
            self.files = [path]
        elif path.is_file():
            video = cv2.VideoCapture(str(path))
            if not video.grab():
                raise UserError(f'{path} is neither an image nor a video that OpenCV reads; choose such a file.')
            self.fps = video.get(cv2.CAP_PROP_FPS) or 25.0
        else:
            raise UserError(f'{path} does not exist; choose an image, a folder of images or a video.')
        self.length = max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT))) if self.fps else len(self.files)

    def __iter__(self) -> Iterator[Frame]:
        if self.fps:
            video = cv2.VideoCapture(str(self.path))
            for i, (_, image) in enumerate(iter(video.read, (False, None))):
                yield Frame(dict(id=i, file_name=self.path.name, frame=i), f'{i:06}', image)
            return
        root = self.path if self.path.is_dir() else self.path.parent
        relative = [file.relative_to(root) for file in self.files]
        names = [str(file.with_suffix('')) for file in relative]
        if len({name.lower() for name in names}) < len(names):  # a.jpg and a.png
            names = list(map(str, relative))
        numbers = [int(file.stem) for file in self.files if file.stem.isdecimal()]
        ids = numbers if len(set(numbers)) == len(names) else range(len(names))
        for image_id, path, name, file in zip(ids, relative, names, self.files, strict=True):
            yield Frame(dict(id=image_id, file_name=path.as_posix()), name, _decode(file, self.flag))


class PredictionWriter:
    """Writer of predictions into a folder, in the files of docs/tools.md.

    Objects with a score above `score_thr` are written and drawn. An interrupted prediction keeps what is done.
    """

    def __init__(self, folder: Path, model: Any, score_thr: float, source: ImageSource):
        self.folder, self.score_thr, self.source = folder, score_thr, source
        self.task, self.meta = task_of(model.cfg.default_scope), model.dataset_meta
        self.ids = self.task.category_ids(test_data(model.cfg), self.meta['classes'])
        self.images: list[dict] = []
        self.objects: list[dict] = []
        self.undecodable: list[str] = []
        self.video: cv2.VideoWriter | None = None

    def __enter__(self) -> 'PredictionWriter':
        return self

    def __exit__(self, *_: Any) -> None:
        if self.video:
            self.video.release()
        categories = [dict(id=i, name=name) for i, name in zip(self.ids, self.meta['classes'], strict=True)]
        images = dict(images=self.images, categories=categories)
        (self.folder / 'images.json').write_text(json.dumps(images) + '\n', encoding='utf-8')
        if self.task.objects:
            (self.folder / 'predictions.json').write_text(json.dumps(self.objects) + '\n', encoding='utf-8')

    def add(self, frame: Frame, sample: Any) -> None:
        if frame.image is None:
            self.undecodable.append(frame.info['file_name'])
            return
        height, width = frame.image.shape[:2]
        self.images.append(dict(frame.info, height=height, width=width))
        labels = self.task.labels_of(sample, 'pred', self.score_thr)
        if self.task.objects:
            self.objects += self.task.objects(labels, frame.info['id'], self.ids)
        if self.task.label_map:
            dtype = np.uint8 if len(self.ids) <= 256 else np.uint16
            write_image(self.folder / f'labels/{frame.name}.png', self.task.label_map(labels).astype(dtype))
        drawn = draw_labels(frame.image, [labels], self.task.draw, self.meta, bgr=True)
        if self.source.fps:
            self._append(drawn)
        else:
            write_image(self.folder / f'vis/{frame.name}.png', drawn)

    def _append(self, image: np.ndarray) -> None:
        if self.video is None:
            file, size = self.folder / f'{self.source.path.stem}.mp4', image.shape[1::-1]
            self.video = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*'mp4v'), self.source.fps, size)
            if not self.video.isOpened():
                raise UserError(f'OpenCV cannot write {file} with {size[0]} x {size[1]} pixels; use images instead.')
        self.video.write(image)


def predict(model: Any, frames: Iterable[Frame], batch_size: int) -> Iterator[tuple[Frame, Any]]:
    """Yield each frame with its data sample, which is None if the image cannot be decoded.

    Only consecutive images of one size share a batch, so no image is padded to the size of another.
    """
    prepare = pipeline_of(model.cfg)
    for shape, group in groupby(frames, lambda frame: None if frame.image is None else frame.image.shape):
        if shape is None:
            yield from ((frame, None) for frame in group)
        while batch := list(islice(group, batch_size)):
            with torch.no_grad():
                inputs = pseudo_collate([prepare(image, info['id']) for info, _, image in batch])
                yield from zip(batch, model.test_step(inputs), strict=True)


def pipeline_of(cfg: Config) -> Callable[[np.ndarray, int], dict]:
    """Return the test pipeline of a config, without loading, as a function of a BGR image and its id."""
    transforms = Compose([transform for transform in test_data(cfg).pipeline if 'Load' not in str(transform['type'])])

    def prepare(image: np.ndarray, image_id: int) -> dict:
        size = image.shape[:2]
        return transforms(dict(img=image, img_id=image_id, img_shape=size, ori_shape=size, img_path=None))

    return prepare


def read_image(image: str | Path | np.ndarray, flag: str) -> np.ndarray:
    """Return an image, the path of a file or an RGB array (H, W, 3) of uint8, in BGR; raise UserError if unusable."""
    if isinstance(image, (str, Path)):
        if not Path(image).is_file():
            raise UserError(f'{image} does not exist or is not a file; pass the path of an image.')
        decoded = _decode(Path(image), flag)
        if decoded is None:
            raise UserError(f'{image} cannot be decoded; pass an image that OpenCV reads.')
        return decoded
    if not isinstance(image, np.ndarray):
        raise UserError(f'An image is of type {type(image).__name__}; pass a path or a NumPy array.')
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise UserError(
            f'An image array has shape {image.shape} and dtype {image.dtype}; '
            'pass (height, width, 3) in RGB order as uint8, with values from 0 to 255.'
        )
    return np.ascontiguousarray(image[..., ::-1])


def write_image(file: Path, image: np.ndarray) -> None:
    """Write a BGR image or a label map; raise UserError if OpenCV has no such format or the file cannot be written."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        written = cv2.imwrite(str(file), image)
    except cv2.error as error:
        raise UserError(f'{file}: OpenCV cannot write this format; use a name that ends in .png or .jpg.') from error
    except OSError as error:
        raise UserError(f'{file} cannot be written ({error.strerror}); choose another folder.') from error
    if not written:
        raise UserError(f'{file} cannot be written; free disk space, or choose another folder.')


def test_data(cfg: Config) -> Any:
    """Return the innermost data set of the test loader in a config."""
    return next(leaves(cfg.test_dataloader.dataset))


def _decode(file: Path, flag: str) -> np.ndarray | None:
    with suppress(cv2.error, OSError):
        return mmcv.imread(file, flag)
    return None
