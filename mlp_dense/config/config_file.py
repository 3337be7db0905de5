"""Reading a config, changing it by options, and looking things up in it."""

import inspect
import json
import traceback
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from .. import catalog
from ..errors import UserError, explained_imports
from ..mmengine_privates import CONFIG_READERS
from ..outputs import make_folder
from ..tasks import TASKS

READ_IF_THERE = ('auto_scale_lr', 'find_unused_parameters', 'sync_bn', 'compile', 'check_data', 'max_unreadable')
"""Keys that the Runner of mmengine or of this package reads from a config, besides its constructor's arguments."""


def read_config(file: str | Path, options: Sequence[str] = (), data_root: Path | None = None) -> Config:
    """Read a .py, .json or .yaml file, and change it by ``KEY=VALUE`` options. Raises UserError if one is unusable.

    If no such file exists, `file` is the name of a config of this package, such as ``hire_mlp_mask_rcnn_coco``.

    The folder `data_root` replaces every data root of the config, also in its evaluators.
    """
    path = _config_file(file)
    try:
        cfg = Config.fromfile(path)
        list(walk(cfg))  # imports the modules that a lazy config names
    except FileNotFoundError as error:
        raise UserError(f'{path} needs a file that is missing: {error}') from error
    except Exception as error:  # a config is Python code, which can raise anything
        if 'custom modules' in str(error):  # mmengine's own message quotes sys.path
            raise UserError(f'{path}: custom_imports cannot be imported: {error.__cause__}; set PYTHONPATH.') from error
        raise UserError(f'{_location(path, error)} cannot be read: {first_line(error)}.') from error
    _merge_options(cfg, options)
    if data_root is not None:
        _replace_data_root(cfg, data_root)
    return cfg


def enter_scope(cfg: Config) -> None:
    """Make the scope of a config the default one. Raises NotInstalledError if its package or mmcv is missing."""
    scope = cfg.get('default_scope') or 'mmengine'
    if scope in TASKS:  # for a missing package mmengine would only warn
        with explained_imports():
            import_module(TASKS[scope].package)
    init_default_scope(scope)


def set_work_dir(cfg: Config, work_dir: Path | None, make: bool = True) -> None:
    """Set the folder that a run writes to, by default that of the config, and `make` it."""
    cfg.work_dir = str(work_dir or cfg.get('work_dir') or Path('work_dirs') / Path(cfg.filename).stem)
    if make:
        make_folder(Path(cfg.work_dir))


def walk(node: Any, path: str = '') -> Iterator[tuple[str, Any, Any, Any]]:
    """Yield (dotted path, container, key, value) for everything below a config node."""
    if isinstance(node, (dict, list, Config)):
        for key, value in list(enumerate(node) if isinstance(node, list) else node.items()):
            yield f'{path}{key}', node, key, value
            yield from walk(value, f'{path}{key}.')


class Edits:
    """Changes of a config, each recorded as a line: dotted path, old and new value."""

    def __init__(self, cfg: Config):
        self.cfg = cfg
        self.lines: list[str] = []

    def set(self, node: dict, key: str, value: Any) -> None:
        """Set ``node[key]``, where `node` is a section of the config. The value None unsets it."""
        old, new = ('unset' if setting is None else setting for setting in (node.get(key), value))
        if json.dumps(old, default=str) != json.dumps(new, default=str):  # lists and tuples are equal
            node[key] = value
            self.lines.append(f'{self.path(node)}.{key}: {old} -> {new}')

    def path(self, node: Any) -> str:
        """Return the dotted path of a section or list of the config."""
        return next(path for path, _, _, value in walk(self.cfg) if value is node)


def evaluators(cfg: Config, name: str) -> list:
    """Return the metrics that a config has for ``val`` or ``test``."""
    metrics = cfg.get(f'{name}_evaluator') or []
    return metrics if isinstance(metrics, list) else [metrics]


def first_line(error: BaseException, length: int = 300) -> str:
    """Return the class of an error and the beginning of its message."""
    text = str(getattr(error, 'msg', error))  # `msg` of a SyntaxError is without the location
    if text.startswith('Caught '):  # an error in a data-loading worker contains its traceback
        return text.strip().splitlines()[-1][:length]
    text = ' '.join(text.split())
    return f'{type(error).__name__}: {text[:length]}{" ..." if len(text) > length else ""}'.rstrip('. ')


def setting(cfg: Any, path: str) -> Any:
    """Return the value at a dotted path of a config, None if it is missing."""
    for key in path.split('.'):
        if isinstance(cfg, (list, tuple)) and key.isdecimal() and int(key) < len(cfg):
            cfg = cfg[int(key)]
        elif isinstance(cfg, (dict, Config)):
            cfg = cfg.get(key)
        else:
            return None
    return cfg


def need(cfg: Config, *paths: str) -> None:
    """Raise UserError if a config lacks one of its sections, as a file of ``_base_`` does."""
    for path in paths:
        if not isinstance(setting(cfg, path), dict):
            raise UserError(f'{cfg.filename or "The config"} has no {path} with settings; pass a complete config.')


def _config_file(name: str | Path) -> Path:
    """Return an existing file, or the config of this package with this name."""
    path = Path(name)
    if not path.is_file() and (config := catalog.find(str(name))):
        return config
    if path.suffix not in ('', '.py', '.json', '.yaml', '.yml') or (path.exists() and not path.suffix):
        raise UserError(f'{path} is not a config: its name must end in .py, .json or .yaml; see --help for the order.')
    if not path.is_file():
        close = catalog.similar(str(name))
        remedy = f'did you mean {close}?' if close else 'mlp-dense configs lists the names of configs.'
        raise UserError(f'Config {path} does not exist; {remedy}')
    return path


def _location(path: Path, error: Exception) -> str:
    """Return the file, of a config and its ``_base_`` files, that raised an error, and the line if it is known."""
    file, line = str(path), getattr(error, 'lineno', None)
    for frame, number in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name in CONFIG_READERS:
            file = frame.f_locals['filename']
        elif frame.f_code.co_filename == file and frame.f_code.co_name == '<module>':
            line = number
    return f'{file}, line {line},' if line else file


def _merge_options(cfg: Config, options: Sequence[str]) -> None:
    if invalid := [option for option in options if '=' not in option]:
        raise UserError(f'--cfg-options {invalid[0]!r}: pass KEY=VALUE pairs.')
    parser = ArgumentParser()
    parser.add_argument('options', nargs='*', action=DictAction, default={})
    try:
        changes = parser.parse_args(options).options
    except (AssertionError, ValueError) as error:
        raise UserError(f'--cfg-options cannot be read: {first_line(error)}.') from error
    known = {*cfg, *inspect.signature(Runner).parameters, *READ_IF_THERE}
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
    nodes = list(walk(cfg))
    old = {str(value).rstrip('/') + '/' for _, _, key, value in nodes if key == 'data_root' and value}
    for _, container, key, value in nodes:
        for root in (root for root in old if isinstance(value, str) and f'{value}/'.startswith(root)):
            container[key] = f'{new}/{value[len(root) :]}'
