"""Exports a model: tools/export.py configs/segmentation/hire_mlp_upernet_ade20k.py CHECKPOINT model.onnx"""

import argparse
import re
from pathlib import Path

from arguments import config_parser, run_tool


def image_size(text: str) -> tuple[int, int]:
    if not (match := re.fullmatch(r'(\d+)x(\d+)', text)) or '0' in match.groups():
        raise argparse.ArgumentTypeError(f'{text!r} is no size; give HEIGHTxWIDTH in pixels, for example 512x512.')
    return int(match[1]), int(match[2])


def parse_args() -> argparse.Namespace:
    parser = config_parser(
        'Exports a detector or segmentor, or a part of it, to ONNX or as a program of torch.export. '
        'The file takes images (B, 3, H, W) as they are read: BGR, 8 bits; it normalizes and pads them itself. Before '
        'it gets its name it is run on pictures, at a second size and in another batch, and compared with PyTorch.'
    )
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='file or http(s) address; none: random weights')
    parser.add_argument('out', type=Path, metavar='OUT', help='file to write: .onnx, or .pt2 for torch.export')
    parser.add_argument(
        '--part', choices=('model', 'neck', 'backbone'), default='model', help='what to export (default: model)'
    )
    parser.add_argument('--dtype', choices=('fp32', 'fp16', 'bf16'), default='fp32', help='of the network')
    parser.add_argument('--int8', action='store_true', help='quantize it, calibrated on the pictures of --images')
    parser.add_argument('--fuse', action='store_true', help='fold norms first (mlp_dense.fuse)')
    parser.add_argument('--static', type=image_size, metavar='HxW', help='take images of this size only, in any batch')
    parser.add_argument(
        '--images',
        type=Path,
        metavar='DIR',
        help='pictures to check and calibrate on (default: the test data of the config, else generated ones)',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from rich.progress import Progress

    from mlp_dense.config.reading import read_config
    from mlp_dense.export.exporting import export, steps

    cfg = read_config(args.config, args.cfg_options, args.data_root)
    checkpoint = None if args.checkpoint == 'none' else args.checkpoint
    how = dict(part=args.part, dtype=args.dtype, size=args.static, fused=args.fuse, int8=args.int8, images=args.images)
    with Progress(redirect_stderr=False, transient=True) as bar:  # lines of the export go above it
        task = bar.add_task('exporting', total=steps(args.int8))
        export(cfg, checkpoint, args.out, **how, advance=lambda: bar.advance(task))


if __name__ == '__main__':
    run_tool(main)
