"""The benchmark runs, at toy size; its numbers are not judged here."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize('options', [[], ['--train', '--no-peers'], ['--dtype', 'bf16', '--channels-last']])
def test_backbones(tmp_path, options):
    command = [sys.executable, 'benchmarks/backbones.py', '--size', '64x96', '--rounds', '2', '--threads', '1']
    done = subprocess.run(
        [*command, '--out', str(tmp_path), *options], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads(next(tmp_path.glob('*.json')).read_text())['rows']
    assert {row['kind'] for row in rows} >= {'ours', 'floor'}
    for row in rows:
        assert row['ms'] > 0 and math.isfinite(row['ms'])
        if row['kind'] in ('ours', 'plain'):
            assert math.isfinite(row['over_floor']) and row['over_floor'] > 0 and row['bytes'] > 0
