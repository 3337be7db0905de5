"""The networks compute what the official modules compute, shown by fingerprints and by a reference implementation."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import mlp_dense
from mlp_dense import kernels
from mlp_dense.backbones import FAMILIES
from mlp_dense.backbones.cycle_mlp import OFFSETS
from reference import fingerprint_of, reference_of
from reference.cycle_mlp import cycle_offset, cycle_shift
from support.models import ARCHS, SMALL, official

EXACT = dict(rtol=0, atol=1e-9)
FINGERPRINTS = [(cls, entry) for cls in FAMILIES for entry in reference_of(cls).fingerprints]


def built(cls: type, arch, weights: dict, **arguments) -> torch.nn.Module:
    model = cls(arch, **arguments).double().eval()
    model.load_state_dict(weights)
    return model


def compare_with_fingerprint(x: torch.Tensor, fingerprint: dict):
    assert list(x.shape) == fingerprint['shape']
    assert x.mean().item() == pytest.approx(fingerprint['mean'], rel=0, abs=1e-9)
    assert x.std(correction=0).item() == pytest.approx(fingerprint['std'], rel=0, abs=1e-9)
    assert x.abs().max().item() == pytest.approx(fingerprint['absmax'], rel=0, abs=1e-9)
    values = x.contiguous().flatten()[fingerprint['idx']]
    torch.testing.assert_close(values, torch.tensor(fingerprint['values'], dtype=x.dtype), **EXACT)


@pytest.mark.parametrize('cls, entry', FINGERPRINTS, ids=lambda value: getattr(value, '__name__', value))
def test_fingerprints_of_the_official_modules(cls, entry):
    expected, reference = fingerprint_of(cls, entry), reference_of(cls)
    kind, _, arch = entry.partition('_')
    dense = kind == 'dense'
    shapes = reference.official_shapes(cls.archs[arch], range(4) if dense else (), 0 if dense else 1000)
    assert shapes == {name: tuple(shape) for name, shape, _ in expected['state_dict']}

    weights = reference.official_weights(shapes)
    model = built(cls, arch, weights, out_norm=dense, **reference.native)
    stages = []
    for stage in model.stages:
        stage.register_forward_hook(lambda module, args, out: stages.append(out))
    if dense:
        assert sum(p.numel() for p in model.parameters()) == expected['n_params']
    for run in expected['runs']:
        x = torch.randn(run['input'], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        compare_with_fingerprint(x, run['input_fp'])
        with torch.inference_mode():
            outs = model(x) if dense else (model(x), stages)[1]
        for out, fingerprint in zip(outs, run['outs' if dense else 'stages'], strict=True):
            compare_with_fingerprint(out.flatten(2).mT if len(fingerprint['shape']) == 3 else out, fingerprint)
        stages.clear()


def compare_with_reference(cls: type, arch: dict, x: torch.Tensor, norms=(0, 1, 2, 3)):
    weights = official(cls, arch, norms)
    indices = range(len(arch['depths']))
    outs = built(cls, arch, weights, out_indices=indices, out_norm=bool(norms))(x)
    expected = reference_of(cls).forward(weights, x, arch)
    assert len(outs) == len(expected) == len(indices)
    for out, reference in zip(outs, expected, strict=True):
        torch.testing.assert_close(out, reference, rtol=1e-9, atol=1e-9)
    return outs, expected


SIZES = [(1, 1), (1, 7), (2, 5), (3, 3), (6, 2), (4, 40), (9, 65), (31, 33), (64, 64), (77, 50), (203, 271)]
FEW_ROWS = [(4, 16), (8, 12), (12, 8), (16, 20), (20, 4)]
"""Shifts leave such feature maps of 1 to 5 rows, and cyclic padding wraps more than once."""


@pytest.mark.parametrize('height, width', [*SIZES, *FEW_ROWS])
def test_equals_the_reference_at_any_size(family, height, width):
    with torch.inference_mode():
        compare_with_reference(family, SMALL, torch.randn(2, 3, height, width, dtype=torch.float64))


@pytest.mark.parametrize(
    'cls, arch', [pytest.param(cls, arch, id=cls.__name__) for cls in FAMILIES for arch in reference_of(cls).custom]
)
def test_equals_the_reference_with_other_constants(cls, arch):
    norms = range(len(arch['depths']))
    with torch.inference_mode():
        for size in ((19, 6), (50, 71)):
            compare_with_reference(cls, arch, torch.randn(1, 3, *size, dtype=torch.float64), norms)


def test_gradients_of_raw_feature_maps_equal_those_of_the_reference(family):
    x = torch.randn(2, 3, 37, 22, dtype=torch.float64, requires_grad=True)
    outs, expected = compare_with_reference(family, SMALL, x, norms=())
    cotangents = [torch.randn_like(out) for out in outs]
    gradients = (torch.autograd.grad(maps, x, cotangents)[0] for maps in (outs, expected))
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-8)


def test_shift_of_cyclefc_is_the_deformable_convolution_of_the_official_code():
    ops = pytest.importorskip('mmcv.ops', reason='mmcv is installed without its compiled operators')
    cls = mlp_dense.CycleMLP
    weights = official(cls)
    layers = built(cls, SMALL, weights).stages[0].blocks[0].token_mixing
    dim = SMALL['dims'][0]
    x = torch.randn(2, dim, 6, 5, dtype=torch.float64)
    for name, layer, axis in (('sfc_h', layers.along_w, 3), ('sfc_w', layers.along_h, 2)):
        name = f'network.0.0.attn.{name}'
        offset = weights[f'{name}.offset'].expand(2, -1, 6, 5).contiguous()  # (dy, dx) for each channel
        deformed = ops.deform_conv2d(x, offset, weights[f'{name}.weight'], 1, 0, 1, 1, dim)
        deformed = deformed + weights[f'{name}.bias'][:, None, None]
        shifted = kernels.shift(x.permute(0, 2, 3, 1), OFFSETS, axis - 1)
        torch.testing.assert_close(layer(shifted).permute(0, 3, 1, 2), deformed, **EXACT)
        identity = ops.deform_conv2d(x, offset, torch.eye(dim, dtype=x.dtype)[..., None, None], 1, 0, 1, 1, dim)
        torch.testing.assert_close(cycle_shift(x, axis), identity, **EXACT)
    assert [cycle_offset(channel) for channel in range(6)] == [0, 1, -1, 0, 1, -1]


@pytest.mark.parametrize('cls, arch', [pytest.param(c, a, id=f'{c.__name__}-{a}') for c, a in ARCHS])
def test_names_parameters_and_multiply_adds_of_every_arch(cls, arch):
    classifier, backbone, gmacs = reference_of(cls).published[arch]
    with torch.device('meta'):
        model = cls(arch, **reference_of(cls).native).eval()
    dim = model.out_channels[-1]
    raw = sum(p.numel() for module in (model.stem, model.stages) for p in module.parameters())
    assert sum(p.numel() for p in model.parameters()) == backbone
    assert raw + 2 * dim + 1000 * (dim + 1) == classifier

    # The names and shapes of the official state dict lead to exactly these parameters and buffers.
    shapes = reference_of(cls).official_shapes(cls.archs[arch], range(4))
    with torch.device('meta'):
        model.load_state_dict({name: torch.empty(shape) for name, shape in shapes.items()})

    with FlopCounterMode(display=False) as counter:
        x = model.stem(torch.empty(1, 3, 224, 224, device='meta'))
        for stage in model.stages:
            x = stage(x)
    assert (counter.get_total_flops() / 2 + 1000 * dim) / 1e9 == pytest.approx(gmacs, abs=5.1e-4)


def test_every_arch_is_in_the_published_table(family):
    assert family.archs.keys() == reference_of(family).published.keys()
