"""Settings of a config that are wrong: found before anything is built, or explained by what refuses them."""

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
from .reading import first_line, need, setting, walk
from .safe_loaders import safe_loaders

WHOLE = {  # numbers that count something, and the least that they may be
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
BACKENDS = {  # of mmengine, which import their package when the training begins
    'WandbVisBackend': 'wandb',
    'MLflowVisBackend': 'mlflow',
    'AimVisBackend': 'aim',
    'ClearMLVisBackend': 'clearml',
    'NeptuneVisBackend': 'neptune',
    'DVCLiveVisBackend': 'dvclive',
}
# Beside PyTorch's, what mmengine understands.
LOADER_KEYS = ['num_batch_per_epoch', 'disable_subprocess_warning', *inspect.signature(DataLoader).parameters]


def check_settings(cfg: Config) -> None:
    """UserError: a number that trainings and tests are often given is none, or an impossible one; a data loader has an
    unknown key, or the optimizer is unknown. The default scope is that of the config."""
    for path, least in WHOLE.items():
        value = setting(cfg, path)
        if value is not None and not (_is_number(value) and value == int(value) >= least):
            raise UserError(f'{path} is {value!r}; give a whole number of {least} or more.')
    if (setting(cfg, 'randomness.seed') or 0) >= 2**32:
        raise UserError(f'randomness.seed is {cfg.randomness.seed}; give a number below {2**32}.')
    if isinstance(file := setting(cfg, 'model.backbone.init_cfg'), str):
        raise UserError(f"model.backbone.init_cfg is {file!r}; give dict(type='Pretrained', checkpoint={file!r}).")
    for path in NUMBERS:
        value = setting(cfg, path)
        if value is not None and not (_is_number(value) and value >= 0):
            raise UserError(f'{path} is {value!r}; give a number of 0 or more.')
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
    for key in hook if built else ():  # it would give others on to save_checkpoint, hours later
        if key not in known and not key.startswith('_'):  # mmengine adds _scope_ to what another package's config holds
            hint = _did_you_mean(key, known)
            raise UserError(f'default_hooks.checkpoint.{key}: checkpoints have no such setting{hint}')


def check_backends(cfg: Config) -> None:
    """NotInstalledError: something that a config logs to, beside files, is no package that is installed."""
    for backend in setting(cfg, 'visualizer.vis_backends') or ():
        package = BACKENDS.get(str(backend['type']))
        if package and not find_spec(package):
            raise NotInstalledError(
                f'visualizer.vis_backends has {backend["type"]}, but {package} is not installed: pip install {package}.'
            )


@contextmanager
def building(cfg: Config, running: bool = False) -> Iterator[None]:
    """Around the building of what a config describes: what a constructor does not take is a UserError that says where
    in the config it is, and what no user can mend no warning."""
    try:
        with safe_loaders(), warnings.catch_warnings():
            warnings.filterwarnings('ignore', '``build_loss``|Default ``avg_non_ignore``', UserWarning)
            yield
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, UserError) and not isinstance(error, ArgumentError):
            raise
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        registry = [frame for frame in frames if frame.f_globals['__name__'] == 'mmengine.registry.build_functions']
        own = not registry and frames[-1].f_globals['__name__'].startswith('mlp_dense.')
        if own or (running and not registry) or isinstance(error, torch.OutOfMemoryError):  # no setting is at fault
            raise
        raise UserError(_explanation(error, registry, cfg)) from error


