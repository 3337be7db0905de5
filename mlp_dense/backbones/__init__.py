"""The backbones. They need nothing but PyTorch; ``mlp_dense.registry`` registers them for OpenMMLab."""

from .as_mlp import ASMLP
from .cycle_mlp import CycleMLP
from .hire_mlp import HireMLP
from .mlp_mixer import MLPMixer
from .sparse_mlp import SparseMLP
from .vip import VisionPermutator
from .wave_mlp import WaveMLP

FAMILIES = (HireMLP, ASMLP, CycleMLP, WaveMLP, MLPMixer, VisionPermutator, SparseMLP)

__all__ = ['ASMLP', 'FAMILIES', 'CycleMLP', 'HireMLP', 'MLPMixer', 'SparseMLP', 'VisionPermutator', 'WaveMLP']
