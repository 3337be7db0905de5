"""Learning curves of training runs."""

import argparse
from pathlib import Path

from .arguments import check_out_file, tool_parser


def make_parser() -> argparse.ArgumentParser:
    parser = tool_parser(
        'Draw losses, learning rate and validation metrics of a training run into a PNG. If several runs are given, '
        'each has one colour and only its main metrics (mAP, mIoU, top1).',
        'work_dirs/hire_mlp_mask_rcnn_coco --out curves.png --smooth 0.8',
        'work_dirs/small work_dirs/base --out curves.png',
    )
    text = 'work dir of a training run, or a scalars.json in it'
    parser.add_argument('runs', nargs='+', type=Path, metavar='RUN', help=text)
    text = 'image to write; an earlier one is replaced'
    parser.add_argument('--out', type=Path, required=True, metavar='FILE.png', help=text)
    text = 'weight of the past in the average of the losses, from 0 to below 1 (default: 0)'
    parser.add_argument('--smooth', type=float, default=0.0, metavar='WEIGHT', help=text)
    return parser


def main() -> None:
    args = make_parser().parse_args()
    from mlp_dense.errors import UserError
    from mlp_dense.outputs import check_file
    from mlp_dense.tasks import TASKS
    from mlp_dense.visualization.curves import distinct_names, plot_runs, read_run

    if not 0 <= args.smooth < 1:
        raise UserError(f'--smooth is {args.smooth}; set it from 0 to below 1, for example to 0.9.')
    runs = [read_run(path) for path in args.runs]
    for run, name in zip(runs, distinct_names([run.name for run in runs], args.runs), strict=True):
        run.name = name
    check_out_file(args.out, '.png')
    check_file(args.out)
    plot_runs(runs, args.out, [task.main_metric for task in TASKS.values()], args.smooth)
    print(f'The curves are in {args.out}')
