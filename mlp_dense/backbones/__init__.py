"""The backbones. They need nothing but PyTorch; ``mlp_dense.engine.families`` registers them for OpenMMLab."""

from .as_mlp import ASMLP
from .cycle_mlp import CycleMLP
from .hire_mlp import HireMLP

FAMILIES = (HireMLP, ASMLP, CycleMLP)

__all__ = ['ASMLP', 'FAMILIES', 'CycleMLP', 'HireMLP']
