"""Export a model: tools/export.py configs/segmentation/hire_mlp_upernet_ade20k.py CHECKPOINT model.onnx."""

import argparse
import re
from pathlib import Path

from .arguments import config_parser


def image_size(text: str) -> tuple[int, int]:
    """Read HEIGHTxWIDTH."""
    if not (match := re.fullmatch(r'(\d+)x(\d+)', text)) or '0' in match.groups():
        raise argparse.ArgumentTypeError(f'{text!r} is not a size; use HEIGHTxWIDTH in pixels, for example 512x512.')
    return int(match[1]), int(match[2])


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = config_parser(
        'Export a detector or segmentor, or a part of it, to ONNX or torch.export. The exported model takes images '
        '(B, 3, H, W) of uint8 in BGR, as OpenCV reads them; it normalizes and pads them itself. Before the file is '
        'written, the tool runs it on images of two sizes in two batches, and compares the results with PyTorch.'
    )
    parser.add_argument(
        'checkpoint', metavar='CHECKPOINT', help='file or URL of a checkpoint, or the word none for random weights'
    )
    parser.add_argument('out', type=Path, metavar='OUT', help='new file: .onnx, or .pt2 for torch.export')
    parser.add_argument(
        '--part', choices=('model', 'neck', 'backbone'), default='model', help='part to export (default: model)'
    )
    parser.add_argument(
        '--dtype', choices=('fp32', 'fp16', 'bf16'), default='fp32', help='dtype of the network (default: fp32)'
    )
    parser.add_argument(
        '--int8',
        action='store_true',
        help='quantize to int8 (activations 8 bits, weights 7), calibrated on up to 64 images of --images',
    )
    parser.add_argument('--fuse', action='store_true', help='fold BatchNorms into neighbouring layers first, for speed')
    parser.add_argument(
        '--static', type=image_size, metavar='HxW', help='fix the height and width of images; the batch size stays free'
    )
    parser.add_argument(
        '--images',
        type=Path,
        metavar='DIR',
        help='folder of images for the check and --int8 (default: the test data of the config, else generated images)',
    )
    return parser.parse_args()


def main() -> None:
    """Run the tool."""
    args = parse_args()
    from mlp_dense.config.config_file import read_config
    from mlp_dense.export.exporting import export

    cfg = read_config(args.config, args.cfg_options, args.data_root)
    checkpoint = None if args.checkpoint == 'none' else args.checkpoint
    options = dict(part=args.part, dtype=args.dtype, size=args.static, fused=args.fuse, int8=args.int8)
    export(cfg, checkpoint, args.out, **options, images=args.images)
