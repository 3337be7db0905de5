"""Configs of the package are found by name from any folder, also as ``mlp_dense::...``; files have priority."""

import pytest
from mmengine.config import Config
from mmengine.hub import get_config

from mlp_dense import catalog
from mlp_dense.config.config_file import read_config
from mlp_dense.errors import UserError
from support.configs import ROOT

NAME = 'hire_mlp_mask_rcnn_coco'
FILE = str(ROOT / 'configs' / 'detection' / f'{NAME}.py')


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_names_are_unique_without_their_folder():
    names = [name.partition('/')[2] for name in catalog.names()]
    assert NAME in names and len(set(names)) == len(names) > 100
    assert not any(name.startswith(('_base_', 'metafiles')) for name in catalog.names())


@pytest.mark.parametrize('name', [NAME, f'detection/{NAME}', f'mlp_dense::detection/{NAME}.py', FILE])
def test_config_is_found_by_name(name):
    assert read_config(name).filename == FILE


def test_existing_file_has_priority(tmp_path):
    (tmp_path / 'detection').mkdir()
    (tmp_path / NAME).mkdir()  # a folder is not a config
    assert read_config(NAME).filename == FILE
    name = f'detection/{NAME}.py'
    (tmp_path / name).write_text('lr = 1')
    assert read_config(name).lr == 1


@pytest.mark.parametrize(
    ('typo', 'suggestion'),
    [
        ('hire_mlp_mask_rcn_coco', f'did you mean {NAME}?'),
        (f'configs/detection/{NAME}.py', f'did you mean detection/{NAME}?'),
        ('mime.py', 'did you mean mine.py?'),
        ('qqqq', 'mlp-dense configs lists the names'),
    ],
)
def test_typo_suggests_a_name(tmp_path, typo, suggestion):
    (tmp_path / 'mine.py').touch()
    with pytest.raises(UserError) as error:
        read_config(typo)
    assert f'{typo} does not exist; {suggestion}' in str(error.value)


def test_config_without_a_clone_is_that_of_the_wheel(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, '__file__', str(tmp_path / 'mlp_dense' / 'catalog.py'))
    assert catalog.folder() == tmp_path / 'configs', 'a clone that was not installed has no .mim'
    (tmp_path / 'mlp_dense' / '.mim' / 'configs').mkdir(parents=True)
    assert catalog.folder() == tmp_path / 'mlp_dense' / '.mim' / 'configs'


def test_base_of_this_package_keeps_its_scope(tmp_path):
    file = tmp_path / 'mine.py'
    file.write_text(f"_base_ = 'mlp_dense::detection/{NAME}.py'\nmodel = dict(backbone=dict(drop_path_rate=0.0))\n")
    cfg = Config.fromfile(file)
    inherited = Config.fromfile(FILE)
    assert cfg.model.backbone.pop('drop_path_rate') == 0 != inherited.model.backbone.pop('drop_path_rate')
    assert cfg.to_dict() == inherited.to_dict(), 'no _scope_: types are those of mmdet'
    file.write_text("_base_ = 'mlp_dense::detection/hire.py'")
    with pytest.raises(UserError, match=r'mine\.py needs a file that is missing: .*hire\.py'):
        read_config(file)


@pytest.mark.filterwarnings('ignore:pkg_resources is deprecated')  # mmengine imports it
@pytest.mark.filterwarnings('ignore:Deprecated call to:DeprecationWarning')  # mmengine 0.10.4 imports pkg_resources
@pytest.mark.parametrize('name', [NAME, 'hire_mlp_small_mask_rcnn_1x_coco'])  # without and with a metafile
def test_get_config_of_mmengine_finds_it(name):
    assert get_config(f'mlp_dense::detection/{name}.py').default_scope == 'mmdet'
