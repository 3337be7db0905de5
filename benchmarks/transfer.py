"""Whether pre-training pays: trains on CamVid from random weights and from a classifier's, with several seeds."""

import argparse
from pathlib import Path

from trainings import Training, add_arguments, cell, train_all

CONFIG = 'segmentation/cycle_mlp_b1_semantic_fpn_camvid-240x180.py'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('checkpoint', help='of the classifier, or its address')
    parser.add_argument('--data-root', type=Path, default=Path('data', 'camvid'), metavar='DIR', help='of CamVid')
    parser.add_argument('--budgets', nargs='+', type=int, default=[500], metavar='N', help='iterations (default: 500)')
    add_arguments(parser, 'transfer')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    weights = 'model.backbone.init_cfg'
    starts = {'random': (), 'pre-trained': (f'{weights}.type=Pretrained', f'{weights}.checkpoint={args.checkpoint}')}
    metrics, trainings = {'mIoU': 'mIoU', 'aAcc': 'aAcc'}, {}
    for seed in args.seeds:
        for budget in args.budgets:
            schedule = (f'train_cfg.max_iters={budget}', f'train_cfg.val_interval={budget}')
            schedule += (f'param_scheduler.1.end={budget}',)
            for start, options in starts.items():
                name = f'{start}_{budget}_{seed}'
                trainings[name] = Training(CONFIG, args.data_root, seed, schedule + options, metrics)
    results = train_all(trainings, args)
    print(f'| start | iterations | {" | ".join(metrics)} |\n|---|---|{"---|" * len(metrics)}')
    for start in starts:
        for budget in args.budgets:
            runs = [results[f'{start}_{budget}_{seed}'] for seed in args.seeds]
            print(f'| {start} | {budget} | {" | ".join(cell([run[name] for run in runs]) for name in metrics)} |')


if __name__ == '__main__':
    main()
