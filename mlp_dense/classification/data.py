"""Data sets of labelled images, timm's augmentation, and repeated augmentation."""

import logging
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.dataset import BaseDataset
from mmengine.dist import get_dist_info
from mmengine.logging import print_log
from mmengine.structures import BaseDataElement, InstanceData
from PIL import Image
from timm.data import ImageNetInfo, create_transform
from timm.data.distributed_sampler import RepeatAugSampler

from ..datasets import SUFFIXES, SYSTEM_FOLDERS, Archive
from ..datasets.bands import BAND_SUFFIXES, LoadMultiBandImage
from ..errors import UnreadableError, UserError, some
from ..registry import DATA_SAMPLERS, DATASETS, TRANSFORMS


@DATASETS.register_module()
class ClassFolders(BaseDataset):
    """Images in and below one folder per class: ``data_root/data_prefix['img_path']/CLASS/``.

    Classes are sorted by name, unless ``metainfo['classes']`` defines their order. Hidden files and folders of the
    system (SYSTEM_FOLDERS) are ignored.
    """

    @classmethod
    def read_meta(cls, cfg: ConfigDict) -> dict[str, Any]:
        folder = Path(cfg.get('data_root') or '', cfg.data_prefix['img_path'])
        paths = folder.iterdir() if folder.is_dir() else ()
        names = (path.name for path in paths if path.is_dir() and not path.name.startswith('.'))
        return dict(classes=sorted(name for name in names if name not in SYSTEM_FOLDERS))

    def folders(self) -> list[str]:
        """Return the names of the folders in the order of the classes."""
        return list(self.metainfo['classes'])

    def load_data_list(self) -> list[dict]:
        self._metainfo.setdefault('classes', self.read_meta(ConfigDict(data_prefix=self.data_prefix))['classes'])
        root, folders = Path(self.data_prefix['img_path']), self.folders()
        any_bands = any(isinstance(transform, LoadMultiBandImage) for transform in self.pipeline.transforms)
        suffixes = BAND_SUFFIXES if any_bands else SUFFIXES
        if missing := [name for name in folders if not (root / name).is_dir()]:
            raise UserError(f'{root} has no folder {missing[0]}; create one for each of the {len(folders)} classes.')
        images = [
            dict(img_path=str(path), gt_label=label)
            for label, name in enumerate(folders)
            for path in sorted((root / name).rglob('*'))
            if path.suffix.lower() in suffixes
            and not path.name.startswith('.')
            and not {*path.parts} & {*SYSTEM_FOLDERS}
        ]
        labels = {info['gt_label'] for info in images}
        if empty := [name for label, name in enumerate(folders) if label not in labels]:
            print_log(f'{root} has no image of {some(empty)}.', logger='current', level=logging.WARNING)
        return images


@DATASETS.register_module()
class ImageNet(ClassFolders):
    """ImageNet-1k in folders that are named by its synsets (``n01440764``) and sorted by them."""

    @classmethod
    def read_meta(cls, cfg: ConfigDict) -> dict[str, Any]:
        """Return the first word of each class, with its synset if several classes share the word."""
        names = [text.partition(',')[0] for text in ImageNetInfo().label_descriptions()]
        return dict(classes=_distinct(names, ImageNetInfo().label_names()))

    def folders(self) -> list[str]:
        return list(ImageNetInfo().label_names())


@DATASETS.register_module()
class ImageArchive(BaseDataset):
    """Images of the :class:`~mlp_dense.datasets.Archive` ``ann_file``.

    ``classes.txt`` in the same folder has a line for each class: its name, or an id, a tab and its name.
    """

    @classmethod
    def read_meta(cls, cfg: ConfigDict) -> dict[str, Any]:
        names = Path(cfg.get('data_root') or '', cfg.ann_file).with_name('classes.txt')
        lines = names.read_text(encoding='utf-8-sig').splitlines() if names.is_file() else []
        rows = [line.rpartition('\t') for line in lines]
        return dict(classes=_distinct([row[2] for row in rows], [row[0] for row in rows]))

    def load_data_list(self) -> list[dict]:
        self.archive = Archive(self.ann_file)
        labels = self.archive.labels
        self._metainfo.setdefault('classes', self.read_meta(ConfigDict(ann_file=self.ann_file))['classes'])
        classes = len(self._metainfo['classes'])
        if max(labels, default=0) >= classes:
            problem = f'{self.ann_file} holds the label {max(labels)}, but there are {classes} classes'
            raise UserError(f'{problem}: write classes.txt in its folder, with a line for each class.')
        return [dict(img_path=f'{self.ann_file}/{i:06}', gt_label=label) for i, label in enumerate(labels)]

    def bytes_of(self, img_path: str) -> bytes:
        return self.archive.bytes_of(int(Path(img_path).name))

    def get_data_info(self, idx: int) -> dict:
        info = super().get_data_info(idx)
        return dict(info, img_bytes=self.bytes_of(info['img_path']))


