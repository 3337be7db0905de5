"""Reading a config, and adapting it to this machine."""

import difflib
import inspect
import tempfile
import traceback
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.logging import print_log
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from ..errors import UserError, explained_imports

READ_IF_THERE = ('auto_scale_lr', 'find_unused_parameters', 'sync_bn', 'compile', 'check_data', 'max_unreadable')
"""Keys that mmengine's or this package's Runner reads from a config, beside the arguments of its constructor."""


def read_config(file: str | Path, options: Sequence[str] = (), data_root: Path | None = None) -> Config:
    """Reads a config and changes it by `options` (``KEY=VALUE``, as ``--cfg-options`` takes them) and by a `data_root`
    in place of its own, for all data sets and evaluators. UserError: the file, the Python in it or an option is
    unusable."""
    path = Path(file)
    if path.suffix not in ('', '.py', '.json', '.yaml', '.yml'):
        raise UserError(f'{path} is not a config: its name must end in .py, .json or .yaml; see --help for the order.')
    if not path.is_file() or not path.suffix:
        known = [str(file) for file in Path('configs').glob('*/*.py') if file.parent.name != '_base_']
        close = difflib.get_close_matches(str(file), known, n=1)
        problem = 'is no file that ends in .py, .json or .yaml' if path.exists() else 'does not exist'
        raise UserError(f'Config {path} {problem}{f"; did you mean {close[0]}?" if close else "."}')
    try:
        cfg = Config.fromfile(path)
        list(walk(cfg._cfg_dict))  # imports what it names
    except FileNotFoundError as error:
        raise UserError(f'{path} needs a file that is missing: {error}') from error
    except Exception as error:  # a config is Python, which may raise anything
        if 'custom modules' in str(error):  # says much of sys.path
            raise UserError(f'{path}: custom_imports cannot be imported: {error.__cause__}; set PYTHONPATH.') from error
        raise UserError(f'{_place(path, error)} cannot be read: {first_line(error)}.') from error
    _merge_options(cfg, options)
    if data_root is not None:
        _replace_data_root(cfg, data_root)
    return cfg


def enter_scope(cfg: Config) -> None:
    """Makes the scope of a config the one in which bare names are looked up. NotInstalledError: it is that of a package
    that is missing, or which misses mmcv."""
    scope = cfg.get('default_scope') or 'mmengine'
    needed = dict(mmdet='mmdet', mmseg='mmseg', mlp_dense='timm')  # mmengine would only warn
    if scope in needed:
        with explained_imports():
            import_module(needed[scope])
    init_default_scope(scope)


def set_work_dir(cfg: Config, work_dir: Path | None, make: bool = True) -> None:
    """Says, and may `make`, the folder that a run writes to; None leaves the choice to the config. UserError: it cannot
    be written."""
    cfg.work_dir = str(work_dir or cfg.get('work_dir') or Path('work_dirs') / Path(cfg.filename).stem)
    if make:
        make_folder(Path(cfg.work_dir))


def make_folder(folder: Path) -> None:
    """Makes a folder to write to, and tries it. UserError: it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f'{folder} cannot be written ({error.strerror}); give another place.') from error


def adapt_to_cpu(cfg: Config) -> None:
    """Replaces what needs a GPU: SyncBN by BN, mixed precision by full."""
    replacements = {'SyncBN': 'BN', 'AmpOptimWrapper': 'OptimWrapper'}
    replaced = set()
    for _, container, key, value in walk(cfg._cfg_dict):
        if key == 'type' and isinstance(value, str) and value in replacements:
            container[key] = replacements[value]
            replaced.add(value)
    if 'AmpOptimWrapper' in replaced:
        for key in ('loss_scale', 'dtype', 'use_fp64'):
            cfg.optim_wrapper.pop(key, None)
    changes = ', '.join(f'{replacements[name]} instead of {name}' for name in sorted(replaced))
    print_log(f'No GPU: this runs on the CPU{f", with {changes}" if changes else ""}.', logger='current')


def walk(node: Any, path: str = '') -> Iterator[tuple[str, Any, Any, Any]]:
    """Every (dotted path, container, key, value) below a config node."""
    if isinstance(node, (dict, list)):
        for key, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
            yield f'{path}{key}', node, key, value
            yield from walk(value, f'{path}{key}.')


class Edits:
    """Changes a config, and keeps a line for each change: dotted path, old and new value."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def set(self, node: Any, key: str | int, value: Any, path: str) -> None:
        """Gives ``node[key]``, which is at `path`, a value."""
        old = node.get(key) if isinstance(node, dict) else node[key]
        if _as_lists(old) != _as_lists(value):
            node[key] = value
            self.lines.append(f'{path}: {"unset" if old is None else old} -> {value}')

    def remove(self, node: dict, key: str, path: str) -> None:
        if key in node:
            self.lines.append(f'{path}: {node.pop(key)} -> unset')

    def insert(self, steps: list, place: int, step: dict, path: str) -> None:
        """Puts a step into a pipeline, which is at `path`."""
        steps.insert(place, step)
        self.lines.append(f'{path}.{place}: new, {step}')


