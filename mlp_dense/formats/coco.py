"""COCO's annotation files in the dialects of Roboflow, CVAT, Label Studio and mmdet, read and written."""

import codecs
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError, some
from .records import Annotation, Box, DataSet, Place, Polygon, Record, area_of, box_of, box_of_mask, check_mask
from .sources import Source, common_folder, missing_images, named_splits, number, only_split, split_of


def is_coco(content: Any) -> bool:
    """Whether the content of a JSON file has COCO's lists."""
    lists = ('images', 'categories')
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in lists)


def read_coco(source: Source, files: Sequence[Path]) -> DataSet:
    """Read one annotation file for each split."""
    paths = _by_split(source, files)
    contents = {split: source.json(file) for split, file in paths.items()}
    group = _group(contents.values())
    categories = {split: _categories(contents[split], file, group) for split, file in paths.items()}
    classes = list(dict.fromkeys(name for each in categories.values() for name in each.values()))
    names = ', '.join(map(source.relative, paths.values()))
    data = DataSet(source.root, 'coco', f'COCO annotations: {names}.', classes)
    if group is not None:
        data.notes.append(f'The category {group["name"]!r} groups the others and has no object; it is not a class.')
    for split, file in paths.items():
        reading = _Reading(source, file, split, categories[split], data)
        data.splits[split] = reading.records(contents[split])
        if [*categories[split].values()] != classes:
            reading.irregular['the categories differ between the splits'].append(file.name)
        if group is not None and group['name'] in classes:
            reading.irregular['a group of classes has the name of a class'].append(group['name'])
        if file.read_bytes()[:3] == codecs.BOM_UTF8:
            reading.irregular['the file starts with a byte-order mark'].append(file.name)
        data.places[split] = Place(None if reading.irregular else file, reading.folder)
        if reading.irregular:
            reasons = [f'{reason} ({some([*map(str, examples)])})' for reason, examples in reading.irregular.items()]
            problem = f'{source.relative(file)} needs a normalized copy for training'
            data.notes.append(f'{problem}: {"; ".join(reasons)}.')
    data.splits = named_splits(data.splits)
    data.places = {split: data.places[split] for split in data.splits}
    return data


def _annotations(content: Mapping) -> list:
    annotations = content.get('annotations')
    return annotations if isinstance(annotations, list) else []


def _by_split(source: Source, files: Sequence[Path]) -> dict[str, Path]:
    """Return the annotation file of each split; ``instances_*.json`` are preferred to other annotations of COCO."""
    instances = [file for file in files if file.name.startswith('instances_')]
    paths: dict[str, Path] = {}
    for file in instances or files:
        folders = Path(source.relative(file)).parts[-2::-1]
        split = split_of(file.stem, *folders) or file.stem.removeprefix('instances_')
        if split in paths:
            both = f'{source.relative(paths[split])} and {source.relative(file)}'
            raise UserError(f'{both} are both annotations of {split!r}; set one of the files, or separate folders.')
        paths[split] = file
    return {only_split(paths): file for file in paths.values()} if len(paths) == 1 else paths


def _group(contents: Iterable[Mapping]) -> Mapping | None:
    """Return the category that only groups the others, as in exports of Roboflow, None if there is no such category."""
    first: Mapping = {}
    for content in contents:
        first, *others = [category for category in content['categories'] if isinstance(category, dict)] or [{}]
        groups = {str(category.get('supercategory')) for category in others}
        used = {str(entry.get('category_id')) for entry in _annotations(content) if isinstance(entry, dict)}
        is_group = first.get('supercategory') == 'none' and groups == {str(first.get('name'))}
        if not is_group or str(first.get('id')) in used:
            return None
    return first


def _categories(content: Mapping, file: Path, group: Mapping | None) -> dict[Any, str]:
    """Return the names of the classes by category id, in the order of the file."""
    names: dict[Any, str] = {}
    for category in content['categories']:
        is_named = isinstance(category, dict) and {'id', 'name'} <= category.keys()
        if not is_named or isinstance(category['id'], (list, dict)):
            raise UserError(f'{file}: the category {category!r} has no id or name; add both.')
        if category == group:
            continue
        if category['id'] in names or str(category['name']) in names.values():
            problem = f'{file}: two categories have the id {category["id"]!r} or the name {category["name"]!r}'
            raise UserError(f'{problem}; give each its own.')
        names[category['id']] = str(category['name'])
    if not names:
        raise UserError(f'{file} has no categories; export the classes as well.')
    return names


