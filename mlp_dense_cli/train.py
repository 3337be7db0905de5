"""Training of the model of a config."""

import argparse
import sys
from contextlib import nullcontext, redirect_stdout

from .arguments import common_parser, read_run_config


def make_parser() -> argparse.ArgumentParser:
    parser = common_parser(
        'Train the model of a config. Checkpoints, logs and images go to the work dir.',
        ('train', 'val', 'test'),
        'hire_mlp_mask_rcnn_shapes --seed 0',
        'hire_mlp_mask_rcnn_coco --data-root /data/coco --batch-size 4 --auto-scale-lr',
    )
    training = parser.add_argument_group('training')
    length = training.add_mutually_exclusive_group()
    for option, unit in (('--epochs', 'epochs'), ('--iters', 'iterations')):
        text = f'train N {unit} if the config counts {unit}; the schedule follows'
        length.add_argument(option, type=int, metavar='N', help=text)
    text = 'resume from a checkpoint (without FILE: the newest in the work dir)'
    training.add_argument('--resume', nargs='?', const='auto', metavar='FILE', help=text)
    training.add_argument('--amp', action='store_true', help='automatic mixed precision on a GPU')
    text = 'scale the learning rate with the total batch size'
    training.add_argument('--auto-scale-lr', action='store_true', help=text)
    training.add_argument('--seed', type=int, metavar='N', help='seed of all random numbers (default: random, logged)')
    text = 'equal bits in every run with the same --seed; slower'
    training.add_argument('--deterministic', action='store_true', help=text)
    before = parser.add_argument_group('before training')
    text = 'check all images and labels of train and val, then end'
    before.add_argument('--check-data', action='store_true', help=text)
    before.add_argument('--train', action='store_true', help='continue with the training after --check-data')
    text = 'print the config that would run on this machine, and exit'
    before.add_argument('--print-config', action='store_true', help=text)
    text = 'run a few iterations; print memory, time and the estimated end'
    before.add_argument('--dry-run', action='store_true', help=text)
    return parser


def main() -> None:
    args = make_parser().parse_args()
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
