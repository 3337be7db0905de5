"""A backbone as a classifier, and as an encoder, with the interface of timm's models."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from timm.layers import ClassifierHead
from timm.models import adapt_input_conv, register_notrace_module
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from ..backbones import FAMILIES, VisionPermutator
from ..backbones.as_mlp import PatchEmbedding
from ..backbones.base import MLPBackbone, keep_frozen, layers_of
from ..backbones.fixed_grid import FixedGridMLP, PatchStem, Rescaling
from ..backbones.layers import ConvDownsample
from ..backbones.stages import Stage
from ..checkpoints.matching import SOURCE, log
from ..checkpoints.reading import Checkpoint
from ..errors import ArgumentError, CheckpointError
from .matching import match_to_classifier


class VisionMLP(nn.Module):
    """A classifier: stem and stages of a backbone, its norm, the mean over all positions, a linear layer.

    Args:
        family: the class of the backbone.
        arch: as there.
        num_classes: 0 for none.
        in_chans: channels of the image.
        global_pool: as in timm's ClassifierHead: ``'avg'``, ``'max'``, ``''`` and others.
        drop_rate: of dropout before the last layer.
        drop_path_rate: of stochastic depth, see :class:`MLPBackbone`.
        pyramid: whether a family on a fixed grid has the layers that make strides of 4, 8, 16 and 32 of its feature
            maps; ``features_only=True`` sets it.
        img_size: of no effect, as every size runs.
        output_stride: must be 32.
        device, dtype: of the parameters.
        arguments: further ones of the backbone, such as ``global_blocks``, ``frozen_stages`` and ``norm_eval``.

    Raises:
        ArgumentError: an argument is unknown, or a stride other than 32 is asked for.
    """

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
                f'{family.__name__} has an output_stride of 32 only, not {output_stride}: take a decoder that asks for '
                'no other, such as Unet, FPN, UPerNet or Segformer instead of DeepLabV3, DeepLabV3Plus or PAN.'
            )
        super().__init__()
        if issubclass(family, VisionPermutator) and not pyramid:  # as published
            arguments = {'resize_input': False, **arguments}
        self.family, self.arch, self.arguments = family, arch, arguments
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        with torch.device(device) if device else nullcontext():
            stages = len(family._resolve_arch(arch)['depths'])
            outputs = range(stages) if pyramid else [stages - 1]
            backbone = family(arch, in_chans, outputs, drop_path_rate, **arguments)
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

    def train(self, mode: bool = True) -> 'VisionMLP':
        super().train(mode)
        keep_frozen(self)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, in_chans, H, W) to logits (B, num_classes)."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (B, in_chans, H, W) to the last feature map after its norm, (B, num_features, h, w)."""
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.norm(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """A feature map to logits, or to what goes into the last layer."""
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
        """The feature maps of some stages, (B, C, h, w), and what :meth:`forward_features` gives.

        Args:
            indices: the stages, counted from 0; the last so many; or all.
            norm: whether the last stage's feature map is that after the norm.
            stop_early: whether stages after the last one asked for are left out.
            intermediates_only: the feature maps alone.
        """
        if output_fmt != 'NCHW':
            raise ArgumentError(f"output_fmt is {output_fmt!r}; allowed: 'NCHW'.")
        taken, last = feature_take_indices(len(self.stages), indices)
        size, x, maps = x.shape[-2:], self.stem(x), []
        for i, stage in enumerate(self.stages[: last + 1] if stop_early else self.stages):
            x = stage(x)
            if i in taken:
                out = self.pyramid[i](x, size=size) if hasattr(self, 'pyramid') else x
                maps.append(self.norm(out) if norm and i == len(self.stages) - 1 else out)
        return maps if intermediates_only else (self.norm(x), maps)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Removes what the feature maps of some stages do not need; returns these stages."""
        taken, last = feature_take_indices(len(self.stages), indices)
        self.stages = self.stages[: last + 1]
        if hasattr(self, 'pyramid'):
            self.pyramid = nn.ModuleList(
                layer if i in taken else nn.Identity() for i, layer in enumerate(self.pyramid[: last + 1])
            )
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0, '')
        return taken

    def get_classifier(self) -> nn.Module:
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new last layer for so many classes; 0 for none."""
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool)
        self.init_head()

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        for stage in self.stages:
            stage.with_cp = enable

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        return {name for name, _ in self.named_parameters() if name.endswith('bias')}  # those of experts are matrices

    def layers(self) -> list[list[nn.Module]]:
        """As those of a backbone."""
        return layers_of(self)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """The layers of layer-wise learning rates, those of ``backbone.layers()``: the stem, then every block with the
        downsampling before it (coarse: whole stages); norm, pyramid and head belong to none."""
        blocks = [(r'^stages\.(\d+)\.downsample', (0,)), (r'^stages\.(\d+)\.blocks\.(\d+)', None)]
        return dict(stem=r'^stem', blocks=r'^stages\.(\d+)' if coarse else blocks)

    def load_pretrained(self, source: str | Path, in_chans: int = 3, new_head: bool = True) -> None:
        """Loads a published classifier or backbone, or one of this package, from a file or an address; logs what.

        Args:
            in_chans: channels of the images that the file's network was trained on. For images of others its first
                layer is adapted as timm does it.
            new_head: whether a head for other classes is left out.

        Raises:
            CheckpointError: it cannot be read, is of another family or arch, or of other classes.
        """
        checkpoint = Checkpoint.read(source)
        found, report = self.matched(checkpoint, in_chans)
        log(report)
        biases = (checkpoint.weights.get(f'{name}.bias') for name in ('backbone.head.fc', 'head.fc', 'head'))
        theirs = next((bias for bias in biases if bias is not None), None)
        if not new_head and self.num_classes and theirs is not None and len(theirs) != self.num_classes:
            raise CheckpointError(
                f'{source} knows {len(theirs)} classes and the model {self.num_classes}: create it with num_classes='
                f'{len(theirs)}, or with pretrained=True, pretrained_cfg_overlay=dict(file=...) for a new head.'
            )
        if in_chans != self.in_chans:
            key = next(key for key, tensor in found.items() if key.startswith('stem.') and tensor.ndim == 4)
            found[key] = adapt_input_conv(self.in_chans, found[key], base_chans=in_chans)
        self.load_state_dict({**self.state_dict(), **found})

    def matched(self, checkpoint: Checkpoint, in_chans: int) -> tuple[dict[str, Tensor], str]:
        """The tensors of a checkpoint by our names, without those of a head for other classes, and a line that says
        what was found and what is fresh. CheckpointError: it is of another family or arch."""
        return match_to_classifier(self, checkpoint, in_chans)


def _match_on_load(model: VisionMLP, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Runs before every ``load_state_dict``: official names, and those of a dense backbone, become a model's own. What
    is absent stays absent, which a strict load refuses; but a pyramid may start fresh, and after a backbone's own state
    dict, which has none, the head."""
    found = {key[len(prefix) :]: state_dict.pop(key) for key in list(state_dict) if key.startswith(prefix)}
    own = model.state_dict()
    if found.keys() != own.keys():
        given = found
        found, report = model.matched(Checkpoint(SOURCE.get(), None, given), model.in_chans)
        log(report)
        of_backbone = not prefix and any(key.startswith('norms.') for key in given)
        may_be_fresh = ('pyramid.', 'head.') if of_backbone else ('pyramid.',)
        found = {key: tensor for key, tensor in own.items() if key.startswith(may_be_fresh)} | found
    state_dict.update({prefix + key: tensor for key, tensor in found.items()})


for _family in FAMILIES:
    for _norm in _family.norms_allowed.values():
        register_notrace_module(_norm)
for _part in (ConvDownsample, PatchEmbedding, PatchStem, Rescaling, Stage):
    register_notrace_module(_part)  # sizes decide in Python what they do: torch.fx takes each as it is
