from .as_mlp import ASMLP
from .cycle_mlp import CycleMLP
from .hire_mlp import HireMLP

__all__ = ['ASMLP', 'CycleMLP', 'HireMLP']
