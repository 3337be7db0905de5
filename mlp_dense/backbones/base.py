"""The contract of every backbone (arguments, outputs, norms, freezing, loading), and how its stages are built."""

import copy
import inspect
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..checkpoints.matching import FRESH, LeftOut, load_pretrained, match_and_log
from ..errors import ArgumentError, UserError
from .layers import Block, ChannelMLP, Stage

NETWORK_NAMES = (
    (r'^(norm|head)\.', LeftOut('classifier head and norm')),
    (r'^patch_embed\.proj\.', 'stem.conv.'),
    (r'^patch_embed\.norm\.', 'stem.norm.'),
    (r'^network\.([0246])\.(\d+)\.', lambda m: f'stages.{int(m[1]) // 2}.blocks.{m[2]}.'),
    (r'^network\.([135])\.proj\.', lambda m: f'stages.{int(m[1]) // 2 + 1}.downsample.conv.'),
    (r'^network\.([135])\.norm\.', lambda m: f'stages.{int(m[1]) // 2 + 1}.downsample.norm.'),
    (r'^norm([0246])\.', lambda m: f'norms.{int(m[1]) // 2}.'),
    (r'\.attn\.mlp_c\.', '.token_mixing.channel.'),
    (r'\.attn\.', '.token_mixing.'),
    (r'\.mlp\.(?=fc)', '.channel_mixing.'),
)
"""``official_names`` of families whose code keeps stages and downsamplings in one list, ``network``."""


