"""Predictions on images or a video."""

import argparse
import sys
from pathlib import Path

from .arguments import CONFIG_HELP, add_cfg_options, add_fuse, add_image_sizes, add_score_thr, tool_parser


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = tool_parser(
        'Detect objects in images or a video, or segment or classify the images. DIR receives drawn images or a drawn '
        'video, images.json, and COCO results (detection), the top five classes (classification) or label maps '
        '(segmentation). The exit status is 1 if an image cannot be decoded.',
        'images/ hire_mlp_mask_rcnn_shapes epoch_15.pth --out-dir predicted',
        'video.mp4 hire_mlp_mask_rcnn_coco model.onnx --out-dir predicted --score-thr 0.5',
    )
    parser.add_argument('input', type=Path, metavar='INPUT', help='image, folder of images, or video')
    parser.add_argument('config', metavar='CONFIG', help=CONFIG_HELP)
    text = 'file or URL of a checkpoint, or an exported .onnx or .pt2 file'
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help=text)
    text = 'new or empty folder for the results'
    parser.add_argument('--out-dir', type=Path, required=True, metavar='DIR', help=text)
    text = 'number of images of equal size in a batch (default: 1)'
    parser.add_argument('--batch-size', type=int, default=1, metavar='N', help=text)
    add_score_thr(parser, 'drawn and written')
    add_image_sizes(parser)
    parser.add_argument('--device', metavar='DEVICE', help='cpu, cuda or cuda:N (default: a GPU if available)')
    add_fuse(parser)
    add_cfg_options(parser)
    return parser


def main() -> None:
    """Run the tool."""
    args = make_parser().parse_args()
    from rich.progress import track

    from mlp_dense import fuse, load_model
    from mlp_dense.checks.band_agreement import band_count
    from mlp_dense.config.config_file import need, read_config
    from mlp_dense.errors import UserError, counted
    from mlp_dense.inference import ImageSource, PredictionWriter, checked_device, predict, reader_of
    from mlp_dense.kernels.memory import keep_freed_memory
    from mlp_dense.outputs import make_folder
    from mlp_dense.training.setup import shrink

    if args.batch_size < 1 or not 0 <= args.score_thr <= 1:
        raise UserError(
            f'--batch-size is {args.batch_size} and --score-thr {args.score_thr}; '
            'set --batch-size to 1 or more, and --score-thr from 0 to 1.'
        )
    if args.input.suffix == '.py':
        raise UserError(f'{args.input} is a config; use the order INPUT CONFIG CHECKPOINT.')
    device = checked_device(args.device)
    keep_freed_memory()
    cfg = read_config(args.config, args.cfg_options)
    if args.img_scale or args.crop_size:
        print(*shrink(cfg, ['test'], args.img_scale, args.crop_size), sep='\n')
    need(cfg, 'model', 'test_dataloader.dataset')
    source = ImageSource(args.input, reader_of(cfg))
    make_folder(args.out_dir)
    if any(args.out_dir.iterdir()):
        raise UserError(f'{args.out_dir} is not empty; choose a new or empty folder with --out-dir.')

    model = load_model(cfg, args.checkpoint, device)
    model = fuse(model) if args.fuse else model
    with PredictionWriter(args.out_dir, model, args.score_thr, source) as writer:
        for frame, sample in predict(model, track(source, 'predicting', total=source.length or None), args.batch_size):
            writer.add(frame, sample)
    if source.reader.loader is not None:
        print(f'drawn: {source.reader.loader.description(band_count(cfg))}')
    print(writer.summary())
    if source.fps and writer.count < source.length:
        print(
            f'{args.input} should have {counted(source.length, "frame")}; the others cannot be decoded.',
            file=sys.stderr,
        )
    if writer.undecodable:
        number = counted(len(writer.undecodable), 'image')
        print(f'{number} cannot be decoded: {", ".join(writer.undecodable)}', file=sys.stderr)
        sys.exit(1)
