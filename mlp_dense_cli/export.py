"""Export of a model to a file."""

import argparse
import re
from pathlib import Path

from .arguments import add_fuse, config_parser


def image_size(text: str) -> tuple[int, int]:
    """Read HEIGHTxWIDTH."""
    if not (match := re.fullmatch(r'(\d+)x(\d+)', text)) or '0' in match.groups():
        raise argparse.ArgumentTypeError(f'{text!r} is not a size; use HEIGHTxWIDTH in pixels, for example 512x512.')
    return int(match[1]), int(match[2])


def make_parser() -> argparse.ArgumentParser:
    parser = config_parser(
        'Export a detector or segmentor, or a part of it, to ONNX or torch.export. The model accepts uint8 images '
        '(B, 3, H, W) in BGR, or float32 bands in the order of the image file. It normalizes and pads them itself. The '
        'tool compares the exported model with PyTorch on two batches before it writes OUT.',
        'hire_mlp_mask_rcnn_shapes epoch_15.pth model.onnx',
        'hire_mlp_upernet_ade20k none model.pt2 --static 512x512 --part backbone',
    )
    text = 'file or URL of a checkpoint, or the word none for random weights'
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help=text)
    parser.add_argument('out', type=Path, metavar='OUT', help='new file: .onnx, or .pt2 for torch.export')
    text = 'part to export: model, neck or backbone (default: model)'
    parser.add_argument('--part', choices=('model', 'neck', 'backbone'), default='model', metavar='PART', help=text)
    text = 'dtype of the network: fp32, fp16, or bf16 for .pt2 (default: fp32)'
    parser.add_argument('--dtype', choices=('fp32', 'fp16', 'bf16'), default='fp32', metavar='DTYPE', help=text)
    text = 'quantize to int8 (weights 7 bits), calibrated on up to 64 --images'
    parser.add_argument('--int8', action='store_true', help=text)
    add_fuse(parser)
    text = 'fix the height and width of images; the batch size stays free'
    parser.add_argument('--static', type=image_size, metavar='HxW', help=text)
    text = 'images for the check and --int8 (default: the test data, else generated)'
    parser.add_argument('--images', type=Path, metavar='DIR', help=text)
    return parser


def main() -> None:
    args = make_parser().parse_args()
    from mlp_dense.config.config_file import read_config
    from mlp_dense.export.exporting import export

    cfg = read_config(args.config, args.cfg_options, args.data_root)
    checkpoint = None if args.checkpoint == 'none' else args.checkpoint
    options = dict(part=args.part, dtype=args.dtype, size=args.static, fused=args.fuse, int8=args.int8)
    export(cfg, checkpoint, args.out, **options, images=args.images)
