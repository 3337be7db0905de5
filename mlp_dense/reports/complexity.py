"""Parameters and multiply-accumulate operations (MACs) of models, counted on the meta device."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, DefaultScope
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from ..errors import UserError
from ..tasks import task_of
from .results import read_results

NO_MACS = frozenset(
    """
    view _unsafe_view _to_copy permute transpose t unsqueeze expand alias clone slice select split split_with_sizes
    unbind cat as_strided_ copy_ scatter_ constant_pad_nd empty empty_like new_empty new_zeros arange promote_types
    index index_select repeat_interleave sort topk cumsum
    add add_ sub rsub mul div addcmul_ floor_divide remainder abs clamp eq where sum mean cos sin relu relu_ gelu gelu_
    _softmax native_batch_norm native_group_norm native_layer_norm
    max_pool2d_with_indices _adaptive_avg_pool2d upsample_nearest2d upsample_bilinear2d _upsample_bilinear2d_aa
    """.split()  # noqa: SIM905
)
"""ATen operators that move data or cost a few operations per element; by convention they are not counted."""


class Complexity(NamedTuple):
    """Counts of a model; MACs are those of the forward pass of one image."""

    backbone_params: int
    backbone_macs: int
    params: int
    macs: int


def complexity(cfg: ConfigDict, height: int, width: int) -> Complexity:
    """Count the ``model`` of a config of the default scope, for an image of this size in pixels.

    The conventions are those of the tables of mmdet and mmseg: 1000 proposals and 100 masks, at every stage of a
    cascade, without RoIAlign and auxiliary heads.
    """
    run_heads = task_of(DefaultScope.get_current_instance().scope_name).run_heads
    with torch.device('meta'):
        model = MODELS.build(cfg).eval()
        channels = cfg.backbone.get('in_channels', 3)
        image, features = torch.empty(1, channels, height, width), []
        backbone_macs = count_macs(lambda: features.append(model.backbone(image)))
        model.backbone.forward = lambda _: features[0]  # already counted
        macs = backbone_macs + count_macs(lambda: run_heads(model, image))
        params, backbone_params = (sum(p.numel() for p in module.parameters()) for module in (model, model.backbone))
        return Complexity(backbone_params, backbone_macs, params, macs)


def count_macs(run: Callable[[], object]) -> int:
    """Count the MACs of a call. Raises UserError if it uses an operator whose MACs are unknown."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter, _KnownOperators():
        run()
    return counter.get_total_flops() // 2


def count_into(folder: Path, cfg: Config) -> None:
    """Add the MACs of a tested model, if they are known, to the results in the folder of a report."""
    results = read_results(folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # the same warnings as in the first build
            model = cfg.model.get('module', cfg.model)
            inner = model.get('model', model)  # an exported model holds the config of the original one
            results.model['GMACs'] = complexity(inner, *(results.size or ())).macs / 1e9
    except (UserError, TypeError):
        return
    results.write()


class _KnownOperators(TorchDispatchMode):
    """Mode that raises an error for unknown operators, which PyTorch's counter counts as zero."""

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        packet = operator._overloadpacket
        if packet not in flop_registry and packet.__name__ not in NO_MACS:
            raise UserError(f'The MACs of {packet} are unknown; add it to NO_MACS in {__name__} if it has none.')
        return operator(*args, **(kwargs or {}))
