"""Processes of a distributed training."""

import os
import subprocess

import torch
from mmengine.config import Config
from mmengine.model import is_model_wrapper

from ..errors import UserError

STARTERS = {  # by launcher: what starts the processes, and where each finds its number, how many, and its number here
    'pytorch': ('torchrun', 'RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    'slurm': ('srun', 'SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    'mpi': ('mpirun', 'OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
}


def rank_of(launcher: str) -> int:
    """The number of this process among those of a launcher, also before it joins their group."""
    number = os.environ.get(STARTERS[launcher][1], '') if launcher in STARTERS else ''
    return int(number) if number.isdecimal() else 0


def start_processes(cfg: Config) -> None:
    """Joins the process group. With a GPU that is mmengine's work; without, its launchers fail on torch.cuda."""
    starter, *theirs = STARTERS[cfg.launcher]
    if absent := [name for name in theirs if name not in os.environ]:
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
    cfg.model_wrapper_cfg = dict(
        type='MMDistributedDataParallel',
        device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )


def unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    """The model inside of what wraps it for several processes."""
    return model.module if is_model_wrapper(model) else model
