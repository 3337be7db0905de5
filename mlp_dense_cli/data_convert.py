"""Conversion of annotations between formats, and splits."""

import argparse
from pathlib import Path

from .arguments import add_colors, tool_parser


def make_parser() -> argparse.ArgumentParser:
    parser = tool_parser(
        'Convert the annotations of a data set, and print what was found, what differs, and the numbers of images, '
        'objects, crowds and classes before and after. The format of SOURCE is recognized: COCO, YOLO, Pascal VOC, '
        'LabelMe, CVAT, or label maps as indices, colours or masks. Images are hard-linked into OUT, or copied if OUT '
        'is on another disk.',
        'data/fruit fruit_coco',
        'data/fruit fruit_yolo --to yolo --split 0.8 0.1 0.1',
    )
    parser.add_argument('source', type=Path, metavar='SOURCE', help='folder of the data, or an annotation file')
    parser.add_argument('out', type=Path, metavar='OUT', help='new or empty folder')
    text = 'format of OUT (default: coco, or labels for label maps)'
    parser.add_argument('--to', choices=('coco', 'yolo', 'voc', 'labels'), help=text)
    parser.add_argument('--format', metavar='NAME', help='format of SOURCE, if several are found')
    parser.add_argument('--images', type=Path, metavar='DIR', help='folder of the images, if they are not in SOURCE')
    add_colors(parser)
    text = (
        'two or three fractions with sum 1: split all images into train and val, or train, val and test, '
        'stratified by class; near-duplicates stay together'
    )
    parser.add_argument('--split', nargs='+', type=float, default=[], metavar='FRACTION', help=text)
    parser.add_argument('--seed', type=int, default=0, metavar='N', help='seed of the split (default: 0)')
    return parser


def main() -> None:
    args = make_parser().parse_args()
    from mlp_dense import formats

    data = formats.read(args.source, args.format, args.images, args.colors)
    if args.split:
        data = formats.split(data, args.split, args.seed)
    print(*data.lines(), sep='\n')
    written = formats.write(data, args.out, args.to or ('labels' if data.format == 'labels' else 'coco'))
    print(*written.lines, f'Written: {args.out}', sep='\n')
