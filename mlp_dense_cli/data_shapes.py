"""Generator of the data set of shapes."""

import argparse
from pathlib import Path

from .arguments import tool_parser


def make_parser() -> argparse.ArgumentParser:
    parser = tool_parser(
        'Generate a data set: images of shapes with COCO annotations and label maps. With --classify, '
        'one folder of images per class. No download is needed.',
        'data/shapes',
        'data/shapes_classes --classify --num-train 1000 --num-val 250 --size 64',
    )
    parser.add_argument('root', type=Path, metavar='DIR', help='new folder, for example data/shapes')
    text = 'number of training images (default: 320)'
    parser.add_argument('--num-train', type=int, default=320, metavar='N', help=text)
    text = 'number of validation images (default: 64)'
    parser.add_argument('--num-val', type=int, default=64, metavar='N', help=text)
    text = 'height and width of the images (default: 128)'
    parser.add_argument('--size', type=int, default=128, metavar='PIXELS', help=text)
    parser.add_argument('--classify', action='store_true', help='draw one shape per image, in a folder per class')
    text = '3 (JPEG, default), or 4 to 12 (16-bit TIFF with infrared bands; two classes differ only in infrared)'
    parser.add_argument('--bands', type=int, default=3, metavar='N', help=f'number of bands: {text}')
    parser.add_argument('--seed', type=int, default=0, metavar='N', help='seed of the images (default: 0)')
    return parser


def main() -> None:
    args = make_parser().parse_args()
    from mlp_dense.datasets.shapes import write_shapes

    write_shapes(args.root, args.num_train, args.num_val, args.size, args.seed, args.classify, args.bands)
    print(f'{args.num_train} training and {args.num_val} validation images are in {args.root}')
