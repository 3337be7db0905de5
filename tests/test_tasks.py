"""A new task is one row of the table and one module of reports: nothing else in the package has to change."""

import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from mmengine.config import Config

from mlp_dense import tasks
from mlp_dense.config.config_file import enter_scope
from mlp_dense.errors import NotInstalledError, UserError
from mlp_dense.outputs import replacing
from mlp_dense.reports.making import make_report
from mlp_dense.reports.results import Results, read_results
from mlp_dense.tasks import DETECTION, SEGMENTATION, TASKS, task_of
from mlp_dense.training.setup import for_test, is_exported, run_exported
from support.configs import DETECTION as CONFIG


@pytest.fixture
def keypoints(monkeypatch) -> tasks.Task:
    """Add a row for a task that does not exist."""
    row = replace(
        DETECTION,
        name='keypoints',
        scope='mmkeypoints',
        package='json',
        main_metric='PCK',
        dump='DumpKeypoints',
        dumped_as=('.npz',),
        field='keypoints',
        drawing='draw_keypoints',
        exported='ExportedKeypoints',
        keep_results=lambda metrics, folder: [*metrics, dict(type='KeepKeypoints', folder=str(folder))],
    )
    monkeypatch.setitem(TASKS, row.scope, row)
    monkeypatch.setattr('mlp_dense.visualization.drawing.draw_keypoints', lambda image, *_, **__: image, raising=False)
    return row


@pytest.fixture
def cfg(keypoints, tmp_path) -> Config:
    cfg = Config.fromfile(CONFIG)
    cfg.default_scope, cfg.custom_hooks, cfg.launcher = keypoints.scope, [], 'none'
    cfg.test_evaluator = dict(type='PCK')
    return cfg


def test_new_task_is_found_by_its_scope(keypoints, cfg):
    assert task_of('mmkeypoints') is keypoints and keypoints.draw(np.zeros(1)).shape == (1,)
    enter_scope(cfg)
    sample = dict(pred_keypoints=[1])
    assert keypoints.labels_of(sample, 'pred') == [1] and keypoints.labels_of(sample, 'gt') is None


def test_new_task_is_tested_with_its_metrics(cfg, tmp_path):
    for_test(cfg, 'weights.pth', out=str(tmp_path / 'out.npz'))
    assert [metric['type'] for metric in cfg.test_evaluator] == ['PCK', 'DumpKeypoints']
    with pytest.raises(UserError, match=r'\.npz'):
        for_test(cfg, 'weights.pth', out=str(tmp_path / 'out.pkl'))


def test_new_task_keeps_results_for_its_report(keypoints, cfg, tmp_path, monkeypatch):
    for_test(cfg, 'weights.pth', report=str(tmp_path / 'report'))
    assert cfg.test_evaluator[-1] == dict(type='KeepKeypoints', folder=str(tmp_path / 'report' / 'results'))
    results = Results('name', 'keypoints', ['a'], None, {}, 'config.py', 'weights.pth', 'images')
    with replacing(tmp_path / 'report') as results.folder:
        results.write()
    assert read_results(tmp_path / 'report').task == 'keypoints'
    module = ModuleType('mlp_dense.reports.keypoints')
    module.report = lambda results, *_: SimpleNamespace(name=results.name)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    written = []
    monkeypatch.setattr(
        'mlp_dense.reports.making.write_report', lambda report, folder: written.append(report) or folder
    )
    make_report(tmp_path / 'report')
    assert written[0].name == 'name'


def test_new_task_runs_exported_models(cfg):
    assert is_exported('model.onnx')
    run_exported(cfg, 'model.onnx', ['a'])
    assert cfg.model['type'] == 'ExportedKeypoints'


def test_missing_package_of_a_task_is_named(monkeypatch):
    monkeypatch.setitem(TASKS, 'mmseg', replace(SEGMENTATION, package='mmseg.absent'))
    with pytest.raises(NotInstalledError, match='mmseg is not installed'):
        enter_scope(Config(dict(default_scope='mmseg')))
    with pytest.raises(UserError, match="default_scope is 'mmpose'; set it to mmdet, mmseg, mlp_dense"):
        task_of('mmpose')
