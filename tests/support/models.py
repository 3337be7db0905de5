"""Backbones, their official weights, and inputs."""

import torch

from mlp_dense.backbones import FAMILIES
from reference import reference_of

ARCHS = [(cls, arch) for cls in FAMILIES for arch in cls.archs]

SMALL = dict(depths=(2, 2, 4, 1), dims=(16, 32, 48, 64))
"""A small variant of every family, for tests that do not depend on the size."""


def official(cls: type, arch: dict = SMALL, norms=(0, 1, 2, 3), classes: int = 0) -> dict:
    """Return a state dict of a family under its official names, with weights large enough for every layer to matter."""
    reference = reference_of(cls)
    return reference.official_weights(reference.official_shapes(arch, norms, classes), std=0.1)


def built(family: type, dtype: torch.dtype = torch.float32, **arguments) -> torch.nn.Module:
    """Return a backbone in eval mode; all its weights and statistics influence the outputs."""
    model = family(SMALL, **arguments).to(dtype).eval()
    model.load_state_dict(official(family))
    return model


def first_bias(cls: type) -> str:
    """Return the name in the package of the bias of `reference_of(cls).stem`."""
    return next(name for name in cls(SMALL).state_dict() if name.startswith('stem.') and name.endswith('.bias'))


def image(*size: int, **kwargs) -> torch.Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(1), **kwargs)


def loss_of(outs) -> torch.Tensor:
    """Return a loss to which every value of every feature map contributes with its own weight."""
    return sum((x * torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view_as(x)).sum() for x in outs)


def differing(state: dict, other: dict) -> list[str]:
    """Return the names of the tensors that differ between two state dicts."""
    return [key for key in state if not torch.equal(state[key], other[key])]
