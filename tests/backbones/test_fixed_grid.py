"""Backbones on a fixed grid: windows, global blocks and the pyramid, and what of them is the published network."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlp_dense import MLPMixer, SparseMLP, VisionPermutator
from mlp_dense.backbones import FAMILIES
from mlp_dense.backbones.fixed_grid import GLOBAL_BLOCKS, FixedGridMLP, resized
from mlp_dense.errors import UserError
from reference import reference_of
from support.checkpoints import pretrained
from support.models import SMALL, image, official

ON_GRIDS = [cls for cls in FAMILIES if issubclass(cls, FixedGridMLP)]
NATIVE = dict(MLPMixer=dict(grid_size=4), SparseMLP=dict(grid_size=4), VisionPermutator=dict(segments=(4, 4, 2, 2)))


def built(cls: type, global_blocks: str, native: dict | None = None) -> nn.Module:
    """Build a backbone in float64 for images with four patches per side, by default as published."""
    arch, native = dict(SMALL, **NATIVE[cls.__name__]), reference_of(cls).native if native is None else native
    model = cls(arch, global_blocks=global_blocks, **native).double().eval()
    model.load_state_dict(official(cls, arch))
    return model


def side_of(model: nn.Module) -> int:
    """Return the side of the published image in pixels."""
    return model.arch['patch_size'] * model.grid_sizes(model.arch)[0]


def stages_of(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Return the output of each stage before it is rescaled."""
    x, outs = model.stem(x), []
    for stage in model.stages:
        outs.append(x := stage(x))
    return outs


@pytest.fixture(params=ON_GRIDS, ids=lambda cls: cls.__name__)
def cls(request) -> type:
    return request.param


def test_variants_have_identical_bits_at_the_published_size(cls):
    models = [built(cls, variant) for variant in GLOBAL_BLOCKS]
    side = side_of(models[0])
    x = image(2, 3, side, side, dtype=torch.float64)
    first, *others = ([*stages_of(model, x), *model(x)] for model in models)
    assert all(torch.equal(a, b) for outs in others for a, b in zip(first, outs, strict=True))
    larger = image(1, 3, side, 2 * side, dtype=torch.float64)
    outs = [stages_of(model, larger)[0] for model in models]
    assert not any(torch.equal(a, b) for a, b in [outs[:2], outs[1:], outs[::2]])


def test_windows_are_independent_images(cls):
    model = built(cls, 'none')
    side = side_of(model)
    x = image(1, 3, 3 * side, 2 * side, dtype=torch.float64)
    whole = stages_of(model, x)
    for row in range(3):
        for column in range(2):
            alone = stages_of(model, x[:, :, row * side :, column * side :][:, :, :side, :side])
            for a, b in zip(alone, whole, strict=True):
                size = a.shape[2]
                window = b[:, :, row * size : (row + 1) * size, column * size : (column + 1) * size]
                torch.testing.assert_close(a, window, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('variant', GLOBAL_BLOCKS)
@pytest.mark.parametrize('size', [(70, 65), (9, 200)])
def test_every_variant_equals_the_reference(cls, variant, size):
    model = built(cls, variant, native={})
    x = image(1, 3, *size, dtype=torch.float64)
    expected = reference_of(cls).forward(official(cls, model.arch), x, model.arch, variant)
    for out, reference in zip(model(x), expected, strict=True):
        torch.testing.assert_close(out, reference, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('size', [(14, 14), (1, 1), (5, 31), (40, 3)])
def test_resizing_is_that_of_pytorch(size):
    x = torch.randn(2, 9, 14, 3, dtype=torch.float64, requires_grad=True)
    ours = resized(x, *size)
    expected = F.interpolate(x.permute(0, 3, 1, 2), size, mode='bilinear', antialias=True).permute(0, 2, 3, 1)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    gradients = (torch.autograd.grad(out, x, torch.ones_like(out))[0] for out in (ours, expected))
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ('cls', 'arguments', 'texts'),
    [
        (MLPMixer, dict(arch='s16', global_blocks='first'), ["'first'", 'last, all, none']),
        (MLPMixer, dict(arch=dict(SMALL, patch_size=12)), ['12', '4 times a power of two']),
        (VisionPermutator, dict(arch=dict(SMALL, patch_size=16)), ['16', '3.5 times a power of two']),
        (SparseMLP, dict(arch=dict(SMALL, channel_choices=5)), ['5 experts per item', '1 to 4']),
        (VisionPermutator, dict(arch=dict(SMALL, dims=(16, 32, 40, 64))), ['(16, 32, 40, 64)', 'multiples']),
        (VisionPermutator, dict(arch=dict(SMALL, segments=(16, 16, 4, 4))), ['(16, 16, 4, 4)', 'half as large']),
    ],
)
def test_value_that_is_not_allowed(cls, arguments, texts):
    with pytest.raises(UserError) as error:
        cls(**arguments)
    assert [text for text in texts if text not in str(error.value)] == []


def test_vip_on_unresized_images_has_other_strides():
    model = VisionPermutator(SMALL, resize_input=False)
    assert model.out_strides == (3.5, 7.0, 14.0, 28.0)
    assert [tuple(out.shape[2:]) for out in model(image(1, 3, 57, 28))] == [(17, 8), (9, 4), (5, 2), (3, 1)]


def test_fresh_pyramid_layers_are_named_once(cls, save, log_lines):
    pretrained(cls, save(dict(model=official(cls, norms=(), classes=10))))
    (line,) = (line for line in log_lines if 'loaded' in line)
    assert line.endswith('; pyramid layers with random weights: pyramid.0, pyramid.1')


@pytest.mark.parametrize('inside', ['', 'backbone.'])
def test_mixer_reads_the_names_of_mmpretrain(save, inside):
    weights = official(MLPMixer, norms=(), classes=10)
    renamed = {}
    for name, tensor in weights.items():
        for new, old in (
            ('patch_embed.projection', 'stem.proj'),
            ('.ln', '.norm'),
            ('layers', 'blocks'),
            ('token_mix.layers.0.0', 'mlp_tokens.fc1'),
            ('token_mix.layers.1', 'mlp_tokens.fc2'),
            ('channel_mix.layers.0.0', 'mlp_channels.fc1'),
            ('channel_mix.layers.1', 'mlp_channels.fc2'),
        ):
            name = name.replace(old, new)
        name = name.replace('norm.', 'ln1.') if name.startswith('norm.') else name
        renamed[name if name.startswith('head') else inside + name] = tensor
    assert 'ln1.weight' in ''.join(renamed) and 'token_mix' in ''.join(renamed)
    models = [pretrained(MLPMixer, save(dict(state_dict=state), 'a.pth')) for state in (weights, renamed)]
    first, second = (model.stages.state_dict() | model.stem.state_dict() for model in models)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_sparse_blocks_are_the_last_ones():
    model = SparseMLP('s16')
    kinds = [type(block.token_mixing).__name__ for stage in model.stages for block in stage.blocks]
    assert kinds == ['MixerTokenMixing'] * 6 + ['SparseTokenMixing'] * 2
