"""Trained models in Python and on the command line: loading, prediction, drawing, and files that other tools read."""

import copy
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from functools import cache
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import MODELS

from . import operators
from .checkpoints.reading import Checkpoint
from .checks.band_agreement import band_count, check_bands, check_image
from .checks.channels import check_channels
from .checks.data_config import check_class_count
from .checks.missing_operators import check_operators
from .config.config_file import enter_scope, need, read_config
from .config.unread import check_unread
from .config.validation import building
from .datasets import SUFFIXES
from .datasets.bands import BAND_SUFFIXES, LoadMultiBandImage, multi_band_loader
from .datasets.image_files import write_image
from .datasets.layout import dataset_meta, leaves
from .errors import CheckpointError, UnreadableError, UserError, counted
from .outputs import GrowingList
from .tasks import DETECTION, task_of
from .training.machine import adapt_to_cpu
from .training.runner import load_weights
from .training.setup import is_exported, run_exported
from .training.trained_with import warn_if_used_with_others
from .visualization.drawing import colours, draw_labels


class LoadedModel:
    """Methods that :func:`load_model` adds to the class of a model."""

    cfg: Config
    dataset_meta: dict[str, Any]

    def predict(self, images: Any, *args: Any, batch_size: int = 1, **kwargs: Any) -> Any:
        """Predict on `images`, prepared by the test pipeline of the config: a path, an RGB array, or a list of these.

        An array is (H, W, 3) of uint8, or with LoadMultiBandImage (H, W, C) of any real dtype. Only consecutive images
        of one size share a batch.

        Returns:
            A data sample for an image, a list of data samples for a list. Each has ``pred_instances`` (mmdet),
            ``pred_sem_seg`` (mmsegmentation) or ``pred_class`` (classifiers), in pixels of the image.

        Raises:
            UserError: an image is missing, cannot be decoded, or has another shape or dtype.
        """
        if args or kwargs:  # mmdet and mmsegmentation call their method of this name
            return super().predict(images, *args, **kwargs)  # type: ignore[misc]
        if batch_size < 1:
            raise UserError(f'batch_size is {batch_size}; set it to 1 or more.')
        is_list, reader = isinstance(images, (list, tuple)), reader_of(self.cfg)
        numbered = enumerate(images if is_list else [images])
        names = ((i, image, f'Image {i}' if isinstance(image, np.ndarray) else str(image)) for i, image in numbered)
        frames = (Frame(dict(id=i, file_name=name), str(i), read_image(image, reader)) for i, image, name in names)
        samples = [sample for _, sample in predict(self, frames, batch_size)]
        return samples if is_list else samples[0]

    def draw(
        self, image: str | Path | np.ndarray, result: Any, out: str | Path | None = None, score_thr: float = 0.3
    ) -> np.ndarray:
        """Draw the `result` of :meth:`predict` on its `image`: a path, or an array as for :meth:`predict`.

        Objects with a score below `score_thr` are not drawn. `out` is a file to write, in a new or existing folder.

        Returns:
            RGB array (H, W, 3) of uint8. Small images are enlarged by an integer factor, so that names are legible.

        Raises:
            UserError: the image is unusable or does not belong to the result, or the file cannot be written.
        """
        task = task_of(self.cfg.default_scope)
        reader = reader_of(self.cfg)
        bgr = reader.to_bgr(read_image(image, reader))
        size, expected = ('{}x{}'.format(*shape) for shape in (bgr.shape, result.get('ori_shape', bgr.shape)))
        if size != expected:
            raise UserError(
                f'The result is of an image of {expected} pixels, this image has {size}; '
                'pass the image that the result was predicted for.'
            )
        labels = task.labels_of(result, 'pred', score_thr)
        if labels is None:
            raise UserError(f'The result has no pred_{task.field}; pass a data sample that predict() returned.')
        drawn = draw_labels(bgr, [labels], task.draw, self.dataset_meta, bgr=True)
        if out is not None:
            write_image(Path(out), drawn)
        return np.ascontiguousarray(drawn[..., ::-1])

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the model by its original class; the combined class is not in a module."""
        return _new_model, (type(self).__bases__[1],), self.__dict__


@cache
def _with_methods(cls: Any) -> Any:
    return type(cls.__name__, (LoadedModel, cls), dict(__module__=cls.__module__, __doc__=cls.__doc__))


def _new_model(cls: Any) -> Any:
    return object.__new__(_with_methods(cls))


def load_model(
    config: str | Path | Config, checkpoint: str | Path | None, device: str | torch.device | None = None
) -> Any:
    """Build a model and load its weights.

    Args:
        config: config file, or a config, which is not changed; its ``init_cfg`` is ignored.
        checkpoint: file or URL of a checkpoint; a file of tools/export.py, which runs on the CPU; None: random weights.
        device: None uses the first GPU, else the CPU. On a CPU, BatchNorm replaces SyncBN.

    Returns:
        The model in eval mode, with the methods of :class:`LoadedModel`, ``cfg`` and ``dataset_meta``: ``classes``,
        from the checkpoint or else the test data of the config, and a ``palette`` of (R, G, B) colours from 0 to 255.

    Raises:
        UserError: the config or the device is unusable, or the class names are unknown or do not fit the model.
        CheckpointError: the checkpoint is unusable or belongs to another model.
    """
    device = checked_device(device)
    cfg = copy.deepcopy(config) if isinstance(config, Config) else read_config(config)
    need(cfg, 'model')
    check_unread(cfg)
    if device.type == 'cpu':
        adapt_to_cpu(cfg)
    enter_scope(cfg)
    check_bands(cfg, ['test'])
    if checkpoint is not None and is_exported(checkpoint):
        device, model_cfg = torch.device('cpu'), cfg.model
        run_exported(cfg, checkpoint)
        model = _build(cfg)
        metadata, cfg.model = model.exported.metadata, model_cfg
        meta = dict(classes=tuple(metadata['classes']), palette=[tuple(colour) for colour in metadata['palette']])
    else:
        stored = None if checkpoint is None else Checkpoint.read(checkpoint)
        meta = _dataset_meta(cfg, stored.dataset_meta if stored else {})
        model = _build(cfg)
        check_channels(model)
        check_operators(model)
        if stored:
            load_weights(model, stored)
            warn_if_used_with_others(cfg, stored)
        operators.announce()
    model.__class__ = _with_methods(type(model))  # type: ignore[arg-type]
    model.cfg, model.dataset_meta = cfg, meta
    return model.to(device).eval()


def _build(cfg: Config) -> Any:
    with building(cfg):
        return MODELS.build(cfg.model)


def checked_device(device: str | torch.device | None) -> torch.device:
    """Return the device of a name, for None the first GPU or else the CPU; raise UserError if it is absent."""
    try:
        device = torch.device(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise UserError(f'The device {device} is unknown or absent; use cpu, cuda or cuda:NUMBER.') from error
    return device


def _dataset_meta(cfg: Config, stored: dict[str, Any]) -> dict[str, Any]:
    configured = dataset_meta(cfg.test_dataloader.dataset) if 'test_dataloader' in cfg else {}
    configured_classes = tuple(configured.get('classes') or ())
    classes = stored.get('classes') or configured_classes
    if not classes:
        raise UserError(
            'Neither the checkpoint nor the test data of the config contain class names; '
            'set metainfo=dict(classes=...) in test_dataloader.dataset.'
        )
    check_class_count(cfg.model, classes, 'the meta data of the checkpoint' if 'classes' in stored else 'the test data')
    palette = stored.get('palette') or (configured.get('palette') if classes == configured_classes else None)
    return dict(classes=classes, palette=colours(palette, len(classes)))


def compare_with_model(cfg: Config, checkpoint: Checkpoint) -> str:
    """Return whether a checkpoint loads into the complete model of a config, or why it does not."""
    enter_scope(cfg)
    model = _build(cfg)
    try:
        load_weights(model, checkpoint)
    except CheckpointError as error:
        return f'does not load: {error}'
    return f'loads: {len(model.state_dict())} tensors'


class Frame(NamedTuple):
    """Image, or a frame of a video."""

    info: dict  # `id`, `file_name`, and `frame` of a video, as in COCO's `images`
    name: str  # of the files written for it: a relative path without a suffix
    image: Any  # BGR array (H, W, 3), or bands (H, W, C); None if it cannot be decoded


class Reader:
    """Decoder of the images of a config: 8-bit BGR by mmcv, or bands by its LoadMultiBandImage."""

    def __init__(self, flag: str = 'color', loader: LoadMultiBandImage | None = None):
        self.flag, self.loader = flag, loader
        self.suffixes = BAND_SUFFIXES if loader else SUFFIXES

    def __call__(self, file: Path) -> np.ndarray | None:
        """Return the image of a file, None if it cannot be decoded."""
        if self.loader is not None:
            with suppress(UnreadableError):
                return self.loader.read(file)
            return None
        with suppress(cv2.error, OSError):
            return mmcv.imread(file, self.flag)
        return None

    def to_bgr(self, image: np.ndarray) -> np.ndarray:
        """Return a decoded image as uint8 (H, W, 3) in BGR, to draw on."""
        return image if self.loader is None else np.ascontiguousarray(self.loader.rgb(image)[..., ::-1])


def reader_of(cfg: Config) -> Reader:
    """Return the reader of the images that the test pipeline of a config loads."""
    pipeline = test_data(cfg).get('pipeline') if 'test_dataloader' in cfg else None
    return Reader(task_of(cfg.get('default_scope')).flag, multi_band_loader(pipeline or []))


class ImageSource:
    """Images of a path, sorted by name: an image, a folder with its sub-folders, or the frames of a video.

    ``id`` is the number in the name, as in COCO, if all names are different numbers; else the position from 0.
    """

    files: Sequence[Path] = ()
    length: int  # 0 if unknown
    fps = 0.0  # frames per second of a video

    def __init__(self, path: Path, reader: Reader | None = None):
        self.path, self.reader = path, reader or Reader()
        suffixes = self.reader.suffixes
        if path.is_dir():
            self.files = sorted(file for file in path.rglob('*') if file.suffix.lower() in suffixes and file.is_file())
            if not self.files:
                raise UserError(f'{path} contains no images; choose a folder with files of {", ".join(suffixes)}.')
        elif path.suffix.lower() in suffixes and path.is_file():
            self.files = [path]
        elif path.is_file() and self.reader.loader:
            raise UserError(f'{path} is not an image; choose a file of {", ".join(suffixes)}.')
        elif path.is_file():
            check_video_name(path)
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
            yield Frame(dict(id=image_id, file_name=path.as_posix()), name, self.reader(file))


def check_video_name(file: Path) -> None:
    """Raise UserError if the path of a video is not UTF-8: OpenCV would crash the process."""
    try:
        str(file).encode()
    except UnicodeEncodeError as error:
        raise UserError(f'{file}: OpenCV cannot open a video whose path is not UTF-8; rename it.') from error


class PredictionWriter(AbstractContextManager):
    """Writer of predictions into a folder, in the files of docs/tools.md.

    Objects with a score of at least `score_thr` are written and drawn. If the process ends at any image, for any
    reason, the results of the earlier images are complete.
    """

    def __init__(self, folder: Path, model: Any, score_thr: float, source: ImageSource):
        self.folder, self.score_thr, self.source = folder, score_thr, source
        self.task, self.meta = task_of(model.cfg.default_scope), model.dataset_meta
        self.ids = self.task.category_ids(test_data(model.cfg), self.meta['classes'])
        self.count = self.object_count = 0
        self.best_score = 0.0  # of all objects, whether they are drawn or not
        self.undecodable: list[str] = []
        self.video: cv2.VideoWriter | None = None
        categories = [dict(id=i, name=name) for i, name in zip(self.ids, self.meta['classes'], strict=True)]
        start = f'{{"categories": {json.dumps(categories)}, "images": ['
        self.images = GrowingList(folder / 'images.json', start, ']}')
        self.objects = GrowingList(folder / 'predictions.json') if self.task.objects else None

    def __exit__(self, *_: Any) -> None:
        if self.video:
            self.video.release()
        for file in filter(None, (self.images, self.objects)):
            file.close()

    def add(self, frame: Frame, sample: Any) -> None:
        if frame.image is None:
            self.undecodable.append(frame.info['file_name'])
            return
        height, width = frame.image.shape[:2]
        labels = self.task.labels_of(sample, 'pred', self.score_thr)
        if self.task is DETECTION:
            self.object_count += len(labels)
            self.best_score = max([self.best_score, *self.task.labels_of(sample, 'pred').scores.tolist()])
        if self.task.label_map:
            dtype = np.uint8 if len(self.ids) <= 256 else np.uint16
            write_image(self.folder / f'labels/{frame.name}.png', self.task.label_map(labels).astype(dtype))
        drawn = draw_labels(self.source.reader.to_bgr(frame.image), [labels], self.task.draw, self.meta, bgr=True)
        if self.source.fps:
            self._add_frame(drawn)
        else:
            write_image(self.folder / f'vis/{frame.name}.png', drawn)
        if self.task.objects and self.objects:
            self.objects.extend(self.task.objects(labels, frame.info['id'], self.ids))
        self.images.extend([dict(frame.info, height=height, width=width)])  # last: all results of the image exist
        self.count += 1

    def summary(self) -> str:
        """Return what was written, and if no object was, which threshold would draw one."""
        text = f'{counted(self.count, "frame" if self.source.fps else "image")}: results are in {self.folder}'
        if self.task is not DETECTION or not self.count:
            return text
        text += f'\n{counted(self.object_count, "object")} with a score of {self.score_thr:g} or more'
        if not self.object_count:
            text += f'; the highest score is {self.best_score:.3f}: pass a lower --score-thr, or train longer'
        return text

    def _add_frame(self, drawn: np.ndarray) -> None:
        if self.video is None:
            file, size = self.folder / f'{self.source.path.stem}.mp4', drawn.shape[1::-1]
            check_video_name(file)
            self.video = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*'mp4v'), self.source.fps, size)
            if not self.video.isOpened():
                raise UserError(f'OpenCV cannot write {file} with {size[0]} x {size[1]} pixels; use images instead.')
        self.video.write(drawn)


def predict(model: Any, frames: Iterable[Frame], batch_size: int) -> Iterator[tuple[Frame, Any]]:
    """Yield each frame with its data sample, which is None if the image cannot be decoded.

    Only consecutive images of one size share a batch, so no image is padded to the size of another.
    """
    prepare, bands = pipeline_of(model.cfg), band_count(model.cfg)
    for shape, group in groupby(frames, lambda frame: None if frame.image is None else frame.image.shape):
        if shape is None:
            yield from ((frame, None) for frame in group)
        while batch := list(islice(group, batch_size)):
            with torch.no_grad():
                for info, _, image in batch:
                    check_image(info['file_name'], image.shape[2], bands)
                inputs = pseudo_collate([prepare(image, info['id']) for info, _, image in batch])
                yield from zip(batch, model.test_step(inputs), strict=True)


def pipeline_of(cfg: Config) -> Callable[[np.ndarray, int], dict]:
    """Return the test pipeline of a config, without loading, as a function of a decoded image and its id."""
    transforms = Compose([transform for transform in test_data(cfg).pipeline if 'Load' not in str(transform['type'])])

    def prepare(image: np.ndarray, image_id: int) -> dict:
        size = image.shape[:2]
        return transforms(dict(img=image, img_id=image_id, img_shape=size, ori_shape=size, img_path=None))

    return prepare


def read_image(image: str | Path | np.ndarray, reader: Reader) -> np.ndarray:
    """Return an image, the path of a file or an array, as a reader decodes it; raise UserError if unusable.

    An array is RGB (H, W, 3) of uint8, or with LoadMultiBandImage (H, W, C) of any real dtype.
    """
    if isinstance(image, (str, Path)):
        if not Path(image).is_file():
            raise UserError(f'{image} does not exist or is not a file; pass the path of an image.')
        decoded = reader(Path(image))
        if decoded is None:
            decoder = 'OpenCV' if reader.loader is None else 'LoadMultiBandImage'
            raise UserError(f'{image} cannot be decoded; pass an image that {decoder} reads.')
        return decoded
    if not isinstance(image, np.ndarray):
        raise UserError(f'An image is of type {type(image).__name__}; pass a path or a NumPy array.')
    if reader.loader is not None:
        if image.ndim != 3 or image.dtype.kind not in 'buif' or not image.size or not np.isfinite(image).all():
            problem = f'An image array has shape {image.shape} and dtype {image.dtype}'
            raise UserError(f'{problem}; pass (height, width, bands) of finite numbers, in the order of the files.')
        return np.ascontiguousarray(image, np.float32)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise UserError(
            f'An image array has shape {image.shape} and dtype {image.dtype}; '
            'pass (height, width, 3) in RGB order as uint8, with values from 0 to 255.'
        )
    return np.ascontiguousarray(image[..., ::-1])


def test_data(cfg: Config) -> Any:
    """Return the innermost data set of the test loader in a config."""
    return next(leaves(cfg.test_dataloader.dataset))
