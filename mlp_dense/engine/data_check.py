"""Looks at the images and labels of a training before its first iteration."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mmengine.dist import all_gather_object, get_rank, get_world_size, is_main_process
from mmengine.hooks import Hook
from PIL import Image, ImageFile
from rich.progress import track

from ..errors import UnreadableError, UserError, some
from .configs import leaves
from .data import Reading

SAMPLE = 32
"""How many images of a data set are looked at, evenly spread, if not all are."""

CUT_OFF, OTHER_SIZE, UNREADABLE, IN_BOTH, WRONG = (
    'are cut off; what is missing is grey',
    'are of another size than their annotations say',
    'cannot be read, and will be skipped',
    'are in the training data, too: the metrics will be too good',
    'would stop the run',
)


class DataCheckHook(Hook):
    """Decodes a sample of the images and labels, or `everything`, and compares them with what the annotations say: a
    table of what is wrong; UserError for what would stop the training or the validation later."""

    priority = 'VERY_HIGH'

    def __init__(self, everything: bool):
        self.everything = everything

    def before_train(self, runner: Any) -> None:
        loaders = dict(train=runner.train_loop.dataloader)
        if runner.val_loop:
            loaders['val'] = runner.val_loop.dataloader
        data = [(name, each) for name, loader in loaders.items() for each in leaves(loader.dataset)]
        findings = [finding for part in all_gather_object(list(self._share(data))) for finding in part]
        findings += _in_both(data)
        rows = defaultdict(list)
        for name, kind, text in findings:
            rows[name, kind].append(text)
        if rows:
            looked = 'all' if self.everything else f'{SAMPLE} of each data set; --check-data looks at all'
            lines = [f'{name:<5} {len(texts)} {kind}: {some(texts)}' for (name, kind), texts in rows.items()]
            runner.logger.warning('\n    '.join([f'What is wrong with the images and labels ({looked}):', *lines]))
        if fatal := [text for _, kind, text in findings if kind == WRONG]:
            raise UserError(fatal[0])

    def _share(self, data: list[tuple[str, Any]]) -> Iterator[tuple[str, str, str]]:
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


def _in_both(data: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, str, str]]:
    files: dict[str, set[str]] = defaultdict(set)
    for name, dataset in data:
        files[name] |= {str(dataset.get_data_info(i)['img_path']) for i in range(len(dataset))}
    for file in sorted(files['train'] & files['val']):
        yield 'val', IN_BOTH, file
