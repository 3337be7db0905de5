"""What holds for every family, arch, size, batch and dtype, looked for by hypothesis."""

import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mlp_dense import fuse
from mlp_dense.backbones import FAMILIES
from reference import reference_of
from support.models import image, loss_of

few = settings(max_examples=12, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
every_family = pytest.mark.parametrize('cls', FAMILIES, ids=lambda cls: cls.__name__)
sides = st.integers(1, 80)
sizes = st.tuples(st.integers(2, 3), st.just(3), sides, sides)


@st.composite
def arguments(draw) -> dict:
    """Valid arguments of every family."""
    stages = draw(st.integers(1, 4))

    def each(numbers):
        return tuple(draw(st.lists(numbers, min_size=stages, max_size=stages)))

    return dict(
        arch=dict(depths=each(st.integers(1, 2)), dims=each(st.sampled_from([8, 12, 20]))),
        out_indices=sorted(draw(st.sets(st.integers(0, stages - 1), min_size=1))),
        drop_path_rate=draw(st.sampled_from([0.0, 0.3])),
        out_norm=draw(st.booleans()),
    )


def built(cls: type, arguments: dict) -> nn.Module:
    """With norms far from what they are at the start."""
    torch.manual_seed(0)
    model = cls(**arguments)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def assert_near(outs: tuple[Tensor, ...], others: tuple[Tensor, ...], tolerance: float = 1e-4) -> None:
    for a, b in zip(outs, others, strict=True):
        assert a.shape == b.shape and (a - b).abs().max() <= tolerance * max(1, b.abs().max())


@every_family
@few
@given(arguments(), sizes, st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
def test_shapes_and_finite_numbers(cls, arguments, size, dtype):
    model, reference = built(cls, arguments).to(dtype), reference_of(cls)
    with torch.no_grad():
        outs = model(image(*size).to(dtype))
    heights, widths = (reference.map_sizes(side) for side in size[2:])
    chosen = zip(model.out_indices, model.out_channels, strict=True)
    assert [tuple(out.shape) for out in outs] == [(size[0], dim, heights[i], widths[i]) for i, dim in chosen]
    assert all(out.dtype == dtype and out.isfinite().all() for out in outs)


@every_family
@few
@given(arguments(), sizes)
def test_a_batch_is_its_images_one_by_one(cls, arguments, size):
    model, x = built(cls, arguments), image(*size)
    with torch.no_grad():
        alone = [model(one[None]) for one in x]
        assert_near(model(x), tuple(torch.cat(maps) for maps in zip(*alone, strict=True)))


@every_family
@few
@given(arguments(), sizes)
def test_gradients_are_finite_and_with_cp_keeps_them(cls, arguments, size):
    gradients = []
    for with_cp in (False, True):
        model = built(cls, arguments | dict(with_cp=with_cp)).train()
        torch.manual_seed(0)  # of stochastic depth
        loss_of(model(image(*size))).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients[0])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


@every_family
@few
@given(arguments(), sizes)
def test_forms_of_a_model_give_the_same(cls, arguments, size):
    model, x = built(cls, arguments), image(*size)
    other = copy.deepcopy(model).to(memory_format=torch.channels_last)
    with torch.no_grad():
        outs = model(x)
        assert_near(fuse(model)(x), outs)
        assert_near(other(x.contiguous(memory_format=torch.channels_last)), outs)


@pytest.mark.slow
@every_family
@settings(few, max_examples=3)
@given(arguments(), sizes)
def test_compiled_model_gives_the_same(cls, arguments, size):
    torch._dynamo.reset()
    model, x = built(cls, arguments), image(*size)
    with torch.no_grad():
        assert_near(torch.compile(model, backend='aot_eager')(x), model(x))
