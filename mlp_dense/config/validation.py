"""Checks of settings before anything is built, and explanations of the errors that other settings cause."""

import difflib
import inspect
import math
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
from torch.utils.data import DataLoader

from ..errors import ArgumentError, NotInstalledError, UserError, explain_torchvision
from ..tasks import TASKS
from .reading import first_line, need, setting, walk
from .safe_loaders import safe_loaders

COUNTS = {  # settings that count something, and their least value
    **{f'{name}_dataloader.batch_size': 1 for name in ('train', 'val', 'test')},
    **{f'{name}_dataloader.num_workers': 0 for name in ('train', 'val', 'test')},
    'train_cfg.max_epochs': 1,
    'train_cfg.max_iters': 1,
    'train_cfg.val_interval': 1,
    'optim_wrapper.accumulative_counts': 1,
    'default_hooks.logger.interval': 1,
    'default_hooks.visualization.interval': 1,
    'default_hooks.checkpoint.interval': -1,  # -1: never
    'auto_scale_lr.base_batch_size': 1,
    'randomness.seed': 0,
}
NUMBERS = (
    'optim_wrapper.optimizer.lr',
    'optim_wrapper.optimizer.weight_decay',
    'optim_wrapper.clip_grad.max_norm',
    'max_unreadable',
)
BACKENDS = {  # packages that backends of mmengine import when the training begins
    'WandbVisBackend': 'wandb',
    'MLflowVisBackend': 'mlflow',
    'AimVisBackend': 'aim',
    'ClearMLVisBackend': 'clearml',
    'NeptuneVisBackend': 'neptune',
    'DVCLiveVisBackend': 'dvclive',
}
LOADER_KEYS = ['num_batch_per_epoch', 'disable_subprocess_warning', *inspect.signature(DataLoader).parameters]
"""Settings of data loaders: those of mmengine, then those of PyTorch."""


def check_settings(cfg: Config) -> None:
    """Check settings that users often change. The default scope must be that of the config.

    Raises:
        UserError: a number is impossible, a data loader or the checkpoint hook has an unknown key, or the optimizer is
            unknown.
    """
    for path, least in COUNTS.items():
        value = setting(cfg, path)
        if value is not None and not (_is_number(value) and value == int(value) >= least):
            raise UserError(f'{path} is {value!r}; set a whole number of {least} or more.')
    if (setting(cfg, 'randomness.seed') or 0) >= 2**32:
        raise UserError(f'randomness.seed is {cfg.randomness.seed}; set a number below {2**32}.')
    if isinstance(file := setting(cfg, 'model.backbone.init_cfg'), str):
        raise UserError(f"model.backbone.init_cfg is {file!r}; set dict(type='Pretrained', checkpoint={file!r}).")
    for path in NUMBERS:
        value = setting(cfg, path)
        if value is not None and not (_is_number(value) and value >= 0):
            raise UserError(f'{path} is {value!r}; set a number of 0 or more.')
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if cfg.get(name):
            need(cfg, name, f'{name}.dataset')
        for key in cfg.get(name) or ():
            if key not in LOADER_KEYS and not key.startswith('_'):
                raise UserError(f'{name}.{key}: data loaders have no such setting{_did_you_mean(key, LOADER_KEYS)}')
    optimizer = setting(cfg, 'optim_wrapper.optimizer.type')
    with OPTIMIZERS.switch_scope_and_registry(None) as registry:
        if isinstance(optimizer, str) and registry.get(optimizer) is None:
            raise UserError(f'optim_wrapper.optimizer.type: {_unknown_type(optimizer, registry)}')
    hook = setting(cfg, 'default_hooks.checkpoint')
    with HOOKS.switch_scope_and_registry(None) as registry:
        built = registry.get(hook['type']) if isinstance(hook, dict) and isinstance(hook.get('type'), str) else None
    known = [*_arguments(built), *_arguments(Runner.save_checkpoint), 'type'] if built else []
    for key in hook if built else ():  # the hook would pass it on to save_checkpoint, hours later
        if key not in known and not key.startswith('_'):  # mmengine adds _scope_
            hint = _did_you_mean(key, known)
            raise UserError(f'default_hooks.checkpoint.{key}: checkpoints have no such setting{hint}')


