"""Arguments and initial weights, subclasses, copies, and the meta device."""

import copy
import inspect
import pickle
import pydoc

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import mlp_dense
from mlp_dense import MLPBackbone
from mlp_dense.errors import ArgumentError
from support.models import SMALL, differing, image


def test_arguments_of_the_caller_are_not_modified(family):
    arguments = dict(
        arch=dict(depths=[1, 1, 1, 1], dims=[16, 16, 16, 16]),
        out_indices=[1, 3],
        norm_cfg=dict(type=next(iter(family.norms_allowed)), requires_grad=False),
        init_cfg=[dict(type='Constant', layer='Conv2d', val=0.5)],
    )
    before, archs = copy.deepcopy(arguments), copy.deepcopy(family.archs)
    model = family(**arguments)
    model.init_weights()
    model.train()(image(2, 3, 64, 64))
    assert arguments == before and family.archs == archs
    (first, *_) = (module for module in model.modules() if isinstance(module, nn.Conv2d))
    assert (first.weight == 0.5).all()  # other types of init_cfg work as in mmengine
    norms = [p for name, p in model.named_parameters() if 'norm' in name]
    assert norms and not any(p.requires_grad for p in norms)


def test_init_weights_without_init_cfg_keeps_the_initial_weights(small):
    before = copy.deepcopy(small.state_dict())
    small.init_weights()
    assert differing(small.state_dict(), before) == []


class WithKeyword:
    """A mixin that takes a keyword of the class statement."""

    def __init_subclass__(cls, note: str, **kwargs):
        super().__init_subclass__(**kwargs)
        cls.note = note


@pytest.fixture
def subclass(family) -> type:
    class Extended(WithKeyword, family, note='mine'):
        def __init__(self, extra: int = 1, **kwargs):
            super().__init__(**kwargs)
            self.extra = extra

    return Extended


def test_subclass_with_its_own_arguments_and_a_mixin(family, subclass):
    model, x = subclass(extra=2, arch=SMALL, out_indices=(1, 3)).eval(), image(1, 3, 40, 36)
    assert model.extra == 2 and model.note == 'mine'
    same = family(SMALL, out_indices=(1, 3)).eval()
    same.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(x), same(x))


def test_unknown_argument_of_a_subclass_lists_what_is_allowed(family, subclass):
    with pytest.raises(TypeError) as error:
        subclass(extra=2, arch=SMALL, drop_path=0.1)
    assert isinstance(error.value, ArgumentError)
    problem, _, allowed = str(error.value).partition(';')
    assert problem == 'Extended: unknown argument drop_path'
    assert {'extra', 'arch', 'drop_path_rate', 'out_indices'} <= set(allowed.strip('. ').replace(',', '').split())


def test_help_lists_all_arguments(family):
    text = pydoc.plain(pydoc.render_doc(family))
    _, _, arguments = text.partition('Args:')
    expected = inspect.signature(MLPBackbone).parameters.keys() | inspect.signature(family).parameters.keys()
    assert all(f'{name}: ' in arguments for name in expected - {'args', 'kwargs', 'unknown'})


def test_sync_bn():
    model = mlp_dense.HireMLP(SMALL).eval()
    synced = mlp_dense.HireMLP(SMALL, norm_cfg=dict(type='SyncBN', eps=1e-5)).eval()
    norms = [m for m in synced.modules() if isinstance(m, _BatchNorm)]
    assert len(norms) > 40 and all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    synced.load_state_dict(model.state_dict())
    x = image(2, 3, 64, 64)
    torch.testing.assert_close(synced(x), model(x))


def test_pickled_copy_computes_the_same(small):
    x = image(2, 3, 64, 48)
    torch.testing.assert_close(pickle.loads(pickle.dumps(small.eval()))(x), small(x))
