"""The networks that the benchmarks compare."""

import copy

import torch
from mmdet.utils import register_all_modules
from plain import PlainNetwork
from torch import Tensor, nn

import mlp_dense

register_all_modules(init_default_scope=False)

PEERS = {  # config, channels of the maps
    'Swin-T': (
        dict(type='mmdet.SwinTransformer', embed_dims=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24)),
        (96, 192, 384, 768),
    ),
    'ResNet-50': (dict(type='mmdet.ResNet', depth=50), (256, 512, 1024, 2048)),
}


def plain_network(backbone: nn.Module) -> PlainNetwork:
    """The published form of one of our backbones, which takes its weights: large enough for every step to matter."""
    plain = PlainNetwork(type(backbone).__name__, backbone.arch)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in plain.named_parameters():
        low, high = (-0.1, 0.1) if parameter.ndim > 1 or name.endswith('bias') else (0.5, 1.5)
        parameter.data.uniform_(low, high, generator=generator)
    norms = [module for module in plain.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        plain(torch.randn(2, 3, 128, 160, generator=generator))  # statistics as a training leaves them
    for norm in norms:
        norm.momentum = 0.1
    backbone.load_state_dict(plain.state_dict())
    return plain


def variants(ours: nn.Module, plain: nn.Module, train: bool) -> dict[str, nn.Module]:
    """The rows of a backbone or of a whole model, but for the floor."""
    if not train:
        return {'ours': ours, 'fused': mlp_dense.fuse(ours), 'plain': plain}
    recomputing = copy.deepcopy(ours)
    for module in recomputing.modules():
        if hasattr(module, 'with_cp'):
            module.with_cp = True
    return {'ours': ours, 'with_cp': recomputing, 'plain': plain}


def check_agreement(backbones: dict[str, nn.Module], picture: Tensor) -> None:
    """Raises an error unless all compute the same maps."""
    with torch.inference_mode():
        wanted = backbones['plain'].eval()(picture)
        for kind, backbone in backbones.items():
            for i, (a, b) in enumerate(zip(backbone.eval()(picture), wanted, strict=True)):
                error = ((a - b).abs().max() / b.abs().max()).item()
                if not error < 1e-4:
                    name = type(backbone).__name__
                    raise SystemExit(f'{name} ({kind}): map {i} differs from the published one by {error:.1e}.')
