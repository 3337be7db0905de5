"""Every variant of every family for timm: ``import mlp_dense.timm``, then ``timm.create_model('hire_mlp_tiny')``.

A classifier has the modules of a backbone under the same names, so its weights load into a backbone and vice versa.
With ``features_only=True``, as segmentation_models_pytorch and other libraries use it, a model returns feature maps
with strides of 4, 8, 16 and 32. Fixed-grid networks return their pyramid (docs/fixed_grids.md).
"""

import re
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import ClassifierHead
from timm.models import (
    adapt_input_conv,
    build_model_with_cfg,
    generate_default_cfgs,
    register_model,
    register_notrace_module,
)
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from .backbones import FAMILIES
from .backbones.base import MLPBackbone
from .backbones.fixed_grid import FixedGridMLP, Rescaling
from .backbones.layers import ChannelLayerNorm, ConvDownsample, GroupNorm1, PatchStem, Stage
from .checkpoints.matching import SOURCE, log, match_to_backbone
from .checkpoints.reading import Checkpoint
from .errors import ArgumentError, CheckpointError

RELEASES = 'https://github.com/{}/releases/download/{}/'
HIRE = RELEASES.format('ggjy/Hire-Wave-MLP.pytorch', 'log')
WAVE = RELEASES.format('ggjy/Hire-Wave-MLP.pytorch', 'log-wave')
CYCLE = RELEASES.format('ShoufaChen/CycleMLP', 'v0.1')
MIXER = RELEASES.format('rwightman/pytorch-image-models', 'v0.1-vitjx')
PUBLISHED = {
    **{f'hire_mlp_{arch}': f'{HIRE}hire_mlp_{arch}.pth' for arch in ('tiny', 'small', 'base')},
    **{f'cycle_mlp_b{i}': f'{CYCLE}CycleMLP_B{i}.pth' for i in range(1, 6)},
    **{f'wave_mlp_{arch.lower()}': f'{WAVE}WaveMLP_{arch}.pth.tar' for arch in ('T_dw', 'T', 'S', 'M')},
    'mlp_mixer_b16': MIXER + 'jx_mixer_b16_224-76587d61.pth',
    'mlp_mixer_l16': MIXER + 'jx_mixer_l16_224-92f9adc4.pth',
}
"""URLs by the name of the variant. The weights of AS-MLP and ViP must be downloaded by hand."""
CROPS = dict.fromkeys(['wave_mlp_t_dw', 'wave_mlp_t', 'wave_mlp_s', 'wave_mlp_m', 'vip_s7', 'vip_s14', 'vip_m7'], 0.9)
"""Fraction of an image that is used in a test, if it is not 0.875 (published code)."""
HALF = (0.5, 0.5, 0.5)  # mean and standard deviation of the images of MLP-Mixer's weights