class _Reading:
    """Records of an annotation file; `irregular` has the reasons why mmdet cannot read the file itself."""

    def __init__(self, source: Source, file: Path, split: str, names: Mapping[Any, str], data: DataSet):
        self.source, self.file, self.losses = source, file, data.losses
        self.irregular: dict[str, list] = defaultdict(list)
        self.labels = {self.check_id('category', key): data.classes.index(name) for key, name in names.items()}
        self.folders = _image_folders(source, file, split)
        self.folder = self.folders[0]

    def records(self, content: Mapping) -> list[Record]:
        entries, info = content['images'], content.get('info')
        if isinstance(info, dict) and 'image_folder' in info:  # of `write_coco`
            self.folders.append(Path(info['image_folder']))
        files = self.find_images(entries)
        by_id: dict[str, Record] = {}
        for entry, file in zip(entries, files, strict=True):
            key = self.check_id('image', entry.get('id'))
            size = entry.get('width') or 0, entry.get('height') or 0
            if not all(isinstance(side, int) and side > 0 for side in size):
                self.irregular['images have no width or height'].append(entry['file_name'])
            width, height = (int(number(side, f'{self.file}: image {key}')) for side in size)
            if key in by_id:
                common = common_folder(files)
                both = ' and '.join(path.relative_to(common).as_posix() for path in (by_id[key].file, file))
                raise UserError(f'{self.file}: {both} have the image id {key}; give each its own.')
            by_id[key] = Record(file.name, file, width, height)
        if not isinstance(content.get('annotations'), list):
            self.irregular['the list "annotations" is missing'].append(self.file.name)
        ids: Counter[str] = Counter()
        for i, entry in enumerate(_annotations(content)):
            if not isinstance(entry, dict):
                raise UserError(f'{self.file}: annotation number {i + 1} is {entry!r}; remove it.')
            ids[self.check_id('annotation', entry.get('id'))] += 1
            annotation = self.annotation(entry)
            if record := by_id.get(self.check_id('image', entry.get('image_id'))):
                record.annotations.append(annotation)
            else:
                self.losses.dropped['their image is not listed'].append(annotation.origin)
                self.irregular['annotations refer to images that are not listed'].append(entry.get('id'))
        if repeated := [value for value, times in ids.items() if times > 1]:
            self.irregular['annotation ids are used twice'] += repeated
        return list(by_id.values())

    def find_images(self, entries: Sequence[Any]) -> list[Path]:
        for entry in entries:
            if not isinstance(entry, dict) or not isinstance(entry.get('file_name'), str):
                raise UserError(f'{self.file}: the image {entry!r} has no file_name; add it or remove the image.')
        names = [entry['file_name'] for entry in entries]
        for folder in self.folders:  # a folder with all images
            if all((folder / name).is_file() for name in names):
                self.folder = folder
                return [Path(os.path.normpath(folder / name)) for name in names]
        found = [self.source.find(name, self.folders) for name in names]
        files = [file for file in found if file]
        if missing := [name for name, file in zip(names, found, strict=True) if not file]:
            raise missing_images(self.source.relative(self.file), missing, len(names), self.folders[:3])
        self.irregular['file names are not relative to one folder'].append(names[0])
        self.folder = common_folder(files)
        return files

    def annotation(self, entry: Mapping) -> Annotation:
        """Return an entry of the list ``annotations``. Raises UserError if it has no valid category or box."""
        origin = f'annotation {entry.get("id")}'
        place = f'{self.file}: {origin}'
        label = self.labels.get(self.check_id('category', entry.get('category_id')))
        if label is None:
            raise UserError(f'{place} has the category {entry.get("category_id")!r}, which is not listed; add it.')
        polygons, rle = self.segmentation(entry, place, origin)
        values, area, crowd = (entry.get(key) for key in ('bbox', 'area', 'iscrowd'))
        values = values if isinstance(values, list) else [values] * (values is not None)
        for name, given in (('boxes', values or [None]), ('areas', [area]), ('values of iscrowd', [crowd])):
            if not all(type(value) in (int, float) for value in given):
                self.irregular[f'{name} are missing or text'].append(entry.get('id'))
        if values and len(values) != 4:
            raise UserError(f'{place} has a bbox of {len(values)} numbers; set [left, top, width, height].')
        if not values and not polygons and rle is None:
            raise UserError(f'{place} has neither a bbox nor a polygon; remove it.')
        corner_and_size = [number(value, place) for value in values or ()]
        box = Box(*corner_and_size) if values else box_of_mask(rle) if rle else box_of(polygons)
        area = None if area is None else number(area, place)
        return Annotation(label, box, polygons, rle, bool(number(crowd or 0, place)), area, origin)

    def segmentation(self, entry: Mapping, place: str, origin: str) -> tuple[tuple[Polygon, ...], Mapping | None]:
        shapes = entry.get('segmentation') or ()
        if entry.get('keypoints'):
            self.losses.changed['keypoints are not read'].append(origin)
        if isinstance(shapes, list) and len(shapes) == 1 and isinstance(shapes[0], dict):
            self.irregular['run-length encodings are in lists'].append(entry.get('id'))
            shapes = shapes[0]
        if isinstance(shapes, dict):
            check_mask(shapes, place)
            return (), shapes
        if not isinstance(shapes, (list, tuple)):
            raise UserError(f'{place} has the segmentation {shapes!r}; set a list of polygons.')
        if shapes and not isinstance(shapes[0], list):  # one polygon without its list
            self.irregular['polygons are not in lists'].append(entry.get('id'))
            shapes = [shapes]
        polygons = []
        for shape in shapes:
            if not isinstance(shape, list) or len(shape) < 6 or len(shape) % 2:
                reason = 'polygons with fewer than three points, or with half a point, are not read'
                self.losses.changed[reason].append(origin)
                self.irregular['polygons have fewer than three points'].append(entry.get('id'))
            else:
                polygons.append(tuple(number(value, place) for value in shape))
        return tuple(polygons), None

    def check_id(self, kind: str, value: Any) -> str:
        """Return an id as text, and note it if it is not an integer."""
        if type(value) is not int:
            self.irregular[f'{kind} ids are not integers'].append(value)
        return str(value)


