"""Looks at images, labels and annotations before the first iteration."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mmengine.dist import all_gather_object, get_rank, get_world_size, is_main_process
from mmengine.hooks import Hook
from PIL import Image, ImageFile
from rich.progress import track

from ..config.reading import leaves
from ..errors import UnreadableError, UserError, some
from ..registry import HOOKS
from .annotations import left_out
from .data_config import Reading

Finding = tuple[str, str, str]  # which data (train, val, test), what is wrong, with what

SAMPLE = 32
"""How many images of a data set are looked at, evenly spread, if not all are."""

CUT_OFF, OTHER_SIZE, UNREADABLE, IN_BOTH, WRONG = (
    'are cut off; what is missing is grey',
    'are of another size than their annotations say',
    'cannot be read, and will be skipped',
    'are in the training data, too: the metrics will be too good',
    'would stop the run',
)


@HOOKS.register_module()
class DataCheckHook(Hook):
    """Before a training, decodes a sample of the images and labels, or `everything`, and compares them with what the
    annotations say; before a test, looks at the annotations alone. One table says what is wrong; what would stop the
    training or its validation later is a UserError."""

    priority = 'VERY_HIGH'

    def __init__(self, everything: bool = False):
        self.everything = everything

    def before_train(self, runner: Any) -> None:
        loaders = dict(train=runner.train_loop.dataloader)
        if runner.val_loop:
            loaders['val'] = runner.val_loop.dataloader
        data = [(name, each) for name, loader in loaders.items() for each in leaves(loader.dataset)]
        findings = [*self._share(data)]
        if is_main_process():
            findings += [*_in_annotations(data), *_in_both(data)]
        looked = 'images' if self.everything else f'{SAMPLE} images of each set; --check-data looks at all'
        _say(runner, findings, f'annotations and {looked}')

    def before_test(self, runner: Any) -> None:
        data = [('test', each) for each in leaves(runner.test_loop.dataloader.dataset)]
        _say(runner, [*_in_annotations(data)] if is_main_process() else [], 'annotations')

    def _share(self, data: list[tuple[str, Any]]) -> Iterator[Finding]:
        """What is wrong with the part of the images that this process looks at."""
        chosen = [
            (name, dataset, i)
            for name, dataset in data
            for i in range(0, len(dataset), 1 if self.everything else max(len(dataset) // SAMPLE, 1))
        ]
        shown = self.everything and is_main_process()
        for name, dataset, i in track(chosen[get_rank() :: get_world_size()], 'Checking the data', disable=not shown):
            for kind, text in _look(dataset, i):
                yield name, WRONG if kind == UNREADABLE and name == 'val' else kind, text


def _say(runner: Any, findings: list[Finding], looked: str) -> None:
    """Logs what the processes found, each in its share, as one table. UserError: some of it would stop the run."""
    findings = [finding for share in all_gather_object(findings) for finding in share]
    rows = defaultdict(list)
    for name, kind, text in findings:
        rows[name, kind].append(text)
    if rows:
        lines = [f'{name:<5} {len(texts)} {kind}: {some(texts)}' for (name, kind), texts in rows.items()]
        runner.logger.warning('\n    '.join([f'What is wrong with the data ({looked}):', *lines]))
    if fatal := [text for _, kind, text in findings if kind == WRONG]:
        raise UserError(fatal[0])


def _in_annotations(data: Iterable[tuple[str, Any]]) -> Iterator[Finding]:
    """What mmdet leaves out of annotations of COCO's form, which it has read, without keeping them."""
    for name, dataset in data:
        if not hasattr(dataset, 'cat_ids') or not Path(dataset.ann_file).is_file():
            continue
        content = json.loads(Path(dataset.ann_file).read_bytes())
        if said := _in_another_order(content.get('categories', []), dataset):
            yield name, WRONG, f'{dataset.ann_file}{said}'
        annotations = content.get('annotations', [])
        reasons = left_out({image['id']: image for image in content['images']}, annotations, dataset.cat_ids)
        for reason, ids in reasons.items():
            for each in ids:
                yield name, f'annotations {reason} are left out of {dataset.ann_file}', f'id {each}'
        if annotations and sum(map(len, reasons.values())) == len(annotations):
            yield name, WRONG, f'{dataset.ann_file} has no usable annotation: all are {", ".join(reasons)}; correct it.'


def _in_another_order(categories: list[dict], dataset: Any) -> str | None:
    """mmdet numbers classes in the order of the file, and names them in that of the config."""
    names = {category.get('id'): category.get('name') for category in categories}
    pairs = zip(dataset.metainfo.get('classes', ()), map(names.get, dataset.cat_ids), strict=False)
    for i, (own, found) in enumerate(pairs):
        if own != found:
            where = f'has {found!r} as class {i}, where metainfo has {own!r}'
            return f' {where}: their names would be exchanged; give metainfo the order of the file.'
    return None


def _look(dataset: Any, i: int) -> Iterator[tuple[str, str]]:
    info = dataset.get_data_info(i)
    file, said = str(info['img_path']), [info[key] for key in ('height', 'width') if key in info]
    try:
        for transform in dataset.pipeline.transforms:
            if isinstance(transform, Reading):
                info = transform(info)
    except UnreadableError as error:
        yield UNREADABLE, str(error)
        return
    except UserError as error:
        yield WRONG, str(error)
        return
    if _is_cut_off(Path(file)):
        yield CUT_OFF, file
    if len(said) == 2 and 'ori_shape' in info and list(info['ori_shape'][:2]) != said:
        yield OTHER_SIZE, file


def _is_cut_off(file: Path) -> bool:
    """Whether an image ends before its end, which OpenCV 4 does not mind in a JPEG."""
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
        yield 'val', IN_BOTH, file
