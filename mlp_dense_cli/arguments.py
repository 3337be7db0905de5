"""Options that several tools share.

This module imports the standard library only, because ``--help`` must not wait for PyTorch.
"""

import argparse
import atexit
import os
import re
import sys
from collections.abc import Callable, Iterable
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from io import TextIOWrapper
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmengine.config import Config

CONFIG_HELP = 'name (mlp-dense configs) or file of a config'


class HelpFormatter(argparse.HelpFormatter):
    """A formatter of ``--help`` with a usage line without options, and with examples as they are."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **{**kwargs, 'max_help_position': 22})

    def add_usage(self, usage: str | None, actions: Iterable[argparse.Action], *args: Any, **kwargs: Any) -> None:
        needed = [action for action in actions if action.required or not action.option_strings]
        super().add_usage(usage, [*needed, argparse.Action([], '', metavar='[options]')], *args, **kwargs)

    def _format_args(self, *args: Any) -> str:
        return re.sub(r'(\S+) \[\1 \.\.\.\]', r'\1 ...', super()._format_args(*args))

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith('examples:') else super()._fill_text(text, width, indent)


def tool_parser(description: str, *examples: str) -> argparse.ArgumentParser:
    """Return a parser with the options of every tool. The `examples` are arguments, shown at the end of --help."""
    epilog = '\n'.join(['examples:', *(f'  %(prog)s {example}' for example in examples)])
    program = f'python {sys.argv[0]}' if sys.argv[0].endswith('.py') else sys.argv[0]
    parser = argparse.ArgumentParser(
        program, description=description, epilog=epilog if examples else None, formatter_class=HelpFormatter
    )
    text = 'print the traceback of every error (same as MLP_DENSE_DEBUG=1)'
    parser.add_argument('--debug', action='store_true', help=text)
    return parser


def config_parser(description: str, *examples: str) -> argparse.ArgumentParser:
    """Return a parser with a config and its changes."""
    parser = tool_parser(description, *examples)
    parser.add_argument('config', metavar='CONFIG', help=CONFIG_HELP)
    text = 'folder of the data (default: the data_root of the config)'
    parser.add_argument('--data-root', type=Path, metavar='DIR', help=text)
    add_cfg_options(parser)
    return parser


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    text = 'change the config, for example train_dataloader.batch_size=4'
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help=text)


def add_image_sizes(parser: argparse.ArgumentParser) -> None:
    text = 'long and short side of images, or one number; other sizes follow'
    for name in ('--img-scale', '--img-size'):
        shown = text if name == '--img-scale' else argparse.SUPPRESS
        parser.add_argument(name, nargs='+', type=int, metavar='PX', help=shown)
    text = 'height and width of crops in pixels, if the config crops to a fixed size'
    parser.add_argument('--crop-size', nargs=2, type=int, metavar=('H', 'W'), help=text)


def add_colors(parser: argparse.ArgumentParser) -> None:
    text = 'classes of label maps: a file with lines "NAME RED GREEN BLUE", or "NAME" for the values 0, 1, ...'
    parser.add_argument('--colors', type=Path, metavar='FILE', help=text)


def add_score_thr(parser: argparse._ActionsContainer, use: str) -> None:
    """Add --score-thr; `use` completes "detections with at least this score are"."""
    text = f'detections with at least this score are {use} (0 to 1, default: 0.3)'
    parser.add_argument('--score-thr', type=float, default=0.3, metavar='SCORE', help=text)


def add_fuse(parser: argparse._ActionsContainer) -> None:
    parser.add_argument('--fuse', action='store_true', help='fold BatchNorms into neighbouring layers first, for speed')


def common_parser(description: str, loaders: Iterable[str], *examples: str) -> argparse.ArgumentParser:
    """Return a parser with the options that training and testing share; they change the data of the `loaders`."""
    parser = config_parser(description, *examples)
    parser.set_defaults(loaders=loaders)
    add_image_sizes(parser)
    parser.add_argument('--batch-size', type=int, metavar='N', help='number of images per batch and process')
    text = 'number of data-loading processes; 0 loads in the main process'
    parser.add_argument('--workers', type=int, metavar='N', help=text)
    text = 'ignored or as-objects: use of objects with iscrowd=1 in COCO annotations'
    parser.add_argument('--crowds', choices=('ignored', 'as-objects'), metavar='USE', help=text)
    text = 'folder for checkpoints and logs (default: work_dirs/NAME_OF_CONFIG)'
    parser.add_argument('--work-dir', type=Path, metavar='DIR', help=text)
    text = 'launcher of several processes: pytorch (torchrun), slurm or mpi'
    launchers = ('none', 'pytorch', 'slurm', 'mpi')
    parser.add_argument('--launcher', choices=launchers, default='none', metavar='NAME', help=text)
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
    from mlp_dense.errors import UserError
    from mlp_dense.outputs import make_folder

    if file.suffix.lower() not in suffixes or file.is_dir():
        raise UserError(f'--out {file}: choose a file name that ends in {" or ".join(suffixes)}.')
    make_folder(file.parent)


def package_file(name: str) -> Path:
    """Return the file of a module of mlp_dense without importing the package, which imports PyTorch."""
    spec = find_spec('mlp_dense')
    if spec is None or not spec.origin:
        sys.exit('mlp_dense is not installed: pip install it into the environment of this command.')
    return Path(spec.origin).with_name(f'{name}.py')


def light_module(name: str) -> ModuleType:
    """Return a module of mlp_dense that imports the standard library only, without importing the package."""
    spec = spec_from_file_location(f'mlp_dense_{name}', package_file(name))
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_tool(main: Callable[[], None]) -> None:
    """Run a tool. An error that the user can fix becomes one sentence on stderr and exit status 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors='backslashreplace')  # for names of files that are not UTF-8
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
