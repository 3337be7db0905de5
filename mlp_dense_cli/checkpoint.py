"""Inspection of checkpoints, and publishing of their weights."""

import argparse
from pathlib import Path

from .arguments import tool_parser


def make_parser() -> argparse.ArgumentParser:
    parser = tool_parser(
        'Inspect a checkpoint or publish its weights. No code in a file is executed.',
        'inspect epoch_15.pth --config hire_mlp_mask_rcnn_shapes',
        'publish epoch_15.pth hire.safetensors',
    )
    commands = parser.add_subparsers(dest='command', required=True, metavar='inspect|publish')
    text = (
        'print the number of tensors in a file, the family and arch of its backbone, and what loads into a new backbone'
    )
    inspect = commands.add_parser('inspect', help=text, description=text)
    inspect.add_argument('file', metavar='FILE', help='file or https URL of a checkpoint')
    text = 'also print whether the file loads into the complete model of this config'
    inspect.add_argument('--config', metavar='CONFIG', help=text)
    text = 'write only the weights and class names, as float32; the hash of the new file is added to its name'
    publish = commands.add_parser('publish', help=text, description=text)
    publish.add_argument('file', metavar='FILE', help='file or https URL of a checkpoint')
    text = 'file that ends in .pth or .safetensors; NAME.pth becomes NAME-1a2b3c4d.pth (start of the SHA-256)'
    publish.add_argument('out', type=Path, metavar='OUT', help=text)
    text = 'publish the exponential moving average of the weights, which the file must contain'
    publish.add_argument('--ema', action='store_true', help=text)
    for command in (inspect, publish):  # also accept --debug after the command
        command.add_argument('--debug', action='store_true', help=argparse.SUPPRESS)
    return parser


def main() -> None:
    args = make_parser().parse_args()
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
        lines.append(('complete model', compare_with_model(read_config(args.config), checkpoint)))
    for topic, text in lines:
        printable = ''.join(char if char.isprintable() else '?' for char in text)  # a file can contain any names
        print(f'{topic:<15}{printable}')
