"""The report of a detector."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor

import numpy as np

from . import plots
from .average_precision import AREAS, RECALLS, THRESHOLDS
from .coco_results import Found, match_all, read_data
from .error_types import ERRORS, HIT, Matched, error_costs
from .gallery import COLOURS, gallery
from .page import Plot, Report, Table
from .plots import calibration_plot, confusion_sections
from .results import Results

TITLES = dict(bbox='boxes', segm='masks')
EXPLAINED = {
    'classification': 'overlaps an object of another class by 0.5 or more',
    'localization': 'overlaps an object of its class by 0.1 to 0.5',
    'both': 'overlaps objects of other classes by 0.1 to 0.5',
    'duplicate': 'overlaps an object of its class that a better one has hit',
    'background': 'overlaps no object by more than 0.1',
    'missed': 'objects that nothing hits, and nothing above errs on',
    'false positives': 'all that is found wrongly, however',
    'false negatives': 'all that is not found, however',
}


def report(results: Results, score_thr: float, limit: int, pool: Executor) -> Report:
    """The report of a test; `limit` pictures are drawn, of every class its worst."""
    data = read_data(results)
    found = {kind: match_all(data, kind, score_thr, pool) for kind in data.found}
    main = max(found)  # masks, if there are any
    sections, numbers = [], {}
    for kind, each in sorted(found.items(), reverse=True):
        more, numbers[kind] = _sections(each, TITLES[kind], results.classes, score_thr)
        sections += more
        if kind == main:
            sections.insert(1, gallery(results, data, kind, each.images, score_thr, limit, pool))
            sections.append(_never_hit(results, data, each.images))
    return Report(results.name, results.facts(len(data.images)), sections, numbers)


def _sections(found: Found, what: str, classes: Sequence[str], score_thr: float) -> tuple[list, dict]:
    curves = [[matches.curve() for matches in areas] for areas in found.matches]
    precision = np.array([areas[0][0] for areas in curves])  # (C, T, R)
    ap = precision.mean(2)
    by_area = np.array([[curve.mean() for curve, _ in areas] for areas in curves])
    recall = np.array([areas[0][1].mean() for areas in curves])
    mean = _mean(ap)
    kept = [~image.ignored for image in found.images]
    scores, right = (
        np.concatenate([np.zeros(0), *(values[keep] for values, keep in zip(each, kept, strict=True))])
        for each in ([i.scores for i in found.images], [i.kinds == HIT for i in found.images])
    )
    note = 'Share of hits, at IoU 0.50, among detections of a score.'
    calibration, calibrated = calibration_plot(scores, right, note, what)
    table = confusion_matrix(found.images, len(classes))
    costs = error_costs(found.images, len(classes))
    shown = f'with a score of at least {score_thr:g}'
    sections = [
        _class_table(found.images, what, classes, (ap, by_area, recall), shown, score_thr),
        Table(
            f'IoU: {what}',
            'Mean over the classes that have objects.',
            [('IoU', 'threshold', 2), ('AP', 'average precision', 3)],
            [[float(t), value] for t, value in zip(THRESHOLDS, mean, strict=True)],
        ),
        Plot(
            f'Precision over recall: {what}',
            'Mean over the classes that have objects, at thresholds of IoU.',
            f'precision_recall_{what}',
            plots.lines(
                RECALLS,
                {f'IoU {t:.2f}': _mean(precision[:, i]) for i, t in enumerate(THRESHOLDS)},
                'recall',
                'precision',
            ),
        ),
        *_error_sections(found.images, what, costs),
        *confusion_sections(
            table,
            [*classes, 'background'],
            f'Found {shown}. Each is paired with the object of its class that it hits, at IoU 0.50, then with that '
            'which it overlaps most; what is left, duplicates too, is of the background.',
            what,
        ),
        calibration,
    ]
    numbers = dict(
        AP=mean.mean(),
        AP50=mean[0],
        AP75=mean[5],
        **{f'AP_{name}': _mean(by_area[:, i]) for i, name in enumerate(AREAS) if i},
        AR=_mean(recall),
        errors=costs,
        confusion=table,
        calibration=calibrated,
        precision={name: precision[i, 0] for i, name in enumerate(classes)},
    )
    return sections, numbers


def _mean(values: np.ndarray) -> np.ndarray:
    """Over the classes that have objects; NaN if none has."""
    there = np.isfinite(values.reshape(len(values), -1)).all(1)
    return values[there].mean(0) if there.any() else np.full(values.shape[1:], np.nan)


def _class_table(
    images: Sequence[Matched], what: str, classes: Sequence[str], curves: tuple, shown: str, score_thr: float
) -> Table:
    counts, (ap, by_area, recall) = Counter(), curves
    for image in images:
        seen = (image.scores >= score_thr) & ~image.ignored
        counts.update((label, 'found') for label in image.classes[seen].tolist())
        counts.update((label, 'hit') for label in image.classes[seen & (image.kinds == HIT)].tolist())
        counts.update((label, 'object') for label in image.object_classes.tolist())
        counts.update((label, 'never') for label in image.object_classes[image.hit_by < 0].tolist())
    rows = []
    for i, name in enumerate(classes):
        hits, found, objects, never = (counts[i, key] for key in ('hit', 'found', 'object', 'never'))
        shares = (hits / count if count else None for count in (found, objects))
        rows.append(
            [name, ap[i].mean(), ap[i, 0], ap[i, 5], *by_area[i, 1:], recall[i], objects, found, *shares, never]
        )
    columns = [
        ('class', '', None),
        ('AP', 'average precision, mean over IoU 0.50 to 0.95', 3),
        ('AP50', 'at IoU 0.50', 3),
        ('AP75', 'at IoU 0.75', 3),
        ('AP small', 'of objects below 32 x 32 pixels', 3),
        ('AP medium', 'of objects between', 3),
        ('AP large', 'of objects above 96 x 96 pixels', 3),
        ('AR', 'highest recall with 100 detections an image, mean over IoU 0.50 to 0.95', 3),
        ('objects', 'of the ground truth, without crowds', 0),
        ('found', shown, 0),
        ('precision', f'share of what is found {shown} that hits, at IoU 0.50', 3),
        ('recall', f'share of the objects that are hit {shown}, at IoU 0.50', 3),
        ('never hit', 'objects that nothing of their class overlaps by 0.50, with any score', 0),
    ]
    note = f'Average precision of {what}, as COCO defines it; what a column means appears over its head.'
    return Table(f'Classes: {what}', note, columns, rows, sort=1)


def _error_sections(images: Sequence[Matched], what: str, costs: dict[str, float]) -> list[Table | Plot]:
    numbers = Counter(kind for image in images for kind in image.kinds.tolist())
    numbers['missed'] = sum(int(image.missed.sum()) for image in images)
    numbers['false positives'] = sum(numbers[kind] for kind in ERRORS)
    numbers['false negatives'] = sum(int((image.hit_by < 0).sum()) for image in images)
    note = (
        'How much AP at IoU 0.50 would rise if one kind of error were mended (TIDE, arXiv 2008.08115); the rises do '
        f'not add up. It is {costs["AP50"]:.3f}.'
    )
    columns = [('error', '', None), ('what it is', '', None), ('AP50 lost', '', 3), ('number', 'with any score', 0)]
    rows = [[name, text, costs[name], numbers[name]] for name, text in EXPLAINED.items()]
    figure = plots.bars(
        {name: costs[name] for name in EXPLAINED}, 'AP50 lost', [COLOURS.get(n, '#777777') for n in EXPLAINED]
    )
    return [
        Table(f'What errors cost: {what}', note, columns, rows),
        Plot(f'What errors cost, as bars: {what}', '', f'errors_{what}', figure),
    ]


def confusion_matrix(images: Sequence[Matched], num_classes: int) -> np.ndarray:
    """(C + 1, C + 1), rows of the ground truth; the last is the background."""
    table = np.zeros((num_classes + 1,) * 2, dtype=int)
    for image in images:
        np.add.at(table, (image.confused[:, 0], image.confused[:, 1]), 1)
    return table


def _never_hit(results: Results, data, images: Sequence[Matched]) -> Table:
    rows = []
    for image, record in zip(images, data.images, strict=True):
        for j in np.flatnonzero(image.hit_by < 0):
            box = data.truth[record['id']][image.object_positions[j]]['bbox']
            best = image.overlaps[image.objects == j].max(initial=0)
            rows.append([results.classes[image.object_classes[j]], record['file_name'], *box[2:], best])
    columns = [
        ('class', '', None),
        ('image', '', None),
        ('width', 'pixels', 0),
        ('height', 'pixels', 0),
        ('best IoU', 'of what errs on it in place or class', 2),
    ]
    note = 'Objects that nothing of their class overlaps by 0.50, with any score: no threshold finds them.'
    return Table('Objects missed by every threshold', note, columns, rows)
