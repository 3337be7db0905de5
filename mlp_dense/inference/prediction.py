"""Predictions on pictures and videos: read, predicted in batches, drawn, and written in formats that others read."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import mmcv
import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.infer import BaseInferencer
from torch import nn

from ..errors import UserError
from ..reports.drawing import draw_instances, draw_label_map, enlargement, resize_picture, resize_sample

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp')
COCO_IDS = [i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
"""The numbers of COCO's 80 classes; ten of 1 to 90 are not in use."""


class Item(NamedTuple):
    """A picture, or a frame of a video."""

    info: dict  # `id`, `file_name`, and `frame` of a video, as in COCO's `images`
    name: str  # of what is written about it: a relative path without a suffix
    image: np.ndarray | None  # BGR (H, W, 3), or None if it cannot be read


class Source:
    """The pictures behind a path, in the order of their names: one picture, those in a folder and below it, or the
    frames of a video. ``id`` is the number in the name, as COCO's pictures have it, if every name is one and they
    differ; otherwise, and for frames, the position from 0.

    Raises:
        UserError: there is nothing, or nothing that can be read as a picture or a video.
    """

    def __init__(self, path: Path):
        self.path = path
        self.fps: float | None = None  # frames a second; of a video only
        if path.is_dir():
            self.files = sorted(file for file in path.rglob('*') if file.suffix.lower() in SUFFIXES and file.is_file())
            if not self.files:
                raise UserError(f'{path} holds no pictures (of {", ".join(SUFFIXES)}).')
            self.length = len(self.files)
        elif path.suffix.lower() in SUFFIXES and path.is_file():
            self.files, self.length = [path], 1
        elif path.is_file():
            video = cv2.VideoCapture(str(path))
            if not video.grab():
                raise UserError(
                    f'{path} is neither a picture (by its suffix) nor a video that OpenCV reads; give a picture, a '
                    'folder of pictures or a video.'
                )
            self.fps = video.get(cv2.CAP_PROP_FPS) or 25.0
            self.length = max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT)))  # 0: unknown
        else:
            raise UserError(f'{path} does not exist; give a picture, a folder of pictures or a video.')

    def __iter__(self) -> Iterator[Item]:
        return self._pictures() if self.fps is None else self._frames()

    def _pictures(self) -> Iterator[Item]:
        root = self.path if self.path.is_dir() else self.path.parent
        relative = [file.relative_to(root) for file in self.files]
        names = [str(file.with_suffix('')) for file in relative]
        if len({name.lower() for name in names}) < len(names):  # a.jpg beside a.png
            names = [str(file) for file in relative]
        stems = [file.stem for file in self.files]
        numbered = all(stem.isdecimal() for stem in stems) and len(set(map(int, stems))) == len(stems)
        for i, file in enumerate(self.files):
            info = dict(id=int(stems[i]) if numbered else i, file_name=relative[i].as_posix())
            yield Item(info, names[i], _read(file))

    def _frames(self) -> Iterator[Item]:
        video, i = cv2.VideoCapture(str(self.path)), 0
        while (frame := video.read())[0]:
            yield Item(dict(id=i, file_name=self.path.name, frame=i), f'{i:06}', frame[1])
            i += 1


