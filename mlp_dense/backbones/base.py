"""The contract of every backbone: arguments, outputs, norms, freezing, initialisation and loading."""

import copy
import inspect
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..checkpoints.matching import FRESH, load_pretrained, match_and_log
from ..errors import ArgumentError, UserError
from .outputs import nchw_output


class MLPBackbone(nn.Module):
    """A vision MLP that gives a feature pyramid for images of any size: a stem, then stages.

    Args:
        arch: the name of a published variant (a key of ``archs``), or a dict of the same fields.
        in_channels: channels of the image.
        out_indices: the stages whose feature maps are returned, counted from 0, in ascending order. Stages after the
            last one are not built.
        drop_path_rate: the rate of stochastic depth of the last block; it rises linearly from 0 over all blocks.
        frozen_stages: -1 freezes nothing, 0 the stem, k the stem and the first k stages: no gradients, and their
            norms stay in eval mode. Output norms stay trainable, since they belong to no stage.
        norm_eval: keeps every BatchNorm in eval mode, so that its running statistics do not change.
        with_cp: recomputes the blocks in the backward pass instead of keeping their activations: the same outputs,
            gradients and running statistics with less memory.
        norm_cfg: ``dict(type=..., **arguments)`` with a type that the family allows (a key of ``norms_allowed``; the
            first is the default) and arguments of that layer; ``requires_grad=False`` freezes its weights.
        out_norm: whether a norm of its own follows each output, as in the published dense models.
        init_cfg: as in mmengine; ``dict(type='Pretrained', checkpoint=FILE_OR_URL)`` reads every published checkpoint.

    Attributes:
        out_channels: channels of each returned feature map.
        out_strides: pixels of the image per pixel of each returned feature map.

    Raises:
        ArgumentError: an argument is unknown.
        UserError: an argument has a value that is not allowed; the message lists what is.
    """

    archs: ClassVar[dict[str, dict[str, Any]]]
    arch_defaults: ClassVar[dict[str, Any]] = {}
    norms_allowed: ClassVar[dict[str, type[nn.Module]]]
    official_names: ClassVar[tuple[tuple[str, Any], ...]]
    """Pairs (pattern, ours) for ``re.sub`` on the keys of the official checkpoints; a
    :class:`~mlp_dense.checkpoints.matching.LeftOut` in place of ours says why a tensor is not loaded."""
    stem: nn.Module
    stages: nn.ModuleList

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
            raise ArgumentError(f'{type(self).__name__} does not know {_names(unknown)}; it takes {self._arguments()}.')
        super().__init__()
        self.arch = self._resolve_arch(arch)
        dims, depths = self.arch['dims'], self.arch['depths']
        self.out_indices = self._checked_out_indices(out_indices, len(depths))
        num_stages = self.out_indices[-1] + 1
        if not -1 <= frozen_stages <= num_stages:
            raise self._error('frozen_stages', frozen_stages, f'-1 to {num_stages}')
        if not 0.0 <= drop_path_rate < 1.0:
            raise self._error('drop_path_rate', drop_path_rate, '0 <= rate < 1')
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.init_cfg = copy.deepcopy(init_cfg)
        self.is_init = False  # mmengine asks for it
        self.make_norm = self._norm_factory(norm_cfg)
        self.out_channels = tuple(dims[i] for i in self.out_indices)
        self.out_strides = tuple(self.stage_stride(i) for i in self.out_indices)

        rates = iter([drop_path_rate * k / max(1, sum(depths) - 1) for k in range(sum(depths))])
        self.build(in_channels, [[next(rates) for _ in range(depth)] for depth in depths[:num_stages]], with_cp)
        # One place per stage, so that the name of a norm does not depend on out_indices.
        self.norms = nn.ModuleList(
            self.make_norm(dims[i]) if out_norm and i in self.out_indices else nn.Identity() for i in range(num_stages)
        )
        self.init_family_weights()
        keep_frozen(self)
        self.register_load_state_dict_pre_hook(_match_on_load)

    def stage_stride(self, stage: int) -> int | float:
        """Pixels of the image per pixel of the feature map of a stage, which is counted from 0."""
        raise NotImplementedError

    def build(self, in_channels: int, drop_paths: Sequence[Sequence[float]], with_cp: bool) -> None:
        """Makes ``stem`` and ``stages``, one for each list of rates of stochastic depth (a rate for each block)."""
        raise NotImplementedError

    def init_family_weights(self) -> None:
        """Draws the initial weights as the paper's code does, where that is not PyTorch's default."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images (B, in_channels, H, W) to one feature map (B, C, H / stride, W / stride) per selected stage.

        H and W may be any number from 1 up; sizes of the feature maps are rounded up or down as the family does it.
        """
        size, x = x.shape[-2:], self.stem(x)
        outs = []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in self.out_indices:
                outs.append(nchw_output(self.to_output(i, x, size), self.norms[i]))
        return tuple(outs)

    def to_output(self, stage: int, x: Tensor, size: Sequence[int]) -> Tensor:
        """The feature map that belongs to a stage, from what the stage gives, for images of a size (H, W)."""
        return x

    def layers(self) -> list[list[nn.Module]]:
        """The stem, then every block with the downsampling before it: the layers of layer-wise learning rates."""
        return layers_of(self)

    def train(self, mode: bool = True) -> 'MLPBackbone':
        super().train(mode)
        keep_frozen(self)
        return self

    def init_weights(self) -> None:
        """Applies ``init_cfg``, once. Pretrained weights are read by this package, loudly and safely."""
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
        kind, _, rest = key.partition('.')
        number = rest.partition('.')[0]
        built = len(self.stages) if kind == 'stages' else 0 if kind in FRESH else None
        return built is not None and number.isdecimal() and built <= int(number) < len(self.arch['depths'])

    @classmethod
    def names_in(cls, keys: Collection[str], depths: Sequence[int] | None = None) -> tuple[tuple[str, Any], ...]:
        """:attr:`official_names` for the keys of a checkpoint, where those depend on the depths of the stages; these
        are guessed from the keys if they are not known."""
        return cls.official_names

    @classmethod
    def arch_like(cls, weights: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """The fields of the arch that some weights (our names) belong to, as far as their shapes tell; None if none."""
        raise NotImplementedError

    @classmethod
    def _arguments(cls) -> str:
        """The arguments of the constructor, and of those that it hands arguments on to."""
        signatures = [inspect.signature(base) for base in cls.__mro__ if issubclass(base, MLPBackbone)]
        parameters = [parameter for signature in signatures for parameter in signature.parameters.values()]
        named = [p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
        return _names(dict.fromkeys(named))

    @classmethod
    def _resolve_arch(cls, arch: str | Mapping[str, Any]) -> dict[str, Any]:
        name, arch = arch, cls.archs.get(arch) if isinstance(arch, str) else arch
        if not isinstance(arch, Mapping):
            raise cls._error('arch', name, f'{_names(cls.archs)}, or a dict')
        allowed = ('depths', 'dims', *cls.arch_defaults)
        if not {'depths', 'dims'} <= arch.keys() <= set(allowed):
            raise cls._error('arch', dict(arch), f'a dict of {_names(allowed)}, of which depths and dims are needed')
        arch = {**cls.arch_defaults, **arch}
        for key, value in arch.items():
            if isinstance(value, Sequence) and len(value) < len(arch['depths']):
                raise cls._error(f'arch[{key!r}]', value, f'one number for each of the {len(arch["depths"])} stages')
        return arch

    @classmethod
    def _checked_out_indices(cls, out_indices: Sequence[int], num_stages: int) -> tuple[int, ...]:
        given = list(out_indices) if isinstance(out_indices, Sequence) else []
        chosen = [i for i in range(num_stages) if i in given]
        if not chosen or chosen != given:
            allowed = f'one or more of {_names(range(num_stages))}, in ascending order'
            raise cls._error('out_indices', out_indices, allowed)
        return tuple(chosen)

    @classmethod
    def _norm_factory(cls, norm_cfg: Mapping[str, Any] | None):
        cfg = dict(norm_cfg or {})
        kind = cfg.pop('type', next(iter(cls.norms_allowed)))
        if kind not in cls.norms_allowed:
            raise cls._error('norm_cfg type', kind, _names(cls.norms_allowed))
        return partial(_make_norm, cls.norms_allowed[kind], cfg.pop('requires_grad', True), **cfg)

    @classmethod
    def _error(cls, name: str, value: object, allowed: str) -> UserError:
        return UserError(f'{cls.__name__}: {name} is {value!r}; allowed: {allowed}.')


def layers_of(network: nn.Module) -> list[list[nn.Module]]:
    """Of a network with a ``stem`` and ``stages``, see :meth:`MLPBackbone.layers`."""
    layers = [[network.stem]]
    for stage in network.stages:
        layers += [[block] if i else [stage.downsample, block] for i, block in enumerate(stage.blocks)]
    return layers


def keep_frozen(network: nn.Module) -> None:
    """What ``frozen_stages`` and ``norm_eval`` of a network with a ``stem`` and ``stages`` say, after ``train()``."""
    if network.frozen_stages >= 0:
        for module in (network.stem, *network.stages[: network.frozen_stages]):
            module.eval()
            module.requires_grad_(False)
    for module in network.modules() if network.norm_eval else ():
        if isinstance(module, _BatchNorm):
            module.eval()


def _match_on_load(backbone: MLPBackbone, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Runs before every load, by torch's or mmengine's ``load_state_dict``, of the backbone or of a whole detector."""
    found = {key[len(prefix) :]: state_dict.pop(key) for key in list(state_dict) if key.startswith(prefix)}
    state_dict.update({prefix + key: tensor for key, tensor in match_and_log(backbone, found).items()})


def _make_norm(kind: type[nn.Module], requires_grad: bool, dim: int, **arguments: Any) -> nn.Module:
    return kind(dim, **arguments).requires_grad_(requires_grad)


def _names(names) -> str:
    return ', '.join(map(str, names))
