"""Trains the model of a config: tools/train.py configs/detection/hire_mlp_mask_rcnn_coco.py"""

import argparse
from pathlib import Path

from arguments import common_parser, run_tool


def parse_args() -> argparse.Namespace:
    parser = common_parser('Trains the model of a config; checkpoints, logs and pictures go to the work dir.')
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
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    import torch
    from mmengine.runner import find_latest_checkpoint

    from mlp_dense.errors import UserError
    from mlp_dense.engine.configs import load_config
    from mlp_dense.engine.runner import build_runner, warn_of_random_backbone

    cfg = load_config(args)
    has_run = Path(cfg.work_dir, 'last_checkpoint').exists()
    if args.resume:
        cfg.resume = True
        cfg.load_from = args.resume if args.resume != 'auto' else find_latest_checkpoint(cfg.work_dir)
        if cfg.load_from is None:
            raise UserError(f'There is no checkpoint to resume from in {cfg.work_dir}; train without --resume first.')
    elif has_run and not cfg.get('resume'):
        raise UserError(f'{cfg.work_dir} holds a training already: go on with --resume, or give another --work-dir.')
    if args.amp:
        if not torch.cuda.is_available():
            raise UserError('--amp needs a GPU, and PyTorch finds none; leave it out to train on the CPU.')
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise UserError(f'--auto-scale-lr: {args.config} has no auto_scale_lr.base_batch_size to scale by.')
        cfg.auto_scale_lr.enable = True
    if args.seed is not None:
        cfg.randomness = dict(cfg.get('randomness', {}), seed=args.seed)

    runner = build_runner(cfg, ('train', 'val'))
    warn_of_random_backbone(cfg)
    runner.train()


if __name__ == '__main__':
    run_tool(main)