def _image_folders(source: Source, file: Path, split: str) -> list[Path]:
    """Return the folders in which the images of an annotation file may lie, the most specific one first."""
    folder, word = file.parent, file.stem.rpartition('_')[2]
    is_folder_of_annotations = folder.name.lower() == 'annotations'
    candidates = [] if is_folder_of_annotations else [folder]
    for base in (folder.parent if is_folder_of_annotations else folder, source.image_root):
        for name in (word, split, 'valid' if split == 'val' else split):
            candidates += [base / name, base / 'images' / name, base / name / 'images']
        candidates += [base / 'images', base]
    return [path for path in dict.fromkeys(candidates) if path.is_dir()]


def write_coco(file: Path, records: Sequence[Record], classes: Sequence[str], image_folder: Path | None = None) -> None:
    """Write records as an annotation file. It contains the path of the images if these lie in another data set."""
    images: list[dict] = []
    annotations: list[dict] = []
    for image_id, record in enumerate(records, start=1):
        images.append(dict(id=image_id, file_name=record.name, width=record.width, height=record.height))
        for annotation in record.annotations:
            ids = dict(id=len(annotations) + 1, image_id=image_id, category_id=annotation.label + 1)
            shape = annotation.polygons if annotation.rle is None else annotation.rle
            values = dict(bbox=annotation.box, area=area_of(annotation), iscrowd=int(annotation.crowd))
            annotations.append(dict(**ids, **values, segmentation=shape))
    categories = [dict(id=i, name=name, supercategory='') for i, name in enumerate(classes, start=1)]
    info = dict(image_folder=str(image_folder.resolve())) if image_folder else {}
    content = dict(info=info, images=images, annotations=annotations, categories=categories)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding='utf-8')
