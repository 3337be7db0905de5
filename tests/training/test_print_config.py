"""`tools/train.py --print-config` prints the config that runs: other training scripts train identically with it."""

import pytest
from mmengine.config import Config

from support.configs import DETECTION, SEGMENTATION
from support.tools import call, run
from support.trainings import SHORT, assert_equal_states, foreign_script, start, wait, write_config

CASES = {'mmdet': (DETECTION, 'epoch_1.pth'), 'mmseg': (SEGMENTATION, 'iter_4.pth')}


@pytest.mark.slow
@pytest.mark.parametrize('package', CASES)
def test_foreign_script_trains_printed_config_identically(on_cpu, package, shapes, tmp_path, capsys):
    base, final = CASES[package]
    file = write_config(base, tmp_path, shapes, **SHORT[base])
    options = [file, '--work-dir', tmp_path / 'ours', '--seed', 5, '--batch-size', 4]
    assert call('train', *options, '--print-config') == 0
    assert not (tmp_path / 'ours').exists()
    printed = tmp_path / 'printed.py'
    printed.write_text(capsys.readouterr().out)
    cfg = Config.fromfile(printed)
    assert cfg.runner_type == 'mlp_dense.DenseRunner' and cfg.optim_wrapper.type == 'OptimWrapper'
    assert cfg.randomness.seed == 5 and cfg.train_dataloader.batch_size == 4

    assert call('train', *options) == 0
    where = [printed, '--work-dir', tmp_path / 'theirs']
    if package == 'mmdet':  # a new process, which imports only what the config names
        run(foreign_script(package), *where)
    else:
        pid = start(*where, tool=foreign_script(package), log=tmp_path / 'log')
        assert wait(pid) == 0, (tmp_path / 'log').read_text()
    assert_equal_states(tmp_path / 'ours' / final, tmp_path / 'theirs' / final)


def test_foreign_config_runs_as_written(shapes, tmp_path, capsys, monkeypatch):
    """Only a sentence of the log mentions exact resume."""
    file = write_config(SEGMENTATION, tmp_path, shapes)
    cfg = Config.fromfile(file)
    cfg.pop('runner_type')
    cfg.train_cfg.type = 'IterBasedTrainLoop'
    cfg.default_hooks.checkpoint.type = 'CheckpointHook'
    cfg.dump(file)
    logged: list[str] = []
    monkeypatch.setattr('mlp_dense.training.setup.print_log', lambda text, **_: logged.append(text))
    assert call('train', file, '--work-dir', tmp_path / 'run', '--print-config') == 0
    assert any('This config does not resume exactly: inherit _base_/exact_training.py' in text for text in logged)
    (tmp_path / 'printed.py').write_text(capsys.readouterr().out)
    printed = Config.fromfile(tmp_path / 'printed.py')
    assert printed.train_cfg.type == 'IterBasedTrainLoop' and printed.default_hooks.checkpoint.type == 'CheckpointHook'
