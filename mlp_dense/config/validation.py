"""Checks of settings before anything is built, and explanations of the errors that other settings cause."""

import difflib
import inspect
import math
import re
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from operator import itemgetter
from types import FrameType
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import HOOKS, OPTIMIZERS, Registry
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader, get_external_models, get_torchvision_models
from torch.utils.data import DataLoader

from ..checkpoints.files import is_url, local_file
from ..checkpoints.reading import Checkpoint
from ..errors import ArgumentError, CheckpointError, NotInstalledError, UserError, explain_import
from ..mmengine_privates import checkpoint_reader
from ..tasks import TASKS
from .config_file import first_line, need, setting, walk
from .unread import check_unread

COUNTS = {  # settings that count something, and their least value
    **{f'{name}_dataloader.batch_size': 1 for name in ('train', 'val', 'test')},
    **{f'{name}_dataloader.num_workers': 0 for name in ('train', 'val', 'test')},
    **{f'train_cfg.{key}': 1 for key in ('max_epochs', 'max_iters', 'val_interval')},
    **{f'default_hooks.{name}.interval': 1 for name in ('logger', 'visualization')},
    'optim_wrapper.accumulative_counts': 1,
    'default_hooks.checkpoint.interval': -1,  # -1: never
    'auto_scale_lr.base_batch_size': 1,
    'randomness.seed': 0,
}
NUMBERS = {f'optim_wrapper.{key}': 0 for key in ('optimizer.lr', 'optimizer.weight_decay', 'clip_grad.max_norm')}
NUMBERS['max_unreadable'] = 0
BACKENDS = ('Wandb', 'MLflow', 'Aim', 'ClearML', 'Neptune', 'DVCLive')
"""Backends of mmengine, as XVisBackend, that import a package of their name in lower case when training begins."""
ZOOS = {'torchvision': get_torchvision_models, 'open-mmlab': get_external_models}
"""Functions of mmengine that return the URLs of ``torchvision://NAME`` and ``open-mmlab://NAME``."""

RUN_ERRORS = {
    'image size in a batch should be the same': 'Images of different sizes are in one test batch, which segmentors '
    'cannot stack; set val_dataloader.batch_size=1 and test_dataloader.batch_size=1.',
    'closed by peer|reset by peer|Broken pipe|remote process exited': 'Another process of this training run has died '
    '({}); read the last message of that process, and resume with the same command and --resume.',
    r'DataLoader worker \(pid.*(?:killed by signal: [\w ]+|exited unexpectedly)': 'A loading process was killed ({}), '
    'usually because memory is full: use fewer of them (train_dataloader.num_workers), smaller batches, or in a '
    'container more shared memory (docker run --shm-size), and continue with --resume.',
}
"""Explanations of errors that end a run, by a pattern of their message."""

DELETE = 'To drop the arguments of an inherited type, set _delete_=True next to the new type.'

LOADER_KEYS = ['num_batch_per_epoch', 'disable_subprocess_warning', *inspect.signature(DataLoader).parameters]
"""Settings of data loaders: those of mmengine, then those of PyTorch."""


