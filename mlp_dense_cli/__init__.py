"""Command ``mlp-dense``, and the tools in ``tools/``, which run the same functions.

Nothing here imports ``mlp_dense`` or PyTorch before the arguments are parsed, so that ``--help`` is immediate. A new
command is a module with ``make_parser`` and ``main``, and a row of ``COMMANDS``. The module of ``data check`` is
``data_check.py``.
"""

import re
import sys
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import ModuleType

from .arguments import package_file, run_tool

COMMANDS = {
    'train': 'train the model of a config',
    'test': 'test a checkpoint on the test data of a config',
    'predict': 'predict on images or a video',
    'export': 'export a model to ONNX or torch.export',
    'report': 'rebuild the report of a test, or compare tests',
    'browse': 'draw images and labels as the network receives them',
    'plot': 'draw learning curves',
    'checkpoint': 'inspect a checkpoint or publish its weights',
    'configs': 'list the configs of this package',
    'new': 'write a config for the data in a folder',
    'data convert': 'convert annotations between formats, and split data sets',
    'data check': 'check the data of a config or in a folder',
    'data stats': 'measure the mean and standard deviation of the bands of images',
    'data shapes': 'generate the data set of shapes',
    'operators': 'make mmcv-lite use the operators of mlp_dense in every process',
    'doctor': 'check the installed packages and the machine',
    'completion': 'print a script that completes commands in bash or zsh',
}


def main() -> None:
    """Run ``mlp-dense COMMAND ARGUMENTS``."""
    words = sys.argv[1:] or ['--help']
    command = next((name for name in (' '.join(words[:2]), words[0]) if name in COMMANDS), None)
    program = 'python -m mlp_dense_cli' if Path(sys.argv[0]).name == '__main__.py' else 'mlp-dense'
    if command:
        sys.argv[: 1 + len(command.split())] = [f'{program} {command}']
        run(command)
    elif words[0] in ('-h', '--help'):
        print(usage(COMMANDS), f'\n  {"--version":<14}print the version', sep='\n')
    elif words[0] == '--version':
        print(f'mlp-dense {version()}')
    elif group := [name for name in COMMANDS if name.startswith(f'{words[0]} ')]:
        print(usage(group))
        sys.exit(0 if words[1:2] in (['-h'], ['--help']) else 2)
    else:
        close = get_close_matches(words[0], COMMANDS, n=1)
        remedy = f'did you mean {close[0]}?' if close else f'{program} --help lists the commands.'
        print(f'error: {program} has no command {words[0]!r}; {remedy}', file=sys.stderr)
        sys.exit(2)


def run(command: str) -> None:
    """Run a command with the arguments in ``sys.argv``."""
    run_tool(module_of(command).main)


def module_of(command: str) -> ModuleType:
    """Return the module of a command, with ``make_parser`` and ``main``."""
    return import_module(f'.{command.replace(" ", "_")}', __package__)


def usage(commands: 'list[str] | dict[str, str]') -> str:
    """Return the list of `commands`."""
    lines = [f'  {name:<14}{COMMANDS[name]}' for name in commands]
    return '\n'.join(['usage: mlp-dense COMMAND ...  (mlp-dense COMMAND --help lists its options)', '', *lines])


def version() -> str:
    """Return ``mlp_dense.__version__`` without importing the package."""
    text = package_file('__init__').read_text(encoding='utf-8')
    match = re.search(r"^__version__ = '(.+)'$", text, re.MULTILINE)
    return match[1] if match else 'unknown'
