"""Runs the commands behind docs/evidence.md one after the other, and writes the page from their results.

A result that exists is not computed again: delete its file in docs/evidence to repeat it. An interrupted training
run resumes. If a command fails, the next one still runs.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from report import environment, markdown, provenance

ROOT = Path(__file__).parents[1]
MODELS = 'hire_mlp_tiny as_mlp_tiny cycle_mlp_b1 wave_mlp_t_dw mlp_mixer_s16 vip_s7 sparse_mlp_s16'
BENCHMARKS = {  # commands of a part: the name of the result, and the script with its options
    'operators': {'operators': 'operators.py'},
    'backbones': {
        'forward_bf16_b16': 'backbones.py --dtype bf16 --batch-size 16 --size 800x1280',
        'forward_fp32_b16': 'backbones.py --tf32 --batch-size 16 --size 800x1280',
        'forward_bf16_b1': 'backbones.py --dtype bf16 --batch-size 1 --size 512x512 800x1280',
        'train_bf16_b16': 'backbones.py --train --dtype bf16 --amp --batch-size 16 --size 512x512 --rounds 3',
        'train_fp32_b16': 'backbones.py --train --tf32 --batch-size 16 --size 512x512 --rounds 3',
        'compiled_bf16_b16': 'backbones.py --compile --dtype bf16 --batch-size 16 --size 800x1280',
    },
    'detectors': {
        f'{head}_{mode}': f'detectors.py --heads {head} {"--train" if mode == "train" else ""} --models {MODELS}'
        for head in ('mask_rcnn', 'upernet')
        for mode in ('forward', 'train')
    },
}
TOY = {
    'operators': '',
    'backbones': '--batch-size 2 --arch HireMLP:tiny CycleMLP:b1',
    'detectors': '--models hire_mlp_tiny --cfg-options model.test_cfg.rpn.max_per_img=20',
}
TOY_SIZE = '--size 64x96 --rounds 2 --threads 1'
TRAININGS = {'camvid': ['camvid', 'camvid_upernet'], 'coco': ['coco']}
TOY_TRAINING = '--epochs 1 --images 4 --img-scale 96 72 --batch-size 2 --models HireMLP:tiny'
HEADS = dict(camvid='Semantic FPN', camvid_upernet='UperNet', coco='Mask R-CNN')

INTRODUCTION = """\
# Evidence

