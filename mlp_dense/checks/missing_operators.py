"""Check that mmcv's layers in a model have their operators."""

import inspect
import re
import sys
from functools import cache
from typing import Any

from torch import nn

from ..errors import UserError
from ..operators import extension, running
from ..operators.missing import explanation


def check_operators(model: nn.Module) -> None:
    """Raise UserError if a layer of mmcv in a model calls an operator without a fallback."""
    if running() == 'compiled':
        return
    for name, module in model.named_modules():
        layer: Any = type(module)
        if operators := _missing(layer):
            raise UserError(f'model.{name} is {layer.__name__} of mmcv: {explanation(operators[0])}')


@cache
def _missing(layer: type[nn.Module]) -> list[str]:
    """Return the operators without a fallback that the modules of mmcv with a layer and its bases call."""
    modules = {sys.modules[base.__module__] for base in layer.__mro__ if base.__module__.startswith('mmcv.ops.')}
    try:
        sources = [inspect.getsource(module) for module in modules]
    except OSError:  # an installation without sources
        return []
    calls = [name for source in sources for name in re.findall(r'ext_module\.(\w+)', source)]
    return [name for name in calls if name not in vars(extension)]
