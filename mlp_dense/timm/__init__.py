"""Every variant of every family for timm: ``import mlp_dense.timm``, then ``timm.create_model('hire_mlp_tiny')``.

A classifier has the modules of a backbone under the same names, so the weights of one load into the other. With
``features_only=True``, as segmentation_models_pytorch and other libraries use it, a model returns feature maps with
strides of 4, 8, 16 and 32. Fixed-grid networks return their pyramid (docs/fixed_grids.md).
"""

from functools import partial
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from ..backbones import FAMILIES
from ..backbones.base import MLPBackbone
from .classifier import VisionMLP, add_prefix
from .weights import default_cfg

__all__ = ['VisionMLP', 'name_of']


def name_of(family: type[MLPBackbone], arch: str) -> str:
    """Return a variant's name in timm: the family's file and the arch. timm's own ``mixer_*`` are only classifiers."""
    return f'{family.__module__.rpartition(".")[2]}_{arch}'


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
