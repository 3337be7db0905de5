"""Settings that no code reads: misspelled keys of sections that no constructor checks."""

import difflib
import inspect
import logging
import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import Runner

from ..errors import UserError
from ..tasks import TASKS
from .config_file import READ_IF_THERE, walk

SECTIONS = {
    *('train_cfg', 'test_cfg', 'tta_cfg', 'filter_cfg', 'data_prefix', 'metainfo', 'paramwise_cfg', 'clip_grad'),
    *('env_cfg', 'auto_scale_lr'),
}
"""Sections that a class receives as a dict, of which it reads some keys."""

FREE = {'custom_keys', 'mixup', 'erasing'}
"""Sections in them with names of parameters, or with arguments that a constructor checks."""

WORD = re.compile(r'[^\W\d]\w*')


def check_unread(cfg: Config) -> None:
    """Raise UserError for a key that resembles a setting and occurs nowhere in the code that reads the config.

    A key without such a resemblance is logged as a warning. The code is that of mmengine, mmcv, the scopes of all
    tasks, and the packages of the types and custom imports.
    """
    top = [*inspect.signature(Runner).parameters, *READ_IF_THERE]
    for path, node, key, _ in walk(cfg):
        *parents, _ = path.split('.')
        if not isinstance(key, str) or key.startswith('_'):
            continue
        if not parents:  # a config may have any variable, so only a similar name is a misspelled one
            close = [] if key in top else difflib.get_close_matches(key, top, 1, 0.9)
            if not close or key in words_of(sources_of(cfg)):
                continue
        else:
            is_checked = parents[0] in (*top, 'tta_model') and SECTIONS.intersection(parents)
            is_built = 'type' in node and parents[-1] != 'nms'  # an error of its constructor is explained
            if not is_checked or is_built or FREE.intersection(parents) or key in words_of(sources_of(cfg)):
                continue
            close = difflib.get_close_matches(key, [name for name in node if name != key], 1, 0.8)
            close = close or difflib.get_close_matches(key, words_of(sources_of(cfg)), 1, 0.8)
        if close:
            raise UserError(f'{path}: no code reads this setting; did you mean {close[0]}?')
        print_log(f'{path}: no code reads this setting.', 'current', logging.WARNING)


def sources_of(cfg: Config) -> frozenset[str]:
    """Return the names of the packages and modules that read a config."""
    types = [value for *_, key, value in walk(cfg) if key == 'type']
    prefixes = (value if isinstance(value, str) else value.__module__ for value in types)
    packages = {prefix.partition('.')[0] for prefix in prefixes if '.' in prefix}
    imports = (cfg.get('custom_imports') or {}).get('imports') or ()
    imports = [imports] if isinstance(imports, str) else imports
    return frozenset({'mmengine', 'mmcv', *TASKS, cfg.get('default_scope') or 'mmengine', *packages, *imports})


@cache
def words_of(names: frozenset[str]) -> frozenset[str]:
    """Return the words in the source of packages and modules."""
    texts = (file.read_text(encoding='utf-8', errors='replace') for name in names for file in _files(name))
    return frozenset(word for text in texts for word in WORD.findall(text))


def _files(name: str) -> Iterator[Path]:
    """Yield the source files of a package, or of a module and its neighbours in its package."""
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        return
    for folder in spec.submodule_search_locations or () if spec else ():
        yield from (file for file in Path(folder).rglob('*.py') if '.mim' not in file.parts)
    if spec and spec.origin and not spec.submodule_search_locations:
        file = Path(spec.origin)
        yield from file.parent.glob('*.py') if '.' in name else [file]