class Results:
    """What ``predict`` writes into a folder:

    * ``vis/NAME.png``, or ``VIDEO.mp4``: the drawn pictures; those under 320 pixels are enlarged by a whole number;
    * ``images.json``: ``images`` and ``categories`` in COCO's format;
    * of a detector ``predictions.json``, COCO's results: ``COCO('images.json').loadRes('predictions.json')``;
    * of a segmentor ``labels/NAME.png``: one channel, each pixel the index of its class from 0, the ``id`` of its
      category (8 bits, or 16 for more than 256 classes).

    Args:
        score_thr: objects with a score above it are written and drawn.
        source: where the pictures come from.
    """

    def __init__(self, folder: Path, inferencer: BaseInferencer, score_thr: float, source: Source):
        self.folder, self.inferencer, self.score_thr, self.source = folder, inferencer, score_thr, source
        meta = inferencer.model.dataset_meta
        self.classes, self.palette = meta['classes'], meta.get('palette')
        self.images: list[dict] = []
        self.objects: list[dict] | None = [] if inferencer.model.cfg.default_scope == 'mmdet' else None
        self.ids = category_ids(inferencer.model.cfg, self.classes) if self.objects is not None else None
        self.video: cv2.VideoWriter | None = None

    def __enter__(self) -> 'Results':
        return self

    def __exit__(self, *_: Any) -> None:
        """Also of an interrupted prediction, what is done is written."""
        if self.video:
            self.video.release()
        categories = [
            dict(id=i, name=name) for i, name in zip(self.ids or range(len(self.classes)), self.classes, strict=True)
        ]
        self._dump('images.json', dict(images=self.images, categories=categories))
        if self.objects is not None:
            self._dump('predictions.json', self.objects)

    def add(self, item: Item, sample: Any) -> None:
        height, width = item.image.shape[:2]
        self.images.append(dict(item.info, height=height, width=width))
        factor = enlargement(height, width)
        new = height * factor, width * factor
        picture = resize_picture(np.ascontiguousarray(item.image[..., ::-1]), new[1], new[0])
        if self.objects is not None:
            sample.pred_instances = sample.pred_instances[sample.pred_instances.scores > self.score_thr]
            self.objects += self._coco(item, self.inferencer.pred2dict(sample))
            instances = resize_sample(sample, height, width, *new).pred_instances
            drawn = draw_instances(picture, instances, self.classes, self.palette)
        else:
            labels = sample.pred_sem_seg.data[0].cpu().numpy()
            self._write(f'labels/{item.name}.png', labels.astype(np.uint8 if len(self.classes) <= 256 else np.uint16))
            labels = resize_sample(sample, height, width, *new).pred_sem_seg.data[0].cpu().numpy()
            drawn = draw_label_map(picture, labels, self.classes, self.palette)
        if self.source.fps is None:
            self._write(f'vis/{item.name}.png', drawn[..., ::-1])
        else:
            self._append(drawn[..., ::-1])

    def _coco(self, item: Item, found: dict) -> Iterator[dict]:
        for i, (left, top, right, bottom) in enumerate(found['bboxes']):
            result = dict(image_id=item.info['id'], category_id=self.ids[found['labels'][i]])
            result |= dict(bbox=[left, top, right - left, bottom - top], score=found['scores'][i])
            yield result | (dict(segmentation=found['masks'][i]) if 'masks' in found else {})

    def _append(self, frame: np.ndarray) -> None:
        if self.video is None:
            file = self.folder / f'{self.source.path.stem}.mp4'
            size = frame.shape[1], frame.shape[0]
            self.video = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*'mp4v'), self.source.fps, size)
            if not self.video.isOpened():
                raise UserError(f'OpenCV cannot write {file} with {size[0]} x {size[1]} pixels.')
        self.video.write(np.ascontiguousarray(frame))

    def _write(self, name: str, picture: np.ndarray) -> None:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if not cv2.imwrite(str(file), picture):
            raise UserError(f'{file} cannot be written; is the disk full?')

    def _dump(self, name: str, content: Any) -> None:
        (self.folder / name).write_text(json.dumps(content) + '\n', encoding='utf-8')


def make_inferencer(model: nn.Module) -> BaseInferencer:
    """mmdet's or mmseg's inferencer for a model that has its weights already."""
    if model.cfg.default_scope == 'mmdet':
        from mmdet.apis import DetInferencer as Base

        visualizer = 'DetLocalVisualizer'
    else:
        from mmseg.apis import MMSegInferencer as Base

        visualizer = 'SegLocalVisualizer'

    class Inferencer(Base):
        def _init_model(self, cfg: Any, weights: str | None, device: str = 'cpu') -> nn.Module:
            cfg.visualizer = dict(type=visualizer, vis_backends=None)  # unused: both demand one
            return model

        def _init_collate(self, cfg: Any) -> Callable:
            return pseudo_collate  # mmengine's choice too, after a warning

    return Inferencer(model.cfg)


def predict(inferencer: BaseInferencer, items: Iterable[Item], results: Results, batch_size: int) -> list[str]:
    """Writes the predictions for every picture; returns the names of those that cannot be read.

    Pictures that follow each other go through the model together if they are of one size: none is padded for the sake
    of another, so the results do not depend on ``batch_size``.
    """
    unread: list[str] = []

    def readable() -> Iterator[Item]:
        for item in items:
            if item.image is None:
                unread.append(item.info['file_name'])
            else:
                yield item

    for batch in _batches(readable(), batch_size):
        data = inferencer.collate_fn([inferencer.pipeline(item.image) for item in batch])
        with torch.no_grad():
            samples = inferencer.forward(data)
        for item, sample in zip(batch, samples, strict=True):
            results.add(item, sample)
    return unread


def category_ids(cfg: Any, classes: tuple[str, ...]) -> list[int]:
    """The number of every class in its data set: COCO's, else those in the annotation file of the test data if it is
    there, else 1, 2, ..."""
    from mmdet.datasets import CocoDataset

    if tuple(classes) == CocoDataset.METAINFO['classes']:
        return COCO_IDS
    dataset = cfg.test_dataloader.dataset
    file = Path(dataset.get('data_root') or '', dataset.get('ann_file') or '')
    if file.suffix == '.json' and file.is_file():
        ids = {c['name']: c['id'] for c in json.loads(file.read_text(encoding='utf-8')).get('categories', ())}
        if set(classes) <= ids.keys():
            return [ids[name] for name in classes]
    return list(range(1, len(classes) + 1))


def _read(file: Path) -> np.ndarray | None:
    try:
        return mmcv.imread(file)
    except (cv2.error, OSError):
        return None


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    batch: list[Item] = []
    for item in items:
        if batch and (len(batch) == size or item.image.shape != batch[0].image.shape):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch
