"""Networks that the benchmarks compare."""

import copy
from collections.abc import Sequence
from importlib.util import find_spec

import torch
from mmdet.utils import register_all_modules as register_mmdet
from mmengine.config import Config
from mmengine.registry import MODELS
from mmseg.utils import register_all_modules as register_mmseg
from published import PublishedNetwork
from torch import nn

import mlp_dense

for register in (register_mmdet, register_mmseg):
    register(init_default_scope=False)

ARCHS = {family.__name__: family.archs for family in mlp_dense.backbones.FAMILIES}
SMALLEST = [f'{family}:{next(iter(archs))}' for family, archs in ARCHS.items()]
TIMM = dict(type='mmseg.TIMMBackbone', features_only=True, pretrained=False)
PEERS = {  # config, channels of the feature maps
    'Swin-T': (
        dict(type='mmdet.SwinTransformer', embed_dims=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24)),
        (96, 192, 384, 768),
    ),
    'ResNet-50': (dict(type='mmdet.ResNet', depth=50), (256, 512, 1024, 2048)),
    'ConvNeXt-T': (TIMM | dict(model_name='convnext_tiny'), (96, 192, 384, 768)),
}
SWIN_IN_HALF = TIMM | dict(model_name='swin_tiny_patch4_window7_224', strict_img_size=False)
"""timm's Swin-T, because mmdet's accepts only fp32 weights."""
if not find_spec('timm'):
    del PEERS['ConvNeXt-T']


def build_peer(name: str, half: bool) -> nn.Module | None:
    """Return another backbone, or None if `half` is set and the backbone does not support 16-bit weights."""
    cfg = PEERS[name][0]
    if half and name == 'Swin-T':
        cfg = SWIN_IN_HALF if find_spec('timm') else None
    return MODELS.build(copy.deepcopy(cfg)) if cfg else None


def set_channels(cfg: Config, channels: Sequence[int]) -> None:
    """Connect the neck, or the heads of a model without a neck, to a backbone with these output channels."""
    if cfg.model.get('neck'):
        cfg.model.neck.in_channels = list(channels)
    else:
        cfg.model.decode_head.in_channels = list(channels)
        cfg.model.auxiliary_head.in_channels = channels[cfg.model.auxiliary_head.in_index]


def published_network(backbone: nn.Module) -> nn.Module | None:
    """Return a backbone as published, or None if no code for dense prediction was published.

    Both get the same weights, large enough for every layer to matter.
    """
    if hasattr(backbone, 'pyramid'):  # MLP-Mixer, ViP and Sparse-MLP; tests/reference checks them
        return None
    published = PublishedNetwork(type(backbone).__name__, backbone.arch)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in published.named_parameters():
        low, high = (-0.1, 0.1) if parameter.ndim > 1 or name.endswith('bias') else (0.5, 1.5)
        parameter.data.uniform_(low, high, generator=generator)
    norms = [module for module in published.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        published(torch.randn(2, 3, 128, 160, generator=generator))  # running statistics as after training
    for norm in norms:
        norm.momentum = 0.1
    backbone.load_state_dict(published.state_dict())
    return published


def variants(ours: nn.Module, published: nn.Module | None, train: bool) -> dict[str, nn.Module]:
    """Return the variants of a backbone or of a complete model, without the GEMM floor."""
    if train:
        models = {'ours': ours, 'with_cp': copy.deepcopy(ours)}
        for module in models['with_cp'].modules():
            if hasattr(module, 'with_cp'):
                module.with_cp = True
    else:
        models = {'ours': ours, 'fused': mlp_dense.fuse(ours)}
    return models | ({'published': published} if published else {})


def check_agreement(backbones: dict[str, nn.Module], device: str) -> None:
    """Compare the feature maps of all variants.

    The image is always the same, because for some images rounding decides which expert is chosen.

    Raises:
        SystemExit: a feature map differs from that of ours.
    """
    image = torch.randn(1, 3, 128, 160, generator=torch.Generator().manual_seed(0)).to(device)
    with torch.inference_mode():
        expected = backbones['ours'].eval()(image)
        for variant, backbone in backbones.items():
            for i, (a, b) in enumerate(zip(backbone.eval()(image), expected, strict=True)):
                error = ((a - b).abs().max() / b.abs().max()).item()
                if not error < 1e-4:
                    name = f'{type(backbone).__name__} ({variant})'
                    raise SystemExit(f'{name}: feature map {i} differs from that of ours by {error:.1e}.')