def _distinct(names: Sequence[str], ids: Sequence[str]) -> list[str]:
    """Return the names, followed by the id if several classes share a name."""
    return [f'{name} ({i})' if names.count(name) > 1 else name for name, i in zip(names, ids, strict=True)]


@TRANSFORMS.register_module()
class LoadImage:
    """Image reader that ignores the orientation in EXIF, as timm does, and uses the upper 8 of 16 bits, as OpenCV."""

    def __call__(self, results: dict) -> dict:
        content, path = results.pop('img_bytes', None), results['img_path']
        try:
            with Image.open(BytesIO(content) if content else path) as image:
                image.load()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise UnreadableError(f'{path} is missing or not a readable image; replace or remove it.') from error
        if image.mode in ('I', 'F'):
            raise UnreadableError(f'{path} has 32 bits per pixel; save images with 8 or 16.')
        is_deep = image.mode.startswith('I;16')
        upper = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)) if is_deep else image
        results['img'], results['ori_shape'] = upper.convert('RGB'), image.size[::-1]
        return results


@TRANSFORMS.register_module()
class TimmTransform:
    """``timm.data.create_transform(**settings)`` of a Pillow image or a BGR array to uint8 (3, H, W) in BGR."""

    def __init__(self, **settings: Any):
        self.transform = create_transform(**settings, use_prefetcher=True)

    def __call__(self, results: dict) -> dict:
        image = results.pop('img')
        if isinstance(image, np.ndarray):
            image = Image.fromarray(np.ascontiguousarray(image[..., ::-1]))
        results['inputs'] = torch.as_tensor(self.transform(image)).flip(0)
        results['img_shape'] = tuple(results['inputs'].shape[1:])
        return results


@TRANSFORMS.register_module()
class PackClass:
    """Last transform, which returns ``inputs`` and a data sample with the label in ``gt_class``.

    ``inputs`` are those of TimmTransform, else the image (H, W, C) of LoadMultiBandImage as a tensor (C, H, W).
    """

    def __call__(self, results: dict) -> dict:
        keys = ('img_path', 'img_id', 'ori_shape', 'img_shape')
        sample = BaseDataElement(metainfo={key: results[key] for key in keys if key in results})
        if 'gt_label' in results:
            sample.gt_class = InstanceData(labels=torch.tensor([results['gt_label']]))
        if 'inputs' not in results:
            image = results['img'].reshape(*results['img'].shape[:2], -1)  # OpenCV drops the axis of a single band
            results['inputs'] = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        return dict(inputs=results['inputs'], data_samples=sample)


@DATA_SAMPLERS.register_module()
class RepeatedAugmentation(RepeatAugSampler):
    """timm's RepeatAugSampler (arXiv 1901.09335): an epoch contains a third of the images, three times each.

    Copies are consecutive in the global order, so several processes may share them. The copies of image i of n have the
    indices i, n + i and 2 n + i, so they are augmented differently.
    """

    def __init__(self, dataset: Any, seed: int | None = 0, num_repeats: int = 3, shuffle: bool = True):
        rank, processes = get_dist_info()
        super().__init__(dataset, processes, rank, shuffle, num_repeats)
        self.seed = seed or 0
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(self.seed + epoch)

    def __iter__(self) -> Iterator[int]:
        for position, index in enumerate(super().__iter__()):
            copy = (self.rank + position * self.num_replicas) % self.num_repeats
            yield index + copy * len(self.dataset)
