"""Layer-wise decay of the learning rate."""

import pytest
from mmengine.optim import build_optim_wrapper
from torch import nn

from mlp_dense.errors import UserError
from support.checkpoints import Detector
from support.models import SMALL


def wrapper(model: nn.Module, **paramwise_cfg):
    return build_optim_wrapper(
        model,
        dict(
            type='OptimWrapper',
            optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05),
            constructor='mlp_dense.LayerDecayConstructor',
            paramwise_cfg=paramwise_cfg,
        ),
    )


def test_rates_fall_towards_the_input(family):
    model = Detector(family(SMALL, frozen_stages=-1))
    optimizer = wrapper(model, layer_decay_rate=0.5, custom_keys=dict(norm=dict(decay_mult=0.0, lr_mult=2.0))).optimizer
    groups = {id(group['params'][0]): group for group in optimizer.param_groups}
    num_layers = 1 + sum(SMALL['depths'])
    expected = {'backbone.stem': 0.5**num_layers, 'backbone.norms': 1.0, 'backbone.pyramid': 1.0, 'head': 1.0}
    for i, depth in enumerate(SMALL['depths']):
        first = 1 + sum(SMALL['depths'][:i])
        expected[f'backbone.stages.{i}.downsample'] = 0.5 ** (num_layers - first)
        for j in range(depth):
            expected[f'backbone.stages.{i}.blocks.{j}.'] = 0.5 ** (num_layers - first - j)
    for name, parameter in model.named_parameters():
        (rate,) = (value for prefix, value in expected.items() if name.startswith(prefix))
        group = groups[id(parameter)]
        assert group['lr'] == rate * (2.0 if 'norm' in name else 1.0), name
        assert group['weight_decay'] == (0.0 if 'norm' in name else 0.05), name


def test_frozen_stages_have_no_parameter_groups(family):
    model = Detector(family(SMALL, frozen_stages=1))
    optimizer = wrapper(model, layer_decay_rate=0.5).optimizer
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group['params']}
    assert trained == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}


@pytest.mark.parametrize('rate', [None, 0, 1.5, '0.9'])
def test_missing_or_invalid_rate_is_refused(family, rate):
    given = {} if rate is None else dict(layer_decay_rate=rate)
    with pytest.raises(UserError, match='above 0 and up to 1'):
        wrapper(Detector(family(SMALL)), **given)
