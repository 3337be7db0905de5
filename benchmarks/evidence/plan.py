"""The parts of the evidence: which commands they run, in the order of their worth."""

import argparse
import json
import re
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from backbones import SMALLEST
from models import PEERS
from report import environment

ROOT = Path(__file__).parents[2]
CONFIGS = 'hire_mlp_tiny as_mlp_tiny cycle_mlp_b1 wave_mlp_t_dw mlp_mixer_s16 vip_s7 sparse_mlp_s16'.split()
TOY, TOY_ARCHS = '--size 64x96 --rounds 2 --threads 1', ['HireMLP:tiny', 'CycleMLP:b1']


class Step(NamedTuple):
    """A command and the file that its result comes into. Before it `warm_ups` run, all at once, so that what
    torch.compile makes is in its cache."""

    name: str
    command: list[str]
    warm_ups: tuple[list[str], ...] = ()
    collect: Callable[[Path, Path], None] | None = None
    """Makes the result from the folder that the command wrote into; None: the command writes the result itself."""


def written(args: argparse.Namespace, name: str) -> Path:
    """Where the command of a step writes."""
    return args.out / 'written' / name


def python(script: str, *arguments: object) -> list[str]:
    return [sys.executable, *map(str, (ROOT / script, *arguments))]


def tests(args: argparse.Namespace) -> list[Step]:
    folder = written(args, 'tests')
    command = [sys.executable, '-m', 'pytest', str(ROOT / 'tests/cuda'), '-q', '-n', str(args.jobs)]
    command += ['-p', 'no:cacheprovider', '-o', 'filterwarnings=default', f'--junitxml={folder / "junit.xml"}']
    command += ['-k', 'float64'] if args.toy else []
    return [Step('tests', command, collect=lambda folder, result: count_tests(folder, result, args.device))]


def count_tests(folder: Path, result: Path, device: str) -> None:
    """Outcomes of each test, over its parameters, from pytest's file in JUnit's format."""
    found: dict[str, dict[str, int]] = {}
    for case in ElementTree.parse(folder / 'junit.xml').iter('testcase'):
        name = re.sub(r'\[.*', '', case.get('name', ''))
        kinds = {child.tag for child in case} & {'failure', 'error', 'skipped'}
        outcome = 'failed' if kinds - {'skipped'} else 'skipped' if kinds else 'passed'
        counts = found.setdefault(name, dict(passed=0, failed=0, skipped=0))
        counts[outcome] += 1
    write(result, dict(environment=environment(device), tests=found))


def write(file: Path, content: dict) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')


def the_file(folder: Path, result: Path) -> None:
    """The one JSON file that a benchmark wrote into its folder."""
    (file,) = folder.glob('*.json')
    result.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, result)


def benchmark(name: str, script: str, args: argparse.Namespace, *options: object) -> Step:
    toy = TOY.split() if args.toy else ()
    folder = written(args, name)
    command = python(f'benchmarks/{script}.py', '--device', args.device, '--out', folder, *options, *toy)
    return Step(name, command, collect=the_file)


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
            for batch in (16, 1):
                for size in ('800x1280', '512x512'):
                    if batch == 1 and mode:  # BatchNorm needs more than one image; nobody trains so
                        continue
                    name = '_'.join(('train' if mode else 'forward', precision, f'b{batch}', size))
                    own = [*mode, *options, *amp, '--batch-size', batch, '--size', size, '--rounds', 5]
                    own += ['--batch-size', 2, '--arch', *TOY_ARCHS] if args.toy else []
                    own += ['--compile'] if gpu and precision == 'bf16' and batch == 16 else []
                    step = benchmark(name, 'backbones', args, *own)
                    steps.append(step._replace(warm_ups=warm_ups(step, args)) if '--compile' in own else step)
    steps.sort(key=lambda step: ('bf16' not in step.name, 'b16_800' not in step.name))
    return steps[:2] if args.toy else steps


def warm_ups(step: Step, args: argparse.Namespace) -> tuple[list[str], ...]:
    """The same for each model alone: torch.compile takes most of the time, and keeps what it made."""
    command = [*step.command, '--rounds', '1', '--out', str(args.out / 'warm_ups' / step.name)]
    peers = [[*command, '--arch', '--peers', name] for name in PEERS]
    return (*([*command, '--no-peers', '--arch', name] for name in SMALLEST), *peers)


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


def learning(data: str, args: argparse.Namespace) -> list[Step]:
    root = args.camvid if data == 'camvid' else args.coco
    own = ['--data-root', root, '--device', args.device, '--jobs', args.jobs, '--out', args.out / data]
    own += ['--results', args.results / data / f'{data}.json']
    if args.toy:
        toy = '--epochs 1 --images 4 --img-scale 96 72 --batch-size 2 --models HireMLP:tiny'
        own += toy.split()
    for option in ('epochs', 'img_scale', 'models'):
        if value := getattr(args, option):
            own += [f'--{option.replace("_", "-")}', *(value if isinstance(value, list) else [value])]
    return [Step(data, python('benchmarks/evidence/learning.py', data, *own))]


def camvid(args: argparse.Namespace) -> list[Step]:
    return learning('camvid', args)


def coco(args: argparse.Namespace) -> list[Step]:
    return learning('coco', args)


PARTS = dict(tests=tests, operators=operators, backbones=backbones, detectors=detectors, camvid=camvid, coco=coco)
