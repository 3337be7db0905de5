"""Every variant of every family for timm: ``import mlp_dense.timm``, then ``timm.create_model('hire_mlp_tiny')``.

A classifier is made of the parts of a backbone under the same names, so that the weights of one load into the other.
With ``features_only=True``, as segmentation_models_pytorch and other users of encoders ask for it, a model gives maps
with strides of 4, 8, 16 and 32; the networks on a fixed grid give their pyramid (docs/fixed_grids.md).
"""

from pathlib import Path
from typing import Any

import timm.models._factory as factory
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from ..backbones import FAMILIES
from ..backbones.base import MLPBackbone
from .classifier import VisionMLP
from .weights import default_cfg

__all__ = ['VisionMLP', 'name_of']


def name_of(family: type[MLPBackbone], arch: str) -> str:
    """The name of a variant in timm: the family's file and the arch. timm's own ``mixer_*`` are classifiers only."""
    return f'{family.__module__.rpartition(".")[2]}_{arch}'


def _register(name: str, family: type[MLPBackbone], arch: str) -> None:
    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        pyramid = kwargs.get('features_only', False)
        features = dict(out_indices=(0, 1, 2, 3), feature_cls='getter')
        if overlay := kwargs.get('pretrained_cfg_overlay'):  # a file of the user's is read by this package, too
            kwargs['pretrained_cfg_overlay'] = dict(custom_load=True) | overlay
        return build_model_with_cfg(
            VisionMLP, name, pretrained, feature_cfg=features, family=family, arch=arch, pyramid=pyramid, **kwargs
        )

    create.__name__, create.__doc__ = name, f'{family.__name__} {arch} for timm.create_model.'
    register_model(create)


def _load_checkpoint(model: nn.Module, checkpoint_path: str | Path, *args: Any, **kwargs: Any) -> Any:
    """For `checkpoint_path` of timm.create_model: this package reads more files, each safely."""
    inside = getattr(model, 'model', model)
    if isinstance(inside, VisionMLP):
        return inside.load_pretrained(checkpoint_path, inside.in_chans, new_head=False)
    return _timms_load_checkpoint(model, checkpoint_path, *args, **kwargs)


_VARIANTS = {name_of(family, arch): (family, arch) for family in FAMILIES for arch in family.archs}
default_cfgs = generate_default_cfgs({name: default_cfg(name) for name in _VARIANTS})
for _name, (_family, _arch) in _VARIANTS.items():
    _register(_name, _family, _arch)
_timms_load_checkpoint, factory.load_checkpoint = factory.load_checkpoint, _load_checkpoint
