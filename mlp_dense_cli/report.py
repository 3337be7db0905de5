"""Report of a test, or a comparison of tests."""

import argparse
from pathlib import Path

from .arguments import tool_parser


def make_parser() -> argparse.ArgumentParser:
    parser = tool_parser(
        'Rebuild the page of a test from the results that mlp-dense test --report DIR wrote, without testing again. '
        'The page is DIR/index.html; its values are in DIR/report.json, and its plots in DIR/plots. Several DIRs are '
        'compared with the first, in a page that is written to --out.',
        'report --score-thr 0.5',
        'report_old report_new --out comparison',
    )
    parser.add_argument('folders', nargs='+', type=Path, metavar='DIR', help='folder of a report of mlp-dense test')
    text = 'new folder for the page (default: DIR); required with several DIRs'
    parser.add_argument('--out', type=Path, metavar='DIR', help=text)
    text = 'lowest score of detections that are drawn or counted in confusion tables (default: 0.3)'
    parser.add_argument('--score-thr', type=float, default=0.3, metavar='SCORE', help=text)
    text = 'maximum number of images to draw (default: 300)'
    for name in ('--max-images', '--pictures'):
        shown = text if name == '--max-images' else argparse.SUPPRESS
        parser.add_argument(name, type=int, default=300, metavar='N', help=shown)
    text = 'bootstrap samples of the images for the intervals of a comparison (default: 200)'
    parser.add_argument('--resamples', type=int, default=200, metavar='N', help=text)
    return parser


def main() -> None:
    args = make_parser().parse_args()
    from mlp_dense.errors import UserError
    from mlp_dense.reports.making import make_comparison, make_report

    if not 0 <= args.score_thr <= 1 or args.max_images < 0 or args.resamples < 1:
        raise UserError('Set --score-thr from 0 to 1, --max-images to 0 or more, and --resamples to 1 or more.')
    if len(args.folders) > 1 and not args.out:
        raise UserError('A comparison needs a new folder; pass --out DIR.')
    if len(args.folders) > 1:
        page = make_comparison(args.folders, args.out, args.score_thr, args.resamples)
    else:
        page = make_report(args.folders[0], args.score_thr, args.max_images, args.out)
    print('The report:', page)
