"""The benchmarks run, at toy size; their numbers are not judged here."""

import json
import math
import re
import shutil
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from mlp_dense.config.reading import read_config
from support.configs import ROOT, thin
from support.tools import load

TOY = ['--size', '64x96', '--rounds', '2', '--threads', '1', '--device', 'cpu']
PAGE = (ROOT / 'docs' / 'performance.md').read_text(encoding='utf-8')
KEYS = dict(over_floor='/ floor', over_ours='/ ours', img_s='img/s', gmacs='GMACs')
FEW = ['--arch', 'HireMLP:tiny', 'CycleMLP:b1']
FEW_PROPOSALS = ['model.test_cfg.rpn.max_per_img=20', 'model.train_cfg.rcnn.sampler.num=16']


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'benchmarks')
    import report

    return report


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a benchmark as its command line would; returns what it prints."""

    def run(name: str, *options: str) -> str:
        monkeypatch.setattr(sys, 'argv', [name, *TOY, *options])
        load(ROOT / 'benchmarks' / f'{name}.py').main()
        return ''.join(capsys.readouterr())

    return run


def rows_of(folder: Path, printed: str) -> list[dict]:
    """The rows that a benchmark wrote, of which each has the numbers that its kind has."""
    assert 'loaded' not in printed
    assert next(folder.glob('*.png')).stat().st_size > 10_000
    rows = json.loads(next(folder.glob('*.json')).read_text())['rows']
    for row in rows:
        assert row['kind'] in printed and row['model'] in printed
        numbers = [row['ms'], row['img_s'], row['gmacs']]
        numbers += row['over'].values() if row['kind'] == 'peer' else [row['over_floor'], row['over_ours']]
        numbers += [] if row['kind'] == 'floor' else [row['bytes']]
        assert all(math.isfinite(number) and number > 0 for number in numbers), row
    return rows


def kinds(rows: list[dict], model: str) -> set[str]:
    return {row['kind'] for row in rows if row['model'] == model}


@pytest.mark.slow
@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        ([], {'ours', 'fused', 'published', 'floor'}),
        (['--train', '--no-peers', *FEW], {'ours', 'with_cp', 'published', 'floor'}),
        (['--dtype', 'bf16', '--channels-last', *FEW], {'ours', 'fused', 'fp32', 'floor'}),
    ],
    ids=['inference', 'training', 'bf16'],
)
def test_backbones(run, report, tmp_path, options, expected):
    rows = rows_of(tmp_path, run('backbones', '--out', str(tmp_path), *options))
    command = ' '.join(['python benchmarks/backbones.py', *TOY, '--out', str(tmp_path), *options])
    page = tmp_path / 'page.md'
    page.write_text(f'```bash\n{command}\n```\n\n<!-- table -->\n<!-- end -->\n')
    assert 'written from' in report.write_tables(page, tmp_path)[0]
    text = page.read_text()
    assert all(f'| {row["kind"]} | {row["ms"]:.1f} ± ' in text for row in rows) and ', torch ' in text
    assert kinds(rows, 'CycleMLP:b1') == expected
    assert kinds(rows, 'HireMLP:tiny') == expected | {'published'}
    assert kinds(rows, 'ResNet-50') == (set() if '--no-peers' in options else {'peer'})


@pytest.mark.slow
@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (['--models', 'hire_mlp_tiny'], {'ours', 'fused', 'published', 'floor', 'peer'}),
        (['--models', 'cycle_mlp_b1', '--train', '--no-peers'], {'ours', 'with_cp', 'published', 'floor'}),
    ],
    ids=['inference', 'training'],
)
def test_detectors(monkeypatch, run, tmp_path, options, expected):
    def read_thin(file, changes) -> Config:
        cfg = read_config(file, changes)
        thin(cfg)
        return cfg

    monkeypatch.setattr('mlp_dense.config.reading.read_config', read_thin)
    rows = rows_of(tmp_path, run('detectors', '--out', str(tmp_path), *options, '--cfg-options', *FEW_PROPOSALS))
    for case in ('mask_rcnn 64x96', 'upernet 64x96'):
        assert {row['kind'] for row in rows if row['case'] == case} == expected


@pytest.mark.slow
def test_designs(monkeypatch, capsys, shapes, tmp_path):
    monkeypatch.syspath_prepend(ROOT / 'benchmarks')
    command = ['designs', '--designs', 'sparse_mlp', '--seeds', '0', '--budget', '0.005', '--jobs', '2']
    results = tmp_path / 'designs.json'
    command += ['--data-root', str(shapes), '--out', str(tmp_path), '--results', str(results)]
    monkeypatch.setattr(sys, 'argv', command)
    for _ in range(2):  # the second time everything is read
        load(ROOT / 'benchmarks' / 'designs.py').main()
        printed = capsys.readouterr().out
        assert '| design | blocks | box mAP | mask mAP | mIoU |' in printed and '| Sparse-MLP | last | ' in printed
        shutil.rmtree(tmp_path / 'detection', ignore_errors=True)
    metrics = json.loads(results.read_text())
    assert metrics.keys() == {'detection/sparse_mlp_last_1_0', 'segmentation/sparse_mlp_last_5_0'}
    assert 0 < metrics['segmentation/sparse_mlp_last_5_0']['mIoU'] < 100
    assert results.with_suffix('.png').stat().st_size > 10_000


@pytest.mark.parametrize(('name', 'page'), [('designs', 'fixed_grids'), ('transfer', 'classification')])
def test_table_is_that_of_the_results(monkeypatch, capsys, tmp_path, name, page):
    monkeypatch.syspath_prepend(ROOT / 'benchmarks')
    page = (ROOT / 'docs' / f'{page}.md').read_text(encoding='utf-8')
    (command,) = re.findall(rf'python benchmarks/({name}\.py .*)', page)
    results = shutil.copy(ROOT / 'docs' / f'{name}.json', tmp_path)
    monkeypatch.setattr(sys, 'argv', [*command.split(), '--results', str(results)])
    monkeypatch.setattr('subprocess.run', None)  # nothing is trained
    load(ROOT / 'benchmarks' / f'{name}.py').main()
    table = capsys.readouterr().out.partition('\n\n')[0].strip()
    assert table[table.index('|') :] in page


@pytest.mark.slow
def test_operators(run, tmp_path):
    printed = run('operators', '--out', str(tmp_path))
    rows = json.loads(next(tmp_path.glob('*.json')).read_text())['rows']
    assert {'ours'} <= {row['kind'] for row in rows} <= {'ours', 'torchvision', 'mmcv'}
    assert {row['model'] for row in rows if row['kind'] == 'ours'} == {row['model'] for row in rows}
    assert all(row['ms'] > 0 and row['model'] in printed for row in rows) and 'Mask R-CNN' in printed


@pytest.mark.slow
def test_deploy(monkeypatch, run, tmp_path):
    pytest.importorskip('onnxscript', reason="onnxscript of the extra 'export' is not installed")

    def read_thin(file, changes) -> Config:
        cfg = read_config(file, changes)
        thin(cfg)
        cfg.model.backbone.arch = dict(cfg.model.backbone.arch, depths=(1, 1, 1, 1))
        return cfg

    monkeypatch.setattr('mlp_dense.config.reading.read_config', read_thin)
    wanted = ['ours', 'bf16', 'onnxruntime', 'int8']
    config = ['--configs', 'configs/segmentation/cycle_mlp_upernet_shapes.py', '--kinds', *wanted]
    printed = run('deploy', '--out', str(tmp_path), *config)
    rows = json.loads(next(tmp_path.glob('*.json')).read_text())['rows']
    assert [row['kind'] for row in rows] == wanted and 'quantized by onnxruntime' in printed
    assert all(row['ms'] > 0 and row['gmacs'] > 0 for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize('mode', [[], ['--train']])
def test_shares(run, mode):
    printed = run('shares', '--arch', 'WaveMLP:t_dw', *mode)
    header, _, row = (line for line in printed.splitlines() if line.startswith('|'))
    groups, cells = (line.strip('| ').split(' | ')[1:] for line in (header, row))
    cells = dict(zip(groups, map(float, cells), strict=True))
    total = cells.pop('all')
    assert total > 0 and sum(cells.values()) == pytest.approx(total, abs=0.05)
    assert cells['waves'] > 0 and cells['depthwise'] > 0


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
def test_what_cannot_run_is_said_in_a_sentence(run, capsys, name, options, said):
    with pytest.raises(SystemExit) as error:
        run(name, *options)
    assert error.value.code == 2 and said in capsys.readouterr().err


def results_of(page: str) -> list[dict]:
    """The results that a page was written from, in the digits that it shows."""
    results = []
    for command, text in re.findall(
        r'```bash\n([^\n]+)\n```\n\n<!-- table -->\n(.*?)\n\n<!-- end -->', page, re.DOTALL
    ):
        environment, *parts = text.split('\n\n')
        tables = [part.splitlines() for part in parts if part.startswith('|')]
        rows = []
        for header, _, *lines in tables:
            case, _, *columns = (cell.strip() for cell in header[1:-1].split('|'))
            for line in lines:
                model, kind, *cells = (cell.strip() for cell in line[1:-1].split('|'))
                shown = dict(zip(columns, cells, strict=True))
                ms, spread_ms = map(float, shown.pop('ms').split(' ± '))
                row = dict(case=case, model=model or rows[-1]['model'], kind=kind, ms=ms, spread_ms=spread_ms)
                numbers = {name: float(text) for name, text in shown.items() if text}
                row |= {key: numbers.get(name) for key, name in KEYS.items()}
                row['bytes'] = numbers['MB'] * 1e6 if 'MB' in numbers else None
                rows.append(row)
        notes = [part for part in parts if not part.startswith('|')]
        versions = dict(pair.split(' ', 1) for pair in environment.split(', '))
        results.append(dict(command=command, environment=versions, notes=notes, rows=rows))
    return results


def write_results(folder: Path, results: list[dict]) -> None:
    for i, result in enumerate(results):
        (folder / f'{i}.json').write_text(json.dumps(result))
        (folder / f'{i}.png').write_bytes(b'a chart')


def test_page_is_reproduced_from_its_results(report, tmp_path):
    page = tmp_path / 'page.md'
    page.write_text(PAGE.replace('| ours |', '| theirs |'), encoding='utf-8')
    results = results_of(PAGE)
    others = sum(PAGE.count(f'python benchmarks/{name}.py') for name in ('report', 'shares'))
    assert len(results) == PAGE.count('<!-- table -->') == PAGE.count('python benchmarks/') - others
    write_results(tmp_path, results)
    said = report.write_tables(page, tmp_path)
    assert said == [f'written from {tmp_path / f"{i}.json"}: {result["command"]}' for i, result in enumerate(results)]
    assert page.read_text(encoding='utf-8') == PAGE
    assert page.with_suffix('.png').read_bytes() == b'a chart'


def test_table_without_a_result_stays(report, tmp_path):
    page = tmp_path / 'page.md'
    page.write_text(PAGE, encoding='utf-8')
    *_, last = results_of(PAGE)
    last['rows'][0]['ms'] = 1234.5
    write_results(tmp_path, [last, {'title': 'of an older version, without its command'}])
    *missing, written = report.write_tables(page, tmp_path)
    assert all('its table stays: python benchmarks/' in line for line in missing)
    assert written == f'written from {tmp_path / "0.json"}: {last["command"]}'
    (changed,) = set(page.read_text(encoding='utf-8').splitlines()) - set(PAGE.splitlines())
    assert ' 1234.5 ± ' in changed
    assert not page.with_suffix('.png').exists()
