"""Toy runs of the benchmarks. The tests do not judge times."""

import json
import math
import re
import shlex
import shutil
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from mmengine.config import Config

from mlp_dense import kernels
from mlp_dense.backbones import FAMILIES
from mlp_dense.config.config_file import read_config
from mlp_dense.reports.complexity import count_macs
from support.configs import ROOT, shallow, thin
from support.models import SMALL, image
from support.tools import load

TOY = ['--size', '64x96', '--rounds', '2', '--threads', '1', '--device', 'cpu']
FEW = ['HireMLP:tiny', 'CycleMLP:b1']
OTHERS = ['ASMLP:tiny', 'WaveMLP:t_dw', 'SparseMLP:s16']  # the others on a fixed grid differ in no variant
FEW_PROPOSALS = ['model.test_cfg.rpn.max_per_img=20', 'model.train_cfg.rcnn.sampler.num=16']
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
COMMANDS = sorted(
    {
        command.split(' #')[0]
        for page in PAGES
        for command in re.findall(r'python benchmarks/(\w+\.py[^`\n]*)', page.read_text(encoding='utf-8'))
    }
)


@pytest.fixture
def run(monkeypatch, capsys):
    """Return a function that runs a benchmark as its command line does, and returns the printed text."""

    def run(name: str, *options: str) -> str:
        monkeypatch.setattr(sys, 'argv', [name, *TOY, *options])
        load(ROOT / 'benchmarks' / f'{name}.py').main()
        return ''.join(capsys.readouterr())

    return run


@pytest.fixture
def thin_configs(monkeypatch):
    """Reduce the channels of every config that a benchmark reads, and the blocks to one per stage."""

    def read_thin(file, changes) -> Config:
        cfg = read_config(file, changes)
        thin(cfg)
        cfg.model.backbone.arch = dict(cfg.model.backbone.arch, depths=(1, 1, 1, 1))
        return cfg

    monkeypatch.setattr('mlp_dense.config.config_file.read_config', read_thin)
    return read_thin


def rows_of(folder: Path, printed: str) -> list[dict]:
    """Return the rows that a benchmark wrote, after checking that each has the values of its variant."""
    assert 'loaded' not in printed
    assert next(folder.glob('*.png')).stat().st_size > 10_000
    rows = json.loads(next(folder.glob('*.json')).read_text())['rows']
    for row in rows:
        assert row['variant'] in printed and row['model'] in printed
        values = [row['ms'], row['gmacs'], *([] if row['variant'] == 'floor' else [row['bytes']])]
        assert all(math.isfinite(value) and value > 0 for value in values), row
    return rows


def variants_of(rows: list[dict], model: str) -> set[str]:
    return {row['variant'] for row in rows if row['model'] == model}


@pytest.mark.slow
@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (['--arch', *FEW, *OTHERS, '--rounds', '1'], {'ours', 'reference', 'fused', 'published', 'floor'}),
        (['--train', '--no-peers', '--arch', *FEW], {'ours', 'reference', 'with_cp', 'published', 'floor'}),
        (['--dtype', 'bf16', '--channels-last', '--arch', *FEW], {'ours', 'reference', 'fused', 'fp32', 'floor'}),
    ],
    ids=['inference', 'training', 'bf16'],
)
def test_backbones_write_a_table_into_the_page(run, monkeypatch, tmp_path, options, expected):
    rows = rows_of(tmp_path, run('backbones', '--out', str(tmp_path), *options))
    command = ' '.join(['python benchmarks/backbones.py', *TOY, '--out', str(tmp_path), *options])
    other = '```bash\npython benchmarks/other.py\n```\n\n<!-- table -->\nunchanged\n\n<!-- end -->\n'
    page = tmp_path / 'page.md'
    page.write_text(f'```bash\n{command}\n```\n\n<!-- table -->\n<!-- end -->\n{other}')
    written, unchanged = load(ROOT / 'benchmarks' / 'report.py').write_tables(page, tmp_path)
    assert 'written from' in written and 'unchanged' in unchanged
    text = page.read_text()
    assert all(f'| {row["ms"]:.1f} ± {row["spread_ms"]:.1f} |' in text for row in rows) and ', torch ' in text
    assert text.endswith(other) and page.with_suffix('.png').exists()
    assert variants_of(rows, 'CycleMLP:b1') == expected
    assert variants_of(rows, 'HireMLP:tiny') == expected | {'published'}
    assert variants_of(rows, 'ResNet-50') == (set() if '--no-peers' in options else {'peer'})


@pytest.mark.slow
@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (['--models', 'hire_mlp_tiny'], {'ours', 'fused', 'published', 'floor', 'peer'}),
        (['--models', 'cycle_mlp_b1', '--train', '--no-peers'], {'ours', 'with_cp', 'published', 'floor'}),
    ],
    ids=['inference', 'training'],
)
@pytest.mark.usefixtures('thin_configs')
def test_detectors_run_with_both_heads(run, tmp_path, options, expected):
    rows = rows_of(tmp_path, run('detectors', '--out', str(tmp_path), *options, '--cfg-options', *FEW_PROPOSALS))
    for case in ('mask_rcnn 64x96', 'upernet 64x96'):
        assert {row['variant'] for row in rows if row['case'] == case} == expected


