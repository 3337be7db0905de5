"""Properties of every family, arch, size, batch and dtype, checked by hypothesis."""

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
sizes = st.tuples(st.integers(2, 3), sides, sides)
OF_STAGES = dict(mlp_ratios=[1, 2, 4], region_sizes=[1, 2, 3, 4], step_periods=[1, 2, 3], step_dilations=[1, 2])
OF_ALL = dict(
    shift_size=[1, 3, 5, 7], depthwise_phase=[False, True], downsample_norm=[False, True], group_norm=[False, True]
)


@st.composite
def arguments(draw, cls: type) -> dict:
    """Draw valid arguments of a family."""
    stages = draw(st.integers(1, 4))

    def per_stage(values):
        return tuple(draw(st.lists(st.sampled_from(values), min_size=stages, max_size=stages)))

    arch = dict(depths=per_stage([1, 2]), dims=per_stage([16, 32, 48]))
    arch |= {key: per_stage(values) for key, values in OF_STAGES.items() if key in cls.arch_defaults}
    arch |= {key: draw(st.sampled_from(values)) for key, values in OF_ALL.items() if key in cls.arch_defaults}
    out_indices = sorted(draw(st.sets(st.integers(0, stages - 1), min_size=1)))
    return dict(
        arch=arch,
        in_channels=draw(st.sampled_from([1, 3, 4])),
        out_indices=out_indices,
        drop_path_rate=draw(st.sampled_from([0.0, 0.3])),
        frozen_stages=draw(st.integers(-1, out_indices[-1])),
        norm_eval=draw(st.booleans()),
        norm_cfg=dict(type=draw(st.sampled_from(list(cls.norms_allowed)))),
        out_norm=draw(st.booleans()),
    )


def built(cls: type, arguments: dict) -> nn.Module:
    """Build a backbone whose norms are far from their initial values."""
    torch.manual_seed(0)
    model = cls(**arguments)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def image_for(arguments: dict, size: tuple[int, int, int]) -> Tensor:
    """Return images (B, in_channels, H, W) of a size (B, H, W)."""
    return image(size[0], arguments['in_channels'], *size[1:])


def drawn(data: st.DataObject, cls: type, size: tuple[int, int, int]) -> tuple[nn.Module, Tensor]:
    """Draw a backbone of a family, and images for it."""
    chosen = data.draw(arguments(cls))
    return built(cls, chosen), image_for(chosen, size)


def assert_near(outs: tuple[Tensor, ...], others: tuple[Tensor, ...], tolerance: float = 1e-4) -> None:
    for a, b in zip(outs, others, strict=True):
        assert a.shape == b.shape and (a - b).abs().max() <= tolerance * max(1, b.abs().max())


@every_family
@few
@given(st.data(), sizes, st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
def test_shapes_and_finite_numbers(cls, data, size, dtype):
    model, x = drawn(data, cls, size)
    reference = reference_of(cls)
    with torch.no_grad():
        outs = model.to(dtype)(x.to(dtype))
    heights, widths = (reference.map_sizes(side) for side in size[1:])
    chosen = zip(model.out_indices, model.out_channels, strict=True)
    assert [tuple(out.shape) for out in outs] == [(size[0], dim, heights[i], widths[i]) for i, dim in chosen]
    assert all(out.dtype == dtype and out.isfinite().all() for out in outs)


@every_family
@few
@given(st.data(), sizes)
def test_batch_equals_its_single_images(cls, data, size):
    model, x = drawn(data, cls, size)
    with torch.no_grad():
        alone = [model(single[None]) for single in x]
        assert_near(model(x), tuple(torch.cat(maps) for maps in zip(*alone, strict=True)))


@every_family
@few
@given(st.data(), sizes)
def test_gradients_are_finite_and_with_cp_keeps_them(cls, data, size):
    chosen = data.draw(arguments(cls))
    gradients = []
    for with_cp in (False, True):
        model = built(cls, chosen | dict(with_cp=with_cp)).train()
        torch.manual_seed(0)  # of stochastic depth
        loss_of(model(image_for(chosen, size))).backward()
        assert all((parameter.grad is not None) == parameter.requires_grad for parameter in model.parameters())
        gradients.append([parameter.grad for parameter in model.parameters() if parameter.requires_grad])
    assert gradients[0] and all(gradient.isfinite().all() for gradient in gradients[0])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


@every_family
@few
@given(st.data(), sizes)
def test_variants_of_a_model_have_equal_outputs(cls, data, size):
    model, x = drawn(data, cls, size)
    other = copy.deepcopy(model).to(memory_format=torch.channels_last)
    with torch.no_grad():
        outs = model(x)
        assert_near(fuse(model)(x), outs)
        assert_near(others := other(x.contiguous(memory_format=torch.channels_last)), outs)
    assert all(out.is_contiguous() for out in (*outs, *others))


@pytest.mark.slow
@every_family
def test_compiled_model_has_equal_outputs(cls):
    @settings(few, max_examples=1)
    @given(st.data(), sizes)
    def check(data, size):
        torch._dynamo.reset()
        model, x = drawn(data, cls, size)
        with torch.no_grad():
            assert_near(torch.compile(model)(x), model(x))

    check()
