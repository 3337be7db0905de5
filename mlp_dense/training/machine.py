"""Adaptation of a config to this machine, and its process group."""

import os
import subprocess
import time
from importlib.util import find_spec
from typing import cast

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper

from ..config.config_file import walk
from ..errors import UserError

STARTERS = {  # launcher: its command, and the variables of the rank, the number of processes and the local rank
    'pytorch': ('torchrun', 'RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    'slurm': ('srun', 'SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    'mpi': ('mpirun', 'OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
}


def adapt_to_machine(cfg: Config) -> None:
    """Apply all changes of a config that depend on this machine, and log each of them.

    Without a GPU, SyncBN becomes BN, mixed precision becomes float32 and several processes communicate through gloo.
    If TensorBoard is installed, the training logs to it, too.
    """
    if not torch.cuda.is_available():
        adapt_to_cpu(cfg)
    if cfg.get('launcher', 'none') != 'none':
        start_processes(cfg)
    if cfg.get('visualizer') and find_spec('tensorboard'):
        backends = cfg.visualizer.get('vis_backends') or []
        if not any('TensorboardVisBackend' in str(backend['type']) for backend in backends):
            cfg.visualizer.vis_backends = [*backends, dict(type='TensorboardVisBackend')]
            print_log('TensorBoard is installed: TensorboardVisBackend is added to visualizer.', logger='current')


def adapt_to_cpu(cfg: Config) -> None:
    """Replace settings that need a GPU: SyncBN by BN, mixed precision by full precision."""
    replacements = {'SyncBN': 'BN', 'AmpOptimWrapper': 'OptimWrapper'}
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
    starter, *variables = STARTERS[cfg.launcher]
    if absent := [name for name in variables if name not in os.environ]:
        raise UserError(f'--launcher {cfg.launcher}: {absent[0]} is not set; start this command with {starter}.')
    if torch.cuda.is_available():
        return
    cfg.model_wrapper_cfg = dict(
        type='MMDistributedDataParallel',
        device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    if torch.distributed.is_initialized():
        return
    for name, variable in zip(('RANK', 'WORLD_SIZE', 'LOCAL_RANK'), variables, strict=True):
        os.environ[name] = os.environ[variable]
    os.environ.setdefault('MASTER_PORT', '29500')
    if cfg.launcher == 'slurm' and 'MASTER_ADDR' not in os.environ:
        nodes = subprocess.run(['scontrol', 'show', 'hostnames'], capture_output=True, text=True, check=True)
        os.environ['MASTER_ADDR'] = nodes.stdout.split()[0]
    if 'MASTER_ADDR' not in os.environ:
        raise UserError(f'--launcher {cfg.launcher}: set MASTER_ADDR to the name of the first machine.')
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