def _as_lists(value: Any) -> Any:
    return [_as_lists(each) for each in value] if isinstance(value, (list, tuple)) else value


def leaves(dataset: Any) -> Iterator[Any]:
    """The data sets inside wrappers such as RepeatDataset and ConcatDataset, of a config or built."""
    get = dataset.get if isinstance(dataset, dict) else partial(getattr, dataset)
    inner = get('datasets', None) or [each for each in (get('dataset', None),) if each is not None]
    if not inner:
        yield dataset
    for each in inner:
        yield from leaves(each)


def evaluators(cfg: Config, name: str) -> list:
    """The metrics that a config has for ``val`` or ``test``."""
    found = cfg.get(f'{name}_evaluator') or []
    return found if isinstance(found, list) else [found]


def first_line(error: BaseException, length: int = 300) -> str:
    """The class of an error and the beginning of what it says."""
    text = str(getattr(error, 'msg', error))  # msg: of a SyntaxError, without its place
    if text.startswith('Caught '):  # it comes from a data loading process, with the text of its traceback
        return text.strip().splitlines()[-1][:length]
    text = ' '.join(text.split())
    return f'{type(error).__name__}: {text[:length]}{" ..." if len(text) > length else ""}'.rstrip('. ')


def setting(cfg: Any, path: str) -> Any:
    """What a config has at a dotted path; None if there is nothing."""
    for key in path.split('.'):
        if isinstance(cfg, (list, tuple)) and key.isdecimal() and int(key) < len(cfg):
            cfg = cfg[int(key)]
        elif isinstance(cfg, (dict, Config)):
            cfg = cfg.get(key)
        else:
            return None
    return cfg


def need(cfg: Config, *paths: str) -> None:
    """UserError: a config lacks one of its parts, as a file of ``_base_`` does."""
    for path in paths:
        if not isinstance(setting(cfg, path), dict):
            raise UserError(f'{cfg.filename or "The config"} has no {path} with settings; give a whole config.')


def _place(path: Path, error: Exception) -> str:
    """The file, of a config and its ``_base_`` files, and if it is known the line that an error is of."""
    place, line = str(path), getattr(error, 'lineno', None)
    for frame, number in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name in ('_file2dict', '_is_lazy_import', '_parse_lazy_import'):
            place = frame.f_locals['filename']
        elif frame.f_code.co_filename == place and frame.f_code.co_name == '<module>':
            line = number
    return f'{place}, line {line},' if line else place


def _merge_options(cfg: Config, options: Sequence[str]) -> None:
    if wrong := [option for option in options if '=' not in option]:
        raise UserError(f'--cfg-options takes KEY=VALUE pairs, but got {wrong[0]!r}.')
    parser = ArgumentParser()
    parser.add_argument('options', nargs='*', action=DictAction, default={})
    try:
        changes = parser.parse_args(options).options
    except (AssertionError, ValueError) as error:
        raise UserError(f'--cfg-options cannot be read: {first_line(error)}.') from error
    known = {*cfg, *inspect.signature(Runner.__init__).parameters, *READ_IF_THERE}
    for key in changes:
        if key.partition('.')[0] not in known:
            raise UserError(f'--cfg-options {key}: the config has no {key.partition(".")[0]!r}.')
    try:
        cfg.merge_from_dict(changes)
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise UserError(f'--cfg-options cannot be applied: {first_line(error)}.') from error


def _replace_data_root(cfg: Config, new: Path) -> None:
    if not new.is_dir():
        raise UserError(f'--data-root {new} does not exist or is not a folder.')
    nodes = list(walk(cfg._cfg_dict))
    old = {str(value).rstrip('/') + '/' for _, _, key, value in nodes if key == 'data_root' and value}
    for _, container, key, value in nodes:
        for root in (root for root in old if isinstance(value, str) and f'{value}/'.startswith(root)):
            container[key] = f'{new}/{value[len(root) :]}'
