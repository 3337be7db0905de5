"""`compile` in a config compiles the backbone alone, once for each size."""

from functools import partial

import pytest
import torch

from support.configs import DETECTION, SEGMENTATION
from support.tools import call
from support.trainings import records_of, write_config

SHORT = {
    DETECTION: {'train_cfg.max_epochs': 1, 'train_dataloader.dataset.indices': 4},
    SEGMENTATION: {'train_cfg.max_iters': 2, 'train_cfg.val_interval': 2},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ('base', 'option'),
    [(DETECTION, 'compile.backend=aot_eager'), (SEGMENTATION, 'compile=True')],
    ids=['detection', 'segmentation'],
)
def test_compiled_training_has_the_same_losses(on_cpu, shapes, tmp_path, monkeypatch, base, option):
    """The Runner of mmengine would compile the complete step, with 60 graph breaks and minutes for each iteration."""
    shallow = {'model.backbone.drop_path_rate': 0.0, 'model.backbone.arch.depths': (1, 1, 1, 1)}
    config = write_config(base, tmp_path, shapes, **SHORT[base], **shallow)
    if option == 'compile=True':  # inductor, the default, would take minutes
        monkeypatch.setattr(torch, 'compile', partial(torch.compile, backend='aot_eager'))
    records = {}
    for name, options in (('plain', []), ('compiled', ['--cfg-options', option])):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        assert call('train', config, '--work-dir', tmp_path / name, '--seed', 0, *options) == 0
        records[name] = records_of(tmp_path / name)
        assert torch._dynamo.utils.counters['stats']['unique_graphs'] == (name == 'compiled')
        assert not torch._dynamo.utils.counters['graph_break']
    assert records['plain'].keys() == records['compiled'].keys()
    for iteration, plain in records['plain'].items():
        tolerance = 1e-3 if 'loss' in plain else 0.1  # a metric, in percent, counts pixels that rounding may turn
        torch.testing.assert_close(records['compiled'][iteration], plain, rtol=tolerance, atol=tolerance)
