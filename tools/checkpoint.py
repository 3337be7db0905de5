"""Looks into a checkpoint, or publishes its weights: tools/checkpoint.py inspect|publish FILE ..."""

import argparse
from pathlib import Path

from arguments import run_tool, tool_parser


def parse_args() -> argparse.Namespace:
    parser = tool_parser('Looks into checkpoints and publishes their weights. Nothing in a file is ever run.')
    commands = parser.add_subparsers(dest='command', required=True, metavar='inspect|publish')
    text = 'say what is in a file: tensors, family and arch of the backbone, and what would load'
    inspect = commands.add_parser('inspect', help=text, description=text)
    inspect.add_argument('file', metavar='FILE', help='file or http(s) address of a checkpoint')
    inspect.add_argument('--config', metavar='CONFIG', help='config file: also say what loads into its whole model')
    text = 'write the weights alone, as float32, with the hash of the file in its name; prints its path'
    publish = commands.add_parser('publish', help=text, description=text)
    publish.add_argument('file', metavar='FILE', help='file or http(s) address of a checkpoint')
    publish.add_argument(
        'out',
        type=Path,
        metavar='OUT',
        help='name that ends in .pth or .safetensors; NAME.pth becomes NAME-1a2b3c4d.pth, by the SHA-256 of the file',
    )
    publish.add_argument('--ema', action='store_true', help='the exponential moving average of the weights')
    for command in (inspect, publish):  # accepted behind the command too
        command.add_argument('--debug', action='store_true', help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.command == 'publish':
        from mlp_dense.checkpoints.writing import publish

        print(publish(args.file, args.out, args.ema))
        return
    from mlp_dense.backbones import FAMILIES
    from mlp_dense.checkpoints.inspection import describe
    from mlp_dense.checkpoints.reading import Checkpoint
    from mlp_dense.config.reading import read_config
    from mlp_dense.inference.loading import compare_with_model

    checkpoint = Checkpoint.read(args.file)
    said = list(describe(checkpoint, FAMILIES))
    if args.config:
        said.append(('whole model', compare_with_model(read_config(args.config), checkpoint)))
    for topic, text in said:
        printable = ''.join(char if char.isprintable() else '?' for char in text)  # names in a file can be anything
        print(f'{topic:<12}{printable}')


if __name__ == '__main__':
    run_tool(main)
