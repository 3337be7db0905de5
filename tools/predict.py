"""Predicts on images or a video: tools/predict.py INPUT CONFIG CHECKPOINT --out-dir DIR"""

import argparse
import sys
from pathlib import Path

from arguments import add_cfg_options, add_image_sizes, add_score_thr, run_tool, tool_parser


def parse_args() -> argparse.Namespace:
    parser = tool_parser(
        'Detects objects in images or a video, segments or classifies them. Writes drawn images (DIR/vis/NAME.png) or '
        'a drawn video (DIR/VIDEO.mp4), DIR/images.json, and either results (DIR/predictions.json: COCO objects, or '
        'the five likeliest classes of each image) or label maps (DIR/labels/NAME.png; a pixel is the index of its '
        "class). Sub-folders are kept. An image's image_id is the "
        'number that is its name, if all are numbers, else its position from 0; exit status 1: some could not be read.'
    )
    parser.add_argument('input', type=Path, metavar='INPUT', help='image, folder of images, or video')
    parser.add_argument('config', metavar='CONFIG', help='config file, for example one under configs/')
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='file or http(s) address of a checkpoint')
    parser.add_argument(
        '--out-dir', type=Path, required=True, metavar='DIR', help='new or empty folder for the results'
    )
    parser.add_argument(
        '--batch-size', type=int, default=1, metavar='N', help='images of one size at a time (default: 1)'
    )
    add_score_thr(parser, 'drawn and written')
    add_image_sizes(parser)
    parser.add_argument('--device', metavar='DEVICE', help='cpu, cuda or cuda:N (default: a GPU if there is one)')
    parser.add_argument('--fuse', action='store_true', help='predict faster, with norms folded (mlp_dense.fuse)')
    add_cfg_options(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from rich.progress import track

    from mlp_dense import fuse, load_model
    from mlp_dense.config.reading import make_folder, read_config
    from mlp_dense.errors import UserError, counted
    from mlp_dense.inference.loading import checked_device
    from mlp_dense.inference.prediction import ImageSource, PredictionWriter, predict
    from mlp_dense.kernels.memory import keep_freed_memory
    from mlp_dense.tasks import task_of
    from mlp_dense.training.setup import shrink

    if args.batch_size < 1 or not 0 <= args.score_thr <= 1:
        raise UserError('--batch-size is 1 or more, --score-thr from 0 to 1.')
    if args.input.suffix == '.py':
        raise UserError(f'{args.input} is a config; the order is INPUT CONFIG CHECKPOINT.')
    device = checked_device(args.device)
    keep_freed_memory()
    cfg = read_config(args.config, args.cfg_options)
    if args.img_scale or args.crop_size:
        print(*shrink(cfg, ['test'], args.img_scale, args.crop_size), sep='\n')
    source = ImageSource(args.input, task_of(cfg.get('default_scope')).flag)
    make_folder(args.out_dir)
    if any(args.out_dir.iterdir()):
        raise UserError(f'{args.out_dir} is not empty, and nothing in it is overwritten; give another --out-dir.')

    model = load_model(cfg, args.checkpoint, device)
    model = fuse(model) if args.fuse else model
    with PredictionWriter(args.out_dir, model, args.score_thr, source) as writer:
        unread = predict(model, track(source, 'predicting', total=source.length or None), writer, args.batch_size)
    print(f'{counted(len(writer.images), "frame" if source.fps else "image")}: results are in {args.out_dir}')
    if source.fps and len(writer.images) < source.length:
        print(
            f'{args.input} says that it has {counted(source.length, "frame")}; the rest cannot be read.',
            file=sys.stderr,
        )
    if unread:
        print(f'{counted(len(unread), "image")} cannot be read: {", ".join(unread)}', file=sys.stderr)
        sys.exit(1)


if __name__ == '__main__':
    run_tool(main)
