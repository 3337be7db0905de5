"""The report of a classifier."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path

import numpy as np

from ..errors import UserError
from .gallery import choose, draw_all, shrunk
from .page import Gallery, Picture, Report, Table
from .plots import calibration_plot, confusion_sections
from .results import Results

SIDE = 320  # pixels of the longer side of a picture


def read_predictions(results: Results) -> list[dict]:
    """Of each image its `file`, its `class`, and `predicted`: probabilities by class, the likeliest first. UserError:
    there is no such file."""
    file = results.file('predictions.json')
    if not file.is_file():
        raise UserError(f'{file} does not exist; test again with --report.')
    return json.loads(file.read_text(encoding='utf-8'))['images']


def report(results: Results, score_thr: float, limit: int, pool: Executor) -> Report:
    """The report of a test; `limit` pictures are drawn, of every class its worst."""
    images, classes = read_predictions(results), list(results.classes)
    index = {name: i for i, name in enumerate(classes)}
    truth = np.array([index[image['class']] for image in images])
    first = np.array([index[next(iter(image['predicted']))] for image in images])
    score = np.array([next(iter(image['predicted'].values())) for image in images])
    in_five = np.array([image['class'] in image['predicted'] for image in images])
    counts = np.zeros((len(classes),) * 2, dtype=int)
    np.add.at(counts, (truth, first), 1)
    five = len(classes) > 5
    columns = [
        ('class', '', None),
        ('top-1', 'share of its images that are right', 3),
        *([('top-5', 'share of its images where it is among the five likeliest', 3)] if five else []),
        ('precision', 'share of the images taken for it that are right', 3),
        ('images', '', 0),
        ('taken for it', 'images', 0),
    ]
    rows = []
    for i, name in enumerate(classes):
        own, taken = truth == i, first == i
        shares = [(first == i)[own], *([in_five[own]] if five else []), own[taken]]
        rows.append([name, *(each.mean() if len(each) else None for each in shares), int(own.sum()), int(taken.sum())])
    calibration, calibrated = calibration_plot(
        score, first == truth, 'Share of right images by their highest probability.'
    )
    sections = [
        Table('Classes', 'What a column means appears over its head.', columns, rows, sort=1),
        _gallery(results, images, truth, first, score, limit, pool),
        *confusion_sections(counts, classes, 'Images.'),
        calibration,
    ]
    numbers = dict(top1=(first == truth).mean(), **(dict(top5=in_five.mean()) if five else {}), confusion=counts)
    return Report(results.name, results.facts(len(images)), sections, numbers | dict(calibration=calibrated))


def _gallery(
    results: Results,
    images: Sequence[Mapping],
    truth: np.ndarray,
    first: np.ndarray,
    score: np.ndarray,
    limit: int,
    pool: Executor,
) -> Gallery:
    wrong = np.where(first == truth, 0.0, score)
    classes = [{int(a)} if a != b else set() for a, b in zip(truth, first, strict=True)]
    jobs = []
    for i in choose(wrong, classes, limit):
        likeliest = ', '.join(f'{name} {100 * p:.0f} %' for name, p in images[i]['predicted'].items())
        caption = f'{images[i]["class"]}; predicted: {likeliest}'
        tags = [(int(truth[i]), 2)] if first[i] == truth[i] else [(int(truth[i]), 0), (int(first[i]), 1)]
        jobs.append((images[i]['file'], caption, tags))
    drawn = draw_all(draw, jobs, results.folder, pool)
    note = f'{len(jobs)} of {len(images)} images: of every class in turn that with the highest score of a wrong class.'
    kinds = [('wrong', '#4477aa'), ('wrongly taken for it', '#ee3333'), ('right', '#228833')]
    return Gallery('Images', note, list(results.classes), kinds, drawn)


def draw(target: Path, job: tuple) -> Picture | None:
    """Writes the picture smaller; None: it cannot be read."""
    source, caption, tags = job
    if (size := shrunk(source, target, SIDE)) is None:
        return None
    return Picture(f'pictures/{target.name}', '/'.join(Path(source).parts[-2:]), size[1], size[0], caption, tags)
