"""What the command lines of the tools share. Only the standard library: ``--help`` must not wait for PyTorch."""

import argparse
import atexit
import os
import sys
from collections.abc import Callable
from pathlib import Path


def tool_parser(description: str) -> argparse.ArgumentParser:
    """A parser with what every tool understands."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        '--debug',
        action='store_true',
        help='show the traceback of an error that is explained (same as MLP_DENSE_DEBUG=1)',
    )
    return parser


def config_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the arguments that say which config, changed how, on which data."""
    parser = tool_parser(description)
    parser.add_argument('config', metavar='CONFIG', help='config file, for example one under configs/')
    parser.add_argument(
        '--data-root',
        type=Path,
        metavar='DIR',
        help="folder that holds the data, laid out as the config's own data_root: replaces it for data and evaluators",
    )
    add_cfg_options(parser)
    return parser


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='changes to the config, for example train_dataloader.batch_size=4 model.backbone.with_cp=True',
    )


def add_image_sizes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--img-scale',
        '--img-size',
        nargs='+',
        type=int,
        metavar='PIXELS',
        help='resize images into a long and a short side, for example 320 192, or into one number for both, as for '
        "classifiers; the config's other sizes follow in proportion",
    )
    parser.add_argument(
        '--crop-size', nargs=2, type=int, metavar=('H', 'W'), help='crop to this height and width; segmentation only'
    )


def add_score_thr(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        metavar='SCORE',
        help=f'objects with a score above this, from 0 to 1, are {what}; detection only (default: 0.3)',
    )


def common_parser(description: str, *loaders: str) -> argparse.ArgumentParser:
    """A parser with the arguments that training and testing have in common; they change the data of the `loaders`."""
    parser = config_parser(description)
    parser.set_defaults(loaders=loaders)
    add_image_sizes(parser)
    parser.add_argument('--batch-size', type=int, metavar='N', help='images of a batch, in each process')
    parser.add_argument(
        '--workers', type=int, metavar='N', help='processes that load images; 0: none but the run itself'
    )
    parser.add_argument(
        '--work-dir', type=Path, metavar='DIR', help='folder for everything this run writes (default: work_dirs/CONFIG)'
    )
    parser.add_argument(
        '--launcher',
        choices=('none', 'pytorch', 'slurm', 'mpi'),
        default='none',
        help='what started the processes, when there are several: pytorch means torchrun (default: none)',
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, help=argparse.SUPPRESS)  # older launchers pass it
    return parser


def read_run_config(args: argparse.Namespace, writes: bool = True) -> 'Config':  # noqa: F821
    """The config that the arguments of :func:`common_parser` describe, with its work dir, made if the run `writes`.
    Prints what the short options changed in it.

    Raises:
        UserError: an argument is wrong.
    """
    from mlp_dense import operators
    from mlp_dense.config.reading import read_config, set_work_dir
    from mlp_dense.kernels.memory import keep_freed_memory
    from mlp_dense.training.machine import rank_of
    from mlp_dense.training.setup import shrink

    operators.install()  # before the config imports mmdet or mmsegmentation
    keep_freed_memory()
    cfg = read_config(args.config, args.cfg_options, args.data_root)
    cfg.launcher = args.launcher
    names = ('img_scale', 'crop_size', 'batch_size', 'workers', 'epochs', 'iters')
    asked = {name: vars(args)[name] for name in names if vars(args).get(name) is not None}
    lines = shrink(cfg, args.loaders, **asked) if asked else []
    if rank_of(cfg.launcher) == 0:
        print(*lines, sep='\n', end='\n' * bool(lines), flush=True)
    set_work_dir(cfg, args.work_dir, make=writes)
    return cfg


def check_out_file(file: Path, *suffixes: str) -> None:
    """Makes the folder of a file to write.

    Raises:
        UserError: its name ends otherwise, or the folder cannot be written.
    """
    from mlp_dense.config.reading import make_folder
    from mlp_dense.errors import UserError

    if file.suffix.lower() not in suffixes or file.is_dir():
        raise UserError(f'--out {file}: give the name of a file that ends in {" or ".join(suffixes)}.')
    make_folder(file.parent)


def run_tool(main: Callable[[], None]) -> None:
    """Runs a tool; an error that the user can fix becomes a sentence on stderr and exit status 2."""
    statuses: list[int] = []
    atexit.register(_end_at_once, statuses)  # what registers first runs last
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
    """Ends a process of several before its interpreter is taken down: a thread of gloo that drops a tensor then aborts
    the whole process, now and then (ProcessGroupGloo::runLoop, Python before 3.14)."""
    if statuses:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(statuses[0])


def _status(error: BaseException | None) -> int:
    """The exit status of a process that ends with `error`."""
    code = (error.code if isinstance(error, SystemExit) else 1) if error else 0
    return code if isinstance(code, int) else int(code is not None)


def _user_error(error: Exception) -> str | None:
    from mlp_dense.errors import UserError, explain_missing

    if isinstance(error, ModuleNotFoundError):
        return explain_missing(error)
    if not isinstance(error, UserError):
        return None
    text = str(error)
    if text.startswith('Caught '):  # it comes from a data loading process, with the text of its traceback
        text = text.strip().splitlines()[-1].partition('Error: ')[2]
    return text
