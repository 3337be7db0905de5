"""The three networks stated a second time: plainly, slowly, from their formulas, sharing no code with the package.

Weights are a state dict under the official names, maps are (B, C, H, W), and everything that moves pixels (shift, roll,
padding, convolution) is index arithmetic on positions.
"""

import zlib
from collections.abc import Iterable

import torch
from torch import Tensor

DEFAULTS = {
    'ASMLP': dict(mlp_ratios=(4, 4, 4, 4), shift_size=5),
    'CycleMLP': dict(mlp_ratios=(4, 4, 4, 4)),
    'HireMLP': dict(
        mlp_ratios=(4, 4, 4, 4), region_sizes=(4, 3, 3, 2), step_periods=(2, 2, 3, 2), step_dilations=(2, 2, 1, 1)
    ),
}


# Names and shapes of the official state dicts


def official_shapes(family: str, arch: dict, norms: Iterable[int] = (), classes: int = 0) -> dict[str, tuple[int, ...]]:
    """The official names and shapes: of a dense model with the given output norms, or of a classifier."""
    arch = {**DEFAULTS[family], **arch}
    dims, shapes = arch['dims'], {}

    def linear(name: str, out_dim: int, in_dim: int, kernel: tuple[int, ...] | None = None, bias: bool = True):
        if kernel is None:
            kernel = () if family == 'CycleMLP' else (1, 1)
        shapes[f'{name}.weight'] = (out_dim, in_dim, *kernel)
        if bias:
            shapes[f'{name}.bias'] = (out_dim,)

    def norm(name: str, dim: int):
        shapes[f'{name}.weight'] = shapes[f'{name}.bias'] = (dim,)
        if family == 'HireMLP':
            shapes[f'{name}.running_mean'] = shapes[f'{name}.running_var'] = (dim,)
            shapes[f'{name}.num_batches_tracked'] = ()

    linear('patch_embed.proj', dims[0], 3, (4, 4) if family == 'ASMLP' else (7, 7))
    if family != 'CycleMLP':
        norm('patch_embed.norm', dims[0])
    for i, (depth, dim, ratio) in enumerate(zip(arch['depths'], dims, arch['mlp_ratios'], strict=False)):
        for j in range(depth):
            name = block_name(family, i, j)
            norm(f'{name}.norm1', dim)
            norm(f'{name}.norm2', dim)
            linear(f'{name}.mlp.fc1', ratio * dim, dim)
            linear(f'{name}.mlp.fc2', dim, ratio * dim)
            if family == 'ASMLP':
                for layer in ('conv1', 'conv2_1', 'conv2_2', 'conv3'):
                    linear(f'{name}.axial_shift.{layer}', dim, dim)
                norm(f'{name}.axial_shift.norm1', dim)
                norm(f'{name}.axial_shift.norm2', dim)
                continue
            linear(f'{name}.attn.mlp_c', dim, dim, bias=family == 'HireMLP')
            linear(f'{name}.attn.reweight.fc1', dim // 4, dim)
            linear(f'{name}.attn.reweight.fc2', 3 * dim, dim // 4)
            linear(f'{name}.attn.proj', dim, dim)
            for axis in 'hw':
                if family == 'CycleMLP':
                    linear(f'{name}.attn.sfc_{axis}', dim, dim, (1, 1))
                    shapes[f'{name}.attn.sfc_{axis}.offset'] = (1, 2 * dim, 1, 1)
                else:
                    region = arch['region_sizes'][i]
                    linear(f'{name}.attn.mlp_{axis}1', dim // 2, region * dim, bias=False)
                    norm(f'{name}.attn.mlp_{axis}1_norm', dim // 2)
                    linear(f'{name}.attn.mlp_{axis}2', region * dim, dim // 2)
        if i + 1 < len(dims):
            if family == 'ASMLP':
                norm(f'layers.{i}.downsample.norm', 4 * dim)
                linear(f'layers.{i}.downsample.reduction', dims[i + 1], 4 * dim, bias=False)
            else:
                linear(f'network.{2 * i + 1}.proj', dims[i + 1], dim, (3, 3))
                if family == 'HireMLP':
                    norm(f'network.{2 * i + 1}.norm', dims[i + 1])
    for i in norms:
        norm(output_norm_name(family, i), dims[i])
    if classes:
        norm('norm', dims[-1])
        linear('head', classes, dims[-1], ())
    return shapes


def block_name(family: str, stage: int, index: int) -> str:
    return f'layers.{stage}.blocks.{index}' if family == 'ASMLP' else f'network.{2 * stage}.{index}'


def output_norm_name(family: str, stage: int) -> str:
    return f'norm{stage}' if family == 'ASMLP' else f'norm{2 * stage}'


def official_weights(shapes: dict, std: float = 0.02, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Weights that depend on nothing but their names; with std 0.02 those behind the published fingerprints."""
    weights = {}
    for name, shape in shapes.items():
        if name.endswith('.num_batches_tracked'):
            weights[name] = torch.zeros(shape, dtype=torch.int64)
            continue
        if name.endswith('.offset'):  # pairs (dy, dx) for each channel
            weights[name] = torch.zeros(shape, dtype=dtype)
            first = 1 if '.sfc_h.' in name else 0
            weights[name][0, first::2, 0, 0] = torch.tensor([cycle_offset(i) for i in range(shape[1] // 2)]).to(dtype)
            continue
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        value = torch.randn(shape, generator=generator, dtype=torch.float64) * std
        parent, _, leaf = name.rpartition('.')
        if leaf == 'running_var':
            value = 1 + value.abs()
        elif leaf == 'weight' and 'norm' in parent.rpartition('.')[2]:
            value = 1 + value
        weights[name] = value.to(dtype)
    return weights


# Layers


def read(x: Tensor, positions: Tensor, axis: int) -> Tensor:
    """`x` at the given positions along an axis; zero where a position lies outside."""
    inside = (positions >= 0) & (positions < x.shape[axis])
    values = x.index_select(axis, positions.clamp(0, x.shape[axis] - 1))
    return values * inside.to(x.dtype).reshape([-1 if a == axis else 1 for a in range(x.ndim)])


def convolution(w: dict, name: str, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    weight, bias = w[f'{name}.weight'], w[f'{name}.bias']
    kernel = weight.shape[-1]
    counts = ((size + 2 * padding - kernel) // stride + 1 for size in x.shape[2:])
    rows, columns = (torch.arange(count) * stride - padding for count in counts)
    out = bias[:, None, None]
    for i in range(kernel):
        lines = read(x, rows + i, 2)
        for j in range(kernel):
            out = out + torch.einsum('oc,bchw->bohw', weight[:, :, i, j], read(lines, columns + j, 3))
    return out


def linear(w: dict, name: str, x: Tensor) -> Tensor:
    out = torch.einsum('oc,bchw->bohw', w[f'{name}.weight'].flatten(1), x)
    return out + w[f'{name}.bias'][:, None, None] if f'{name}.bias' in w else out


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / 2**0.5)) / 2


def norm(w: dict, name: str, x: Tensor) -> Tensor:
    """BatchNorm with stored statistics where there are some, else GroupNorm(1) (AS-MLP) or LayerNorm (CycleMLP)."""
    if f'{name}.running_mean' in w:
        mean, variance = (w[f'{name}.running_{key}'][:, None, None] for key in ('mean', 'var'))
    else:
        axes = (1, 2, 3) if 'layers.0.blocks.0.norm1.weight' in w else (1,)
        mean = x.mean(axes, keepdim=True)
        variance = ((x - mean) ** 2).mean(axes, keepdim=True)
    x = (x - mean) / torch.sqrt(variance + 1e-5)
    return x * w[f'{name}.weight'][:, None, None] + w[f'{name}.bias'][:, None, None]


# Token mixing


def axial_shift(x: Tensor, shift_size: int, axis: int) -> Tensor:
    """Channel by channel: out[p] = in[p - d]."""
    positions, chunk = torch.arange(x.shape[axis]), -(-x.shape[1] // shift_size)
    shifts = [c // chunk - shift_size // 2 for c in range(x.shape[1])]
    return torch.cat([read(x[:, c : c + 1], positions - d, axis) for c, d in enumerate(shifts)], 1)


def cycle_offset(channel: int) -> int:
    return (channel + 1) % 3 - 1


def cycle_shift(x: Tensor, axis: int) -> Tensor:
    """Channel by channel: out[p] = in[p + offset]."""
    positions = torch.arange(x.shape[axis])
    return torch.cat([read(x[:, c : c + 1], positions + cycle_offset(c), axis) for c in range(x.shape[1])], 1)


def region_mlp(w: dict, name: str, x: Tensor, region: int, step: int, axis: int) -> Tensor:
    """Roll, fill up cyclically, map each region on its own, crop, roll back."""
    if axis == 3:
        return region_mlp(w, name, x.transpose(2, 3), region, step, 2).transpose(2, 3)
    height, rows = x.shape[2], torch.arange(x.shape[2])
    rolled = x[:, :, (rows - step) % height]
    filled = rolled[:, :, torch.arange(-(-height // region) * region) % height]
    regions = []
    for start in range(0, filled.shape[2], region):
        stacked = torch.stack([filled[:, c, start + k] for c in range(x.shape[1]) for k in range(region)], 1)
        hidden = norm(w, f'{name}1_norm', linear(w, f'{name}1', stacked[:, :, None])).clamp(min=0)
        mapped = linear(w, f'{name}2', hidden)[:, :, 0]
        regions += [mapped[:, k::region] for k in range(region)]  # channel c of row k stands at c * region + k
    return torch.stack(regions, 2)[:, :, :height][:, :, (rows + step) % height]


def weighted_sum(w: dict, name: str, branches: list[Tensor]) -> Tensor:
    pooled = sum(branches).mean((2, 3), keepdim=True)
    scores = linear(w, f'{name}.fc2', gelu(linear(w, f'{name}.fc1', pooled)))
    exponentials = [torch.exp(scores[:, k::3]) for k in range(3)]  # branch k of channel c stands at 3c + k
    return sum(branch * e / sum(exponentials) for branch, e in zip(branches, exponentials, strict=True))


def token_mixing(family: str, w: dict, name: str, x: Tensor, arch: dict, stage: int, index: int) -> Tensor:
    if family == 'ASMLP':
        name = f'{name}.axial_shift'
        x = gelu(norm(w, f'{name}.norm1', linear(w, f'{name}.conv1', x)))
        along_w = gelu(linear(w, f'{name}.conv2_1', axial_shift(x, arch['shift_size'], 3)))
        along_h = gelu(linear(w, f'{name}.conv2_2', axial_shift(x, arch['shift_size'], 2)))
        return linear(w, f'{name}.conv3', norm(w, f'{name}.norm2', along_w + along_h))
    name = f'{name}.attn'
    if family == 'CycleMLP':  # the names tell the shape of the kernel: h has (1, 3) and shifts along the width
        h, v = (linear(w, f'{name}.sfc_{axis}', cycle_shift(x, 3 if axis == 'h' else 2)) for axis in 'hw')
    else:
        step = index % arch['step_periods'][stage] * arch['step_dilations'][stage]
        h, v = (
            region_mlp(w, f'{name}.mlp_{axis}', x, arch['region_sizes'][stage], step, 2 + 'hw'.index(axis))
            for axis in 'hw'
        )
    return linear(w, f'{name}.proj', weighted_sum(w, f'{name}.reweight', [h, v, linear(w, f'{name}.mlp_c', x)]))


# The whole network


def forward(family: str, w: dict, x: Tensor, arch: dict) -> list[Tensor]:
    """The maps of all stages in eval mode, through the output norms that the weights hold."""
    arch = {**DEFAULTS[family], **arch}
    outs = []
    for i, depth in enumerate(arch['depths']):
        x = downsample(family, w, x, i)
        for j in range(depth):
            name = block_name(family, i, j)
            x = x + token_mixing(family, w, name, norm(w, f'{name}.norm1', x), arch, i, j)
            hidden = gelu(linear(w, f'{name}.mlp.fc1', norm(w, f'{name}.norm2', x)))
            x = x + linear(w, f'{name}.mlp.fc2', hidden)
        output_norm = output_norm_name(family, i)
        outs.append(norm(w, output_norm, x) if f'{output_norm}.weight' in w else x)
    return outs


def downsample(family: str, w: dict, x: Tensor, stage: int) -> Tensor:
    """The stem before stage 0, else what leads from one stage to the next."""
    height, width = x.shape[2:]
    if family == 'ASMLP' and stage == 0:
        x = read(read(x, torch.arange(-(-height // 4) * 4), 2), torch.arange(-(-width // 4) * 4), 3)
        return norm(w, 'patch_embed.norm', convolution(w, 'patch_embed.proj', x, stride=4))
    if family == 'ASMLP':
        rows, columns = torch.arange(0, height, 2), torch.arange(0, width, 2)
        x = torch.cat([read(read(x, rows + r, 2), columns + c, 3) for r, c in ((0, 0), (1, 0), (0, 1), (1, 1))], 1)
        name = f'layers.{stage - 1}.downsample'
        return linear(w, f'{name}.reduction', norm(w, f'{name}.norm', x))
    name = f'network.{2 * stage - 1}' if stage else 'patch_embed'
    if stage == 0:  # a picture under 3 pixels is filled up with zeros at the right and the bottom
        x = read(read(x, torch.arange(max(height, 3)), 2), torch.arange(max(width, 3)), 3)
    x = convolution(w, f'{name}.proj', x, *((2, 1) if stage else (4, 2)))
    return norm(w, f'{name}.norm', x).clamp(min=0) if family == 'HireMLP' else x
