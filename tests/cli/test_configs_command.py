"""mlp-dense configs lists every config with its properties, and finds one by name."""

import json
import sys

import pytest

from mlp_dense import catalog
from mlp_dense_cli import configs
from support.configs import ROOT


@pytest.fixture
def call(monkeypatch, capsys):
    """Return a function that runs the command and returns its output."""

    def call(*arguments) -> str:
        monkeypatch.setattr(sys, 'argv', ['mlp-dense configs', *arguments])
        configs.main()
        return capsys.readouterr().out

    return call


def test_each_config_has_its_properties(call):
    entries = json.loads(call('--json'))
    assert [f'{entry["task"]}/{entry["name"]}' for entry in entries] == catalog.names()
    for entry in entries:
        assert entry['family'] and entry['data'] and entry['schedule'], entry
        assert bool(entry['head']) == (entry['task'] != 'classification'), entry
        assert entry['same_as'] is None or catalog.find(entry['same_as'])
    recipes = {file.stem for file in (ROOT / 'configs' / '_base_' / 'recipes').glob('*.py')}
    assert recipes == {*configs.FAMILIES}


def test_published_values_are_those_of_the_metafiles(call):
    entry = next(each for each in json.loads(call('--json')) if each['name'] == 'as_mlp_tiny_cascade_mask_rcnn_3x_coco')
    assert (entry['variant'], entry['head'], entry['schedule']) == ('tiny', 'cascade_mask_rcnn', '3x')
    assert entry['published'] == dict(
        metrics={'box AP': 50.1, 'mask AP': 43.5}, confirmed=True, source='official README', params_m=86, gmacs=739,
        weights=None,
    )  # fmt: skip


def test_table_is_filtered_and_marks_unconfirmed_values(call):
    header, *lines = call('--task', 'detection', '--family', 'cycle').splitlines()
    assert header.split() == list(configs.COLUMNS)
    assert len(lines) == len([name for name in catalog.names() if name.startswith('detection/cycle_')])
    cells = {line.split()[0]: line.split(maxsplit=5) for line in lines}
    assert cells['cycle_mlp_b1_retinanet_1x_coco'][1:] == ['cycle', 'retinanet', 'coco', '1x', 'box AP 38.6']
    assert cells['cycle_mlp_b1_mask_rcnn_1x_coco'][5] == 'box AP 39.4?, mask AP 36.8?'
    assert cells['cycle_mlp_mask_rcnn_coco'][5] == 'same as cycle_mlp_b2_mask_rcnn_1x_coco'


def test_name_prints_the_path(call, capsys):
    path = str(ROOT / 'configs' / 'detection' / 'vip_mask_rcnn_coco.py')
    assert call('vip_mask_rcnn_coco').strip() == call('detection/vip_mask_rcnn_coco').strip() == path
    with pytest.raises(SystemExit, match='2'):
        call('vip_mask_rcn_coco')
    assert "'vip_mask_rcn_coco'; did you mean vip_mask_rcnn_coco?" in capsys.readouterr().err


def test_without_pyyaml_published_values_are_omitted(call, monkeypatch):
    monkeypatch.setitem(sys.modules, 'yaml', None)
    assert 'AP' not in call('--task', 'detection')
