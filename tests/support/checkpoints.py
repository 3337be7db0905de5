"""Checkpoints for tests: official weights, hostile pickles, and comparisons with the reference."""

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.model import BaseModule

from reference import reference_of
from support.models import SMALL, image


class Detector(BaseModule):
    """A backbone and a head, as every detector and segmentor has."""

    def __init__(self, backbone: torch.nn.Module):
        super().__init__()
        self.backbone = backbone
        self.head = torch.nn.Linear(3, 2)


class FromYacs(dict):
    """Replacement of yacs.config.CfgNode while a file is written."""

    def __init__(self, **items):
        super().__init__(items)
        self.__dict__['__immutable__'] = True


FromYacs.__module__, FromYacs.__qualname__, FromYacs.__name__ = 'yacs.config', 'CfgNode', 'CfgNode'


class Call:
    """Object that is pickled as a call of a function, optionally with a state for the result."""

    def __init__(self, function, *args, state=None):
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.reduced


def prefixed(prefix: str, weights: dict) -> dict:
    return {prefix + name: tensor for name, tensor in weights.items()}


def write(path: Path, content: Any, **kwargs) -> str:
    """Write a checkpoint; return its path. The replacement of yacs is removed before the file is read."""
    yacs = types.ModuleType('yacs.config')
    yacs.CfgNode = FromYacs
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, 'yacs', types.ModuleType('yacs'))
        patch.setitem(sys.modules, 'yacs.config', yacs)
        torch.save(content, path, **kwargs)
    return str(path)


def pretrained(cls: type, path: str, arch: dict = SMALL, **arguments) -> torch.nn.Module:
    model = cls(arch, init_cfg=dict(type='Pretrained', checkpoint=path), **arguments)
    model.init_weights()
    return model


def assert_computes(model: torch.nn.Module, weights: dict):
    """Compare the feature maps of a model with those of the reference for these official weights."""
    x = image(1, 3, 40, 36, dtype=torch.float64)
    expected = reference_of(type(model)).forward(weights, x, model.arch)
    with torch.no_grad():
        outs = model.double().eval()(x)
    for out, i in zip(outs, model.out_indices, strict=True):
        torch.testing.assert_close(out, expected[i], rtol=1e-5, atol=1e-5)
