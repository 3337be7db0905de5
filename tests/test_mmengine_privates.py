"""The undocumented attributes of mmengine exist in the installed release, and no other file uses them."""

import inspect
import re
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.hooks import CheckpointHook
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from mmengine.runner import CheckpointLoader, EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from mlp_dense import mmengine_privates

ATTRIBUTES = {
    '_resume': [Runner],
    '_load_from': [Runner],
    '_iter': [EpochBasedTrainLoop, IterBasedTrainLoop],
    '_decide_current_val_interval': [EpochBasedTrainLoop, IterBasedTrainLoop],
    '_indices_of_rank': [InfiniteSampler],
    '_save_checkpoint': [CheckpointHook],
    '_schemes': [CheckpointLoader],
    '_global_step': [_ParamScheduler],
    '_get_cfg_path': [Config],
    '_file2dict': [Config],
    '_is_lazy_import': [Config],
    '_parse_lazy_import': [Config],
}


@pytest.mark.parametrize('name', ATTRIBUTES)
def test_mmengine_has_the_attribute(name):
    for owner in ATTRIBUTES[name]:
        assert re.search(rf'\b{name}\b', inspect.getsource(owner)), owner
    for function in (Config._file2dict, Config._is_lazy_import, Config._parse_lazy_import):
        assert 'filename' in inspect.signature(function).parameters


def test_other_files_do_not_use_private_attributes():
    """Attributes of the own class (`self._iter` of a loop) are those of a subclass."""
    pattern = re.compile(rf'(?<!self)\.({"|".join([*ATTRIBUTES, "_cfg_dict"])})\b')
    folder = Path(mmengine_privates.__file__).parent
    files = [file for file in folder.rglob('*.py') if file.name != 'mmengine_privates.py' and '.mim' not in file.parts]
    assert {file.name: pattern.findall(file.read_text()) for file in files if pattern.findall(file.read_text())} == {}
