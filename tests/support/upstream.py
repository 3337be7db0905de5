"""Configs and models of mmdet and mmsegmentation themselves."""

import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mlp_dense.training.machine import adapt_to_cpu


def config_folder(package: str) -> Path:
    return Path(import_module(package).__file__).parent / '.mim' / 'configs'


class NoMemory(TorchFunctionMode):
    """Weights without memory, which all layers create by torch.empty."""

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), settings: Any = None) -> Any:
        extra = dict(device='meta') if function is torch.empty else {}
        return function(*arguments, **((settings or {}) | extra))


def built_without_memory(package: str, name: str) -> nn.Module:
    """Build the model of a config on the meta device."""
    cfg = Config.fromfile(config_folder(package) / name)
    adapt_to_cpu(cfg)
    init_default_scope(package)
    with NoMemory(), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of deprecated arguments
        return MODELS.build(cfg.model).to('meta').eval()


def returned_channels(backbone: nn.Module, size: int = 512) -> list[int]:
    """Return the channels of the maps of a backbone on the meta device."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        maps = backbone(torch.empty(2, 3, size, size, device='meta'))
    return [values.shape[1] for values in ([maps] if isinstance(maps, Tensor) else maps)]
