"""Backbones for the detectors of torchvision, without OpenMMLab."""

from collections import OrderedDict

from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from .backbones.base import MLPBackbone


class BackboneWithFPN(nn.Module):
    """Backbone with a feature pyramid network of `out_channels` channels, for the detectors of torchvision.

    With four outputs it has the five levels of their default anchors.
    """

    def __init__(self, backbone: MLPBackbone, out_channels: int = 256):
        super().__init__()
        self.body = backbone
        self.fpn = FeaturePyramidNetwork(list(backbone.out_channels), out_channels, extra_blocks=LastLevelMaxPool())
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """Return the maps ``'0'``, ``'1'``, ... of the backbone's strides, and ``'pool'`` of twice the last stride."""
        return self.fpn(OrderedDict((str(i), feature_map) for i, feature_map in enumerate(self.body(x))))
