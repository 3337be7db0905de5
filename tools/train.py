"""Trains the model of a config: tools/train.py configs/detection/hire_mlp_mask_rcnn_coco.py"""

import argparse

from arguments import common_parser, read_run_config, run_tool


def parse_args() -> argparse.Namespace:
    parser = common_parser(
        'Trains the model of a config; checkpoints, logs and images go to the work dir.', 'train', 'val', 'test'
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        '--epochs', type=int, metavar='N', help='train so long; the schedule and validations scale along'
    )
    length.add_argument('--iters', type=int, metavar='N', help='the same, in iterations')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='FILE',
        help='go on from a checkpoint, with optimizer and schedule (default: the newest in the work dir)',
    )
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision; needs a GPU')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="scale the learning rate by total batch size / the config's base_batch_size",
    )
    parser.add_argument(
        '--seed', type=int, metavar='N', help='seed of every random number (default: drawn, and logged)'
    )
    parser.add_argument(
        '--dry-run',
        action='store_true',
        help='only try a few iterations and one validation batch in full size; says memory, time an iteration and the '
        'estimated end, and writes nothing',
    )
    parser.add_argument(
        '--check-data',
        action='store_true',
        help='check all images, labels and annotations instead of training',
    )
    parser.add_argument('--train', action='store_true', help='train after --check-data')
    parser.add_argument(
        '--deterministic',
        action='store_true',
        help='the same numbers in every run with the same --seed; slower, and an error where PyTorch cannot',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from mmengine.dist import is_main_process

    from mlp_dense.training.runner import build_runner
    from mlp_dense.training.setup import for_training

    cfg = read_run_config(args, writes=not args.dry_run)
    cfg.check_data = cfg.get('check_data', False) or (args.check_data and (args.train or args.dry_run))
    for_training(cfg, args.resume, args.amp, args.auto_scale_lr, args.seed, args.deterministic)
    if args.dry_run:
        from mlp_dense.training.dry_run import dry_run

        said = dry_run(cfg)
        if is_main_process():
            print(said)
        return
    runner = build_runner(cfg, ('train', 'val'))
    if args.check_data and not args.train:
        from mlp_dense.checks.data_check_hook import check_training_data

        images = check_training_data(runner)
        if is_main_process():
            print(f'Checked {images} images, their labels and annotations.')
        return
    runner.train()


if __name__ == '__main__':
    run_tool(main)
