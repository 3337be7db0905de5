"""Inspection of checkpoints, and publishing of their weights: tools/checkpoint.py inspect|publish FILE ..."""

import argparse
from pathlib import Path

from .arguments import tool_parser


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = tool_parser(
        'Inspect checkpoints and publish their weights; see "checkpoint.py inspect --help" and "checkpoint.py publish '
        '--help". No code in a file is executed.'
    )
    commands = parser.add_subparsers(dest='command', required=True, metavar='inspect|publish')
    text = (
        'print the number of tensors in a file, the family and arch of its backbone, and what loads into a new backbone'
    )
    inspect = commands.add_parser('inspect', help=text, description=text)
    inspect.add_argument('file', metavar='FILE', help='file or https URL of a checkpoint')
    inspect.add_argument(
        '--config',
        metavar='CONFIG',
        help='also print whether the file loads into the complete model of this config',
    )
    text = 'write only the weights and class names, as float32; the hash of the new file is added to its name'
    publish = commands.add_parser('publish', help=text, description=text)
    publish.add_argument('file', metavar='FILE', help='file or https URL of a checkpoint')
    publish.add_argument(
        'out',
        type=Path,
        metavar='OUT',
        help='file name that ends in .pth or .safetensors; NAME.pth becomes NAME-1a2b3c4d.pth (start of the SHA-256)',
    )
    publish.add_argument(
        '--ema',
        action='store_true',
        help='publish the exponential moving average of the weights, which the file must contain',
    )
    for command in (inspect, publish):  # also accept --debug after the command
        command.add_argument('--debug', action='store_true', help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Run the command line."""
    args = parse_args()
    if args.command == 'publish':
        from mlp_dense.checkpoints.writing import publish

        print(publish(args.file, args.out, args.ema))
        return
    from mlp_dense.backbones import FAMILIES
    from mlp_dense.checkpoints.inspection import describe
    from mlp_dense.checkpoints.reading import Checkpoint
    from mlp_dense.config.config_file import read_config
    from mlp_dense.inference import compare_with_model

    checkpoint = Checkpoint.read(args.file)
    lines = list(describe(checkpoint, FAMILIES))
    if args.config:
        lines.append(('whole model', compare_with_model(read_config(args.config), checkpoint)))
    for topic, text in lines:
        printable = ''.join(char if char.isprintable() else '?' for char in text)  # a file can contain any names
        print(f'{topic:<12}{printable}')
