"""Tests a checkpoint: tools/test.py configs/detection/hire_mlp_mask_rcnn_coco.py CHECKPOINT"""

import argparse
import json
from pathlib import Path

from arguments import common_parser, run_tool


def parse_args() -> argparse.Namespace:
    parser = common_parser(
        'Tests a checkpoint on the test data of a config, prints the metrics and writes metrics.json.'
    )
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='file or http(s) address of a checkpoint')
    parser.add_argument('--out', type=Path, metavar='FILE.pkl', help='also write the predictions, as a pickle')
    parser.add_argument(
        '--show-dir',
        type=Path,
        metavar='DIR',
        help='also draw the predictions beside the ground truth, one PNG per picture',
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help='test-time augmentation: several sizes and flip for segmentation, flip for detection',
    )
    parser.add_argument(
        '--fuse', action='store_true', help='test the faster inference form, with norms folded (mlp_dense.fuse)'
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from mmengine.dist import is_main_process

    from mlp_dense.errors import UserError
    from mlp_dense.engine.configs import load_config, use_tta
    from mlp_dense.engine.runner import build_runner

    if args.out and args.out.suffix not in ('.pkl', '.pickle'):
        raise UserError(f'--out {args.out}: the name must end in .pkl.')
    cfg = load_config(args)
    cfg.load_from, cfg.resume = args.checkpoint, False
    if args.tta:
        use_tta(cfg)
    cfg.default_hooks.pop('visualization', None)  # the one of the training
    if args.show_dir:
        hook = dict(type='mlp_dense.DrawPredictionsHook', out_dir=str(args.show_dir))
        cfg.custom_hooks = [*cfg.get('custom_hooks', []), hook]
    if args.fuse:
        cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='mlp_dense.FuseHook', priority='LOWEST')]
    if args.out:
        evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
        dump = 'mmdet.DumpDetResults' if cfg.default_scope == 'mmdet' else 'mlp_dense.DumpLabelMaps'
        cfg.test_evaluator = [*evaluators, dict(type=dump, out_file_path=str(args.out))]

    metrics = build_runner(cfg, ('test',)).test()
    if is_main_process():
        for name, value in metrics.items():
            print(f'{name:<24}{value:8.4f}')
        Path(cfg.work_dir, 'metrics.json').write_text(json.dumps(metrics, indent=2, default=float) + '\n')


if __name__ == '__main__':
    run_tool(main)
