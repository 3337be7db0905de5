"""What docs/evidence.md rests on runs, at toy size, and the page is that of its results."""

import json
import os
import re
import shutil
import sys
import time
from pathlib import Path

import pytest

from support.configs import ROOT
from support.tools import load

FOLDER = ROOT / 'benchmarks' / 'evidence'
PAGE = ROOT / 'docs' / 'evidence.md'
NEEDS = dict(camvid='camvid', coco='coco_tiny')  # data that is genuine


@pytest.fixture
def modules(monkeypatch):
    for folder in (ROOT / 'benchmarks', FOLDER):
        monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    before = os.environ.get('PYTHONPATH', '')
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join(filter(None, (str(ROOT), before))))


@pytest.fixture
def evidence(modules, monkeypatch, capsys, tmp_path):
    """Calls the command line with results in `tmp_path`; returns what it prints, and its exit status."""

    def call(*arguments: str) -> tuple[str, object]:
        folders = ['--out', str(tmp_path / 'out'), '--results', str(tmp_path / 'results')]
        monkeypatch.setattr(sys, 'argv', ['evidence', *arguments, '--device', 'cpu', '--toy', *folders])
        with pytest.raises(SystemExit) as status:
            load(FOLDER / '__main__.py').main()
        return ''.join(capsys.readouterr()), status.value.code

    return call


@pytest.mark.slow
@pytest.mark.parametrize('part', ['tests', 'operators', 'backbones', 'detectors', 'camvid', 'coco'])
def test_part_runs(evidence, request, tmp_path, part):
    data = request.getfixturevalue('shared') / 'data' / NEEDS[part] if part in NEEDS else None
    printed, status = evidence(part, *([f'--{part}', str(data)] if data else []))
    logs = '\n'.join(file.read_text()[-2000:] for file in (tmp_path / 'out' / 'logs').glob('*.log'))
    assert status == 0 and '| done in ' in printed, printed + logs
    results = list((tmp_path / 'results' / part).glob('*.json'))
    assert results and all(file.stem.endswith('_cpu') for file in results)
    assert all(json.loads(file.read_text())['environment']['torch'] for file in results)
    page = (tmp_path / 'out' / 'evidence.md').read_text()
    assert page.count('Not run yet.') == 5
    for link in re.findall(r'\]\((evidence_\w+\.png)\)', page):
        assert (tmp_path / 'out' / link).stat().st_size > 10_000
    if part == 'tests':
        (result,) = results
        tests = json.loads(result.read_text())['tests']
        assert tests and all(counts['failed'] == 0 for counts in tests.values())
    assert '| there already |' in evidence(part)[0]


def test_failure_is_said_and_stops_nothing(evidence, monkeypatch):
    import plan

    failing = plan.Step('one', [[sys.executable, '-c', 'raise SystemExit(3)']])
    silent = plan.Step('two', [[sys.executable, '-c', '']])
    monkeypatch.setitem(plan.PARTS, 'operators', lambda args: [failing, silent])
    printed, status = evidence('operators')
    assert status == 1 and '| one | failed, see ' in printed and '| two | failed: no result, see ' in printed
    printed, _ = evidence('operators', '--limit', '0')
    assert '| one | not run: the time of the part is over |' in printed


def test_what_takes_too_long_is_ended_with_what_it_started(evidence, monkeypatch, tmp_path):
    import plan

    command = ['sh', '-c', 'sleep 600 & echo $!; wait']
    monkeypatch.setitem(plan.PARTS, 'operators', lambda args: [plan.Step('long', [command])])
    printed, status = evidence('operators', '--limit', '0.03')
    assert status == 1 and '| long | failed: not done in time, see ' in printed
    child = int((tmp_path / 'out' / 'logs' / 'long.log').read_text())
    with pytest.raises(ProcessLookupError):
        for _ in range(100):  # until init has taken notice
            os.kill(child, 0)
            time.sleep(0.1)


def test_result_that_cannot_be_read_is_said(evidence, monkeypatch, tmp_path):
    import plan

    command = [sys.executable, '-c', '']
    monkeypatch.setitem(plan.PARTS, 'operators', lambda args: [plan.Step('none', [command], plan.merge)])
    printed, status = evidence('operators')
    assert status == 1 and '| none | failed: ' in printed and (tmp_path / 'out' / 'evidence.md').exists()


def test_data_that_is_missing_is_named(evidence, tmp_path):
    printed, status = evidence('coco', '--coco', str(tmp_path / 'nowhere'))
    assert status == 1 and '| coco | failed, see ' in printed
    assert 'nowhere: there is no such folder' in (tmp_path / 'out' / 'logs' / 'coco.log').read_text()


def test_unknown_part(evidence):
    printed, status = evidence('operators', '--only', 'nothing')
    assert status == '--only nothing: there are operators.'
    printed, status = evidence('backbone')
    assert status == 2 and 'backbone: the parts are tests, operators, backbones, detectors, camvid, coco.' in printed


def test_page_is_that_of_the_results(modules, tmp_path):
    page = load(FOLDER / 'page.py')
    shutil.copytree(ROOT / 'docs' / 'evidence', tmp_path / 'evidence')
    page.write_page(tmp_path / 'evidence', tmp_path / 'evidence.md')
    assert (tmp_path / 'evidence.md').read_text(encoding='utf-8') == PAGE.read_text(encoding='utf-8')
    plots = {file.name for file in tmp_path.glob('*.png')}
    assert plots == {Path(file).name for file in (ROOT / 'docs').glob('evidence_*.png')}
