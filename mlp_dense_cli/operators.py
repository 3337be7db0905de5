"""Operators of mmcv in every process: one file in the folder of mmcv."""

import argparse
import sys

from . import version
from .arguments import tool_parser


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = tool_parser(
        'Make mmcv-lite use the operators of mlp_dense in every process, also in the tools of mmdet and '
        'mmsegmentation. install writes one file, _ext.py, into the folder of mmcv, and remove deletes it. status '
        'prints which operators mmcv uses; its exit status is 0, or 1 if mmcv has none.',
        'install',
        'status',
    )
    actions = ('install', 'status', 'remove')
    text = 'write the file, print the state, or delete the file'
    parser.add_argument('action', choices=actions, metavar='|'.join(actions), help=text)
    return parser


def main() -> None:
    """Run the command."""
    args = make_parser().parse_args()
    from mlp_dense.operators import mmcv_file

    folder = mmcv_file.mmcv_folder()
    if args.action == 'status':
        state = mmcv_file.status(folder)
        print(f'{state.text}.' + (f'\n{state.remedy}.' if state.remedy else ''))
        sys.exit(0 if state.usable else 1)
    print(mmcv_file.install(folder, version()) if args.action == 'install' else mmcv_file.remove(folder))
