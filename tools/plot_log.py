"""Draws the learning curves of trainings: tools/plot_log.py work_dirs/demo_detection --out curves.png"""

import argparse
from pathlib import Path

from arguments import check_out_file, run_tool, tool_parser


def parse_args() -> argparse.Namespace:
    parser = tool_parser(
        'Draws losses, learning rate and validation metrics of one or several trainings into a PNG. Of several, each '
        'has a colour, and of the metrics only mAP and mIoU are drawn.'
    )
    parser.add_argument(
        'runs', nargs='+', type=Path, metavar='RUN', help='work dir of a training, or a scalars.json in it'
    )
    parser.add_argument('--out', type=Path, required=True, metavar='FILE.png', help='image to write, or to redraw')
    parser.add_argument(
        '--smooth',
        type=float,
        default=0.0,
        metavar='WEIGHT',
        help='weight of the past, from 0 (none, the default) to below 1, in the moving average of the losses',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from mlp_dense.errors import UserError
    from mlp_dense.tasks import TASKS
    from mlp_dense.visualization.curves import plot_runs, read_run

    if not 0 <= args.smooth < 1:
        raise UserError(f'--smooth is {args.smooth}; give a number from 0 to below 1, for example 0.9.')
    runs = [read_run(path) for path in args.runs]
    if len({run.name for run in runs}) < len(runs):  # folders of one name in different places
        for run, path in zip(runs, args.runs, strict=True):
            run.name = str(path)
    check_out_file(args.out, '.png')
    plot_runs(runs, args.out, [task.main_metric for task in TASKS.values()], args.smooth)
    print(f'The curves are in {args.out}')


if __name__ == '__main__':
    run_tool(main)