class MLPBackbone(nn.Module):
    """A vision MLP that returns a feature pyramid for images of any size: a stem, then stages.

    A family makes the layers. Stem and downsampling map (B, C, H, W); token and channel mixing map (B, H, W, C).

    Args:
        arch: name of a published variant (a key of ``archs``), or a dict of the same fields.
        in_channels: channels of the image.
        out_indices: stages whose feature maps are returned, from 0, ascending. Stages after the last one are not built.
        drop_path_rate: rate of stochastic depth of the last block; it rises linearly from 0 over all blocks.
        frozen_stages: -1 freezes nothing, 0 the stem, k the stem and the first k stages: no gradients, and their
            norms stay in eval mode. Output norms stay trainable, since they belong to no stage.
        norm_eval: keeps every BatchNorm in eval mode, so that its running statistics do not change.
        with_cp: recomputes the blocks in the backward pass instead of storing their activations, with equal results.
        norm_cfg: ``dict(type=..., **arguments)`` with a key of ``norms_allowed`` (the first is the default) and
            arguments of that layer; ``requires_grad=False`` freezes its weights.
        out_norm: whether each output has an additional norm, as in the published dense models.
        init_cfg: as in mmengine; ``dict(type='Pretrained', checkpoint=FILE_OR_URL)`` reads every published checkpoint.

    Attributes:
        in_channels: channels of the image.
        out_channels: channels of each returned feature map.
        out_strides: pixels of the image per pixel of each returned feature map.

    Raises:
        UserError: An argument is unknown, or its value is not allowed; the message lists what is allowed.
    """

    archs: ClassVar[dict[str, dict[str, Any]]]
    arch_defaults: ClassVar[dict[str, Any]] = {}
    norms_allowed: ClassVar[dict[str, Callable[..., nn.Module]]]
    stem_stride: ClassVar[int] = 4
    official_names: ClassVar[tuple[tuple[str, Any], ...]]
    """Pairs (pattern, replacement) for ``re.sub`` on the keys of official checkpoints; a LeftOut gives a reason."""

    def __init_subclass__(cls, **kwargs: Any):
        """Append the arguments of the base class to the docstring, for ``help()``."""
        super().__init_subclass__(**kwargs)
        summary, _, arguments = inspect.cleandoc(cls.__doc__ or '').partition('\n\nArgs:\n')
        inherited = inspect.cleandoc(super(cls, cls).__doc__ or '').partition('\n\nArgs:\n')[2]
        cls.__doc__ = '\n'.join(filter(None, [summary + '\n\nArgs:', arguments, inherited]))

    def __init__(
        self,
        arch: str | Mapping[str, Any],
        in_channels: int = 3,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        norm_cfg: Mapping[str, Any] | None = None,
        out_norm: bool = True,
        init_cfg: dict | list[dict] | None = None,
        **unknown: Any,
    ):
        if unknown:
            classes = [cls for cls in type(self).__mro__ if issubclass(cls, MLPBackbone)]
            specs = [inspect.getfullargspec(vars(cls)['__init__']) for cls in classes if '__init__' in vars(cls)]
            allowed = _names(name for spec in specs for name in spec.args[1:] + spec.kwonlyargs)
            raise ArgumentError(f'{type(self).__name__}: unknown argument {_names(unknown)}; use {allowed}.')
        super().__init__()
        self.arch = self._resolve_arch(arch)
        dims, depths = self.arch['dims'], self.arch['depths']
        indices = list(out_indices) if isinstance(out_indices, Sequence) else []
        if not indices or indices != [i for i in range(len(depths)) if i in indices]:
            allowed = f'one or more of {_names(range(len(depths)))}, in ascending order'
            raise self._error('out_indices', out_indices, allowed)
        num_stages = indices[-1] + 1
        if not -1 <= frozen_stages <= num_stages:
            raise self._error('frozen_stages', frozen_stages, f'-1 to {num_stages}')
        if not 0.0 <= drop_path_rate < 1.0:
            raise self._error('drop_path_rate', drop_path_rate, '0 <= rate < 1')
        self.norm_cfg = dict(type=next(iter(self.norms_allowed))) | dict(norm_cfg or {})
        if self.norm_cfg['type'] not in self.norms_allowed:
            raise self._error('norm_cfg type', self.norm_cfg['type'], _names(self.norms_allowed))
        self.frozen_stages, self.norm_eval = frozen_stages, norm_eval
        self.init_cfg, self.is_init = copy.deepcopy(init_cfg), False  # mmengine reads is_init
        self.in_channels, self.out_indices = in_channels, tuple(indices)
        self.out_channels = tuple(dims[i] for i in indices)
        self.out_strides = tuple(self.stage_stride(i) for i in indices)

        rates = iter([drop_path_rate * k / max(1, sum(depths) - 1) for k in range(sum(depths))])
        self.build(in_channels, [[next(rates) for _ in range(depth)] for depth in depths[:num_stages]], with_cp)
        # One entry per stage, so that the name of a norm does not depend on out_indices.
        has_norm = [out_norm and i in indices for i in range(num_stages)]
        self.norms = nn.ModuleList(self.make_norm(dims[i]) if has_norm[i] else nn.Identity() for i in range(num_stages))
        self.init_family_weights()
        self.train()
        self.register_load_state_dict_pre_hook(_match_on_load)

    def make_norm(self, dim: int) -> nn.Module:
        """Make a norm of `dim` channels, as ``norm_cfg`` configures it."""
        arguments = dict(self.norm_cfg)
        norm, requires_grad = self.norms_allowed[arguments.pop('type')], arguments.pop('requires_grad', True)
        return norm(dim, **arguments).requires_grad_(requires_grad)

    def make_stem(self, in_channels: int, dim: int) -> nn.Module:
        """Make the layer (B, in_channels, H, W) to (B, dim, about H / stem_stride, about W / stem_stride)."""
        raise NotImplementedError

    def make_downsample(self, in_dim: int, dim: int, stage: int) -> nn.Module:
        """Make the layer before a stage, counted from 0: (B, in_dim, H, W) to (B, dim, ceil(H / 2), ceil(W / 2))."""
        raise NotImplementedError

    def make_token_mixing(self, stage: int, index: int) -> nn.Module:
        """Make the token mixing of block `index` of a stage, both counted from 0, for (B, H, W, dim)."""
        raise NotImplementedError

    def make_channel_mixing(self, stage: int, index: int) -> nn.Module:
        """Make the channel mixing of a block: two linear layers, unless a family overrides it."""
        dim = self.arch['dims'][stage]
        return ChannelMLP(dim, int(dim * self.arch['mlp_ratios'][stage]))

    def stage_stride(self, stage: int) -> int | float:
        """Return the image pixels per pixel of the feature map of a stage, which is counted from 0."""
        return self.stem_stride * 2**stage

    def build(self, in_channels: int, drop_paths: Sequence[Sequence[float]], with_cp: bool) -> None:
        """Build ``stem`` and ``stages``: one stage per list of stochastic depth rates, one block per rate."""
        dims = self.arch['dims']
        self.stem = self.make_stem(in_channels, dims[0])
        self.stages = nn.ModuleList()
        for i, rates in enumerate(drop_paths):
            downsample = self.make_downsample(dims[i - 1], dims[i], i) if i else nn.Identity()
            blocks = [
                Block(dims[i], self.make_token_mixing(i, j), self.make_channel_mixing(i, j), self.make_norm, rate)
                for j, rate in enumerate(rates)
            ]
            self.stages.append(Stage(downsample, blocks, with_cp))

    def init_family_weights(self) -> None:
        """Draw the initial weights of the paper's code, if they differ from PyTorch's default."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images (B, in_channels, H, W) to a feature map (B, C, H / stride, W / stride) per selected stage.

        H and W may be any number from 1 up. The family defines whether sizes of feature maps are rounded up or down.
        """
        size, x = x.shape[-2:], self.stem(x)
        outs = []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in self.out_indices:
                out = self.norms[i](self.to_output(i, x, size))
                outs.append(out.clone(memory_format=torch.contiguous_format))  # mmcv's RoIAlign requires this order
        return tuple(outs)

    def to_output(self, stage: int, x: Tensor, size: Sequence[int]) -> Tensor:
        """Return the output that belongs to the feature map `x` of a stage, for images of a size (H, W)."""
        return x

    def layers(self: Any) -> list[list[nn.Module]]:
        """Return the layers of layer-wise learning rates: the stem, then each block with its downsampling."""
        layers = [[self.stem]]
        for stage in self.stages:
            layers += [[block] if i else [stage.downsample, block] for i, block in enumerate(stage.blocks)]
        return layers

    def train(self: Any, mode: bool = True) -> Any:
        """Set the mode, except for frozen stages, and for BatchNorm if ``norm_eval``."""
        nn.Module.train(self, mode)
        if self.frozen_stages >= 0:
            for module in (self.stem, *self.stages[: self.frozen_stages]):
                module.eval().requires_grad_(False)
        for module in self.modules() if self.norm_eval else ():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def init_weights(self) -> None:
        """Apply ``init_cfg``, once. This package reads pretrained weights itself, safely and with explicit errors."""
        if self.is_init:
            return
        self.is_init = True
        cfgs = [self.init_cfg] if isinstance(self.init_cfg, Mapping) else self.init_cfg or []
        pretrained = [cfg for cfg in cfgs if cfg['type'] in ('Pretrained', 'mmengine.Pretrained')]
        if others := [cfg for cfg in cfgs if cfg not in pretrained]:
            from mmengine.model import initialize  # a backbone alone does not need mmengine

            initialize(self, others)
        for cfg in pretrained:
            load_pretrained(self, cfg['checkpoint'], prefix=cfg.get('prefix'))

    def is_unbuilt(self, key: str) -> bool:
        """Whether a tensor belongs to a stage or an output of this arch that was not selected."""
        module, number, *_ = [*key.split('.'), '']
        built = dict.fromkeys(FRESH, 0) | dict(stages=len(self.stages))
        return module in built and number.isdecimal() and built[module] <= int(number) < len(self.arch['depths'])

    @classmethod
    def names_in(cls, keys: Collection[str], depths: Sequence[int] | None = None) -> tuple[tuple[str, Any], ...]:
        """Return :attr:`official_names`, which may depend on the depths. If they are None, the keys imply them."""
        return cls.official_names

    @classmethod
    def arch_like(cls, weights: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """Return the fields of the arch that weights (our names) belong to; None if unknown."""
        try:
            arch = cls._infer_arch(weights)
        except (KeyError, IndexError, ArithmeticError):  # a tensor is missing, or has another shape
            return None
        return arch if arch['depths'] else None

    @classmethod
    def _infer_arch(cls, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """Infer the fields of an arch from shapes."""
        first = re.compile(r'stages\.(\d+)\.blocks\.\d+\.norm1\.weight')
        depths = Counter(int(match[1]) for match in map(first.fullmatch, weights) if match)
        blocks = [f'stages.{i}.blocks.0' for i in range(len(depths))]
        dims = [weights[f'{block}.norm1.weight'].shape[0] for block in blocks]
        hidden = [weights[f'{block}.channel_mixing.fc1.weight'].shape for block in blocks]
        # Weights of several experts have three dimensions.
        ratios = [shape[len(shape) == 3] // dim for shape, dim in zip(hidden, dims, strict=True)]
        return dict(depths=tuple(depths[i] for i in range(len(dims))), dims=tuple(dims), mlp_ratios=tuple(ratios))

    @classmethod
    def _resolve_arch(cls, arch: str | Mapping[str, Any]) -> dict[str, Any]:
        fields = cls.archs.get(arch) if isinstance(arch, str) else arch
        if not isinstance(fields, Mapping):
            raise cls._error('arch', arch, f'{_names(cls.archs)}, or a dict')
        allowed = ('depths', 'dims', *cls.arch_defaults)
        if not {'depths', 'dims'} <= fields.keys() <= set(allowed):
            raise cls._error('arch', dict(fields), f'a dict of {_names(allowed)}, of which depths and dims are needed')
        fields = {**cls.arch_defaults, **fields}
        for key, value in fields.items():
            if isinstance(value, Sequence) and len(value) < len(fields['depths']):
                raise cls._error(f'arch[{key!r}]', value, f'one number for each of the {len(fields["depths"])} stages')
        return fields

    @classmethod
    def _error(cls, name: str, value: object, allowed: str) -> UserError:
        return UserError(f'{cls.__name__}: {name} is {value!r}; use {allowed}.')


def _match_on_load(backbone: MLPBackbone, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Match the keys before every load, by torch's or mmengine's ``load_state_dict``, also of a complete detector."""
    tensors = {key[len(prefix) :]: state_dict.pop(key) for key in list(state_dict) if key.startswith(prefix)}
    state_dict.update({prefix + key: tensor for key, tensor in match_and_log(backbone, tensors).items()})


def _names(names: Iterable[object]) -> str:
    return ', '.join(map(str, names))
