"""What the tools share: reading a config, checking what it points at, and building a Runner from it."""

import difflib
import inspect
import logging
import os
import subprocess
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, DictAction
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner import Runner

from .engine.runner import DenseRunner
from .errors import UserError


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


def build_runner(cfg: Config, loaders: Sequence[str]) -> DenseRunner:
    """Checks the data behind the given loaders (``train``, ``val``, ``test``), adapts the config to this machine and
    builds the Runner.

    Raises:
        UserError: data are missing, class counts differ, or a model setting is unknown.
    """
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    for name in loaders:
        check_data(cfg, name)
    if not torch.cuda.is_available():
        adapt_to_cpu(cfg)
    if cfg.launcher != 'none':
        _start_processes(cfg)
    if find_spec('tensorboard') and 'visualizer' in cfg:
        cfg.visualizer.vis_backends = [*cfg.visualizer.get('vis_backends', []), dict(type='TensorboardVisBackend')]
    with explain_unknown_types():
        return DenseRunner.from_cfg(cfg)


@contextmanager
def explain_unknown_types() -> Iterator[None]:
    """Around the building of what a config describes: an unknown type becomes a UserError."""
    try:
        yield
    except KeyError as error:
        if 'registry' in str(error):  # an unknown type
            raise UserError(
                f'{str(error.args[0]).split(" Please check")[0]} Is the name in the config right?'
            ) from error
        raise


def use_tta(cfg: Config) -> None:
    """Turns on the test-time augmentation of a config (its ``tta_model`` and ``tta_pipeline``).

    Raises:
        UserError: it has none.
    """
    if 'tta_model' not in cfg or 'tta_pipeline' not in cfg:
        raise UserError('--tta: this config has no tta_model and tta_pipeline.')
    for dataset in _datasets(cfg.test_dataloader.dataset):
        dataset.pipeline = cfg.tta_pipeline
    cfg.model = dict(**cfg.tta_model, module=cfg.model)


def check_data(cfg: Config, name: str) -> None:
    """Compares what a loader (``train``, ``val``, ``test``) reads with what is there.

    Raises:
        UserError: data are missing, or class counts differ.
    """
    for dataset in _datasets(cfg[f'{name}_dataloader'].dataset):
        root = Path(dataset.get('data_root') or '')
        prefixes = (dataset.get('data_prefix') or {}).values()
        evaluators = cfg.get(f'{name}_evaluator') or []
        evaluators = [evaluators] if isinstance(evaluators, dict) else evaluators
        wanted = [root / (dataset.get('ann_file') or ''), *(root / prefix for prefix in prefixes)]
        wanted += [Path(evaluator.ann_file) for evaluator in evaluators if evaluator.get('ann_file')]
        for path in wanted:
            if ':/' not in str(path) and not path.exists():
                raise UserError(
                    f'{path} does not exist, and the {name} data of this config are read from there; put the data '
                    'there, or say where they are with --data-root.'
                )
        if classes := dataset_meta(dataset).get('classes'):
            check_class_count(cfg.model, classes, f'the {name} data ({dataset.type})')


def check_class_count(model: Any, classes: Sequence[str], owner: str) -> None:
    """Compares each ``num_classes`` in the config of a model with the class names of its `owner`, a plural.

    Raises:
        UserError: they differ.
    """
    for where, _, key, value in _walk(model, 'model.'):
        if key == 'num_classes' and value != len(classes):
            raise UserError(f'{where} is {value}, but {owner} have {len(classes)} classes: make them equal.')


