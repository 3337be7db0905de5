"""A config for own data, and the commands that follow."""

import argparse
import shlex
import sys
from pathlib import Path

from .arguments import tool_parser

FAMILIES = ('hire', 'as', 'cycle', 'wave', 'mixer', 'vip', 'sparse')
HEADS = ('mask_rcnn', 'retinanet', 'upernet', 'semantic_fpn', 'classifier')


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = tool_parser(
        'Write a config for the data in a folder: COCO, YOLO, Pascal VOC, LabelMe, CVAT, label maps, or a folder of '
        'images for each class. Images stay where they are. The next commands are printed.',
        'data/fruit --out fruit',
        'data/roads --family cycle --arch b1 --head semantic_fpn',
    )
    parser.add_argument('data', type=Path, metavar='DIR', help='folder of images and annotations')
    parser.add_argument('--out', type=Path, metavar='DIR', help='new folder of the config (default: NAME_FAMILY_HEAD)')
    parser.add_argument('--family', choices=FAMILIES, default='hire', help='backbone (default: hire)')
    parser.add_argument('--arch', metavar='ARCH', help='variant of the backbone (default: the smallest)')
    parser.add_argument('--head', choices=HEADS, help='default: the one that suits the annotations')
    parser.add_argument('--weights', metavar='FILE', help='pretrained weights of the backbone')
    parser.add_argument('--colors', type=Path, metavar='FILE', help='label maps: colour or value of each class')
    parser.add_argument('--seed', type=int, default=0, metavar='N', help='seed of the split, if there is none')
    return parser


def main() -> None:
    """Run the command."""
    args = make_parser().parse_args()
    out = args.out or Path('_'.join(filter(None, [args.data.resolve().name, args.family, args.head])))
    from mlp_dense.config.new_config import new_config
    from mlp_dense.errors import command

    started = shlex.join(['mlp-dense', 'new', *sys.argv[1:]])
    options = dict(arch=args.arch, head=args.head, weights=args.weights, colors=args.colors, seed=args.seed)
    config, lines = new_config(args.data, out, started, args.family, **options)
    print(*lines, f'Written: {config}', 'Next:', sep='\n')
    run = Path('work_dirs', config.stem)
    print(f'    {command("browse")} {config} --out look.png')
    print(f'    {command("train")} {config}')
    print(f'    {command("test")} {config} {run}/best_*.pth --report {run}/report')
