"""Test of a checkpoint."""

import argparse
import json
import math
from pathlib import Path

from .arguments import add_fuse, add_score_thr, check_out_file, common_parser, read_run_config


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = common_parser(
        'Test a checkpoint on the test data of a config. The metrics are printed and written to metrics.json in the '
        'work dir.',
        ['test'],
        'hire_mlp_mask_rcnn_shapes epoch_15.pth --report report',
        'hire_mlp_mask_rcnn_coco model.onnx --data-root /data/coco --out predictions.pkl',
    )
    text = 'file or URL of a checkpoint, or an exported .onnx or .pt2 file'
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help=text)
    testing = parser.add_argument_group('testing')
    text = 'merge the predictions for flipped images (segmentation: and several sizes)'
    testing.add_argument('--tta', action='store_true', help=text)
    add_fuse(testing)
    output = parser.add_argument_group('output')
    text = 'write a page about the errors to DIR/index.html (see mlp-dense report)'
    output.add_argument('--report', default='', metavar='DIR', help=text)
    text = 'draw ground truth and predictions side by side, one PNG per image'
    output.add_argument('--show-dir', default='', metavar='DIR', help=text)
    text = 'write the predictions (.pkl; .json for classification)'
    output.add_argument('--out', default='', metavar='FILE', help=text)
    add_score_thr(output, 'drawn and counted')
    return parser


def main() -> None:
    """Run the tool."""
    args = make_parser().parse_args()
    from mmengine.dist import is_main_process

    from mlp_dense.config.config_file import make_folder
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
            print(f'Undefined, and null in {file.name}: {", ".join(undefined)} (is a class absent from the test data?)')
        content = metrics | dict.fromkeys(undefined)
        file.write_text(json.dumps(content, indent=2, default=float, allow_nan=False) + '\n', encoding='utf-8')
        print('Written:', *filter(None, (file, args.show_dir, args.out)))
        if args.report:
            count_into(Path(args.report), cfg)
            print('The report:', make_report(Path(args.report), args.score_thr))
