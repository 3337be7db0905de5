"""Parameters and multiply-accumulate operations (MACs) of models, counted without computing anything."""

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
    view _unsafe_view _to_copy permute transpose t unsqueeze expand alias clone slice split split_with_sizes unbind cat
    as_strided_ copy_ scatter_ constant_pad_nd empty empty_like new_empty new_zeros arange promote_types index
    index_select repeat_interleave sort topk cumsum
    add add_ sub rsub mul div addcmul_ floor_divide remainder abs clamp eq where sum mean cos sin relu relu_ gelu gelu_
    _softmax native_batch_norm native_group_norm native_layer_norm
    max_pool2d_with_indices _adaptive_avg_pool2d upsample_nearest2d upsample_bilinear2d _upsample_bilinear2d_aa
    """.split()  # noqa: SIM905
)
"""ATen operators that move data, or cost only a few operations per element; by convention they are not counted."""


class Complexity(NamedTuple):
    """Counts of one model; MACs are those of one forward pass of one image."""

    backbone_params: int
    backbone_macs: int
    params: int
    macs: int


def complexity(cfg: ConfigDict, height: int, width: int) -> Complexity:
    """Counts the ``model`` of a config, of the default scope, for an image of so many pixels, as mmdet's and mmseg's
    tables do: with 1000 proposals and 100 masks, at every stage of a cascade; without RoIAlign and auxiliary heads."""
    run_heads = task_of(DefaultScope.get_current_instance().scope_name).run_heads
    with torch.device('meta'):
        model = MODELS.build(cfg).eval()
        image, features = torch.empty(1, 3, height, width), []
        backbone_macs = count_macs(lambda: features.append(model.backbone(image)))
        model.backbone.forward = lambda _: features[0]  # counted already
        macs = backbone_macs + count_macs(lambda: run_heads(model, image))
        params, backbone_params = (sum(p.numel() for p in part.parameters()) for part in (model, model.backbone))
        return Complexity(backbone_params, backbone_macs, params, macs)


def count_macs(run: Callable[[], object]) -> int:
    """MACs of a call. UserError: it uses an operator of which it is not known how many it does."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter, _KnownOperators():
        run()
    return counter.get_total_flops() // 2


def count_into(folder: Path, cfg: Config) -> None:
    """Adds the MACs of a tested model, for its images, to the results in the folder of a report, if they are known."""
    results = read_results(folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # what the frameworks said when the model was built first
            model = cfg.model.get('module', cfg.model)
            counted = complexity(model.get('model', model), *results.size)  # `model`: of an exported one
    except (UserError, TypeError):
        return
    results.model['GMACs'] = counted.macs / 1e9
    results.write()


class _KnownOperators(TorchDispatchMode):
    """PyTorch's counter counts unknown operators as zero; this raises an error instead."""

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        packet = operator._overloadpacket
        if packet not in flop_registry and packet.__name__ not in NO_MACS:
            raise UserError(f'Not known how many MACs {packet} does; add it to NO_MACS in {__name__} if it does none.')
        return operator(*args, **(kwargs or {}))
