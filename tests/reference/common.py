"""Base class and layers of the references.

Nothing is shared with the package. Weights are a state dict under the official names, feature maps are (B, C, H, W),
and everything that moves pixels (shift, roll, padding, convolution) is index arithmetic on positions.
"""

import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Published(NamedTuple):
    """Facts on a variant from the paper or the official code."""

    classifier: int
    """Parameters with a classifier of 1000 classes."""
    backbone: int
    """Parameters with four output norms, without the classifier."""
    gmacs: float
    """Multiply-accumulates of the classifier at 224x224."""


class Drawn(NamedTuple):
    """Distribution of the initial weights of a layer."""

    std: float
    limit: float
    """Upper bound of the weights."""
    bias: float
    """Upper bound of the biases."""


OF_PAPERS = Drawn(0.02, 0.2, 0)


def xavier(out_dim: int, in_dim: int) -> Drawn:
    """Return MLP-Mixer's distribution: uniform weights, biases with standard deviation 1e-6."""
    limit = (6 / (in_dim + out_dim)) ** 0.5
    return Drawn(limit / 3**0.5, limit, 1e-5)


class Shapes(dict):
    """Names and shapes of parameters and buffers."""

    def layer(self, name: str, *shape: int, bias: bool = True) -> None:
        """Add a convolution or linear layer (out, in, ...)."""
        self[f'{name}.weight'] = shape
        if bias:
            self[f'{name}.bias'] = shape[:1]

    def norm(self, name: str, dim: int) -> None:
        self[f'{name}.weight'] = self[f'{name}.bias'] = (dim,)

    def batch_norm(self, name: str, dim: int) -> None:
        self.norm(name, dim)
        self[f'{name}.running_mean'] = self[f'{name}.running_var'] = (dim,)
        self[f'{name}.num_batches_tracked'] = ()


