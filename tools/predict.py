"""Predicts on pictures or a video: tools/predict.py INPUT CONFIG CHECKPOINT --out-dir DIR"""

import argparse
import sys
from pathlib import Path

from arguments import add_cfg_options, check_out_dir, run_tool, tool_parser


def parse_args() -> argparse.Namespace:
    parser = tool_parser(
        'Detects objects in pictures or a video, or segments them. Writes drawn pictures (DIR/vis/NAME.png) or a drawn '
        'video (DIR/VIDEO.mp4), DIR/images.json, and either COCO results (DIR/predictions.json) or label maps '
        "(DIR/labels/NAME.png; a pixel is the index of its class). Sub-folders are kept. A picture's image_id is the "
        'number that is its name, if all are numbers, else its position from 0; exit status 1: some could not be read.'
    )
    parser.add_argument('input', type=Path, metavar='INPUT', help='picture, folder of pictures, or video')
    parser.add_argument('config', metavar='CONFIG', help='config file, for example one under configs/')
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='file or http(s) address of a checkpoint')
    parser.add_argument(
        '--out-dir', type=Path, required=True, metavar='DIR', help='new or empty folder for the results'
    )
    parser.add_argument(
        '--batch-size', type=int, default=1, metavar='N', help='pictures of one size at a time (default: 1)'
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        metavar='SCORE',
        help='objects with a score above this, from 0 to 1, are drawn and written; detection only (default: 0.3)',
    )
    parser.add_argument('--device', metavar='DEVICE', help='cpu, cuda or cuda:N (default: a GPU if there is one)')
    parser.add_argument('--fuse', action='store_true', help='predict faster, with norms folded (mlp_dense.fuse)')
    add_cfg_options(parser)
    parser.set_defaults(data_root=None)  # no data set is read
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    import torch
    from rich.progress import track

    from mlp_dense import fuse, load_model
    from mlp_dense.errors import UserError
    from mlp_dense.inference.prediction import Results, Source, make_inferencer, predict
    from mlp_dense.engine.configs import read_config

    if args.batch_size < 1 or not 0 <= args.score_thr <= 1:
        raise UserError('--batch-size is 1 or more, --score-thr from 0 to 1.')
    try:
        torch.empty(0, device=args.device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f'--device {args.device} cannot be used: {str(error).splitlines()[0]}') from error
    cfg = read_config(args)
    source = Source(args.input)
    check_out_dir(args.out_dir)
    if any(args.out_dir.iterdir()):
        raise UserError(f'{args.out_dir} is not empty, and nothing in it is overwritten; give another --out-dir.')

    model = load_model(cfg, args.checkpoint, args.device)
    inferencer = make_inferencer(fuse(model) if args.fuse else model)
    with Results(args.out_dir, inferencer, args.score_thr, source) as results:
        items = track(source, 'predicting', total=source.length or None)
        unread = predict(inferencer, items, results, args.batch_size)
    print(f'{len(results.images)} {"frames" if source.fps else "pictures"}: results are in {args.out_dir}')
    if source.fps and len(results.images) < source.length:
        print(f'{args.input} says that it has {source.length} frames; the rest cannot be read.', file=sys.stderr)
    if unread:
        print(f'{len(unread)} pictures cannot be read: {", ".join(unread)}', file=sys.stderr)
        sys.exit(1)


if __name__ == '__main__':
    run_tool(main)
