"""Fixtures of the tests of tools/checkpoint.py."""

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from support.configs import DETECTION, SEGMENTATION
from support.tools import call


@pytest.fixture
def inspect(capsys):
    """Run the tool on a file; return its output by topic."""

    def run(*args) -> dict[str, str]:
        assert call('checkpoint', 'inspect', *args) == 0
        return {line[:15].strip(): line[15:] for line in capsys.readouterr().out.splitlines()}

    return run


@pytest.fixture(params=[DETECTION, SEGMENTATION], ids=['detection', 'segmentation'])
def checkpoint(request, save):
    """Return (config, checkpoint, model) as a training run writes them."""
    cfg = Config.fromfile(request.param)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    classes = tuple('abcde' if request.param == DETECTION else 'abcdef')
    meta = dict(dataset_meta=dict(classes=classes, palette=[(i, 0, 0) for i in range(len(classes))]), epoch=1)
    return request.param, save(dict(state_dict=model.state_dict(), meta=meta, optimizer={}, message_hub={})), model
