"""Options that several tools share. It imports the standard library only: ``--help`` must not wait for PyTorch."""

import argparse
import atexit
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmengine.config import Config


def tool_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options of every tool."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        '--debug', action='store_true', help='print the traceback of every error (same as MLP_DENSE_DEBUG=1)'
    )
    return parser


def config_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with a config and its changes."""
    parser = tool_parser(description)
    parser.add_argument('config', metavar='CONFIG', help='config file, for example one under configs/')
    parser.add_argument(
        '--data-root',
        type=Path,
        metavar='DIR',
        help='folder of the data, instead of the data_root in the config; its layout must be that of the config',
    )
    add_cfg_options(parser)
    return parser


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add --cfg-options."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='change settings of the config, for example train_dataloader.batch_size=4 model.backbone.with_cp=True',
    )


def add_image_sizes(parser: argparse.ArgumentParser) -> None:
    """Add --img-scale and --crop-size."""
    parser.add_argument(
        '--img-scale',
        '--img-size',
        nargs='+',
        type=int,
        metavar='PIXELS',
        help='resize images to this size: long and short side, for example 320 192, or one number for both '
        '(classifiers need one number). Other sizes in the config change in proportion; Mosaic and MixUp are refused',
    )
    parser.add_argument(
        '--crop-size',
        nargs=2,
        type=int,
        metavar=('H', 'W'),
        help='height and width of crops in pixels; only for configs that crop to a fixed size, such as segmentation',
    )


def add_score_thr(parser: argparse.ArgumentParser, use: str) -> None:
    """Add --score-thr; `use` completes "detections above this score are"."""
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        metavar='SCORE',
        help=f'detections above this score, from 0 to 1, are {use}; ignored for other tasks (default: 0.3)',
    )


def common_parser(description: str, *loaders: str) -> argparse.ArgumentParser:
    """Return a parser with the options that training and testing share; they change the data of the `loaders`."""
    parser = config_parser(description)
    parser.set_defaults(loaders=loaders)
    add_image_sizes(parser)
    parser.add_argument('--batch-size', type=int, metavar='N', help='number of images per batch and process')
    parser.add_argument(
        '--workers', type=int, metavar='N', help='number of data-loading processes; 0 loads in the main process'
    )
    parser.add_argument(
        '--crowds',
        choices=('ignored', 'as-objects'),
        help='objects with iscrowd=1 in annotations of COCO are ignored (default), or objects as any other',
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        metavar='DIR',
        help='folder for checkpoints, logs and metrics (default: work_dirs/NAME_OF_CONFIG)',
    )
    parser.add_argument(
        '--launcher',
        choices=('none', 'pytorch', 'slurm', 'mpi'),
        default='none',
        help='launcher of several processes: pytorch (torchrun), slurm or mpi (default: none, one process)',
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, help=argparse.SUPPRESS)  # older launchers pass it
    return parser


def read_run_config(args: argparse.Namespace, writes: bool = True) -> 'Config':
    """Return the config that the arguments of :func:`common_parser` describe, and print what short options changed.

    If the run `writes` files, make its work dir.
    """
    from mlp_dense import operators
    from mlp_dense.config.config_file import read_config, set_work_dir
    from mlp_dense.kernels.memory import keep_freed_memory
    from mlp_dense.training.machine import rank_of
    from mlp_dense.training.setup import shrink

    operators.install()  # before the config imports mmdet or mmsegmentation
    keep_freed_memory()
    cfg = read_config(args.config, args.cfg_options, args.data_root)
    cfg.launcher = args.launcher
    names = ('img_scale', 'crop_size', 'batch_size', 'workers', 'epochs', 'iters', 'crowds')
    options = {name: vars(args)[name] for name in names if vars(args).get(name) is not None}
    lines = shrink(cfg, args.loaders, **options) if options else []
    if rank_of(cfg.launcher) == 0:
        print(*lines, sep='\n', end='\n' * bool(lines), flush=True)
    set_work_dir(cfg, args.work_dir, make=writes)
    return cfg


def check_out_file(file: Path, *suffixes: str) -> None:
    """Make the folder of an output file. Raises UserError if the name has another suffix."""
    from mlp_dense.config.config_file import make_folder
    from mlp_dense.errors import UserError

    if file.suffix.lower() not in suffixes or file.is_dir():
        raise UserError(f'--out {file}: choose a file name that ends in {" or ".join(suffixes)}.')
    make_folder(file.parent)


def run_tool(main: Callable[[], None]) -> None:
    """Run a tool. An error that the user can fix becomes one sentence on stderr and exit status 2."""
    statuses: list[int] = []
    atexit.register(_end_at_once, statuses)  # the first function registered is the last to run
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('Interrupted.')
    except Exception as error:
        user_error = _user_error(error)
        if user_error is None or '--debug' in sys.argv or os.environ.get('MLP_DENSE_DEBUG'):
            raise
        print(f'error: {user_error}', file=sys.stderr)
        sys.exit(2)
    finally:
        distributed = sys.modules.get('torch.distributed')
        if distributed and distributed.is_initialized():
            statuses.append(status := _status(sys.exc_info()[1]))
            if status == 0:
                distributed.destroy_process_group()


def _end_at_once(statuses: list[int]) -> None:
    """End a distributed process before its interpreter shuts down.

    A thread of gloo that frees a tensor during the shutdown can abort the process (ProcessGroupGloo::runLoop, Python
    before 3.14).
    """
    if statuses:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(statuses[0])


def _status(error: BaseException | None) -> int:
    """Return the exit status of a process that ends with `error`."""
    code = (error.code if isinstance(error, SystemExit) else 1) if error else 0
    return code if isinstance(code, int) else int(code is not None)


def _user_error(error: Exception) -> str | None:
    from mlp_dense.errors import UserError, explain_import

    if isinstance(error, ModuleNotFoundError):
        return explain_import(error)
    if not isinstance(error, UserError):
        return None
    text = str(error)
    if text.startswith('Caught '):  # an error in a data-loading worker contains its traceback
        text = text.strip().splitlines()[-1].partition('Error: ')[2]
    return text
