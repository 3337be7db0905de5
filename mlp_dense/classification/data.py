"""Labelled images, timm's augmentation, and repeated augmentation."""

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

from ..datasets import SUFFIXES
from ..datasets.archive import Archive
from ..errors import UnreadableError, UserError, some
from ..registry import DATA_SAMPLERS, DATASETS, TRANSFORMS


@DATASETS.register_module()
class ClassFolders(BaseDataset):
    """The images in and below a folder for each class, ``data_root/data_prefix['img_path']/CLASS/``; classes are in the
    order of their names, unless ``metainfo['classes']`` gives another. Names that begin with a dot do not count.
    UserError: a class has no folder."""

    @classmethod
    def read_meta(cls, cfg: ConfigDict) -> dict[str, Any]:
        """What a data set of this config says of itself."""
        folder = Path(cfg.get('data_root') or '', cfg.data_prefix['img_path'])
        inside = folder.iterdir() if folder.is_dir() else ()
        return dict(classes=sorted(path.name for path in inside if path.is_dir() and not path.name.startswith('.')))

    def folders(self) -> list[str]:
        """The names of the folders, in the order of the classes."""
        return list(self.metainfo['classes'])

    def load_data_list(self) -> list[dict]:
        self._metainfo.setdefault('classes', self.read_meta(ConfigDict(data_prefix=self.data_prefix))['classes'])
        root, folders = Path(self.data_prefix['img_path']), self.folders()
        if absent := [name for name in folders if not (root / name).is_dir()]:
            raise UserError(
                f'{root} has no folder {absent[0]}; it must hold one for each of the {len(folders)} classes.'
            )
        found = [
            dict(img_path=str(path), gt_label=label)
            for label, name in enumerate(folders)
            for path in sorted((root / name).rglob('*'))
            if path.suffix.lower() in SUFFIXES and not path.name.startswith('.')
        ]
        filled = {info['gt_label'] for info in found}
        if empty := [name for label, name in enumerate(folders) if label not in filled]:
            print_log(f'{root} has no image of {some(empty)}.', logger='current', level=logging.WARNING)
        return found


@DATASETS.register_module()
class ImageNet(ClassFolders):
    """ImageNet-1k in folders that are named by its synsets (``n01440764``), in their order."""

    @classmethod
    def read_meta(cls, cfg: ConfigDict) -> dict[str, Any]:
        """The first of the words for each class, with its synset where two share it."""
        info = ImageNetInfo()
        names = [text.partition(',')[0] for text in info.label_descriptions()]
        return dict(classes=_distinct(names, info.label_names()))

    def folders(self) -> list[str]:
        return list(ImageNetInfo().label_names())


@DATASETS.register_module()
class ImageArchive(BaseDataset):
    """The images of an :class:`~mlp_dense.datasets.archive.Archive`, ``ann_file``; ``classes.txt`` beside it has a line
    for each class, whose name may follow an id and a tab."""

    @classmethod
    def read_meta(cls, cfg: ConfigDict) -> dict[str, Any]:
        names = Path(cfg.get('data_root') or '', cfg.ann_file).with_name('classes.txt')
        lines = names.read_text(encoding='utf-8').splitlines() if names.is_file() else []
        parts = [line.rpartition('\t') for line in lines]
        return dict(classes=_distinct([part[2] for part in parts], [part[0] for part in parts]))

    def load_data_list(self) -> list[dict]:
        self.archive = Archive(self.ann_file)
        labels = self.archive.labels
        self._metainfo.setdefault('classes', self.read_meta(ConfigDict(ann_file=self.ann_file))['classes'])
        classes = len(self._metainfo['classes'])
        if max(labels, default=0) >= classes:
            held = f'{self.ann_file} holds the label {max(labels)}, but there are {classes} classes'
            raise UserError(f'{held}: write classes.txt beside it, a line for each.')
        return [dict(img_path=f'{self.ann_file}/{i:06}', gt_label=label) for i, label in enumerate(labels)]

    def bytes_of(self, img_path: str) -> bytes:
        """The file of an image."""
        return self.archive.bytes_of(int(Path(img_path).name))

    def get_data_info(self, idx: int) -> dict:
        info = super().get_data_info(idx)
        return dict(info, img_bytes=self.bytes_of(info['img_path']))


def _distinct(names: Sequence[str], ids: Sequence[str]) -> list[str]:
    """The names, with the id behind those that several classes have."""
    return [f'{name} ({i})' if names.count(name) > 1 else name for name, i in zip(names, ids, strict=True)]


@TRANSFORMS.register_module()
class LoadImage:
    """Reads an image with Pillow, as timm does, without regard to its orientation in EXIF; of 16 bits the upper 8, as
    OpenCV. UnreadableError: it cannot be decoded, or has 32 bits."""

    def __call__(self, results: dict) -> dict:
        content = results.pop('img_bytes', None)
        try:
            with Image.open(BytesIO(content) if content else results['img_path']) as image:
                if image.mode in ('I', 'F'):
                    raise UnreadableError(f'{results["img_path"]} has 32 bits a pixel; save images with 8 or 16.')
                if image.mode.startswith('I;16'):
                    image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
                results['img'] = image.convert('RGB')
        except UnreadableError:
            raise
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise UnreadableError(
                f'{results["img_path"]} is missing or no readable image; replace or remove it.'
            ) from error
        results['ori_shape'] = results['img'].size[::-1]
        return results


@TRANSFORMS.register_module()
class TimmTransform:
    """``timm.data.create_transform(**settings)``, on an image of Pillow or a BGR array; gives uint8 (3, H, W) in BGR,
    which the model normalizes. Erasing is the model's, too, since it comes after that."""

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
    """Gives ``inputs`` and a data sample, whose ``gt_class`` has the label."""

    def __call__(self, results: dict) -> dict:
        keys = ('img_path', 'img_id', 'ori_shape', 'img_shape')
        sample = BaseDataElement(metainfo={key: results[key] for key in keys if key in results})
        if 'gt_label' in results:
            sample.gt_class = InstanceData(labels=torch.tensor([results['gt_label']]))
        return dict(inputs=results['inputs'], data_samples=sample)


@DATA_SAMPLERS.register_module()
class RepeatedAugmentation(RepeatAugSampler):
    """timm's RepeatAugSampler (arXiv 1901.09335): an epoch is a third of the images, three times each, one after the
    other or in different processes. The copies of image i of n are i, n + i and 2 n + i, each augmented otherwise."""

    def __init__(self, dataset: Any, seed: int | None = 0, num_repeats: int = 3, shuffle: bool = True):
        rank, processes = get_dist_info()
        super().__init__(dataset, processes, rank, shuffle, num_repeats)
        self.seed = seed or 0
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(self.seed + epoch)

    def __iter__(self) -> Iterator[int]:
        for place, index in enumerate(super().__iter__()):
            copy = (self.rank + place * self.num_replicas) % self.num_repeats
            yield index + copy * len(self.dataset)
