"""Train the model of a config, for example configs/detection/hire_mlp_mask_rcnn_coco.py."""

import argparse
import sys
from contextlib import nullcontext, redirect_stdout

from .arguments import common_parser, read_run_config


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = common_parser(
        'Train the model of a config. Checkpoints, logs and images go to the work dir.', 'train', 'val', 'test'
    )
    length = parser.add_mutually_exclusive_group()
    for option, unit in (('--epochs', 'epochs'), ('--iters', 'iterations')):
        text = f'train N {unit}, if the config counts in {unit}; the learning-rate schedule scales with them'
        length.add_argument(option, type=int, metavar='N', help=text)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='FILE',
        help='resume from a checkpoint with its optimizer and schedule (without FILE: the newest in the work dir)',
    )
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision on a GPU')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='multiply the learning rate by (processes x batch size) / auto_scale_lr.base_batch_size of the config',
    )
    parser.add_argument('--seed', type=int, metavar='N', help='seed of all random numbers (default: drawn and logged)')
    parser.add_argument(
        '--deterministic',
        action='store_true',
        help='equal bits in every run with the same --seed; slower; fails if an operation has no deterministic kernel',
    )
    parser.add_argument('--check-data', action='store_true', help='check all images, labels and annotations, then end')
    parser.add_argument('--train', action='store_true', help='continue with the training after --check-data')
    parser.add_argument(
        '--print-config',
        action='store_true',
        help='print the config that would run, with all options and the changes for this machine, and exit',
    )
    parser.add_argument(
        '--dry-run',
        action='store_true',
        help='run a few iterations and one validation batch at full size; print memory, time per iteration and the '
        'estimated end; keep no file',
    )
    return parser.parse_args()


def main() -> None:
    """Run the tool."""
    args = parse_args()
    from mmengine.dist import is_main_process

    from mlp_dense.training.runner import build_runner, config_text
    from mlp_dense.training.setup import for_training

    with redirect_stdout(sys.stderr) if args.print_config else nullcontext():  # the config alone goes to stdout
        cfg = read_run_config(args, writes=not (args.dry_run or args.print_config))
        if args.check_data:
            check = dict(type='mlp_dense.DataCheckHook', everything=True)
            cfg.default_hooks = dict(cfg.get('default_hooks', {}), data_check=check)
        for_training(cfg, args.resume, args.amp, args.auto_scale_lr, args.seed, args.deterministic)
        text = config_text(cfg) if args.print_config else ''
    if text:
        print(text)
        return
    if args.dry_run:
        from mlp_dense.training.dry_run import dry_run

        text = dry_run(cfg)
    else:
        runner = build_runner(cfg, ('train', 'val'))
        if not args.check_data or args.train:
            runner.train()
            return
        from mlp_dense.checks.data_check_hook import check_training_data

        text = f'Checked {check_training_data(runner)} images, their labels and annotations.'
    if is_main_process():
        print(text)