Results on real images. GPU results are listed here once they exist. `make evidence` runs what has no result yet and
writes this page from the JSON files in [evidence](evidence). Times on a CPU: [Performance](performance.md)."""
SECTIONS = {
    'tests': ('Tests on a GPU', 'The tests in `tests/cuda`, which need a GPU, over all families.'),
    'operators': ("mmcv's operators", "This package's operators next to torchvision's and mmcv's compiled ones."),
    'backbones': ('Backbones on a GPU', 'Smallest variant of each family next to other backbones.'),
    'detectors': ('Complete models on a GPU', 'Mask R-CNN and UperNet with each backbone.'),
    'camvid': (
        'Learning CamVid from random weights',
        'One recipe for every backbone (`benchmarks/recipes/camvid.py`): trained on the training and validation images '
        'with rare classes weighted higher, tested with the last checkpoint on the complete test images, 11 classes. '
        'Papers that train much longer from random weights at 480x360 report: ENet 51.3, FC-DenseNet103 66.9, '
        'LMFFNet 69.1, LETNet 70.5 mIoU. With one seed a difference of a few points means little.',
    ),
    'coco': (
        'Learning a few images of COCO from random weights',
        'One recipe for every backbone (`benchmarks/recipes/coco.py`). It shows how well Mask R-CNN fits real '
        'images. AP is on the training images, and in brackets on validation images; a model trained on so few images '
        'does not generalise. An AP near 0 on the training images means that the training was too short.',
    ),
}
NEVER_RUN = (
    'A schedule on the complete COCO or ADE20K. Accuracies in the [model zoo](model_zoo.md) are those of the papers.'
)


class Step(NamedTuple):
    part: str
    name: str
    command: list[str]
    result: Path
    folder: Path
    """Receives the files that the command writes."""


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='evidence', description=__doc__.partition('\n')[0])
    parser.add_argument('parts', nargs='*', metavar='PART', help=f'{", ".join(SECTIONS)} (default: all)')
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    parser.add_argument('--device', choices=('cpu', 'cuda'), default=device, help='default: %(default)s')
    parser.add_argument('--toy', action='store_true', help='small images, short runs, few models: does everything run?')
    for data in TRAININGS:
        parser.add_argument(
            f'--{data}', type=Path, default=Path('data', data), metavar='DIR', help='default: %(default)s'
        )
    parser.add_argument('--epochs', type=int, metavar='N', help='length of the training runs (default: 100)')
    parser.add_argument('--img-scale', nargs=2, type=int, metavar='PIXELS', help='image size of the training runs')
    parser.add_argument('--models', nargs='+', metavar='NAME', help='models of the training runs (default: all)')
    parser.add_argument('--only', nargs='+', metavar='NAME', help='only these results, by the names that are printed')
    parser.add_argument('--jobs', type=int, default=1, metavar='N', help='simultaneous tests or runs (default: 1)')
    out, results = Path('work_dirs/evidence'), ROOT / 'docs' / 'evidence'
    parser.add_argument(
        '--out', type=Path, default=out, metavar='DIR', help='logs and training runs (default: %(default)s)'
    )
    parser.add_argument(
        '--results', type=Path, metavar='DIR', help=f'JSON files (default: {results}; toys: OUT/results)'
    )
    parser.add_argument('--dry-run', action='store_true', help='print the commands')
    parser.add_argument('--page-only', action='store_true', help='write docs/evidence.md from the results and stop')
    args = parser.parse_args()
    if unknown := set(args.parts) - set(SECTIONS):
        parser.error(f'{", ".join(sorted(unknown))}: use {", ".join(SECTIONS)}.')
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda: PyTorch finds no GPU. Use --device cpu.')
    args.parts = args.parts or list(SECTIONS)
    args.results = args.results or (args.out / 'results' if args.toy else results)
    names = [step.name for step in steps_of(args)]
    if unknown := set(args.only or ()) - set(names):
        parser.error(f'--only {" ".join(sorted(unknown))}: use {", ".join(names)}.')
    return args


def steps_of(args: argparse.Namespace) -> list[Step]:
    steps = []

    def add(part: str, name: str, *words: object) -> None:
        result, folder = args.results / part / f'{name}_{args.device}.json', args.out / f'{name}_{args.device}'
        places = {'FOLDER': folder, 'JUNIT': folder / 'junit.xml', 'RESULT': result}
        command = [sys.executable, *(str(places.get(word, word)) for word in words)]
        steps.append(Step(part, name, command, result, folder))

    for part in args.parts:
        if part == 'tests':
            toy = ['-k', 'float64'] if args.toy else []
            options = ['-q', '-n', args.jobs, '-p', 'no:cacheprovider', '-o', 'filterwarnings=default', *toy]
            add(part, 'tests', '-m', 'pytest', ROOT / 'tests/cuda', *options, '--junitxml', 'JUNIT')
        elif part in BENCHMARKS:
            for name, line in list(BENCHMARKS[part].items())[: 1 if args.toy else None]:
                script, *options = line.split()
                options += ['--dtype', 'fp16'] if part == 'detectors' and args.device == 'cuda' else []
                options += f'{TOY_SIZE} {TOY[part]}'.split() if args.toy else []
                add(part, name, ROOT / 'benchmarks' / script, *options, '--device', args.device, '--out', 'FOLDER')
        else:
            for name in TRAININGS[part][: 1 if args.toy else None]:
                options = ['--thin'] if args.device == 'cpu' else []
                options += TOY_TRAINING.split() if args.toy else []
                for option in ('epochs', 'img_scale', 'models'):
                    if value := getattr(args, option):
                        options += [f'--{option.replace("_", "-")}', *(value if isinstance(value, list) else [value])]
                root, out = getattr(args, part), args.out / name
                options += ['--data-root', root, '--device', args.device, '--jobs', args.jobs, '--out', out]
                add(part, name, ROOT / 'benchmarks/learning.py', name, *options, '--results', 'RESULT')
    return steps


def run(step: Step, device: str) -> str:
    """Run a command and store its result; return the outcome."""
    if step.result.exists():
        return 'exists'
    shutil.rmtree(step.folder, ignore_errors=True)  # of an earlier try
    step.folder.mkdir(parents=True)
    variables = {} if device == 'cuda' else dict(CUDA_VISIBLE_DEVICES='', MLP_DENSE_CUDA_TESTS='cpu')
    log, start = step.folder / 'log.txt', time.monotonic()
    with log.open('w') as output:
        status = subprocess.run(step.command, stdout=output, stderr=output, env=os.environ | variables).returncode
    if status and step.part != 'tests':  # failures of tests are a result
        return f'failed, see {log}'
    step.result.parent.mkdir(parents=True, exist_ok=True)
    if (file := step.folder / 'junit.xml').exists():
        result = dict(environment=environment(device), tests=count_tests(file))
        step.result.write_text(json.dumps(result, indent=1) + '\n', encoding='utf-8')
    for file in step.folder.glob('*.json'):
        shutil.copy(file, step.result)
    return f'done in {time.monotonic() - start:.0f} s' if step.result.exists() else f'failed: no result, see {log}'


def count_tests(file: Path) -> dict[str, dict[str, int]]:
    """Return the outcomes of each test function from pytest's file in JUnit format."""
    tests: dict[str, dict[str, int]] = {}
    for case in ElementTree.parse(file).iter('testcase'):
        tags = {child.tag for child in case}
        outcome = 'failed' if tags & {'failure', 'error'} else 'skipped' if 'skipped' in tags else 'passed'
        counts = tests.setdefault(re.sub(r'\[.*', '', case.get('name', '')), dict(passed=0, failed=0, skipped=0))
        counts[outcome] += 1
    return tests