class VisionMLP(nn.Module):
    """Classifier with the stem, stages and norm of a backbone, the mean over all positions, and a linear layer.

    Args:
        family: Class of the backbone.
        arch: Name or fields of a variant, see :class:`~mlp_dense.MLPBackbone`.
        num_classes: Number of classes; 0 removes the linear layer.
        global_pool: Pooling of timm's ClassifierHead: ``'avg'``, ``'max'``, ``''`` and others.
        drop_rate: Dropout rate before the linear layer.
        pyramid: Whether a fixed-grid family has the layers that rescale its feature maps to strides of 4, 8, 16 and
            32. ``features_only=True`` sets it.
        img_size: Ignored, since every size is supported.
        output_stride: Must be 32.
        arguments: Other arguments of the backbone, such as ``global_blocks``, ``frozen_stages`` and ``norm_eval``.
    """

    pyramid: nn.ModuleList
    stages: nn.ModuleList
    train, layers = MLPBackbone.train, MLPBackbone.layers  # both need only the stem and the stages

    def __init__(
        self,
        family: type[MLPBackbone],
        arch: str | Mapping[str, Any],
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = 'avg',
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        pyramid: bool = False,
        img_size: int | tuple[int, int] | None = None,
        output_stride: int = 32,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **arguments: Any,
    ):
        if output_stride != 32:
            raise ArgumentError(
                f'{family.__name__} has an output_stride of 32 only, not {output_stride}: choose a decoder for stride '
                '32, such as Unet, FPN, UPerNet or Segformer instead of DeepLabV3, DeepLabV3Plus or PAN.'
            )
        super().__init__()
        if not pyramid and 'resize_input' in signature(family).parameters:  # published classifiers do not resize
            arguments = {'resize_input': False, **arguments}
        self.family, self.arch, self.arguments = family, arch, arguments
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        with torch.device(device) if device else nullcontext():
            stages = len(family._resolve_arch(arch)['depths'])
            outputs = range(stages) if pyramid else [stages - 1]
            backbone: Any = family(arch, in_chans, outputs, drop_path_rate, **arguments)
            self.stem, self.stages, self.norm = backbone.stem, backbone.stages, backbone.norms[-1]
            raw = issubclass(family, FixedGridMLP) and not pyramid
            if hasattr(backbone, 'pyramid') and not raw:
                self.pyramid = backbone.pyramid
            dims = backbone.arch['dims']
            self.num_features = self.head_hidden_size = dims[-1]
            self.head = ClassifierHead(dims[-1], num_classes, pool_type=global_pool, drop_rate=drop_rate)
            self.init_head()
        self.frozen_stages, self.norm_eval = backbone.frozen_stages, backbone.norm_eval
        stride = backbone.grid_stride if raw else backbone.stage_stride
        self.feature_info = [
            dict(num_chs=dim, reduction=int(stride(i)), module=f'stages.{i}') for i, dim in enumerate(dims)
        ]
        self.to(dtype=dtype)
        self.register_load_state_dict_pre_hook(_match_on_load)

    def init_head(self) -> None:
        if isinstance(self.head.fc, nn.Linear):
            nn.init.trunc_normal_(self.head.fc.weight, std=0.02)
            nn.init.zeros_(self.head.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, num_classes) for images (B, in_chans, H, W)."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map after its norm (B, num_features, h, w) for images (B, in_chans, H, W)."""
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.norm(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return the logits, or the input of the last layer, for a feature map."""
        return self.head(x, pre_logits=pre_logits)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = 'NCHW',
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return the output of :meth:`forward_features` and the feature maps (B, C, h, w) of some stages, see timm."""
        if output_fmt != 'NCHW':
            raise ArgumentError(f"output_fmt is {output_fmt!r}; use 'NCHW'.")
        selected, last = feature_take_indices(len(self.stages), indices)
        size, x, maps = x.shape[-2:], self.stem(x), []
        for i, stage in enumerate(self.stages[: last + 1] if stop_early else self.stages):
            x = stage(x)
            if i in selected:
                out = self.pyramid[i](x, size=size) if hasattr(self, 'pyramid') else x
                maps.append(self.norm(out) if norm and i == len(self.stages) - 1 else out)
        return maps if intermediates_only else (self.norm(x), maps)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove the layers that the feature maps of some stages do not need, and return the indices of the stages."""
        selected, last = feature_take_indices(len(self.stages), indices)
        self.stages = self.stages[: last + 1]
        if hasattr(self, 'pyramid'):
            layers = enumerate(self.pyramid[: last + 1])
            self.pyramid = nn.ModuleList(layer if i in selected else nn.Identity() for i, layer in layers)
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0, '')
        return selected

    def get_classifier(self) -> nn.Module:
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the linear layer by one for a number of classes; 0 removes it."""
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool)
        self.init_head()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        for stage in self.stages:
            stage.with_cp = enable  # type: ignore[assignment]

    def no_weight_decay(self) -> set[str]:
        return {name for name, _ in self.named_parameters() if name.endswith('bias')}  # biases of experts are matrices

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return patterns that form the same layers as :meth:`layers`, or with `coarse` one layer per stage."""
        blocks = [(r'^stages\.(\d+)\.downsample', (0,)), (r'^stages\.(\d+)\.blocks\.(\d+)', None)]
        return dict(stem=r'^stem', blocks=r'^stages\.(\d+)' if coarse else blocks)

    def load_pretrained(self, source: str | Path, in_chans: int = 3) -> None:
        """Load a classifier or backbone, published or ours, from a file or URL, and log the result.

        A head for other classes is not loaded. If the checkpoint has another number of input channels (`in_chans`), its
        first layer is adapted as in timm.
        """
        tensors, report = self.matched(Checkpoint.read(source), in_chans)
        log(report)
        if in_chans != self.in_chans:
            key = next(key for key, tensor in tensors.items() if key.startswith('stem.') and tensor.ndim == 4)
            tensors[key] = adapt_input_conv(self.in_chans, tensors[key], base_chans=in_chans)
            log(f'The first convolution is converted from {in_chans} to {self.in_chans} channels by timm.')
        self.load_state_dict({**self.state_dict(), **tensors})

    def matched(self, checkpoint: Checkpoint, in_chans: int) -> tuple[dict[str, Tensor], str]:
        """Return the tensors of a checkpoint by our names, without a head for other classes, and a report."""
        ours, norm_and_head, others = self.state_dict(), {}, {}
        last_norm = f'norms.{len(self.feature_info) - 1}'  # of a dense backbone
        for key, tensor in checkpoint.weights.items():
            name = re.sub(rf'^(backbone\.)?(norm|ln1|{last_norm})\.', 'norm.', key)
            name = re.sub(r'^(backbone\.)?head\.(fc\.)?(?=weight$|bias$)', 'head.fc.', name)
            if name.startswith(('norm.', 'head.')) and tensor.shape == getattr(ours.get(name), 'shape', None):
                norm_and_head[name] = tensor
            else:
                others[key] = tensor
        with torch.device('meta'):
            backbone = self.family(self.arch, in_chans, out_norm=False, **self.arguments)
        tensors, report = match_to_backbone(backbone, Checkpoint(checkpoint.source, None, others))
        tensors = {key: tensor for key, tensor in tensors.items() if key in ours and not tensor.is_meta} | norm_and_head
        for state, keys in (('loaded', norm_and_head), ('fresh', ours.keys() - tensors.keys())):
            if keys:
                report += f'; {" and ".join(sorted({key.partition(".")[0] for key in keys}, reverse=True))} {state}'
        return tensors, report


def _match_on_load(model: VisionMLP, state_dict: dict[str, Any], prefix: str, _: Any, strict: bool, *__: Any) -> None:
    """Rename official tensors, and those of a dense backbone, before every ``load_state_dict``.

    The pyramid may keep random weights, and so may the head after the state dict of a backbone. All other
    absent tensors stay missing.
    """
    tensors = {key[len(prefix) :]: state_dict.pop(key) for key in list(state_dict) if key.startswith(prefix)}
    ours = model.state_dict()
    if strict and not prefix:
        _check_classes(ours, tensors)
    if tensors.keys() != ours.keys():
        is_backbone = not prefix and any(key.startswith('norms.') for key in tensors)
        may_be_fresh = ('pyramid.', 'head.') if is_backbone else ('pyramid.',)
        tensors, report = model.matched(Checkpoint(SOURCE.get(), None, tensors), model.in_chans)
        log(report)
        tensors = {key: tensor for key, tensor in ours.items() if key.startswith(may_be_fresh)} | tensors
    state_dict.update({prefix + key: tensor for key, tensor in tensors.items()})


def add_prefix(name: str, module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Rename the tensors of a published or dense model to those of a module that contains it as `name`."""
    if not any(key.startswith(prefix + name) for key in state_dict):
        for key in [key for key in state_dict if key.startswith(prefix)]:
            state_dict[prefix + name + key[len(prefix) :]] = state_dict.pop(key)