@pytest.mark.slow
def test_designs_train_once_and_print_a_table(monkeypatch, capsys, shapes, tmp_path):
    results = tmp_path / 'designs.json'
    command = ['trainings', 'designs', '--designs', 'sparse_mlp', '--seeds', '0', '--budget', '0.005', '--jobs', '2']
    command += ['--data-root', str(shapes), '--out', str(tmp_path), '--results', str(results)]
    monkeypatch.setattr(sys, 'argv', command)
    for _ in range(2):  # the second time everything is read
        load(ROOT / 'benchmarks' / 'trainings.py').main()
        printed = capsys.readouterr().out
        assert '| design | blocks | box mAP | mask mAP | mIoU |' in printed and '| Sparse-MLP | last | ' in printed
        shutil.rmtree(tmp_path / 'detection', ignore_errors=True)
    metrics = json.loads(results.read_text())
    assert metrics.keys() == {'detection/sparse_mlp_last_1_0', 'segmentation/sparse_mlp_last_5_0'}
    assert 0 < metrics['segmentation/sparse_mlp_last_5_0']['mIoU'] < 100
    assert results.with_suffix('.png').stat().st_size > 10_000


@pytest.mark.slow
def test_operators_run(run, tmp_path):
    printed = run('operators', '--out', str(tmp_path))
    rows = json.loads(next(tmp_path.glob('*.json')).read_text())['rows']
    assert {'ours'} <= {row['variant'] for row in rows} <= {'ours', 'torchvision', 'mmcv'}
    assert {row['model'] for row in rows if row['variant'] == 'ours'} == {row['model'] for row in rows}
    assert all(row['ms'] > 0 and row['model'] in printed for row in rows) and 'Mask R-CNN' in printed


@pytest.mark.slow
def test_deploy_times_exported_files(run, tmp_path, thin_configs, monkeypatch):
    def read_shallow(file, changes) -> Config:
        cfg = thin_configs(file, changes)
        shallow(cfg)
        return cfg

    monkeypatch.setattr('mlp_dense.config.config_file.read_config', read_shallow)
    pytest.importorskip('onnxscript', reason="onnxscript of the extra 'export' is not installed")
    variants = ['ours', 'bf16', 'onnxruntime', 'int8']
    options = ['--configs', 'configs/segmentation/cycle_mlp_upernet_shapes.py', '--kinds', *variants]
    printed = run('deploy', '--out', str(tmp_path), *options)
    rows = json.loads(next(tmp_path.glob('*.json')).read_text())['rows']
    assert [row['variant'] for row in rows] == variants and 'quantized by onnxruntime' in printed
    assert all(row['ms'] > 0 and row['gmacs'] > 0 for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize('mode', [[], ['--train']], ids=['inference', 'training'])
def test_shares_add_up(run, mode):
    printed = run('shares', '--arch', 'WaveMLP:t_dw', *mode)
    header, _, row = (line for line in printed.splitlines() if line.startswith('|'))
    groups, cells = (line.strip('| ').split(' | ')[1:] for line in (header, row))
    ratios = dict(zip(groups, map(float, cells), strict=True))
    total = ratios.pop('all')
    assert total > 0 and sum(ratios.values()) == pytest.approx(total, abs=0.05)
    assert ratios['waves'] > 0 and ratios['depthwise'] > 0


def test_floor_contains_all_products_of_a_network(monkeypatch):
    counting = load(ROOT / 'benchmarks' / 'counting.py')
    monkeypatch.setattr(counting, 'fastest_product', lambda x, weight: None)
    for family in FAMILIES:
        model, x = family(SMALL).eval(), image(1, 3, 64, 96)
        floor = counting.GemmFloor(lambda: model(x), torch.float32, 'cpu', train=False)  # noqa: B023  called at once
        products = sum(left.shape[0] * left.shape[1] * right.shape[0] for left, right in floor.products)
        assert products == round(1e9 * counting.gmacs(lambda: model(x))), family  # noqa: B023
        if family.__name__ != 'SparseMLP':  # its sorting on a CPU has uncounted operators
            assert products == count_macs(lambda: model(x)), family  # noqa: B023


def test_memory_is_measured_with_the_faster_kernels():
    counting, choices = load(ROOT / 'benchmarks' / 'counting.py'), []
    faster = kernels.applies(torch.ones(1))

    def run() -> None:
        choices.append(kernels.applies(torch.ones(1)))
        torch.empty(1000, 1000).sum()
        torch.empty(500, 1000).sum()

    assert 4e6 <= counting.peak_memory(run, 'cpu') < 4.1e6
    assert choices == [faster]


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
        ('backbones', ['--dtype', 'fp16'], 'fp16 needs --device cuda'),
        ('backbones', ['--arch', 'HireMLP:huge'], 'HireMLP:tiny, HireMLP:small'),
        ('backbones', ['--size', '100x100'], 'multiples of 32'),
        ('detectors', ['--models', 'hire_mlp_huge'], 'hire_mlp_small, hire_mlp_tiny'),
        ('detectors', ['--dtype', 'bf16'], 'needs --heads upernet'),
    ],
)
def test_impossible_options_are_refused(run, capsys, name, options, message):
    with pytest.raises(SystemExit) as error:
        run(name, *options)
    assert error.value.code == 2 and message in capsys.readouterr().err


def test_commands_of_the_documents_exist(monkeypatch):
    """A number in a document stands next to the command that prints it."""
    assert len(COMMANDS) > 8
    for command in COMMANDS:
        script, *options = shlex.split(command)
        monkeypatch.setattr(sys, 'argv', [script, *options])
        module = load(ROOT / 'benchmarks' / script)
        if options:
            with patch('torch.set_num_threads'):
                assert module.read_arguments(), command
