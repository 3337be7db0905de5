"""Mean and standard deviation of the bands of images."""

import argparse
from pathlib import Path

from .arguments import tool_parser


def make_parser() -> argparse.ArgumentParser:
    parser = tool_parser(
        'Measure the mean and standard deviation of each band over all images of a folder: TIFF with any number of '
        'bands and bits, NumPy files, and ordinary images, in the order of the bands in the file. The command prints a '
        '"model = ..." line to put into a config that loads images with mlp_dense.LoadMultiBandImage.',
        'data/fields/train',
        'data/fields/train --channels first',
    )
    parser.add_argument('folder', type=Path, metavar='DIR', help='folder of training images')
    text = 'axis of the bands in files that do not define it'
    parser.add_argument('--channels', choices=('first', 'last'), help=text)
    return parser


def main() -> None:
    args = make_parser().parse_args()
    from mlp_dense.datasets.bands import LoadMultiBandImage
    from mlp_dense.datasets.stats import image_files, measure_bands, settings

    print(settings(*measure_bands(image_files(args.folder), LoadMultiBandImage(args.channels))))