def check_backends(cfg: Config) -> None:
    """Raise NotInstalledError if the config logs to a backend whose package is not installed."""
    for backend in setting(cfg, 'visualizer.vis_backends') or ():
        package = BACKENDS.get(str(backend['type']))
        if package and not find_spec(package):
            raise NotInstalledError(
                f'visualizer.vis_backends has {backend["type"]}, but {package} is not installed: pip install {package}.'
            )


@contextmanager
def building(cfg: Config, running: bool = False) -> Iterator[None]:
    """Explain errors of building what a config describes, and read checkpoints safely inside.

    Args:
        cfg: the config.
        running: whether the code inside also runs what it builds. Errors outside of a registry then pass unchanged.

    Raises:
        UserError: a constructor refuses a setting; the message contains its path in the config.
    """
    try:
        with safe_loaders(), warnings.catch_warnings():
            # mmseg warns of its own deprecated code, which users cannot change
            warnings.filterwarnings('ignore', '``build_loss``|Default ``avg_non_ignore``', UserWarning)
            yield
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, torch.OutOfMemoryError) or (
            isinstance(error, UserError) and not isinstance(error, ArgumentError)
        ):
            raise
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        registry = [frame for frame in frames if frame.f_globals['__name__'] == 'mmengine.registry.build_functions']
        ours = frames[-1].f_globals['__name__'].startswith('mlp_dense.')
        if not registry and (running or ours):
            raise
        raise UserError(_explanation(error, registry, cfg)) from error


def _explanation(error: Exception, frames: list[FrameType], cfg: Config) -> str:
    """Explain an error in the section of a config that the innermost of the registry's frames was building."""
    message = first_line(error)
    if sentence := explain_torchvision(error):
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
        return f'{path}: {str(error).rstrip(".")}{_left_over(cfg, path, node, unknown) or "."}'
    if isinstance(error, TypeError) and 'unexpected keyword' in message and unknown:
        hint = _left_over(cfg, path, node, unknown) or _did_you_mean(unknown[0], known)
        return f'{path}: {name} has no argument {", ".join(unknown)}{hint}'
    arguments = ', '.join(f'{key}={node[key]!r}' for key in known if not isinstance(node.get(key, {}), (dict, list)))
    return f'{path}: {name}({arguments[:160]}) fails: {message} (--debug prints the traceback).'


def _path_of(frames: list[FrameType], sections: dict[str, Any]) -> str:
    """Return the dotted path of the innermost object under construction.

    mmengine and the classes that own an object copy and change its config. It is therefore recognised by its type and
    the number of settings that it shares with the original, preferably inside of its owner.
    """
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
    classes = built.__mro__ if inspect.isclass(built) else ()
    constructors = [vars(cls)['__init__'] for cls in classes if '__init__' in vars(cls) and cls is not object] or [
        built
    ]
    parameters = [p for constructor in constructors for p in inspect.signature(constructor).parameters.values()]
    names = dict.fromkeys(p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))
    return [name for name in names if name != 'self']


def _left_over(cfg: Config, path: str, node: Mapping, unknown: list[str]) -> str:
    """Return advice to set ``_delete_`` if unknown arguments belong to another type, from a ``_base_`` or the file."""
    current = setting(cfg, path) or node
    for older in _ancestors(cfg.filename) if cfg.filename else ():
        inherited = setting(older, path)
        if not isinstance(inherited, Mapping) or inherited.get('type') == current.get('type'):
            continue
        if set(unknown) & inherited.keys():
            name = str(inherited.get('type')).rpartition('.')[2]
            return f'; settings of the inherited {name} are left: set _delete_=True next to the new type.'
    return ''


def _ancestors(file: str) -> Iterator[Config]:
    yield Config.fromfile(file, import_custom_modules=False)
    for base in Config._get_base_files(file):
        yield from _ancestors(Config._get_cfg_path(base, file)[0])


def _unknown_type(name: str, registry: Registry) -> str:
    prefix, dot, bare = name.rpartition('.')
    for task in TASKS.values():  # a scope that nobody used yet has registered nothing yet
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


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
