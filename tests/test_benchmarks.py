"""The benchmarks run, at toy size; their numbers are not judged here."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from support.configs import ROOT

TOY = ['--size', '64x96', '--rounds', '2', '--threads', '1', '--device', 'cpu']
FEW_PROPOSALS = ['model.test_cfg.rpn.max_per_img=20', 'model.train_cfg.rcnn.sampler.num=16']

pytestmark = pytest.mark.slow


def run(name: str, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, f'benchmarks/{name}.py', *TOY, *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def rows_of(folder: Path, done: subprocess.CompletedProcess) -> list[dict]:
    """The rows that a benchmark wrote, of which each has the numbers that its kind has."""
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'loaded' not in done.stdout + done.stderr
    assert next(folder.glob('*.png')).stat().st_size > 10_000
    rows = json.loads(next(folder.glob('*.json')).read_text())['rows']
    for row in rows:
        assert row['kind'] in done.stdout and row['model'] in done.stdout
        numbers = [row['ms'], row['img_s'], row['gmacs']]
        numbers += row['over'].values() if row['kind'] == 'peer' else [row['over_floor'], row['over_ours']]
        numbers += [] if row['kind'] == 'floor' else [row['bytes']]
        assert all(math.isfinite(number) and number > 0 for number in numbers), row
    return rows


def kinds(rows: list[dict], model: str) -> set[str]:
    return {row['kind'] for row in rows if row['model'] == model}


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        ([], {'ours', 'fused', 'plain', 'floor'}),
        (['--train', '--no-peers'], {'ours', 'with_cp', 'plain', 'floor'}),
        (['--dtype', 'bf16', '--channels-last'], {'ours', 'fused', 'fp32', 'floor'}),
    ],
    ids=['inference', 'training', 'bf16'],
)
def test_backbones(tmp_path, options, expected):
    rows = rows_of(tmp_path, run('backbones', '--out', str(tmp_path), *options))
    assert kinds(rows, 'CycleMLP:b1') == expected
    assert kinds(rows, 'HireMLP:tiny') == kinds(rows, 'ASMLP:tiny') == expected | {'plain'}
    assert kinds(rows, 'ResNet-50') == (set() if '--no-peers' in options else {'peer'})


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (['--models', 'hire_mlp_tiny'], {'ours', 'fused', 'plain', 'floor', 'peer'}),
        (['--models', 'cycle_mlp_b1', '--train', '--no-peers'], {'ours', 'with_cp', 'plain', 'floor'}),
    ],
    ids=['inference', 'training'],
)
def test_detectors(tmp_path, options, expected):
    rows = rows_of(tmp_path, run('detectors', '--out', str(tmp_path), *options, '--cfg-options', *FEW_PROPOSALS))
    for case in ('mask_rcnn 64x96', 'upernet 64x96'):
        assert {row['kind'] for row in rows if row['case'] == case} == expected


@pytest.mark.parametrize(
    ('name', 'options', 'said'),
    [
        ('backbones', ['--dtype', 'fp16'], 'fp16 needs --device cuda'),
        ('backbones', ['--arch', 'HireMLP:huge'], 'HireMLP:tiny, HireMLP:small'),
        ('backbones', ['--size', '100x100'], 'multiples of 32'),
        ('detectors', ['--models', 'hire_mlp_huge'], 'hire_mlp_small, hire_mlp_tiny'),
        ('detectors', ['--dtype', 'bf16'], '--heads upernet only'),
    ],
)
def test_what_cannot_run_is_said_in_a_sentence(name, options, said):
    done = run(name, *options)
    assert done.returncode == 2 and said in done.stderr and 'Traceback' not in done.stderr
