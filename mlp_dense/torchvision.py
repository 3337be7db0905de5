"""Backbones for the detectors of torchvision, for those who use nothing of OpenMMLab."""

from collections import OrderedDict

from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from .backbones.base import MLPBackbone


class BackboneWithFPN(nn.Module):
    """A backbone and a feature pyramid network, as ``MaskRCNN``, ``FasterRCNN`` and the other detectors of
    ``torchvision.models.detection`` take it: with four outputs it has the five levels of their default anchors.

    Args:
        out_channels: of every level.
    """

    def __init__(self, backbone: MLPBackbone, out_channels: int = 256):
        super().__init__()
        self.body = backbone
        self.fpn = FeaturePyramidNetwork(list(backbone.out_channels), out_channels, extra_blocks=LastLevelMaxPool())
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """Images (B, 3, H, W) to feature maps (B, out_channels, H / stride, W / stride): the backbone's by their
        numbers from ``'0'``, and ``'pool'``, of twice the last stride."""
        return self.fpn(OrderedDict((str(i), feature_map) for i, feature_map in enumerate(self.body(x))))