def _explanation(error: Exception, frames: list[FrameType], cfg: Config) -> str:
    """What was wrong with the part of the config that the innermost frame, of those of the registry, was building."""
    said = first_line(error)
    if sentence := explain_torchvision(error):
        return sentence
    if not frames:
        return f'The config cannot be built: {said} (--debug shows where).'
    node, built = (frames[-1].f_locals.get(name) for name in ('cfg', 'obj_cls'))
    parts = {key: cfg[key] for key in inspect.signature(Runner).parameters if key in cfg}
    if not isinstance(node, Mapping) or 'type' not in node:
        found = next((path for path, _, _, value in walk(parts) if value == node), 'a part of the config')
        return f'{found} is {str(node)[:80]}; give a dict with a type.'
    if built is None:
        found = next((path for path, _, _, value in walk(parts) if value == node['type']), 'the config')
        return f'{found}: {_unknown_type(str(node["type"]), frames[-1].f_locals["registry"])}'
    path, name, known = _path_of(frames, parts), getattr(built, '__name__', str(built)), _arguments(built)
    unknown = [key for key in node if key not in known and key != 'type' and not key.startswith('_')]
    if isinstance(error, ArgumentError):  # it names them, and what it takes
        return f'{path}: {str(error).rstrip(".")}{_left_over(cfg, path, node, unknown) or "."}'
    if isinstance(error, TypeError) and 'unexpected keyword' in said and unknown:
        hint = _left_over(cfg, path, node, unknown) or _did_you_mean(unknown[0], known)
        return f'{path}: {name} does not know {", ".join(unknown)}{hint}'
    given = ', '.join(f'{key}={node[key]!r}' for key in known if not isinstance(node.get(key, {}), (dict, list)))
    return f'{path}: {name}({given[:160]}) fails: {said} (--debug shows where).'


def _path_of(frames: list[FrameType], parts: dict[str, Any]) -> str:
    """Where in the parts of a config the innermost of them is. What is built was copied, and changed by that which it
    belongs to: those of the same type that share most settings are taken for it, inside that if they are there."""
    path, place = '', parts
    for node in (frame.f_locals['cfg'] for frame in frames if 'type' in frame.f_locals['cfg']):
        for start, inside in ((f'{path}.', place), ('', parts)):
            same = [
                (sum(value.get(key) == node.get(key) for key in value), f'{start}{at}'.lstrip('.'), value)
                for at, _, _, value in walk(inside)
                if isinstance(value, dict)
                and 'type' in value
                and (value['type'] == node['type'] or _but_type(value, node))
            ]
            if same:
                _, path, place = max(same, key=itemgetter(0))
                break
    return path


def _but_type(value: dict, node: Mapping) -> bool:
    """Whether a part is built as another type than its config says, as a loop of this package for mmengine's."""
    return len(value) > 1 and all(value[key] == node.get(key) for key in value if key != 'type')


def _arguments(built: Any) -> list[str]:
    """The names that a class, also through its bases, or a function takes."""
    classes = built.__mro__ if inspect.isclass(built) else ()
    constructors = [cls.__init__ for cls in classes if '__init__' in vars(cls) and cls is not object] or [built]
    parameters = [each for one in constructors for each in inspect.signature(one).parameters.values()]
    names = dict.fromkeys(each.name for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD))
    return [name for name in names if name != 'self']


def _left_over(cfg: Config, path: str, node: Mapping, unknown: list[str]) -> str:
    """The advice to write ``_delete_``, if arguments are those of another type in a ``_base_``, or before the options
    of a command line."""
    own = setting(cfg, path) or node
    for older in _ancestors(cfg.filename) if cfg.filename else ():
        found = setting(older, path)
        if isinstance(found, Mapping) and found.get('type') != own.get('type') and set(unknown) & found.keys():
            kind = str(found.get('type')).rpartition('.')[2]
            return f'; settings of the inherited {kind} are left: add _delete_=True beside the new type to drop them.'
    return ''


def _ancestors(file: str) -> Iterator[Config]:
    yield Config.fromfile(file, import_custom_modules=False)
    for base in Config._get_base_files(file):
        yield from _ancestors(Config._get_cfg_path(base, file)[0])


def _unknown_type(name: str, registry: Registry) -> str:
    prefix, dot, bare = name.rpartition('.')
    for package in ('mmdet', 'mmseg'):  # a scope that nobody has asked for yet has registered nothing yet
        with suppress(ImportError):
            import_module(f'{package}.registry')
    registries = [registry.root]
    for one in registries:
        with suppress(ImportError):
            one.import_from_location()
        registries += one.children.values()
    known = {key for one in registries for key in one.module_dict}
    close = difflib.get_close_matches(bare, known, n=1)
    hint = f'; did you mean {prefix}{dot}{close[0]}?' if close else '. Is the name right, and its module imported?'
    hint = ', but in that of another scope. Is default_scope right?' if bare in known else hint
    return f'{name} is not in the {registry.scope}::{registry.name} registry{hint}'


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f'; did you mean {close[0]}?' if close else f'; it takes {", ".join(known)}.' if len(known) < 20 else '.'


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
