"""Predictions on images and videos: read, predicted in batches, drawn, and written in formats that others read."""

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import mmcv
import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.dataset import Compose, pseudo_collate
from torch import nn

from ..config.reading import leaves
from ..datasets import SUFFIXES
from ..errors import UserError
from ..tasks import task_of
from ..visualization.drawing import draw_labels


class Frame(NamedTuple):
    """An image, or a frame of a video."""

    info: dict  # `id`, `file_name`, and `frame` of a video, as in COCO's `images`
    name: str  # of what is written about it: a relative path without a suffix
    image: np.ndarray | None  # BGR (H, W, 3), or None if it cannot be read


class ImageSource:
    """The images behind a path, by name: one, those in a folder and below it, or a video's frames.

    ``id`` is the number in the name, as in COCO, if all names are different numbers; else the position from 0.
    """

    def __init__(self, path: Path, flag: str = 'color'):
        self.path, self.flag, self.fps = path, flag, 0.0  # frames a second; of a video only
        if path.is_dir():
            self.files = sorted(file for file in path.rglob('*') if file.suffix.lower() in SUFFIXES and file.is_file())
            if not self.files:
                raise UserError(f'{path} holds no images (of {", ".join(SUFFIXES)}).')
        elif path.suffix.lower() in SUFFIXES and path.is_file():
            self.files = [path]
        elif path.is_file():
            video = cv2.VideoCapture(str(path))
            if not video.grab():
                raise UserError(f'{path} is neither an image (by its suffix) nor a video that OpenCV reads; give one.')
            self.fps = video.get(cv2.CAP_PROP_FPS) or 25.0
        else:
            raise UserError(f'{path} does not exist; give an image, a folder of images or a video.')
        # 0: unknown
        self.length = max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT))) if self.fps else len(self.files)

    def __iter__(self) -> Iterator[Frame]:
        if self.fps:
            video, i = cv2.VideoCapture(str(self.path)), 0
            while (frame := video.read())[0]:
                yield Frame(dict(id=i, file_name=self.path.name, frame=i), f'{i:06}', frame[1])
                i += 1
            return
        root = self.path if self.path.is_dir() else self.path.parent
        relative = [file.relative_to(root) for file in self.files]
        names = [str(file.with_suffix('')) for file in relative]
        if len({name.lower() for name in names}) < len(names):  # a.jpg beside a.png
            names = [str(file) for file in relative]
        stems = [file.stem for file in self.files]
        numbered = all(stem.isdecimal() for stem in stems) and len(set(map(int, stems))) == len(stems)
        for i, file in enumerate(self.files):
            info = dict(id=int(stems[i]) if numbered else i, file_name=relative[i].as_posix())
            yield Frame(info, names[i], _read(file, self.flag))


class PredictionWriter:
    """What ``predict`` writes into a folder:

    * ``vis/NAME.png``, or ``VIDEO.mp4``: the drawn images; small ones are enlarged;
    * ``images.json``: ``images`` and ``categories`` in COCO's format;
    * of a detector ``predictions.json``, COCO's results: ``COCO('images.json').loadRes('predictions.json')``;
    * of a classifier ``predictions.json``: ``image_id``, ``category_id`` and ``score`` of the five likeliest classes;
    * of a segmentor ``labels/NAME.png``: one channel, each pixel the index of its class from 0, the ``id`` of its
      category (8 bits, or 16 for more than 256 classes).

    Objects with a score above `score_thr` are written and drawn.
    """

    def __init__(self, folder: Path, model: nn.Module, score_thr: float, source: ImageSource):
        self.folder, self.score_thr, self.source = folder, score_thr, source
        self.task, self.meta = task_of(model.cfg.default_scope), model.dataset_meta
        self.ids = self.task.category_ids(_test_data(model), self.meta['classes'])
        self.images: list[dict] = []
        self.objects: list[dict] = []
        self.video: cv2.VideoWriter | None = None

    def __enter__(self) -> 'PredictionWriter':
        return self

    def __exit__(self, *_: Any) -> None:
        """Also of an interrupted prediction, what is done is written."""
        if self.video:
            self.video.release()
        categories = [dict(id=i, name=name) for i, name in zip(self.ids, self.meta['classes'], strict=True)]
        self._dump('images.json', dict(images=self.images, categories=categories))
        if self.task.objects:
            self._dump('predictions.json', self.objects)

    def add(self, frame: Frame, sample: Any) -> None:
        height, width = frame.image.shape[:2]
        self.images.append(dict(frame.info, height=height, width=width))
        found = self.task.labels_of(sample, 'pred', self.score_thr)
        if self.task.objects:
            self.objects += self.task.objects(found, frame.info['id'], self.ids)
        if self.task.label_map:
            dtype = np.uint8 if len(self.ids) <= 256 else np.uint16
            self._write(f'labels/{frame.name}.png', self.task.label_map(found).astype(dtype))
        drawn = draw_labels(frame.image, [found], self.task.draw, self.meta, bgr=True)
        if self.source.fps:
            self._append(drawn)
        else:
            self._write(f'vis/{frame.name}.png', drawn)

    def _append(self, image: np.ndarray) -> None:
        if self.video is None:
            file, size = self.folder / f'{self.source.path.stem}.mp4', image.shape[1::-1]
            self.video = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*'mp4v'), self.source.fps, size)
            if not self.video.isOpened():
                raise UserError(f'OpenCV cannot write {file} with {size[0]} x {size[1]} pixels.')
        self.video.write(image)

    def _write(self, name: str, image: np.ndarray) -> None:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if not cv2.imwrite(str(file), image):
            raise UserError(f'{file} cannot be written; is the disk full?')

    def _dump(self, name: str, content: Any) -> None:
        (self.folder / name).write_text(json.dumps(content) + '\n', encoding='utf-8')


def predict(model: nn.Module, frames: Iterable[Frame], writer: PredictionWriter, batch_size: int) -> list[str]:
    """Writes the predictions for every image; returns the names of those that cannot be read. Only images of one size
    share a batch: none is padded for the sake of another, so the results do not depend on `batch_size`."""
    pipeline = Compose([step for step in _test_data(model).pipeline if 'Load' not in str(step['type'])])
    unread: list[str] = []

    def readable() -> Iterator[Frame]:
        for frame in frames:
            if frame.image is None:
                unread.append(frame.info['file_name'])
            else:
                yield frame

    for shape, group in groupby(readable(), lambda frame: frame.image.shape):
        sizes = dict(img_shape=shape[:2], ori_shape=shape[:2], img_path=None)
        while batch := list(islice(group, batch_size)):
            inputs = [pipeline(dict(img=frame.image, img_id=frame.info['id'], **sizes)) for frame in batch]
            with torch.no_grad():
                samples = model.test_step(pseudo_collate(inputs))
            for frame, sample in zip(batch, samples, strict=True):
                writer.add(frame, sample)
    return unread


def _test_data(model: nn.Module) -> ConfigDict:
    return next(leaves(model.cfg.test_dataloader.dataset))


def _read(file: Path, flag: str) -> np.ndarray | None:
    with suppress(cv2.error, OSError):
        return mmcv.imread(file, flag)
    return None
