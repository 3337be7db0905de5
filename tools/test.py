"""Tests a checkpoint: tools/test.py configs/detection/hire_mlp_mask_rcnn_coco.py CHECKPOINT"""

import argparse
import json
import math
from pathlib import Path

from arguments import add_score_thr, check_out_file, common_parser, read_run_config, run_tool


def parse_args() -> argparse.Namespace:
    parser = common_parser(
        'Tests a checkpoint on the test data of a config, prints the metrics and writes metrics.json.', 'test'
    )
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='file or http(s) address of a checkpoint')
    parser.add_argument(
        '--out',
        default='',
        metavar='FILE',
        help='also write the predictions: .pkl for detection and segmentation; .json, with the accuracy of every '
        'class, for classification',
    )
    parser.add_argument(
        '--show-dir',
        default='',
        metavar='DIR',
        help='also draw the predictions beside the ground truth, one PNG per image',
    )
    add_score_thr(parser, 'drawn by --show-dir, and counted as found by --report')
    parser.add_argument(
        '--tta',
        action='store_true',
        help='test-time augmentation: several sizes and flip for segmentation, flip for detection',
    )
    parser.add_argument(
        '--fuse', action='store_true', help='test the faster inference form, with norms folded (mlp_dense.fuse)'
    )
    parser.add_argument(
        '--report',
        default='',
        metavar='DIR',
        help='also make a report of what goes wrong, and where: DIR/index.html (see tools/report.py)',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from mmengine.dist import is_main_process

    from mlp_dense.config.reading import make_folder
    from mlp_dense.reports.complexity import count_into
    from mlp_dense.reports.making import make_report
    from mlp_dense.training.runner import build_runner
    from mlp_dense.training.setup import for_test

    if args.out:
        check_out_file(Path(args.out), '.pkl', '.pickle', '.json')
    if args.show_dir:
        make_folder(Path(args.show_dir))
    cfg = read_run_config(args)
    for_test(cfg, args.checkpoint, args.tta, args.fuse, args.show_dir, args.out, args.score_thr, args.report)
    metrics = build_runner(cfg, ('test',)).test()
    if is_main_process():
        for name, value in metrics.items():
            print(f'{name:<24}{value:8.4f}')
        file = Path(cfg.work_dir, 'metrics.json')
        undefined = [name for name, value in metrics.items() if not math.isfinite(value)]
        if undefined:
            print(f'Undefined, and null in {file.name}: {", ".join(undefined)} (a class that no pixel has?)')
        content = metrics | dict.fromkeys(undefined)
        file.write_text(json.dumps(content, indent=2, default=float, allow_nan=False) + '\n', encoding='utf-8')
        print('Written:', *filter(None, (file, args.show_dir, args.out)))
        if args.report:
            count_into(Path(args.report), cfg)
            print('The report:', make_report(Path(args.report), args.score_thr))


if __name__ == '__main__':
    run_tool(main)
