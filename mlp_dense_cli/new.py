"""A config for user data, and the commands that follow."""

import argparse
import shlex
import sys
from pathlib import Path

from .arguments import add_colors, tool_parser
from .configs import FAMILIES

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
    parser.add_argument('--out', type=Path, metavar='DIR', help='new folder of the config (default: DIR_FAMILY_HEAD)')
    parser.add_argument('--family', choices=list(FAMILIES.values()), default='hire', help='backbone (default: hire)')
    parser.add_argument('--arch', metavar='ARCH', help='variant of the backbone (default: the smallest)')
    parser.add_argument('--head', choices=HEADS, help='head of the model (default: the one that suits the annotations)')
    text = 'pretrained weights of the backbone: a file or an https URL'
    parser.add_argument('--weights', metavar='FILE', help=text)
    parser.add_argument('--format', metavar='NAME', help='format of the annotations, if several are found')
    add_colors(parser)
    text = 'seed of the split, if there is no validation split (default: 0)'
    parser.add_argument('--seed', type=int, default=0, metavar='N', help=text)
    return parser


def main() -> None:
    """Run the command."""
    args = make_parser().parse_args()
    from mlp_dense.config.new_config import Choices, new_config
    from mlp_dense.errors import command

    started = shlex.join(['mlp-dense', 'new', *sys.argv[1:]])
    options = (args.family, args.arch, args.head, args.weights, args.format, args.colors, args.seed)
    config, lines = new_config(args.data, args.out, Choices(started, *options))
    run = Path('work_dirs', config.stem)
    file, best, report = shlex.quote(str(config)), f'{shlex.quote(str(run))}/best_*.pth', shlex.quote(f'{run}/report')
    print(*lines, f'Written: {config}', 'Next:', sep='\n')
    print(f'    {command("browse")} {file} --out look.png')
    print(f'    {command("train")} {file}')
    print(f'    {command("test")} {file} {best} --report {report}')
