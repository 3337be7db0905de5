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
    """A mixture of experts over the positions of a window, for every channel (sec. 3).

    It stands between layers that re-represent (grid**2 positions, dim channels) as (2 * grid**2, dim / 2) and back.
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
    def _infer_arch(cls, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        fields: dict[str, Any] = dict(sparse_blocks=0)
        for name, tensor in weights.items():
            if name.endswith('token_mixing.mlp.router.weight'):
                fields |= dict(sparse_blocks=fields['sparse_blocks'] + 1, token_experts=tensor.shape[0])
            elif name.endswith('channel_mixing.router.weight'):
                fields['channel_experts'] = tensor.shape[0]
        return super()._infer_arch(weights) | fields