def check_settings(cfg: Config) -> None:
    """Raise UserError if a setting that users often change is impossible, or misspelled where no constructor checks it.

    The default scope must be that of the config.
    """
    check_unread(cfg)
    for path, least in {**COUNTS, **NUMBERS}.items():
        value, whole = setting(cfg, path), path in COUNTS
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if value is not None and not (is_number and value >= least and (value == int(value) or not whole)):
            raise UserError(f'{path} is {value!r}; set a {"whole " * whole}number of {least} or more.')
    if (setting(cfg, 'randomness.seed') or 0) >= 2**32:
        raise UserError(f'randomness.seed is {cfg.randomness.seed}; set a number below {2**32}.')
    if isinstance(file := setting(cfg, 'model.backbone.init_cfg'), str):
        raise UserError(f"model.backbone.init_cfg is {file!r}; set dict(type='Pretrained', checkpoint={file!r}).")
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if cfg.get(name):
            need(cfg, name, f'{name}.dataset')
            _check_keys(cfg, name, LOADER_KEYS, 'data loaders')
    optimizer = setting(cfg, 'optim_wrapper.optimizer.type')
    with OPTIMIZERS.switch_scope_and_registry(None) as registry:
        if isinstance(optimizer, str) and registry.get(optimizer) is None:  # mmengine's error would not name the type
            raise UserError(f'optim_wrapper.optimizer.type: {_unknown_type(optimizer, registry)}')
    hook = setting(cfg, 'default_hooks.checkpoint.type')
    with HOOKS.switch_scope_and_registry(None) as registry:
        if built := registry.get(hook) if isinstance(hook, str) else None:
            # the hook would pass other keys on to save_checkpoint, hours later
            known = [*_arguments(built), *_arguments(Runner.save_checkpoint), 'type']
            _check_keys(cfg, 'default_hooks.checkpoint', known, 'checkpoints')


def _check_keys(cfg: Config, path: str, known: list[str], owner: str) -> None:
    for key in setting(cfg, path):
        if key not in known and not key.startswith('_'):  # mmengine adds _scope_
            raise UserError(f'{path}.{key}: {owner} have no such setting{_did_you_mean(key, known)}')


def check_backends(cfg: Config) -> None:
    """Raise NotInstalledError if the config logs to a backend whose package is not installed."""
    for backend in setting(cfg, 'visualizer.vis_backends') or ():
        name = str(backend['type']).removesuffix('VisBackend')
        if name in BACKENDS and not find_spec(package := name.lower()):
            raise NotInstalledError(
                f'visualizer.vis_backends has {backend["type"]}, but {package} is not installed: pip install {package}.'
            )


def check_pretrained(cfg: Config) -> None:
    """Raise CheckpointError if ``load_from`` or an ``init_cfg`` of the model names a missing file."""
    pretrained = [node.get('checkpoint') for *_, node in walk(cfg.model) if setting(node, 'type') == 'Pretrained']
    for file in filter(None, [cfg.get('load_from'), *pretrained]):
        if not is_url(file):
            local_file(file)


def load_safely(source: str, map_location: Any = None) -> dict[str, Any]:
    """Read a file, a URL or a model of a zoo for mmengine, and execute no code of it."""
    zoo, _, name = source.partition('://')
    if zoo in ZOOS and not (source := ZOOS[zoo]().get(name, '')):
        raise CheckpointError(f'{zoo}://{name} does not exist; choose another name.')
    return Checkpoint.read(source, map_location).content


@contextmanager
def building(cfg: Config, running: bool = False) -> Iterator[None]:
    """Raise UserError with the path of a setting that a constructor refuses, and read checkpoints safely inside.

    Safe reading applies to every ``init_cfg``, teacher and ``load_from``. Outside of the context nothing changes for
    other projects that import this package. If the code inside is also `running` what it builds, errors outside of a
    registry pass unchanged, except RUN_ERRORS.
    """
    try:
        with checkpoint_reader(CheckpointLoader, load_safely), warnings.catch_warnings():
            # mmseg warns of its own deprecated code, which users cannot change, and of draw=False, which they set
            warnings.filterwarnings(
                'ignore', '``build_loss``|Default ``avg_non_ignore``|The draw is False', UserWarning
            )
            yield
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, (torch.OutOfMemoryError, UserError)) and not isinstance(error, ArgumentError):
            raise
        for pattern, explanation in RUN_ERRORS.items():
            if running and (match := re.search(pattern, str(error))):
                raise UserError(explanation.format(match[0])) from error
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        registry = [frame for frame in frames if frame.f_globals['__name__'] == 'mmengine.registry.build_functions']
        ours = frames[-1].f_globals['__name__'].startswith('mlp_dense.')
        if not registry and (running or ours):
            raise
        raise UserError(_explanation(error, registry, cfg)) from error


