"""The backbones. They need nothing but PyTorch; ``mlp_dense.engine.families`` registers them for OpenMMLab."""

from .as_mlp import ASMLP
from .cycle_mlp import CycleMLP
from .hire_mlp import HireMLP
from .wave_mlp import WaveMLP

FAMILIES = (HireMLP, ASMLP, CycleMLP, WaveMLP)

__all__ = ['ASMLP', 'FAMILIES', 'CycleMLP', 'HireMLP', 'WaveMLP']
