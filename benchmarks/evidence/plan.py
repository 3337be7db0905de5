"""The parts of the evidence: which commands they run, in the order of their worth."""

import argparse
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from backbones import SMALLEST
from models import PEERS
from report import environment

ROOT = Path(__file__).parents[2]
CONFIGS = ['hire_mlp_tiny', 'as_mlp_tiny', 'cycle_mlp_b1', 'wave_mlp_t_dw', 'mlp_mixer_s16', 'vip_s7', 'sparse_mlp_s16']
TOY, TOY_ARCHS = '--size 64x96 --rounds 2 --threads 1', ['HireMLP:tiny', 'CycleMLP:b1']


class Step(NamedTuple):
    """Commands that run at once, and the result that is made of what they wrote."""

    name: str
    commands: list[list[str]]
    collect: Callable[[Path, Path], None] | None = None
    """Makes the result from the folder below which the commands wrote; None: the command writes the result itself."""


def written(args: argparse.Namespace, name: str) -> Path:
    """Where the commands of a step write."""
    return args.out / 'written' / f'{name}_{args.device}'


def result_file(args: argparse.Namespace, part: str, name: str) -> Path:
    """Where the result of a step belongs."""
    return args.results / part / f'{name}_{args.device}.json'


def python(script: str, *arguments: object) -> list[str]:
    return [sys.executable, *map(str, (ROOT / script, *arguments))]


def tests(args: argparse.Namespace) -> list[Step]:
    folder = written(args, 'tests')
    command = [sys.executable, '-m', 'pytest', str(ROOT / 'tests/cuda'), '-q', '-n', str(args.jobs)]
    command += ['-p', 'no:cacheprovider', '-o', 'filterwarnings=default', f'--junitxml={folder / "junit.xml"}']
    command += ['-k', 'float64'] if args.toy else []
    return [Step('tests', [command], lambda folder, file: count_tests(folder, file, args.device))]


def count_tests(folder: Path, file: Path, device: str) -> None:
    """Outcomes of each test, over its parameters, from pytest's file in JUnit's format."""
    found: dict[str, dict[str, int]] = {}
    for case in ElementTree.parse(folder / 'junit.xml').iter('testcase'):
        name = re.sub(r'\[.*', '', case.get('name', ''))
        kinds = {child.tag for child in case} & {'failure', 'error', 'skipped'}
        outcome = 'failed' if kinds - {'skipped'} else 'skipped' if kinds else 'passed'
        counts = found.setdefault(name, dict(passed=0, failed=0, skipped=0))
        counts[outcome] += 1
    write(file, dict(environment=environment(device), tests=found))


def write(file: Path, content: dict) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')


def merge(folder: Path, file: Path) -> None:
    """The rows of all that benchmarks wrote below a folder, as one result."""
    first, *others = [json.loads(each.read_text(encoding='utf-8')) for each in sorted(folder.rglob('*.json'))]
    for each in others:
        first['rows'] += each['rows']
        first['notes'] += [note for note in each['notes'] if note not in first['notes']]
    write(file, first)


def benchmark(
    name: str, script: str, args: argparse.Namespace, *options: object, each: Sequence[list[str]] = ((),)
) -> Step:
    """A benchmark, or several at once, each with options of its own; only one measures at a time."""
    common = ['--device', args.device, '--lock', args.out / 'lock', *options, *(TOY.split() if args.toy else ())]
    folder = written(args, name)
    commands = [
        python(f'benchmarks/{script}.py', *common, '--out', folder / str(i), *own) for i, own in enumerate(each)
    ]
    return Step(name, commands, merge)


def operators(args: argparse.Namespace) -> list[Step]:
    return [benchmark('operators', 'operators', args)]