class Reference:
    """Facts on a family, and its network from the paper's formulas. A family overrides what differs."""

    published: dict[str, Published]
    """Facts on every variant."""
    custom: Sequence[dict[str, Any]] = ()
    """Variants with other constants, to compare the networks."""
    defaults: dict[str, Any] = dict(mlp_ratios=(4, 4, 4, 4))
    """Optional fields of a variant."""
    configs: dict[str, str] = {}
    """Published variants by the ending of their configs' names, `FAMILY_VARIANT_...`."""
    left_out: dict[str, str] = {}
    """Tensors of the backbone that are not loaded: the reason in the log, and the ending of their names."""
    strides: tuple[int, ...] = (4, 8, 16, 32)
    """Pixels of the image per pixel of each feature map."""
    fingerprints: tuple[str, ...] = ()
    """Entries of FAMILY.json with outputs of the official modules: `classifier_VARIANT` or `dense_VARIANT`."""
    stem: str = 'patch_embed.proj'
    """The official name of the first layer, which has a bias."""
    head: tuple[str, str] = ('norm', 'head')
    """The official names of the norm and the linear layer after the stages of a classifier."""
    kernel: tuple[int, ...] = (1, 1)
    """The kernel in the shape of an official linear layer."""
    norm_shapes = staticmethod(Shapes.norm)
    """Function that adds a norm to shapes."""

    fresh: str = 'norms.'
    """Start of the names in the package of modules that a classifier's file lacks, in addition to the output norms."""
    native: dict[str, Any] = {}
    """Arguments with which a backbone computes the classifier at 224x224."""
    channel_mlp: str = 'mlp'
    """The official name of a block's channel mixing."""

    def drawn_by_paper(self, layer: nn.Module) -> Drawn | None:
        """Return the distribution of a layer's initial weights, None for PyTorch's default."""
        return None

    def first_size(self, size: int) -> int:
        """Return the height or width of the feature map after the stem for an image of `size` pixels."""
        return -(-size // self.strides[0])

    def map_sizes(self, size: int) -> list[int]:
        """Return the height or width of all four feature maps."""
        return [-(-self.first_size(size) // (stride // self.strides[0])) for stride in self.strides]

    # Official names

    def block_name(self, stage: int, index: int, arch: dict) -> str:
        return f'network.{2 * stage}.{index}'

    def output_norm_name(self, stage: int) -> str:
        return f'norm{2 * stage}'

    def official_shapes(self, arch: dict, norms: Iterable[int] = (), classes: int = 0) -> Shapes:
        """Return the official names and shapes of a dense model with these output norms, or of a classifier."""
        arch, shapes = {**self.defaults, **arch}, Shapes()
        dims = arch['dims']
        for i, (depth, dim) in enumerate(zip(arch['depths'], dims, strict=False)):
            self.downsample_shapes(shapes, arch, i)
            for j in range(depth):
                name = self.block_name(i, j, arch)
                self.norm_shapes(shapes, f'{name}.norm1', dim)
                self.norm_shapes(shapes, f'{name}.norm2', dim)
                self.channel_mixing_shapes(shapes, name, dim, arch, i)
                self.token_mixing_shapes(shapes, name, dim, arch, i)
        for i in norms:
            self.norm_shapes(shapes, self.output_norm_name(i), dims[i])
        if classes:
            norm, linear_map = self.head
            self.norm_shapes(shapes, norm, dims[-1])
            shapes.layer(linear_map, classes, dims[-1])
        return shapes

    def downsample_shapes(self, shapes: Shapes, arch: dict, stage: int) -> None:
        """Add the stem (stage 0) or the layers between two stages."""
        raise NotImplementedError

    def channel_mixing_shapes(self, shapes: Shapes, name: str, dim: int, arch: dict, stage: int) -> None:
        """Add the channel mixing of a block."""
        name, hidden_dim = f'{name}.{self.channel_mlp}', arch['mlp_ratios'][stage] * dim
        shapes.layer(f'{name}.fc1', hidden_dim, dim, *self.kernel)
        shapes.layer(f'{name}.fc2', dim, hidden_dim, *self.kernel)

    def token_mixing_shapes(self, shapes: Shapes, name: str, dim: int, arch: dict, stage: int) -> None:
        """Add the token mixing of a block."""
        raise NotImplementedError

    def official_weights(
        self, shapes: dict, std: float = 0.02, dtype: torch.dtype = torch.float64
    ) -> dict[str, Tensor]:
        """Return weights that depend only on their names. The fingerprints were computed with std 0.02."""
        weights = {}
        for name, shape in shapes.items():
            if name.endswith('.num_batches_tracked'):
                weights[name] = torch.zeros(shape, dtype=torch.int64)
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

    # The network

    def forward(self, w: dict, x: Tensor, arch: dict) -> list[Tensor]:
        """Return the feature maps of all stages in eval mode, after the output norms that the weights contain."""
        arch = {**self.defaults, **arch}
        outs = []
        for i, depth in enumerate(arch['depths']):
            x = self.downsample(w, x, i)
            for j in range(depth):
                name = self.block_name(i, j, arch)
                x = x + self.token_mixing(w, name, self.norm(w, f'{name}.norm1', x), arch, i, j)
                hidden = gelu(linear(w, f'{name}.mlp.fc1', self.norm(w, f'{name}.norm2', x)))
                x = x + linear(w, f'{name}.mlp.fc2', hidden)
            output_norm = self.output_norm_name(i)
            outs.append(self.norm(w, output_norm, x) if f'{output_norm}.weight' in w else x)
        return outs

    def norm(self, w: dict, name: str, x: Tensor) -> Tensor:
        raise NotImplementedError

    def downsample(self, w: dict, x: Tensor, stage: int) -> Tensor:
        """Apply the stem before stage 0, or the layers between two stages."""
        raise NotImplementedError

    def token_mixing(self, w: dict, name: str, x: Tensor, arch: dict, stage: int, index: int) -> Tensor:
        raise NotImplementedError


# Layers


def read(x: Tensor, positions: Tensor, axis: int) -> Tensor:
    """Return `x` at positions along an axis, and zero at positions outside of it."""
    inside = (positions >= 0) & (positions < x.shape[axis])
    values = x.index_select(axis, positions.clamp(0, x.shape[axis] - 1))
    return values * inside.to(x.dtype).reshape([-1 if a == axis else 1 for a in range(x.ndim)])


def read_each(x: Tensor, offsets: Iterable[int], axis: int) -> Tensor:
    """Shift channel by channel: out[p] = in[p + offset], zero outside."""
    positions = torch.arange(x.shape[axis])
    return torch.cat([read(x[:, c : c + 1], positions + offset, axis) for c, offset in enumerate(offsets)], 1)


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


def batch_norm(w: dict, name: str, x: Tensor) -> Tensor:
    """Normalize with the stored statistics."""
    mean, variance = (w[f'{name}.running_{key}'][:, None, None] for key in ('mean', 'var'))
    return _scale_and_shift(w, name, (x - mean) / torch.sqrt(variance + 1e-5))


def norm_over(axes: tuple[int, ...], w: dict, name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
    """Apply LayerNorm over the channels (axis 1), or GroupNorm of one group (axes 1, 2 and 3)."""
    mean = x.mean(axes, keepdim=True)
    variance = ((x - mean) ** 2).mean(axes, keepdim=True)
    return _scale_and_shift(w, name, (x - mean) / torch.sqrt(variance + eps))


def _scale_and_shift(w: dict, name: str, x: Tensor) -> Tensor:
    return x * w[f'{name}.weight'][:, None, None] + w[f'{name}.bias'][:, None, None]


# Layers of Hire-MLP, CycleMLP and Wave-MLP


def overlapping_downsample(w: dict, x: Tensor, stage: int) -> Tensor:
    """Apply the stem, a 7x7 convolution with stride 4, or a 3x3 convolution with stride 2."""
    if stage:
        return convolution(w, f'network.{2 * stage - 1}.proj', x, stride=2, padding=1)
    height, width = x.shape[2:]  # an image smaller than 3 pixels is padded with zeros at the right and the bottom
    x = read(read(x, torch.arange(max(height, 3)), 2), torch.arange(max(width, 3)), 3)
    return convolution(w, 'patch_embed.proj', x, stride=4, padding=2)


def weighted_sum_shapes(
    shapes: Shapes, name: str, dim: int, kernel: tuple[int, ...], bias: bool, channel: str = 'mlp_c'
) -> None:
    """Add the linear layer over the channels, the weights of the branches and the projection."""
    shapes.layer(f'{name}.{channel}', dim, dim, *kernel, bias=bias)
    shapes.layer(f'{name}.reweight.fc1', dim // 4, dim, *kernel)
    shapes.layer(f'{name}.reweight.fc2', 3 * dim, dim // 4, *kernel)
    shapes.layer(f'{name}.proj', dim, dim, *kernel)


def weighted_sum(w: dict, name: str, x: Tensor, h: Tensor, v: Tensor, channel: str = 'mlp_c') -> Tensor:
    """Project the sum of both branches and a linear layer, weighted for each image and channel."""
    branches = [h, v, linear(w, f'{name}.{channel}', x)]
    pooled = sum(branches).mean((2, 3), keepdim=True)
    scores = linear(w, f'{name}.reweight.fc2', gelu(linear(w, f'{name}.reweight.fc1', pooled)))
    exponentials = [torch.exp(scores[:, k::3]) for k in range(3)]  # index of branch k and channel c: 3c + k
    total = sum(exponentials)
    return linear(w, f'{name}.proj', sum(branch * e / total for branch, e in zip(branches, exponentials, strict=True)))