def _check_classes(ours: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    names = ('backbone.head.fc.bias', 'head.fc.bias', 'head.bias')
    classes = next((len(tensors[name]) for name in names if name in tensors), None)
    if classes is not None and 'head.fc.bias' in ours and classes != len(ours['head.fc.bias']):
        raise CheckpointError(
            f'{SOURCE.get()} has {classes} classes, the model {len(ours["head.fc.bias"])}: create it with '
            f'num_classes={classes}, or with pretrained=True, pretrained_cfg_overlay=dict(file=...) for a new head.'
        )


def name_of(family: type[MLPBackbone], arch: str) -> str:
    """Return a variant's name in timm: the family's file and the arch. timm's own ``mixer_*`` are only classifiers."""
    return f'{family.__module__.rpartition(".")[2]}_{arch}'


def default_cfg(name: str) -> dict[str, Any]:
    """Return timm's description of a variant's weights and of their images."""
    mean, std = (HALF, HALF) if name.startswith('mlp_mixer') else (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    image = dict(input_size=(3, 224, 224), fixed_input_size=False, interpolation='bicubic', mean=mean, std=std)
    image['crop_pct'] = CROPS.get(name, 0.875)
    weights = dict(url=PUBLISHED.get(name, ''), custom_load=True, num_classes=1000)
    return dict(**weights, **image, first_conv='stem.conv', classifier='head.fc')


def _register(name: str, family: type[MLPBackbone], arch: str) -> None:
    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        pyramid = kwargs.get('features_only', False)
        features = dict(out_indices=(0, 1, 2, 3), feature_cls='getter')
        if overlay := kwargs.get('pretrained_cfg_overlay'):  # also reads the user's file with VisionMLP.load_pretrained
            kwargs['pretrained_cfg_overlay'] = dict(custom_load=True) | overlay
        model = build_model_with_cfg(
            VisionMLP, name, pretrained, feature_cfg=features, family=family, arch=arch, pyramid=pyramid, **kwargs
        )
        if pyramid:  # for `checkpoint_path`, which timm loads into the wrapper
            model.register_load_state_dict_pre_hook(partial(add_prefix, 'model.'))
        return model

    create.__name__, create.__doc__ = name, f'{family.__name__} {arch} for timm.create_model.'
    register_model(create)


_VARIANTS = {name_of(family, arch): (family, arch) for family in FAMILIES for arch in family.archs}
default_cfgs = generate_default_cfgs({name: default_cfg(name) for name in _VARIANTS})
for _name, (_family, _arch) in _VARIANTS.items():
    _register(_name, _family, _arch)
for _module in (ChannelLayerNorm, GroupNorm1, ConvDownsample, PatchStem, Rescaling, Stage):
    register_notrace_module(_module)  # a leaf for torch.fx, since its Python code depends on sizes