def _explanation(error: Exception, frames: list[FrameType], cfg: Config) -> str:
    """Explain an error in the section of a config that the innermost of the registry's frames was building."""
    message = first_line(error)
    if sentence := explain_import(error):
        return sentence
    if not frames:
        return f'The config cannot be built: {message} (--debug prints the traceback).'
    node, built = (frames[-1].f_locals.get(name) for name in ('cfg', 'obj_cls'))
    sections = {key: cfg[key] for key in inspect.signature(Runner).parameters if key in cfg}
    if not isinstance(node, Mapping) or 'type' not in node:
        path = next((path for path, _, _, value in walk(sections) if value == node), 'a section of the config')
        return f'{path} is {str(node)[:80]}; set a dict with a type.'
    if built is None:
        path = next((path for path, _, _, value in walk(sections) if value == node['type']), 'the config')
        return f'{path}: {_unknown_type(str(node["type"]), frames[-1].f_locals["registry"])}'
    path, name, known = _path_of(frames, sections), getattr(built, '__name__', str(built)), _arguments(built)
    unknown = [key for key in node if key not in known and key != 'type' and not key.startswith('_')]
    if isinstance(error, ArgumentError):  # its message names the unknown arguments and the allowed ones
        return f'{path}: {error} {DELETE}'
    if isinstance(error, TypeError) and 'unexpected keyword' in message and unknown:
        return f'{path}: {name} has no argument {", ".join(unknown)}{_did_you_mean(unknown[0], known)} {DELETE}'
    arguments = ', '.join(f'{key}={node[key]!r}' for key in known if not isinstance(node.get(key, {}), (dict, list)))
    if 'need at least one array' in message:  # raised by mmengine's data sets if they are empty
        message = 'No image matches these settings'
    return f'{path}: {name}({arguments[:160]}) fails: {message} (--debug prints the traceback).'


def _path_of(frames: list[FrameType], sections: dict[str, Any]) -> str:
    """Return the dotted path of the innermost object under construction."""
    # mmengine and the classes that own an object copy and change its config. It is therefore recognised by its type and
    # the number of settings that it shares with the original, preferably inside of its owner.
    path, owner = '', sections
    for node in (frame.f_locals['cfg'] for frame in frames if 'type' in frame.f_locals['cfg']):
        for start, inside in ((f'{path}.', owner), ('', sections)):
            candidates = [
                (sum(value.get(key) == node.get(key) for key in value), f'{start}{below}'.lstrip('.'), value)
                for below, _, _, value in walk(inside)
                if isinstance(value, dict) and value.get('type') == node['type']
            ]
            if candidates:
                _, path, owner = max(candidates, key=itemgetter(0))
                break
    return path


def _arguments(built: Any) -> list[str]:
    """Return the names of the arguments of a function, or of a class and its bases."""
    classes = built.__mro__[:-1] if inspect.isclass(built) else ()
    functions = [vars(cls)['__init__'] for cls in classes if '__init__' in vars(cls)] or [built]
    parameters = [p for function in functions for p in inspect.signature(function).parameters.values()]
    names = dict.fromkeys(p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))
    return [name for name in names if name != 'self']


def _unknown_type(name: str, registry: Registry) -> str:
    prefix, dot, bare = name.rpartition('.')
    for task in TASKS.values():  # a scope registers its types on first use
        with suppress(ImportError):
            import_module(f'{task.scope}.registry')
    registries = [registry.root]
    for child in registries:  # grows
        with suppress(ImportError):
            child.import_from_location()
        registries += child.children.values()
    known = {key for child in registries for key in child.module_dict}
    close = difflib.get_close_matches(bare, known, n=1)
    hint = f'; did you mean {prefix}{dot}{close[0]}?' if close else '. Check the name, and import its module.'
    hint = ', but in that of another scope. Check default_scope.' if bare in known else hint
    return f'{name} is not in the {registry.scope}::{registry.name} registry{hint}'


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f'; did you mean {close[0]}?' if close else f'; allowed: {", ".join(known)}.' if len(known) < 20 else '.'
