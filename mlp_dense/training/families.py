"""Registers the backbones, in this package's scope and, under their bare names, in mmengine's root registry."""

from mmengine.registry import MODELS as ROOT_MODELS

from ..backbones import FAMILIES
from ..registry import MODELS

for family in FAMILIES:
    MODELS.register_module(module=family)
    ROOT_MODELS.register_module(module=family)
