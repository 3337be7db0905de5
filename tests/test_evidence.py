"""Toy runs of the commands behind docs/evidence.md, and the page that is written from the results."""

import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import pytest

from support.configs import ROOT
from support.tools import load
from support.trainings import start, wait

PAGE = ROOT / 'docs' / 'evidence.md'


@pytest.fixture
def evidence(monkeypatch, capsys, tmp_path):
    """Return a function that calls the command line with results in `tmp_path`: the printed text, and the status."""
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    before = os.environ.get('PYTHONPATH', '')
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join(filter(None, (str(ROOT), before))))

    def fork(command: list[str], stdout: IO, stderr: IO, env: dict[str, str]) -> SimpleNamespace:
        """Run a script in a fork of this process, which has imported most of it."""
        script, *options = command[1:]
        folder, log = str(Path(script).parent), Path(stdout.name)
        pid = start(*options, tool=Path(script), log=log, prepare=lambda: sys.path.insert(0, folder), **env)
        return SimpleNamespace(returncode=wait(pid))

    def call(*arguments: str) -> tuple[str, object]:
        folders = ['--out', str(tmp_path / 'out'), '--results', str(tmp_path / 'results')]
        monkeypatch.setattr(sys, 'argv', ['evidence', *arguments, '--device', 'cpu', '--toy', *folders])
        module = load(ROOT / 'benchmarks' / 'evidence.py')
        monkeypatch.setattr(module, 'subprocess', SimpleNamespace(run=fork))
        with pytest.raises(SystemExit) as status:
            module.main()
        return ''.join(capsys.readouterr()), status.value.code

    return call


def write_camvid(root: Path) -> None:
    """Write six images and label maps in CamVid's layout."""
    import cv2
    import numpy as np

    random = np.random.default_rng(0)
    for split in ('train', 'val', 'test'):
        for folder, suffix, shape, top in ((split, 'jpg', (72, 96, 3), 256), (f'{split}annot', 'png', (72, 96), 12)):
            (root / folder).mkdir(parents=True)
            for i in range(2):
                cv2.imwrite(str(root / folder / f'{i}.{suffix}'), random.integers(0, top, shape, dtype=np.uint8))


@pytest.mark.slow
@pytest.mark.parametrize('part', ['backbones', 'camvid'])
def test_part_runs_once_and_fills_the_page(evidence, tmp_path, part):
    write_camvid(tmp_path / 'camvid')
    printed, status = evidence(part, '--camvid', str(tmp_path / 'camvid'))
    logs = '\n'.join(file.read_text()[-2000:] for file in (tmp_path / 'out').glob('*/log.txt'))
    assert status == 0 and '| done in ' in printed, printed + logs
    (result,) = (tmp_path / 'results' / part).glob('*_cpu.json')
    assert json.loads(result.read_text())['environment']['torch']
    page = (tmp_path / 'out' / 'evidence.md').read_text()
    assert page.count('make evidence PARTS=') == 6 and f'PARTS={part}' not in page.partition('## Not run')[2]
    assert '| HireMLP:tiny | ' in page
    assert '| exists |' in evidence(part)[0]


@pytest.mark.slow
def test_failure_is_reported_and_does_not_stop_other_commands(evidence, tmp_path):
    missing = str(tmp_path / 'missing')
    printed, status = evidence('camvid', 'coco', '--camvid', missing, '--coco', missing)
    assert status == 1 and '| camvid | failed, see ' in printed and '| coco | failed, see ' in printed
    assert 'missing: folder not found' in (tmp_path / 'out' / 'coco_cpu' / 'log.txt').read_text()


def test_unknown_names_are_refused(evidence):
    printed, status = evidence('operators', '--only', 'nothing')
    assert status == 2 and '--only nothing: use operators.' in printed
    printed, status = evidence('backbone')
    assert status == 2 and 'backbone: use tests, operators, backbones, detectors, camvid, coco.' in printed


def test_commands_of_a_gpu_are_complete(monkeypatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: True)
    monkeypatch.setattr(sys, 'argv', ['evidence', '--device', 'cuda'])
    module = load(ROOT / 'benchmarks' / 'evidence.py')
    steps = module.steps_of(module.read_arguments())
    assert {step.part for step in steps} == set(module.SECTIONS)
    assert len({step.result for step in steps}) == len(steps)
    assert all((ROOT / 'benchmarks' / Path(step.command[1]).name).exists() for step in steps if step.part != 'tests')


def test_outcomes_of_tests_are_counted(tmp_path):
    module = load(ROOT / 'benchmarks' / 'evidence.py')
    cases = '<testcase name="a[x]"/><testcase name="a[y]"><skipped/></testcase><testcase name="b"><error/></testcase>'
    file = tmp_path / 'junit.xml'
    file.write_text(f'<testsuites><testsuite>{cases}</testsuite></testsuites>')
    counts = module.count_tests(file)
    assert counts == {'a': dict(passed=1, failed=0, skipped=1), 'b': dict(passed=0, failed=1, skipped=0)}
    table = module.outcome_table(dict(environment=dict(cpu='A'), tests=counts))
    assert '| all | 1 | 1 | 1 |' in table


def test_page_is_that_of_the_results(tmp_path):
    module = load(ROOT / 'benchmarks' / 'evidence.py')
    shutil.copytree(ROOT / 'docs' / 'evidence', tmp_path / 'evidence')
    module.write_page(tmp_path / 'evidence', tmp_path / 'evidence.md')
    assert (tmp_path / 'evidence.md').read_text(encoding='utf-8') == PAGE.read_text(encoding='utf-8')
    plots = {file.name for file in tmp_path.glob('*.png')}
    assert plots == {file.name for file in (ROOT / 'docs').glob('evidence_*.png')}
