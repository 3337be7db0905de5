"""Check of images, labels and annotations before the first iteration, and report of skipped images after it."""

import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mmengine.dist import all_gather_object, get_rank, get_world_size, is_main_process
from mmengine.hooks import Hook
from PIL import Image, ImageFile
from rich.progress import track

from ..config.validation import building
from ..datasets.bands import LoadMultiBandImage
from ..datasets.layout import leaves
from ..errors import UnreadableError, UserError, some
from ..registry import HOOKS
from .band_agreement import band_count, check_image, lost_by_opencv
from .data_config import Reading, ignored_annotations

Finding = tuple[str, str, str]  # name of the data (train, val, test), problem, file or id

SAMPLE = 32
"""Number of images of a data set that are checked, evenly spread, unless all are."""

UNREADABLE, FATAL = 'cannot be read, and will be skipped', 'would stop the run'


@HOOKS.register_module()
class DataCheckHook(Hook):
    """Check of the data before a run, reported in one table; an error if an image, label or annotation would stop it.

    Before a training, it decodes images and labels and compares them with the annotations: a sample, or `everything`,
    which ``check_data=True`` in a config sets too. Before a test, it checks the annotations alone.
    """

    priority = 'VERY_HIGH'

    def __init__(self, everything: bool = False):
        self.everything = everything

    def before_train(self, runner: Any) -> None:
        check_training_data(runner, self.everything or bool(runner.cfg.get('check_data')))

    def before_test(self, runner: Any) -> None:
        data = [('test', dataset) for dataset in leaves(runner.test_loop.dataloader.dataset)]
        _report(runner, [*_in_annotations(data)] if is_main_process() else [], 'annotations')


