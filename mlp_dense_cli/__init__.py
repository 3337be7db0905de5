"""Command ``mlp-dense``, and the tools in ``tools/``, which run the same functions.

Nothing here imports ``mlp_dense`` or PyTorch before the arguments are parsed, so that ``--help`` is immediate.
"""

import sys
from importlib import import_module

from .arguments import run_tool

COMMANDS = {
    'train': 'train the model of a config',
    'test': 'test a checkpoint on the test data of a config',
    'predict': 'predict on images or a video',
    'export': 'export a model to ONNX or torch.export',
    'report': 'rebuild the report of a test, or compare tests',
    'browse': 'draw images and labels as the network receives them',
    'plot': 'draw learning curves',
    'checkpoint': 'inspect a checkpoint or publish its weights',
}


def main() -> None:
    """Run ``mlp-dense COMMAND ARGUMENTS``."""
    command = sys.argv[1] if len(sys.argv) > 1 else '--help'
    if command in ('-h', '--help'):
        print(usage())
    elif command in COMMANDS:
        sys.argv[:2] = [f'mlp-dense {command}']
        run(command)
    else:
        sys.exit(f'error: mlp-dense has no command {command!r}.\n\n{usage()}')


def run(command: str) -> None:
    """Run a command with the arguments in ``sys.argv``."""
    run_tool(import_module(f'.{command}', __package__).main)


def usage() -> str:
    """Return the list of commands."""
    lines = [f'  {name:<12}{text}' for name, text in COMMANDS.items()]
    return '\n'.join(['usage: mlp-dense COMMAND ...  (mlp-dense COMMAND --help lists its options)', '', *lines])
