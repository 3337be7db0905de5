"""One small set of annotated images in the layout of every tool, written without the code of the package."""

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import quoteattr

import numpy as np
from PIL import Image

CLASSES = ('person', 'car', 'chair')


class Sample(NamedTuple):
    file: Path
    width: int
    height: int
    objects: list[tuple[int, list[float]]]  # class and one polygon, with two decimals


Splits = dict[str, list[Sample]]


def genuine_set(shared: Path, train: int = 30, val: int = 10) -> Splits:
    """Return genuine images of COCO with three classes; every object has one polygon, and none is a crowd."""
    return {
        split: _samples(shared / 'data' / 'coco_tiny', f'instances_{split}2017.json', f'{split}2017', CLASSES, number)
        for split, number in (('train', train), ('val', val))
    }


def shapes_set(root: Path, folder: Path, train: int = 6, val: int = 3) -> Splits:
    """Return images of the generated data set in `root`, which are linked into a folder under names of their own."""
    folder.mkdir()
    splits = {}
    for split, number in (('train', train), ('val', val)):
        samples = _samples(root, f'instances_{split}.json', split, ('disc', 'square', 'star'), number)
        splits[split] = [p._replace(file=folder / f'{split} é {p.file.name}') for p in samples]
        for sample, renamed in zip(samples, splits[split], strict=True):
            os.link(sample.file, renamed.file)
    return splits


def _samples(root: Path, annotations: str, folder: str, names: tuple[str, ...], number: int) -> list[Sample]:
    content = json.loads((root / 'annotations' / annotations).read_text())
    labels = {c['id']: names.index(c['name']) for c in content['categories'] if c['name'] in names}
    objects: dict[int, list] = {}
    for entry in content['annotations']:
        if entry['category_id'] in labels and not entry['iscrowd'] and len(entry['segmentation']) == 1:
            polygon = [round(float(value), 2) for value in entry['segmentation'][0]]
            objects.setdefault(entry['image_id'], []).append((labels[entry['category_id']], polygon))
    images = sorted((image for image in content['images'] if image['id'] in objects), key=lambda i: i['file_name'])
    return [Sample(root / folder / i['file_name'], i['width'], i['height'], objects[i['id']]) for i in images[:number]]


def box(polygon: list[float]) -> list[float]:
    """Return left, top, width and height with two decimals."""
    (left, top), (right, bottom) = (min(polygon[0::2]), min(polygon[1::2])), (max(polygon[0::2]), max(polygon[1::2]))
    return [left, top, round(right - left, 2), round(bottom - top, 2)]


def write_as(dialect: str, root: Path, splits: Splits, classes: tuple[str, ...] = CLASSES) -> Path:
    """Write images and annotations in a dialect of `DIALECTS` into a new folder, and return it."""
    DIALECTS[dialect](root, splits, classes)
    return root


