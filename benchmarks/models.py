"""The networks that the benchmarks compare."""

import copy
from importlib.util import find_spec

import torch
from mmdet.utils import register_all_modules as register_mmdet
from mmengine.registry import MODELS
from mmseg.utils import register_all_modules as register_mmseg
from published import PublishedNetwork
from published_grid import PublishedGridNetwork
from torch import nn

import mlp_dense

for register in (register_mmdet, register_mmseg):
    register(init_default_scope=False)

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
"""mmdet's takes weights in fp32 only."""
if not find_spec('timm'):
    del PEERS['ConvNeXt-T']


def build_peer(name: str, half: bool) -> nn.Module | None:
    """A backbone that a user would take instead, with weights of 16 bits where `half` says so, if it takes them."""
    cfg = PEERS[name][0]
    if half and name == 'Swin-T':
        cfg = SWIN_IN_HALF if find_spec('timm') else None
    return MODELS.build(copy.deepcopy(cfg)) if cfg else None


def published_network(backbone: nn.Module) -> nn.Module:
    """One of our backbones as published. Both get the same weights, large enough for every step to matter."""
    kind = PublishedGridNetwork if hasattr(backbone, 'pyramid') else PublishedNetwork
    published = kind(type(backbone).__name__, backbone.arch)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in published.named_parameters():
        low, high = (-0.1, 0.1) if parameter.ndim > 1 or name.endswith('bias') else (0.5, 1.5)
        parameter.data.uniform_(low, high, generator=generator)
    norms = [module for module in published.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        published(torch.randn(2, 3, 128, 160, generator=generator))  # running statistics as after a training
    for norm in norms:
        norm.momentum = 0.1
    backbone.load_state_dict(published.state_dict())
    return published


def variants(ours: nn.Module, published: nn.Module, train: bool) -> dict[str, nn.Module]:
    """The rows of a backbone or of a whole model, without the GEMM floor."""
    if not train:
        return {'ours': ours, 'fused': mlp_dense.fuse(ours), 'published': published}
    recomputing = copy.deepcopy(ours)
    for module in recomputing.modules():
        if hasattr(module, 'with_cp'):
            module.with_cp = True
    return {'ours': ours, 'with_cp': recomputing, 'published': published}


def check_agreement(backbones: dict[str, nn.Module], device: str) -> None:
    """Raises an error unless all compute the same feature maps of an image, always the same one, since for a few others
    the choice of an expert hangs on a rounding."""
    image = torch.randn(1, 3, 128, 160, generator=torch.Generator().manual_seed(0)).to(device)
    with torch.inference_mode():
        wanted = backbones['published'].eval()(image)
        for kind, backbone in backbones.items():
            for i, (a, b) in enumerate(zip(backbone.eval()(image), wanted, strict=True)):
                error = ((a - b).abs().max() / b.abs().max()).item()
                if not error < 1e-4:
                    name = type(backbone).__name__
                    raise SystemExit(f'{name} ({kind}): feature map {i} differs from the published one by {error:.1e}.')
