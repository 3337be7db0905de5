"""Shows what goes wrong in a test, or compares tests: tools/report.py DIR [DIR ...]"""

import argparse
from pathlib import Path

from arguments import run_tool, tool_parser


def parse_args() -> argparse.Namespace:
    parser = tool_parser(
        'Makes the page of a test (DIR/index.html, with its numbers in DIR/report.json and its plots in DIR/plots) '
        'from the results that tools/test.py --report DIR left there, without testing again. Of several DIRs it '
        'compares the tests with the first one, in a folder of its own.'
    )
    parser.add_argument('folders', nargs='+', type=Path, metavar='DIR', help='folder of a report of tools/test.py')
    parser.add_argument('--out', type=Path, metavar='DIR', help='new folder for a comparison')
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        metavar='SCORE',
        help='from which score on detections count in pictures and tables of confusion (default: 0.3)',
    )
    parser.add_argument(
        '--pictures', type=int, default=300, metavar='N', help='how many images are drawn at most (default: 300)'
    )
    parser.add_argument(
        '--resamples',
        type=int,
        default=200,
        metavar='N',
        help='samples of the images behind the intervals of a comparison (default: 200)',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from mlp_dense.errors import UserError
    from mlp_dense.reports import make_comparison, make_report

    if not 0 <= args.score_thr <= 1 or args.pictures < 0 or args.resamples < 1:
        raise UserError('--score-thr is from 0 to 1, --pictures 0 or more, --resamples 1 or more.')
    if len(args.folders) == 1 and args.out:
        raise UserError('--out is for a comparison; the page of one test stays in its own folder.')
    if len(args.folders) > 1 and not args.out:
        raise UserError('Give --out DIR, a new folder for the comparison.')
    if args.out:
        page = make_comparison(args.folders, args.out, args.score_thr, args.resamples)
    else:
        page = make_report(args.folders[0], args.score_thr, args.pictures)
    print('The report:', page)


if __name__ == '__main__':
    run_tool(main)