def write_page(folder: Path, page: Path) -> None:
    paragraphs, missing = [INTRODUCTION], [f'* {NEVER_RUN}']
    for part, (title, text) in SECTIONS.items():
        files = sorted((folder / part).glob('*.json'))
        if not files:
            missing.append(f'* {title}: `make evidence PARTS={part}`')
            continue
        paragraphs += [f'## {title}', text]
        for file in files:
            result = json.loads(file.read_text(encoding='utf-8'))
            if part in TRAININGS:
                paragraphs += training_paragraphs(file.stem, result, page)
            else:
                content = outcome_table(result) if part == 'tests' else markdown(result)
                paragraphs += [f'**{file.stem}**', f'```bash\nmake evidence PARTS={part}\n```', content]
    paragraphs += ['## Not run', '\n'.join(missing)]
    page.write_text('\n\n'.join(paragraphs) + '\n', encoding='utf-8')


def outcome_table(result: dict[str, Any]) -> str:
    rows = [[f'`{name}`', *counts.values()] for name, counts in result['tests'].items()]
    totals = ['all', *(sum(row[i] for row in rows) for i in (1, 2, 3))]
    return f'{provenance(result)}\n\n{table(["test", "passed", "failed", "skipped"], [*rows, totals])}'


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ['---', *['---:'] * (len(header) - 1)], *rows]
    return '\n'.join(f'| {" | ".join(map(str, line))} |' for line in lines)


def training_paragraphs(name: str, result: dict[str, Any], page: Path) -> list[str]:
    recipe, metrics = result['recipe'], list(result['rows'][0]['last'])
    rows = sorted(result['rows'], key=lambda row: -row['last'][metrics[0]])
    lines = []
    for row in rows:
        scores = [text(row['last'][m]) + (f' ({text(row["tested"][m])})' if 'tested' in row else '') for m in metrics]
        lines.append([row['model'], row['parameters'], row['gmacs'], *scores, row['gpu_mb'] or ''])
    header = ['', 'parameters (M)', 'GMACs', *metrics, 'GPU memory (MB)']
    if not any(row['gpu_mb'] for row in rows):
        header, lines = header[:-1], [line[:-1] for line in lines]
    part, device = name.partition('_')[0], name.rpartition('_')[2]
    models, size = ' '.join(row['model'] for row in result['rows']), recipe['size'].replace('x', ' ')
    options = f'--only {recipe["data"]} --epochs {recipe["epochs"]} --img-scale {size} --models {models}'
    plot = page.with_name(f'evidence_{name}.png')
    draw_curves(result, metrics[0], plot)
    jobs = f', {recipe["jobs"]} simultaneous training runs on one device' if recipe['jobs'] > 1 else ''
    return [
        f'**{HEADS[recipe["data"]]}**',
        f'```bash\nmake evidence PARTS={part} DEVICE={device} ARGS="{options}"\n```',
        f'{recipe["epochs"]} epochs of {recipe["images"]} images, {recipe["size"]}, batch {recipe["batch"]}, '
        f'{recipe["precision"]}, {recipe["heads"]} heads, seed {recipe["seed"]}{jobs}. {provenance(result)}',
        table(header, lines),
        f'![{metrics[0]} over the iterations]({plot.name})',
    ]


def text(score: float) -> str:
    return f'{score:.1f}' if score > 1 else f'{score:.3f}'


def draw_curves(result: dict[str, Any], metric: str, file: Path) -> None:
    figure = Figure(figsize=(8, 5), layout='constrained')
    ax = figure.subplots()
    for row in result['rows']:
        steps, values = zip(*((point['step'], point[metric]) for point in row['curve']), strict=True)
        style = '-' if ':' in row['model'] else '--'  # peers are dashed
        ax.plot(steps, values, style, marker='.', label=f'{row["model"]} {text(values[-1])}')
    ax.set_xlabel('epoch' if result['recipe']['data'] == 'coco' else 'iteration')
    ax.set_ylabel(metric)
    ax.legend(fontsize=9)
    ax.grid(alpha=0.3)
    ax.spines[['top', 'right']].set_visible(False)
    figure.savefig(file, dpi=110)


def main() -> None:
    args = read_arguments()
    steps = [step for step in steps_of(args) if not args.only or step.name in args.only]
    if args.dry_run:
        print(*(shlex.join(step.command) for step in steps), sep='\n')
        return
    outcomes = []
    for step in [] if args.page_only else steps:
        outcomes.append(run(step, args.device))
        print(f'| {step.part} | {step.name} | {outcomes[-1]} |', flush=True)
    page = args.out / 'evidence.md' if args.toy else ROOT / 'docs' / 'evidence.md'
    write_page(args.results, page)
    print(f'{page} is written from {args.results}.')
    sys.exit(any(outcome.startswith('failed') for outcome in outcomes))


if __name__ == '__main__':
    main()
