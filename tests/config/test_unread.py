"""Misspelled settings that no constructor refuses are errors with their place; others raise no false alarm."""

import sys

import pytest

from mlp_dense import load_model
from mlp_dense.config.config_file import read_config
from mlp_dense.config.unread import check_unread
from mlp_dense.config.validation import check_settings
from mlp_dense.errors import UserError
from support.configs import CLASSIFIERS, CONFIGS, DETECTION, SEGMENTATION


@pytest.mark.parametrize(
    'base, option, known',
    [
        (DETECTION, 'model.test_cfg.rcnn.score_thrr=0.5', 'score_thr'),
        (DETECTION, 'model.test_cfg.rpn.nms_pree=500', 'nms_pre'),
        (DETECTION, 'model.test_cfg.rcnn.nms.iou_treshold=0.5', 'iou_threshold'),
        (DETECTION, 'model.train_cfg.rcnn.pos_wieght=1', 'pos_weight'),
        (DETECTION, 'train_dataloader.dataset.filter_cfg.filter_emtpy_gt=False', 'filter_empty_gt'),
        (DETECTION, 'test_dataloader.dataset.metainfo.klasses=[]', 'classes'),
        (DETECTION, 'optim_wrapper.clip_grad.max_nrm=1', 'max_norm'),
        (SEGMENTATION, 'model.test_cfg.cropsize=[64,64]', 'crop_size'),
        (SEGMENTATION, 'optim_wrapper.paramwise_cfg.norm_decay_multt=0', 'norm_decay_mult'),
        (SEGMENTATION, 'env_cfg.cudnn_bechmark=True', 'cudnn_benchmark'),
    ],
)
def test_misspelled_setting_is_refused(base, option, known, tmp_path):
    path, _, value = option.partition('=')
    *parents, key = path.split('.')
    child = tmp_path / 'child.py'
    nested = f'{{{key!r}: {value}}}'
    for parent in reversed(parents[1:]):
        nested = f'{{{parent!r}: {nested}}}'
    child.write_text(f'_base_ = {base!r}\n{parents[0]} = {nested}\n')
    for cfg in (read_config(base, [option]), read_config(child)):
        for check in (check_settings, lambda cfg: load_model(cfg, None, 'cpu')):
            with pytest.raises(UserError, match=f'{path}: no code reads this setting; did you mean {known}'):
                check(cfg)


def test_misspelled_section_of_a_config_is_refused(tmp_path):
    child = tmp_path / 'child.py'
    child.write_text(f'_base_ = {DETECTION!r}\noptim_wraper = dict(clip_grad=None)\nmy_variable = 1\n')
    with pytest.raises(UserError, match='optim_wraper: no code reads this setting; did you mean optim_wrapper'):
        check_unread(read_config(child))


def test_log_processor_is_checked_by_its_constructor(shapes, tmp_path, capsys):
    from support.tools import call

    arguments = [DETECTION, '--data-root', shapes, '--work-dir', tmp_path]
    assert call('train', *arguments, '--cfg-options', 'log_processor.window_sze=5') == 2
    assert 'log_processor: ' in capsys.readouterr().err


def test_unknown_setting_without_a_similar_one_is_a_warning(log_lines):
    check_unread(read_config(DETECTION, ['model.test_cfg.rcnn.zyxw_qqq=1']))
    assert log_lines == ['model.test_cfg.rcnn.zyxw_qqq: no code reads this setting.']


def test_settings_that_own_code_reads_are_accepted(tmp_path, monkeypatch, log_lines):
    """A module of custom_imports, or a neighbour in its package, reads them."""
    package = tmp_path / 'own_heads_of_a_test'
    package.mkdir()
    (package / '__init__.py').touch()
    (package / 'head.py').write_text('from . import helper')
    (package / 'helper.py').write_text('def run(cfg): return cfg.score_thrr')
    monkeypatch.syspath_prepend(str(tmp_path))
    child = tmp_path / 'child.py'
    imports = "custom_imports = dict(imports=['own_heads_of_a_test.head'])"
    child.write_text(f'_base_ = {DETECTION!r}\n{imports}\nmodel = dict(test_cfg=dict(rcnn=dict(score_thrr=0.5)))\n')
    check_unread(read_config(child))
    assert log_lines == []
    for name in [name for name in sys.modules if name.startswith(package.name)]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize('file', [*CONFIGS, *CLASSIFIERS], ids=lambda file: file.stem)
def test_configs_of_this_project_raise_no_alarm(file, log_lines):
    check_unread(read_config(file))
    assert log_lines == []