def link(file: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    os.link(file.resolve(), folder / file.name)


def coco_content(samples: list[Sample], classes: tuple[str, ...], first: int = 1, prefix: str = '') -> dict:
    """Return the content of an annotation file with ids from `first` on."""
    images, annotations = [], []
    for i, sample in enumerate(samples, start=first):
        name = prefix + sample.file.name
        images.append(dict(id=i, file_name=name, width=sample.width, height=sample.height))
        for label, polygon in sample.objects:
            ids = dict(id=len(annotations) + first, image_id=i, category_id=label + first)
            area = box(polygon)[2] * box(polygon)[3]
            annotations.append(dict(ids, segmentation=[polygon], area=area, bbox=box(polygon), iscrowd=0))
    categories = [dict(id=i, name=name, supercategory='') for i, name in enumerate(classes, start=first)]
    return dict(info={}, licenses=[], images=images, categories=categories, annotations=annotations)


def write_json(file: Path, content: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def _coco(root: Path, splits: Splits, classes: tuple[str, ...]) -> None:
    for split, samples in splits.items():
        write_json(root / 'annotations' / f'instances_{split}2017.json', coco_content(samples, classes))
        for sample in samples:
            link(sample.file, root / f'{split}2017')


def _roboflow(root: Path, splits: Splits, classes: tuple[str, ...]) -> None:
    for split, samples in splits.items():
        folder = root / dict(val='valid').get(split, split)
        content = coco_content(samples, ('things', *classes), first=0)
        for category in content['categories']:
            category['supercategory'] = 'things' if category['id'] else 'none'
        for annotation in content['annotations']:
            annotation['category_id'] += 1
        for sample in samples:
            link(sample.file, folder)
        write_json(folder / '_annotations.coco.json', content)


def _cvat_coco(root: Path, splits: Splits, classes: tuple[str, ...]) -> None:
    for split, samples in splits.items():
        write_json(root / 'annotations' / f'instances_{split.capitalize()}.json', coco_content(samples, classes))
        for sample in samples:
            link(sample.file, root / 'images' / split.capitalize())


def _label_studio(root: Path, splits: Splits, classes: tuple[str, ...]) -> None:
    """Label Studio has no splits, so each is an export of its own."""
    for split, samples in splits.items():
        content = coco_content(samples, classes, first=0, prefix='images\\')
        for annotation in content['annotations']:
            annotation['ignore'] = 0
        write_json(root / split / 'result.json', content)
        for sample in samples:
            link(sample.file, root / split / 'images')


def _yolo(root: Path, splits: Splits, classes: tuple[str, ...], boxes: bool = False) -> None:
    for split, samples in splits.items():
        for sample in samples:
            link(sample.file, root / 'images' / split)
            rows = []
            for label, polygon in sample.objects:
                left, top, width, height = box(polygon)
                values = [left + width / 2, top + height / 2, width, height] if boxes else polygon
                sides = (sample.width, sample.height)
                fractions = (f'{value / sides[i % 2]:.8f}' for i, value in enumerate(values))
                rows.append(' '.join([str(label), *fractions]))
            file = root / 'labels' / split / f'{sample.file.stem}.txt'
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text('\n'.join(rows) + '\n')
    lines = [f'{split}: images/{split}' for split in splits] + [f'nc: {len(classes)}', f'names: {[*classes]}']
    (root / 'data.yaml').write_text('\n'.join(lines) + '\n')


def _yolo_boxes(root: Path, splits: Splits, classes: tuple[str, ...]) -> None:
    _yolo(root, splits, classes, boxes=True)


def _voc(root: Path, splits: Splits, classes: tuple[str, ...]) -> None:
    for split, samples in splits.items():
        for sample in samples:
            link(sample.file, root / 'JPEGImages')
            objects = []
            for label, polygon in sample.objects:
                left, top, width, height = box(polygon)
                right, bottom = round(left + width, 2), round(top + height, 2)
                corners = f'<xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>'
                name = f'<name>{classes[label]}</name><pose>Unspecified</pose><difficult>0</difficult>'
                objects.append(f'<object>{name}<bndbox>{corners}</bndbox></object>')
            size = f'<size><width>{sample.width}</width><height>{sample.height}</height><depth>3</depth></size>'
            text = f'<annotation><filename>{sample.file.name}</filename>{size}{"".join(objects)}</annotation>'
            _write(root / 'Annotations' / f'{sample.file.stem}.xml', text)
        names = ''.join(f'{sample.file.stem}\n' for sample in samples)
        _write(root / 'ImageSets' / 'Main' / f'{split}.txt', names)
    _write(root / 'labelmap.txt', '# label:color_rgb:parts:actions\n' + ''.join(f'{name}:::\n' for name in classes))


def _labelme(root: Path, splits: Splits, classes: tuple[str, ...], embedded: bool = False) -> None:
    for split, samples in splits.items():
        for sample in samples:
            shapes = [
                dict(label=classes[label], points=np.reshape(polygon, (-1, 2)).tolist(), group_id=None, flags={},
                     shape_type='polygon')
                for label, polygon in sample.objects
            ]  # fmt: skip
            image = base64.b64encode(sample.file.read_bytes()).decode() if embedded else None
            content = dict(version='5.4.1', flags={}, shapes=shapes, imagePath=sample.file.name, imageData=image)
            content |= dict(imageHeight=sample.height, imageWidth=sample.width)
            write_json(root / split / f'{sample.file.stem}.json', content)
            if not embedded:
                link(sample.file, root / split)
    _write(root / 'labels.txt', '__ignore__\n_background_\n' + '\n'.join(classes) + '\n')


def _labelme_embedded(root: Path, splits: Splits, classes: tuple[str, ...]) -> None:
    _labelme(root, splits, classes, embedded=True)


def _cvat(root: Path, splits: Splits, classes: tuple[str, ...]) -> None:
    images = []
    for split, samples in splits.items():
        for sample in samples:
            link(sample.file, root / 'images' / split)
            shapes = []
            for label, polygon in sample.objects:
                points = ';'.join(f'{x},{y}' for x, y in np.reshape(polygon, (-1, 2)).tolist())
                shapes.append(
                    f'<polygon label={quoteattr(classes[label])} occluded="0" points="{points}" z_order="0"/>'
                )
            name = f'name={quoteattr(sample.file.name)} subset="{split}"'
            size = f'width="{sample.width}" height="{sample.height}"'
            images.append(f'<image id="{len(images)}" {name} {size}>{"".join(shapes)}</image>')
    labels = ''.join(f'<label><name>{name}</name><color>#ff0000</color><type>any</type></label>' for name in classes)
    meta = f'<version>1.1</version><meta><task><id>1</id><labels>{labels}</labels></task></meta>'
    _write(root / 'annotations.xml', f'<?xml version="1.0"?><annotations>{meta}{"".join(images)}</annotations>')


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding='utf-8')


DIALECTS: dict[str, Callable[[Path, Splits, tuple[str, ...]], None]] = {
    'coco': _coco,
    'roboflow': _roboflow,
    'cvat_coco': _cvat_coco,
    'label_studio': _label_studio,
    'yolo': _yolo,
    'yolo_boxes': _yolo_boxes,
    'voc': _voc,
    'labelme': _labelme,
    'labelme_embedded': _labelme_embedded,
    'cvat': _cvat,
}
WITHOUT_POLYGONS = ('yolo_boxes', 'voc')


def write_label_maps(kind: str, root: Path, splits: dict[str, list[tuple[Path, np.ndarray]]], table: dict) -> Path:
    """Write images and label maps of a kind; `table` has the colour of each class; 255 is ignored.

    Kinds are ``index``, ``palette``, ``rgb``, ``sixteen`` and ``masks`` (one for each class).
    """
    colours = [*table.values()]
    for split, pairs in splits.items():
        for image, labels in pairs:
            link(image, root / 'images' / split)
            folder = root / 'masks' / split
            folder.mkdir(parents=True, exist_ok=True)
            file = folder / f'{image.stem}.png'
            if kind == 'masks':
                for i, name in enumerate(table):
                    (folder / name).mkdir(exist_ok=True)
                    Image.fromarray(np.uint8(labels == i) * 255).save(folder / name / file.name)
            elif kind == 'sixteen':
                Image.fromarray(np.where(labels == 255, 65535, labels.astype(np.uint16)).astype(np.uint16)).save(file)
            elif kind == 'rgb':
                lookup = np.zeros((256, 3), np.uint8)
                lookup[: len(colours)] = colours
                Image.fromarray(lookup[labels]).save(file)
            else:
                saved = Image.fromarray(labels)
                if kind == 'palette':
                    saved = saved.convert('P')
                    saved.putdata(labels.ravel().tolist())
                    saved.putpalette(np.uint8([*colours, *[(0, 0, 0)] * (256 - len(colours))]).ravel().tolist())
                saved.save(file)
    if kind == 'rgb':
        rows = [f'{name}:{red},{green},{blue}::' for name, (red, green, blue) in table.items()]
        _write(root / 'labelmap.txt', '\n'.join(['# label:color_rgb:parts:actions', *rows, 'ignored:0,0,0::']) + '\n')
    else:
        _write(root / 'classes.txt', ''.join(f'{name}\n' for name in table))
    return root
