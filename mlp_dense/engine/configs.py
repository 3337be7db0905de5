"""Reading a config, and adapting it to what is asked for and to this machine."""

import difflib
import inspect
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.logging import print_log
from mmengine.runner import Runner

from ..errors import UserError


def read_config(args: Namespace) -> Config:
    """Reads ``args.config`` and applies ``--cfg-options`` and ``--data-root``.

    Raises:
        UserError: the file or an option is unusable.
    """
    cfg = read_config_file(args.config)
    _merge_options(cfg, args.cfg_options)
    if args.data_root is not None:
        _replace_data_root(cfg, args.data_root)
    return cfg


def read_config_file(file: str | Path) -> Config:
    """Reads a config as it is.

    Raises:
        UserError: the file is unusable.
    """
    path = Path(file)
    if not path.is_file():
        known = [str(file) for file in Path('configs').glob('*/*.py') if file.parent.name != '_base_']
        close = difflib.get_close_matches(str(file), known, n=1)
        raise UserError(f'Config {path} does not exist{f"; did you mean {close[0]}?" if close else "."}')
    if path.suffix not in ('.py', '.json', '.yaml', '.yml'):
        raise UserError(f'{path} is not a config: its name must end in .py, .json or .yaml.')
    try:
        return Config.fromfile(path)
    except FileNotFoundError as error:
        raise UserError(f'{path} names a _base_ file that is missing: {error}') from error


def load_config(args: Namespace) -> Config:
    """Reads the config of a training or a test, with ``--work-dir`` and ``--launcher``, and makes the work dir.

    Raises:
        UserError: the file, an option or the folder to write to is unusable.
    """
    cfg = read_config(args)
    cfg.launcher = args.launcher
    cfg.work_dir = str(args.work_dir or cfg.get('work_dir') or Path('work_dirs') / Path(args.config).stem)
    try:
        Path(cfg.work_dir).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=cfg.work_dir).close()
    except OSError as error:
        raise UserError(f'{cfg.work_dir} cannot be written ({error.strerror}); give another --work-dir.') from error
    return cfg


def use_tta(cfg: Config) -> None:
    """Turns on the test-time augmentation of a config (its ``tta_model`` and ``tta_pipeline``).

    Raises:
        UserError: it has none.
    """
    if 'tta_model' not in cfg or 'tta_pipeline' not in cfg:
        raise UserError('--tta: this config has no tta_model and tta_pipeline.')
    for dataset in leaves(cfg.test_dataloader.dataset):
        dataset.pipeline = cfg.tta_pipeline
    cfg.model = dict(**cfg.tta_model, module=cfg.model)


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


def _merge_options(cfg: Config, options: Sequence[str]) -> None:
    wrong = [option for option in options if '=' not in option]
    if wrong:
        raise UserError(f'--cfg-options takes KEY=VALUE pairs, but got {wrong[0]!r}.')
    parser = ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    changes = parser.parse_args(['--cfg-options', *options] if options else []).cfg_options
    known = {*cfg, *inspect.signature(Runner.__init__).parameters, 'auto_scale_lr', 'find_unused_parameters', 'sync_bn'}
    for key in changes:
        if key.partition('.')[0] not in known:
            raise UserError(f'--cfg-options {key}: the config has no {key.partition(".")[0]!r}.')
    try:
        cfg.merge_from_dict(changes)
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f'--cfg-options cannot be applied: {error.args[0]}') from error


def walk(node: Any, path: str = '') -> Iterator[tuple[str, Any, Any, Any]]:
    """Every (dotted path, container, key, value) below a config node."""
    if isinstance(node, (dict, list)):
        for key, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
            yield f'{path}{key}', node, key, value
            yield from walk(value, f'{path}{key}.')


def _replace_data_root(cfg: Config, new: Path) -> None:
    if not new.is_dir():
        raise UserError(f'--data-root {new} does not exist or is not a folder.')
    tree = cfg._cfg_dict
    old = {str(value).rstrip('/') for _, _, key, value in walk(tree) if key == 'data_root' and value}
    for _, container, key, value in walk(tree):
        root = next((root for root in old if isinstance(value, str) and (value + '/').startswith(root + '/')), None)
        if root is not None:
            container[key] = f'{new}/{value[len(root) :].lstrip("/")}'


def leaves(dataset: Any) -> Iterator[Any]:
    """The data sets below wrappers such as RepeatDataset and ConcatDataset."""
    inner = dataset.get('datasets') or ([dataset.dataset] if 'dataset' in dataset else [])
    if not inner:
        yield dataset
    for each in inner:
        yield from leaves(each)