def adapt_to_cpu(cfg: Config) -> None:
    """Replaces what needs a GPU: SyncBN by BN, mixed precision by full."""
    replacements = {'SyncBN': 'BN', 'AmpOptimWrapper': 'OptimWrapper'}
    replaced = set()
    for _, container, key, value in _walk(cfg._cfg_dict):
        if key == 'type' and isinstance(value, str) and value in replacements:
            container[key] = replacements[value]
            replaced.add(value)
    if 'AmpOptimWrapper' in replaced:
        for key in ('loss_scale', 'dtype', 'use_fp64'):
            cfg.optim_wrapper.pop(key, None)
    changes = ', '.join(f'{replacements[name]} instead of {name}' for name in sorted(replaced))
    print_log(f'No GPU: this runs on the CPU{f", with {changes}" if changes else ""}.', logger='current')


def dataset_meta(dataset: Any) -> dict[str, Any]:
    """What a data set says of itself (``classes``, ``palette``), in its config or in its class."""
    dataset = next(_datasets(dataset))
    with DATASETS.switch_scope_and_registry(None) as registry:  # the default scope
        return dict(dataset.get('metainfo') or getattr(registry.get(dataset.type), 'METAINFO', {}))


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


def _walk(node: Any, path: str = '') -> Iterator[tuple[str, Any, Any, Any]]:
    """Every (dotted path, container, key, value) below a config node."""
    if isinstance(node, (dict, list)):
        for key, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
            yield f'{path}{key}', node, key, value
            yield from _walk(value, f'{path}{key}.')


def _replace_data_root(cfg: Config, new: Path) -> None:
    if not new.is_dir():
        raise UserError(f'--data-root {new} does not exist or is not a folder.')
    tree = cfg._cfg_dict
    old = {str(value).rstrip('/') for _, _, key, value in _walk(tree) if key == 'data_root' and value}
    for _, container, key, value in _walk(tree):
        root = next((root for root in old if isinstance(value, str) and (value + '/').startswith(root + '/')), None)
        if root is not None:
            container[key] = f'{new}/{value[len(root) :].lstrip("/")}'


def _datasets(dataset: Any) -> Iterator[Any]:
    """The data sets below wrappers such as RepeatDataset and ConcatDataset."""
    inner = dataset.get('datasets') or ([dataset.dataset] if 'dataset' in dataset else [])
    if not inner:
        yield dataset
    for each in inner:
        yield from _datasets(each)


def _start_processes(cfg: Config) -> None:
    """Joins the process group. With a GPU that is mmengine's work; without, its launchers fail on torch.cuda."""
    theirs = {
        'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
        'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
        'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
    }[cfg.launcher]
    absent = [name for name in theirs if name not in os.environ]
    if absent:
        starter = {'pytorch': 'torchrun', 'slurm': 'srun', 'mpi': 'mpirun'}[cfg.launcher]
        raise UserError(f'--launcher {cfg.launcher}: {absent[0]} is not set; start this command with {starter}.')
    if torch.cuda.is_available() or torch.distributed.is_initialized():
        return
    for name, value in zip(('RANK', 'WORLD_SIZE', 'LOCAL_RANK'), theirs, strict=True):
        os.environ[name] = os.environ[value]
    os.environ.setdefault('MASTER_PORT', '29500')
    if cfg.launcher == 'slurm' and 'MASTER_ADDR' not in os.environ:
        nodes = subprocess.run(['scontrol', 'show', 'hostnames'], capture_output=True, text=True, check=True)
        os.environ['MASTER_ADDR'] = nodes.stdout.split()[0]
    if 'MASTER_ADDR' not in os.environ:
        raise UserError(f'--launcher {cfg.launcher}: set MASTER_ADDR to the name of the first machine.')
    torch.distributed.init_process_group('gloo')
    cfg.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)


def warn_of_random_backbone(cfg: Config) -> None:
    """Published results start from ImageNet weights; a training for days without them should be on purpose."""
    if is_main_process() and not (cfg.model.backbone.get('init_cfg') or cfg.get('load_from') or cfg.get('resume')):
        print_log(
            'The backbone starts from random weights. Published recipes start from ImageNet weights: --cfg-options '
            'model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=FILE_OR_URL',
            logger='current',
            level=logging.WARNING,
        )