def backbones(args: argparse.Namespace) -> list[Step]:
    """Inference in every precision, training as it is done on a GPU: bf16 with AMP, and fp32."""
    gpu = args.device == 'cuda'
    precisions = {
        'bf16': ['--dtype', 'bf16'],
        'fp16': ['--dtype', 'fp16'],
        'tf32': ['--tf32'],
        'fp32': [],
    }
    steps = []
    for mode in ([], ['--train']):
        for precision, options in precisions.items():
            if precision in ('fp16', 'tf32') and not gpu:
                continue
            amp = ['--amp'] if mode and precision in ('bf16', 'fp16') else []
            for batch in (16, 1)[: 1 if mode else 2]:  # BatchNorm is not trained with one image
                for size in ('800x1280', '512x512'):
                    name = '_'.join(('train' if mode else 'forward', precision, f'b{batch}', size))
                    own = [*mode, *options, *amp, '--batch-size', batch, '--size', size, '--rounds', 3 if mode else 5]
                    each = [[]]
                    # torch.compile takes long: each model by itself, and trained ones together in the GPU's memory.
                    if gpu and (precision, batch) == ('bf16', 16) and not (mode and size == '800x1280'):
                        own += ['--compile']
                        each = [['--no-peers', '--arch', arch] for arch in SMALLEST]
                        each += [['--arch', '--peers', peer] for peer in PEERS]
                    own += ['--batch-size', 2, '--arch', *TOY_ARCHS] if args.toy else []
                    steps.append(benchmark(name, 'backbones', args, *own, each=each))
    steps.sort(key=lambda step: ('bf16' not in step.name, 'b16_800' not in step.name))
    return steps[:2] if args.toy else steps


def detectors(args: argparse.Namespace) -> list[Step]:
    steps = []
    for head in ('mask_rcnn', 'upernet'):
        for mode in ([], ['--train']):
            own = [*mode, '--heads', head, '--rounds', 3]
            own += ['--dtype', 'fp16'] if args.device == 'cuda' else []
            own += ['--models', *(CONFIGS[:1] if args.toy else CONFIGS)]
            if args.toy and head == 'mask_rcnn':
                own += ['--cfg-options', 'model.test_cfg.rpn.max_per_img=20', 'model.train_cfg.rcnn.sampler.num=16']
            steps.append(benchmark(f'{head}_{"train" if mode else "forward"}', 'detectors', args, *own))
    return steps[:1] if args.toy else steps


def camvid(args: argparse.Namespace) -> list[Step]:
    """Both heads; then, once Semantic FPN has shown which backbone is the best, that one for ten times as long."""
    steps = [learning(name, args.camvid, args) for name in ('camvid', 'camvid_upernet')]
    file = result_file(args, 'camvid', 'camvid')
    if file.exists() and not args.toy:
        result = json.loads(file.read_text(encoding='utf-8'))
        best = max(result['rows'], key=lambda row: row['last']['mIoU'])['model']
        longer = ['--epochs', 10 * result['recipe']['epochs'], '--models', best]
        steps.append(learning('camvid', args.camvid, args, 'camvid_long', longer))
    return steps


def coco(args: argparse.Namespace) -> list[Step]:
    return [learning('coco', args.coco, args)]


def learning(data: str, root: Path, args: argparse.Namespace, name: str = '', options: Sequence[object] = ()) -> Step:
    part, name = data.partition('_')[0], name or data
    own = ['--data-root', root, '--device', args.device, '--jobs', args.jobs, '--out', args.out / name]
    own += ['--results', result_file(args, part, name)]
    own += ['--thin'] if args.device == 'cpu' else []
    if args.toy:
        own += [
            '--epochs',
            '1',
            '--images',
            '4',
            '--img-scale',
            '96',
            '72',
            '--batch-size',
            '2',
            '--models',
            'HireMLP:tiny',
        ]
    for option in ('epochs', 'img_scale', 'models'):
        if value := getattr(args, option):
            own += [f'--{option.replace("_", "-")}', *(value if isinstance(value, list) else [value])]
    return Step(name, [python('benchmarks/evidence/learning.py', data, *own, *options)])


PARTS = dict(tests=tests, operators=operators, backbones=backbones, detectors=detectors, camvid=camvid, coco=coco)
