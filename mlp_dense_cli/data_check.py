"""Check of the data of a config or in a folder."""

import argparse
import sys
from contextlib import redirect_stdout
from pathlib import Path

from .arguments import add_cfg_options, add_colors, tool_parser


def make_parser() -> argparse.ArgumentParser:
    parser = tool_parser(
        'Check all images, labels and annotations that a config names or a folder contains. The table has the '
        'severity, the count, examples and the remedy of each problem. The amount of each class is printed. For '
        'objects, a histogram of their sizes follows, binned at the strides of feature maps. The exit status is 0, '
        '1 (warnings) or 2 (errors).',
        'data/fruit',
        'hire_mlp_mask_rcnn_coco --data-root data/fruit',
    )
    parser.add_argument('target', metavar='DIR|CONFIG', help='folder of the data, or file or name of a config')
    parser.add_argument('--fast', action='store_true', help='decode a sample of the images, as before training')
    parser.add_argument('--json', action='store_true', help='print the result as JSON')
    text = 'folder of the data, instead of the data_root in the config'
    parser.add_argument('--data-root', type=Path, metavar='DIR', help=text)
    parser.add_argument('--format', metavar='NAME', help='format of the annotations in DIR, if several are found')
    add_colors(parser)
    add_cfg_options(parser)
    return parser


def main() -> None:
    args = make_parser().parse_args()
    from mlp_dense import operators
    from mlp_dense.checks.examination import examine

    operators.install()  # before the config imports mmdet or mmsegmentation
    with redirect_stdout(sys.stderr):  # mmdet and mmsegmentation print
        folder = dict(colors=args.colors, format=args.format)
        examination = examine(Path(args.target), args.cfg_options, args.data_root, not args.fast, **folder)
    print(examination.json() if args.json else examination.text())
    sys.exit(examination.status)
