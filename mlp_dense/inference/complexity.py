"""Parameters and multiply-accumulate operations (MACs) of models, counted without computing anything."""

from typing import NamedTuple

import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from ..errors import UserError

NO_MACS = frozenset(
    """
    view _unsafe_view permute transpose t unsqueeze clone slice split unbind cat constant_pad_nd empty new_empty arange
    index_select add add_ sub mul div addcmul_ remainder eq where sum mean relu relu_ gelu gelu_ _softmax
    native_batch_norm native_group_norm native_layer_norm
    max_pool2d_with_indices _adaptive_avg_pool2d upsample_nearest2d upsample_bilinear2d
    """.split()  # noqa: SIM905
)
"""ATen operators that move data, or cost only a few operations per element; by convention they are not counted."""


class Complexity(NamedTuple):
    """Counts of one model; MACs are those of one forward pass of one picture."""

    backbone_params: int
    backbone_macs: int
    params: int
    macs: int


def complexity(cfg: ConfigDict, height: int, width: int) -> Complexity:
    """Counts a detector or segmentor as the field does (mmdet's and mmseg's tables).

    The MACs of a detector with a RoI head are those of 1000 proposals and 100 masks (at every stage of a cascade);
    those of a segmentor leave out its auxiliary head. RoIAlign is left out, as there.

    Args:
        cfg: the ``model`` of a config; the default scope must be set.
        height, width: of the picture, in pixels.

    Raises:
        UserError: the model uses an operator of which it is not known how many MACs it does.
    """
    with torch.device('meta'):
        model = MODELS.build(cfg).eval()
        picture = torch.empty(1, 3, height, width)
        return Complexity(
            _params(model.backbone),
            _macs(lambda: model.backbone(picture)),
            _params(model),
            _macs(lambda: _forward(model, picture)),
        )


def _params(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _macs(run) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter, _KnownOperators():
        run()
    return counter.get_total_flops() // 2


class _KnownOperators(TorchDispatchMode):
    """PyTorch's counter takes an operator that it does not know for free; here that is an error."""

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        packet = operator._overloadpacket
        if packet not in flop_registry and packet.__name__ not in NO_MACS:
            raise UserError(f'Not known how many MACs {packet} does; add it to NO_MACS in {__name__} if it does none.')
        return operator(*args, **(kwargs or {}))


def _forward(model: nn.Module, picture: Tensor) -> None:
    maps = model.extract_feat(picture)
    if hasattr(model, 'decode_head'):
        model.decode_head(maps)
    elif hasattr(model, 'roi_head'):
        model.rpn_head(maps)
        for kind, num in (('bbox', 1000), ('mask', 100)):
            extractors, heads = (
                getattr(model.roi_head, f'{kind}_roi_extractor'),
                getattr(model.roi_head, f'{kind}_head'),
            )
            stages = zip(extractors, heads, strict=True) if isinstance(heads, nn.ModuleList) else [(extractors, heads)]
            for extractor, head in stages:
                size = extractor.roi_layers[0].output_size
                head(maps[0].new_empty(num, extractor.out_channels, *size))
    else:
        model.bbox_head(maps)
