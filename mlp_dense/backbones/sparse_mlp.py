"""Sparse-MLP (Lou et al., arXiv 2109.02008): MLP-Mixer whose last blocks are mixtures of experts.

Neither code nor weights were published. The paper defines the mixtures over positions and over channels in the last
blocks, one expert per item over positions and two over channels, the re-represent layers with twice the positions and
half of the channels, and the weight of the balancing loss. This project chose everything else.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .experts import Experts
from .layers import Pointwise
from .mlp_mixer import MixerTokenMixing, MLPMixer


class SparseTokenMixing(MixerTokenMixing):
    """A mixture of experts over the positions of a window, for every channel.

    It stands between layers that re-represent (grid**2 positions, dim channels) as (2 * grid**2, dim / 2) and back
    (sec. 3).
    """

    def __init__(self, dim: int, grid: int, is_global: bool, num_experts: int, num_chosen: int):
        tokens, narrow = grid**2, max(1, dim // 2)
        super().__init__(grid, is_global, Experts(2 * tokens, narrow, num_experts, num_chosen))
        self.fewer_channels, self.more_channels = Pointwise(dim, narrow), Pointwise(narrow, dim)
        self.more_tokens, self.fewer_tokens = Pointwise(tokens, 2 * tokens), Pointwise(2 * tokens, tokens)

    def mix(self, x: Tensor) -> Tensor:
        tokens = self.more_tokens(self.to_tokens(self.fewer_channels(x)))
        return self.from_tokens(self.fewer_tokens(self.mlp(tokens)), x.shape[0])

    def project(self, x: Tensor) -> Tensor:
        return self.more_channels(x)


class SparseMLP(MLPMixer):
    """Sparse-MLP (arXiv 2109.02008) as a feature pyramid: archs s16, b16 and l16, MLP-Mixer's with two sparse blocks.

    The sparse blocks are the last two. The balancing loss of the experts joins the gradient in training. If the loss is
    scaled (fp16) or divided (accumulated gradients), `mlp_dense.BalanceHook` scales the balancing loss as well, and
    logs it as `loss_balance`.
    """

    archs = {name: arch for name, arch in MLPMixer.archs.items() if name.endswith('16')}
    # In the last `sparse_blocks` blocks: experts over tokens and over channels, and the number of experts per item.
    arch_defaults = MLPMixer.arch_defaults | dict(
        sparse_blocks=2, token_experts=8, token_choices=1, channel_experts=4, channel_choices=2
    )

    @classmethod
    def _resolve_arch(cls, arch: str | Mapping[str, Any]) -> dict[str, Any]:
        fields = super()._resolve_arch(arch)
        for mixing in ('token', 'channel'):
            key, experts = f'{mixing}_choices', fields[f'{mixing}_experts']
            if not 1 <= fields[key] <= experts:
                raise cls._error(f'arch[{key!r}]', fields[key], f'1 to {experts}, the number of experts')
        return fields

    def is_sparse(self, stage: int, index: int) -> bool:
        """Whether a block contains mixtures of experts."""
        return sum(self.arch['depths'][stage:]) - index <= self.arch['sparse_blocks']

    def make_token_mixing(self, stage: int, index: int) -> nn.Module:
        if not self.is_sparse(stage, index):
            return super().make_token_mixing(stage, index)
        arch, is_global = self.arch, self.is_global(stage, index)
        experts = arch['token_experts'], arch['token_choices']
        return SparseTokenMixing(arch['dims'][stage], arch['grid_size'], is_global, *experts)

    def make_channel_mixing(self, stage: int, index: int) -> nn.Module:
        if not self.is_sparse(stage, index):
            return super().make_channel_mixing(stage, index)
        dim, ratio = self.arch['dims'][stage], self.arch['mlp_ratios'][stage]
        return Experts(dim, int(dim * ratio), self.arch['channel_experts'], self.arch['channel_choices'])

    @classmethod
    def arch_like(cls, weights: Mapping[str, Tensor]) -> dict[str, Any] | None:
        sizes = super().arch_like(weights)
        if sizes is None:
            return None
        experts = {
            mixing: [tensor for name, tensor in weights.items() if name.endswith(f'{mixing}_mixing{end}.router.weight')]
            for mixing, end in (('token', '.mlp'), ('channel', ''))
        }
        counts = {f'{mixing}_experts': len(routers[0]) for mixing, routers in experts.items() if routers}
        return sizes | dict(sparse_blocks=len(experts['token'])) | counts