@HOOKS.register_module()
class SkippingHook(Hook):
    """Report of skipped images: those that cannot be decoded, or whose labels cannot.

    :class:`SeededDataset` returns the next image instead. Each one is reported once. The hook raises UserError if more
    than ``max_unreadable`` of all images are skipped; 1 % unless the config sets it.
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self.reasons: set[str] = set()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        samples = data_batch.get('data_samples') if isinstance(data_batch, dict) else None
        for sample in samples if isinstance(samples, list) else ():
            for reason in set(sample.get('unreadable', ())) - self.reasons:
                self.reasons.add(reason)
                limit, total = runner.cfg.get('max_unreadable', 0.01), len(runner.train_dataloader.dataset)
                count = f'{len(self.reasons)} of {total} images cannot be read'
                if len(self.reasons) > limit * total:
                    raise UserError(f'{reason} {count}, more than max_unreadable={limit} of them.')
                runner.logger.warning(f'{reason} Skipped; {count} so far.')


def check_training_data(runner: Any, everything: bool = True) -> int:
    """Check the data of a training and its validation, and return the number of images."""
    with building(runner.cfg, running=True):  # the loops, on first use
        loops = dict(train=runner.train_loop, val=runner.val_loop)
    loaders = {name: loop.dataloader for name, loop in loops.items() if loop}
    data = [(name, dataset) for name, loader in loaders.items() for dataset in leaves(loader.dataset)]
    findings = [*_in_images(data, everything, band_count(runner.cfg))]
    if is_main_process():
        findings += [*_in_annotations(data), *_in_both(data)]
    checked = 'images' if everything else f'{SAMPLE} images of each set; --check-data checks all'
    _report(runner, findings, f'annotations and {checked}')
    return sum(len(dataset) for _, dataset in data)


def _in_images(data: list[tuple[str, Any]], everything: bool, bands: int) -> Iterator[Finding]:
    """Yield the problems of the images that this process checks."""
    samples: list[tuple[str, Any, int]] = []
    for name, dataset in data:
        step = 1 if everything else max(len(dataset) // SAMPLE, 1)
        samples += ((name, dataset, i) for i in range(0, len(dataset), step))
    hidden = not everything or not is_main_process()
    for name, dataset, i in track(samples[get_rank() :: get_world_size()], 'Checking the data', disable=hidden):
        for problem, text in _in_image(dataset, i, bands):
            yield name, FATAL if problem == UNREADABLE and name == 'val' else problem, text


def _in_image(dataset: Any, i: int, bands: int) -> Iterator[tuple[str, str]]:
    info = dataset.get_data_info(i)
    file, annotated_size = str(info['img_path']), [info[key] for key in ('height', 'width') if key in info]
    try:
        for transform in dataset.pipeline.transforms:
            if isinstance(transform, Reading):
                info = transform(info)
                loader = transform.transform
                if isinstance(loader, LoadMultiBandImage):
                    check_image(file, info['img'].shape[2], bands)
                elif type(loader).__name__ == 'LoadImageFromFile' and (lost := lost_by_opencv(Path(file), info['img'])):
                    yield f'have {lost} (mlp_dense.LoadMultiBandImage keeps them)', file
    except UserError as error:
        yield UNREADABLE if isinstance(error, UnreadableError) else FATAL, str(error)
        return
    if is_truncated(Path(file)):
        yield 'are truncated; the missing area is grey', file
    if len(annotated_size) == 2 and 'ori_shape' in info and list(info['ori_shape'][:2]) != annotated_size:
        yield 'are of another size than their annotations say', file


def is_truncated(file: Path) -> bool:
    """Whether an image is truncated. OpenCV 4 decodes truncated JPEGs silently."""
    if not file.is_file() or ImageFile.LOAD_TRUNCATED_IMAGES:
        return False
    try:
        with Image.open(file) as image:
            image.load()
    except OSError as error:
        return 'truncated' in str(error)
    return False


def _in_both(data: Iterable[tuple[str, Any]]) -> Iterator[Finding]:
    files: dict[str, set[str]] = defaultdict(set)
    for name, dataset in data:
        files[name] |= {str(dataset.get_data_info(i)['img_path']) for i in range(len(dataset))}
    for file in sorted(files['train'] & files['val']):
        yield 'val', 'are also in the training data: the metrics will be too good', file


def _in_annotations(data: Iterable[tuple[str, Any]]) -> Iterator[Finding]:
    """Yield the annotations in COCO's format that mmdet has ignored silently."""
    for name, dataset in data:
        if not hasattr(dataset, 'cat_ids') or not Path(dataset.ann_file).is_file():
            continue
        file, content = dataset.ann_file, json.loads(Path(dataset.ann_file).read_bytes())
        if difference := _order_difference(content.get('categories', []), dataset):
            yield name, FATAL, f'{file} {difference}'
        reasons = ignored_annotations(content, dataset.cat_ids)
        for reason, ids in reasons.items():
            yield from ((name, f'annotations {reason} are ignored in {file}', f'id {i}') for i in ids)
        if reasons and sum(map(len, reasons.values())) == len(content['annotations']):
            yield name, FATAL, f'{file} has no usable annotation: all are {", ".join(reasons)}; fix them.'


def _order_difference(categories: list[dict], dataset: Any) -> str | None:
    """Return a message if the order of classes differs: mmdet numbers them by the file and names them by the config."""
    names = {category.get('id'): category.get('name') for category in categories}
    in_file, classes = [names.get(i) for i in dataset.cat_ids], list(dataset.metainfo.get('classes', ()))
    for i, (name, expected) in enumerate(zip(in_file, classes, strict=False)):
        if name != expected:
            problem = f'has {name!r} as class {i}, but metainfo has {expected!r}: names would be exchanged'
            return f'{problem}; set metainfo to the order of the file: {", ".join(map(str, in_file))}.'
    return None


def _report(runner: Any, findings: list[Finding], checked: str) -> None:
    """Log the findings of all processes as one table. Raises UserError if one of them would stop the run."""
    findings = [*itertools.chain.from_iterable(all_gather_object(findings))]
    rows = defaultdict(list)
    for name, problem, text in findings:
        rows[name, problem].append(text)
    if rows:
        lines = [f'{name:<5} {len(texts)} {problem}: {some(texts)}' for (name, problem), texts in rows.items()]
        runner.logger.warning('\n    '.join([f'Problems in the data ({checked}):', *lines]))
    if fatal := [text for _, problem, text in findings if problem == FATAL]:
        raise UserError(fatal[0])
