"""Writes the embedded data set of shapes: images with COCO instances and label maps, or in folders of their classes."""

import argparse
from pathlib import Path

from arguments import run_tool, tool_parser


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    parser.add_argument('root', type=Path, metavar='DIR', help='folder to create, for example data/shapes')
    parser.add_argument('--num-train', type=int, default=320, metavar='N', help='training images')
    parser.add_argument('--num-val', type=int, default=64, metavar='N', help='validation images')
    parser.add_argument('--size', type=int, default=128, metavar='PIXELS', help='height and width of an image')
    parser.add_argument('--classify', action='store_true', help='one shape in each image, in folders of their classes')
    parser.add_argument('--seed', type=int, default=0, metavar='N', help='the same number gives the same images')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from mlp_dense.datasets.shapes import write_shapes

    write_shapes(args.root, args.num_train, args.num_val, args.size, args.seed, args.classify)
    print(f'{args.num_train} training and {args.num_val} validation images are in {args.root}')


if __name__ == '__main__':
    run_tool(main)
