"""A config or an option that cannot be read raises one sentence that names the place and the remedy."""

import pytest

from mlp_dense.config.config_file import first_line, read_config
from mlp_dense.errors import UserError
from support.configs import DETECTION, ROOT


@pytest.mark.parametrize(
    ('option', 'expected'),
    [
        ('trian_cfg.max_epochs=1', "the config has no 'trian_cfg'"),
        ('no_equals_sign', 'pass KEY=VALUE pairs'),
        ('train_dataloader.dataset.pipeline.9.prob=1', 'cannot be applied'),
        ('model.backbone.out_indices=[0,1', 'cannot be read'),
    ],
)
def test_invalid_option_is_refused(option, expected):
    with pytest.raises(UserError, match=expected):
        read_config(DETECTION, [option])


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('lr = 1\nmodel = dict(type=\n', r"line 2, cannot be read: SyntaxError: '\(' was never closed\."),
        ('lr = 1\n\nlr = lr / 0\n', 'line 3, cannot be read: ZeroDivisionError: division by zero'),
        ('import nowhere\nmodel = nowhere.Model\n', 'line 1 for No module'),
        ("_base_ = './missing.py'\n", 'missing.py'),
        ("custom_imports = dict(imports=['nowhere'])\n", 'custom_imports cannot be imported: Failed to import nowhere'),
        (f'_base_ = {DETECTION!r}\ntrain_dataloader = dict(dataset=dict(pipeline=dict(a=1)))', 'be read: TypeError'),
    ],
)
def test_unreadable_config_names_its_line(tmp_path, text, expected):
    file = tmp_path / 'broken.py'
    file.write_text(text)
    with pytest.raises(UserError, match=rf'(?s){file}.*{expected}'):
        read_config(file)


def test_unreadable_base_and_json_config_are_named(tmp_path):
    (tmp_path / 'broken.py').write_text('a = 1\na[0]\n')
    (tmp_path / 'child.py').write_text("_base_ = './broken.py'\n")
    with pytest.raises(UserError, match=f'{tmp_path}/broken.py, line 2, cannot'):
        read_config(tmp_path / 'child.py')
    (tmp_path / 'broken.json').write_text('{"model": ')
    with pytest.raises(UserError, match=f'{tmp_path}/broken.json'):
        read_config(tmp_path / 'broken.json')


def test_missing_config_suggests_a_similar_name(monkeypatch):
    monkeypatch.chdir(ROOT)  # names are relative to the working directory
    expected = 'does not exist; did you mean configs/detection/hire_mlp_mask_rcnn_shapes.py'
    with pytest.raises(UserError, match=expected):
        read_config('configs/detection/hire_mlp_mask_rcnn_shape.py')
    with pytest.raises(UserError, match=r'configs is not a config: its name must end in \.py'):
        read_config('configs')
    with pytest.raises(UserError, match=r'is not a config: its name must end in \.py'):
        read_config('weights.pth')


def test_error_of_a_loading_process_is_one_line():
    text = 'Caught ValueError in DataLoader worker process 0.\nOriginal Traceback ...\n  File ...\nValueError: 7\n'
    assert first_line(ValueError(text)) == 'ValueError: 7'
