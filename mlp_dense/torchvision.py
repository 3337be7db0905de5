"""Backbones for the detectors of torchvision, without OpenMMLab."""

from collections import OrderedDict

from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from .backbones.base import MLPBackbone


class BackboneWithFPN(nn.Module):
    """Backbone with a feature pyramid network, for ``MaskRCNN`` and the other detectors of torchvision.

    With four outputs it has the five levels of their default anchors.

    Args:
        backbone: Backbone that produces the feature maps.
        out_channels: Channels of every level.
    """

    def __init__(self, backbone: MLPBackbone, out_channels: int = 256):
        super().__init__()
        self.body = backbone
        self.fpn = FeaturePyramidNetwork(list(backbone.out_channels), out_channels, extra_blocks=LastLevelMaxPool())
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """Return one feature map (B, out_channels, H / stride, W / stride) per level for images (B, 3, H, W).

        The backbone's levels are named ``'0'``, ``'1'`` and so on. ``'pool'`` has twice the last stride.
        """
        return self.fpn(OrderedDict((str(i), feature_map) for i, feature_map in enumerate(self.body(x))))
