"""Splits of a data set that are stratified by class and keep near-duplicate images together."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..datasets.near_duplicates import near_duplicates, thumbnail
from ..errors import UnreadableError, UserError, counted, some
from .labelme import image_bytes
from .records import DataSet, Record
from .semantic import label_map
from .sources import ORDER, named_splits


def split(data: DataSet, fractions: Sequence[float], seed: int = 0) -> DataSet:
    """Return a data set with new splits: train and val, or train, val and test, by the given fractions.

    Every class reaches every split if it is in enough images. Near-duplicates stay in one split: their difference
    hashes of 64 bits differ in at most 3 bits, and their thumbnails in at most 8 of 255 grey levels. The splits of the
    source are merged. The result depends only on the data, the fractions and the seed.
    """
    if len(fractions) not in (2, 3) or min(fractions) <= 0 or not math.isclose(sum(fractions), 1, abs_tol=1e-6):
        raise UserError(f'The fractions are {[*fractions]}; set two or three positive numbers with the sum 1.')
    names = ORDER[: len(fractions)]
    records = [replace(record, name=Path(record.name).name) for record in data.records()]
    (records,) = named_splits(dict(train=records)).values()
    groups = near_duplicates([_thumbnail(record) for record in records])
    if len(groups) < len(names):
        raise UserError(f'{counted(len(groups), "different image")} cannot be split into {len(names)}; add images.')
    labels = [{label for i in group for label in _labels(records[i], data)} for group in groups]
    sizes = [len(group) for group in groups]
    parts = assign(labels, sizes, fractions, seed)
    part_of = {i: part for group, part in zip(groups, parts, strict=True) for i in group}
    splits = {name: [records[i] for i in sorted(part_of) if part_of[i] == part] for part, name in enumerate(names)}
    sizes_of_splits = ', '.join(f'{name} {len(splits[name])}' for name in names)
    notes = [*data.notes, f'Split with the seed {seed}: {sizes_of_splits} images.']
    if len(data.splits) > 1:
        notes.append(f'The splits {", ".join(data.splits)} of the source are merged.')
    if repeated := [records[group[0]].name for group in groups if len(group) > 1]:
        total = sum(size for size in sizes if size > 1)
        notes.append(f'{total} near-duplicate images in {len(repeated)} groups stay together ({some(repeated)}).')
    for part, name in enumerate(names):
        present = {label for i, each in enumerate(labels) if parts[i] == part for label in each}
        absent = sorted({label for each in labels for label in each} - present)
        if absent:
            classes = some([data.classes[label] for label in absent])
            notes.append(f'{counted(len(absent), "class")} without an image in {name}: {classes}; add images of them.')
    return replace(data, splits=splits, notes=notes, places={})


def _labels(record: Record, data: DataSet) -> set[int]:
    if record.label_maps:
        return {*np.unique(label_map(record, data)).tolist()} & {*range(len(data.classes))}
    return {annotation.label for annotation in record.annotations}


def assign(labels: Sequence[set[int]], sizes: Sequence[int], fractions: Sequence[float], seed: int = 0) -> list[int]:
    """Return the part of each group of images, from the classes in the groups and their sizes.

    Rare classes are assigned first, each group to the part that lacks most images of the class (Sechidis et al., "On
    the stratification of multi-label data", ECML 2011). Then groups move to parts that lack one of their classes.
    """
    order = np.random.default_rng(seed).permutation(len(labels)).tolist()
    images: Counter[int] = Counter()
    for i in order:
        images.update(dict.fromkeys(labels[i], sizes[i]))
    target = {label: [fraction * number for fraction in fractions] for label, number in images.items()}
    missing = [fraction * sum(sizes) for fraction in fractions]
    parts = [-1] * len(labels)
    for label in [*sorted(images, key=lambda label: (images[label], label)), None]:  # None: images without an object
        for i in order:
            if parts[i] < 0 and (label is None or label in labels[i]):
                scores = missing if label is None else target[label]
                part = max(range(len(fractions)), key=lambda p: (round(scores[p], 9), round(missing[p], 9)))
                parts[i] = part
                missing[part] -= sizes[i]
                for each in labels[i]:
                    target[each][part] -= sizes[i]
    _refine(parts, labels, sizes, order, fractions)
    return parts


def _refine(
    parts: list[int], labels: Sequence[set[int]], sizes: Sequence[int], order: Sequence[int], fractions: Sequence[float]
) -> None:
    """Move groups into parts without one of their classes, then out of parts with too many images.

    No class loses its last group of a part. The label None stands for all groups.
    """
    keys: list[tuple[int | None, ...]] = [(*each, None) for each in labels]
    groups = Counter((parts[i], label) for i in order for label in keys[i])
    totals = Counter(label for i in order for label in keys[i])

    def move(i: int, part: int) -> None:
        for label in keys[i]:
            groups[parts[i], label] -= 1
            groups[part, label] += 1
        excess[parts[i]] -= sizes[i]
        excess[part] += sizes[i]
        parts[i] = part

    excess = [-fraction * sum(sizes) for fraction in fractions]
    for i in order:
        excess[parts[i]] += sizes[i]
    for label in sorted(totals, key=lambda each: (totals[each], -1 if each is None else each)):
        for part in (part for part in range(len(fractions)) if not groups[part, label]):
            if movable := [i for i in order if label in keys[i] and all(groups[parts[i], key] > 1 for key in keys[i])]:
                move(max(movable, key=lambda i: (groups[parts[i], label], -len(keys[i]))), part)
    for exact in (True, False):  # first only images whose classes are all too frequent in the part
        for i in order:
            part, least = parts[i], min(range(len(fractions)), key=lambda p: excess[p])
            kept = {key: max(1.0, fractions[part] * totals[key] * exact) for key in keys[i]}
            if excess[part] >= sizes[i] and all(groups[part, key] > kept[key] for key in keys[i]):
                move(i, least)


def _thumbnail(record: Record) -> np.ndarray:
    content = image_bytes(record.file) if record.embedded else record.file.read_bytes()
    if (result := thumbnail(content)) is None:
        raise UnreadableError(f'{record.file} is not a readable image; replace or remove it.')
    return result
