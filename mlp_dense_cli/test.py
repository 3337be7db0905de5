"""Test of a checkpoint."""

import argparse
import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import add_fuse, add_score_thr, check_out_file, common_parser, read_run_config

if TYPE_CHECKING:
    from mmengine.config import Config

METRICS = 'metrics.json'  # in the work dir


def make_parser() -> argparse.ArgumentParser:
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
    text = 'merge the predictions for original and flipped images (segmentation: in several sizes)'
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
    args = make_parser().parse_args()
    from mlp_dense.errors import UserError
    from mlp_dense.outputs import check_file, replacing
    from mlp_dense.reports.complexity import count_into
    from mlp_dense.reports.making import make_report
    from mlp_dense.training.machine import rank_of

    is_main = rank_of(args.launcher) == 0
    if args.out:
        check_out_file(Path(args.out), '.pkl', '.pickle', '.json')
        check_file(Path(args.out))
    with ExitStack() as stack:
        show_dir, report = (  # the files in these folders are replaced after a successful test
            str(stack.enter_context(replacing(Path(name), is_main=is_main))) if name else ''
            for name in (args.show_dir, args.report)
        )
        cfg = read_run_config(args)
        check_file(Path(cfg.work_dir, METRICS))
        outputs = [Path(name).resolve() for name in (cfg.work_dir, args.out, args.show_dir, args.report) if name]
        for name in filter(None, (args.show_dir, args.report)):
            if sum(output.is_relative_to(Path(name).resolve()) for output in outputs) > 1:
                raise UserError(f'{name}, whose files are replaced, contains another output; choose separate folders.')
        test(cfg, args, show_dir, report)
        if report and is_main:
            count_into(Path(report), cfg)
    if is_main:
        print('Written:', *filter(None, (Path(cfg.work_dir, METRICS), args.show_dir, args.out)))
        if args.report:
            print('The report:', make_report(Path(args.report), args.score_thr))


def test(cfg: 'Config', args: argparse.Namespace, show_dir: str, report: str) -> None:
    """Test a checkpoint, print its metrics, and write them into the work dir."""
    from mmengine.dist import is_main_process

    from mlp_dense.outputs import write_listed
    from mlp_dense.reports.results import without_undefined
    from mlp_dense.training.runner import build_runner
    from mlp_dense.training.setup import for_test

    for_test(cfg, args.checkpoint, args.tta, args.fuse, show_dir, args.out, args.score_thr, report)
    metrics = without_undefined(build_runner(cfg, ('test',)).test())
    if not is_main_process():
        return
    for name, value in metrics.items():
        print(f'{name:<24}', 'undefined' if value is None else f'{value:7.4f}')
    if undefined := [name for name, value in metrics.items() if value is None]:
        print(f'Undefined, and null in {METRICS}: {", ".join(undefined)} (is a class absent from the test data?)')
    write_listed(Path(cfg.work_dir, METRICS), json.dumps(metrics, indent=2, allow_nan=False) + '\n')
