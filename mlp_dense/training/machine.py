"""This machine: adaptation of a config to it, its process group, its installed packages."""

import os
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import cast

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper

from ..config.config_file import walk
from ..errors import UserError

STARTERS = {  # launcher: its command, and the variable of the rank
    'pytorch': ('torchrun', 'RANK'),
    'slurm': ('srun', 'SLURM_PROCID'),
    'mpi': ('mpirun', 'OMPI_COMM_WORLD_RANK'),
}
PACKAGES = (
    *('torch', 'torchvision', 'numpy', 'mmengine', 'mmcv', 'mmcv-lite', 'mmdet', 'mmsegmentation'),
    *('onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection', 'onedl-mmsegmentation'),
)


def adapt_to_machine(cfg: Config) -> None:
    """Apply all changes of a config that depend on this machine, and log each of them."""
    if not torch.cuda.is_available():
        adapt_to_cpu(cfg)
    if cfg.get('launcher', 'none') != 'none':
        start_processes(cfg)


def adapt_to_cpu(cfg: Config) -> None:
    """Replace settings that need a GPU: SyncBN and MMSyncBN by BN, mixed precision by full precision."""
    replacements = {'SyncBN': 'BN', 'MMSyncBN': 'BN', 'AmpOptimWrapper': 'OptimWrapper'}
    replaced = set()
    for _, container, key, value in walk(cfg):
        if key == 'type' and isinstance(value, str) and value in replacements:
            container[key] = replacements[value]
            replaced.add(value)
    if 'AmpOptimWrapper' in replaced:
        for key in ('loss_scale', 'dtype', 'use_fp64'):
            cfg.optim_wrapper.pop(key, None)
    changes = ', '.join(f'{replacements[name]} instead of {name}' for name in sorted(replaced))
    print_log(f'No GPU: this runs on the CPU{f", with {changes}" if changes else ""}.', logger='current')


def rank_of(launcher: str) -> int:
    """Return the rank that a launcher gave to this process, also before it joins the process group."""
    rank = os.environ.get(STARTERS[launcher][1], '') if launcher in STARTERS else ''
    return int(rank) if rank.isdecimal() else 0


def start_processes(cfg: Config) -> None:
    """Join the process group if there is no GPU: the launchers of mmengine call torch.cuda."""
    starter, rank = STARTERS[cfg.launcher]
    if rank not in os.environ:
        raise UserError(f'--launcher {cfg.launcher}: {rank} is not set; start this command with {starter}.')
    if torch.cuda.is_available():
        return
    if cfg.launcher != 'pytorch':
        raise UserError(f'--launcher {cfg.launcher} needs a GPU; on CPUs use torchrun and --launcher pytorch.')
    cfg.model_wrapper_cfg = dict(
        type='MMDistributedDataParallel',
        device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group('gloo')
        print_log('No GPU: processes communicate through gloo (model_wrapper_cfg is set).', logger='current')


def unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    """Return the model inside of its wrapper for several processes."""
    return cast(torch.nn.Module, model.module) if is_model_wrapper(model) else model


def seconds_now() -> float:
    """Return the time in seconds after all work on the GPU has finished."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def versions(*more: str) -> dict[str, str]:
    """Return the versions of this package, PyTorch, OpenMMLab and `more` packages, if they are installed."""
    numbers = {}
    for package in (*PACKAGES, *more, 'mlp_dense'):
        with suppress(PackageNotFoundError):
            numbers[package] = version(package)
    return numbers
