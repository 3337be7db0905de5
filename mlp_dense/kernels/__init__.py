"""The operations that the networks run, each as a reference and at most one faster implementation.

The references (``reference.py``) define what is computed; ``onednn.py`` computes the same faster on a CPU. For each
call :func:`~mlp_dense.kernels.dispatch.applies` selects one of them, and ``with use('reference'):`` the references.
"""

from . import onednn, reference
from .dispatch import applies as applies
from .dispatch import known_layer as known_layer
from .dispatch import operation
from .dispatch import use as use
from .reference import cyclic_window as cyclic_window
from .reference import grouped_conv as grouped_conv

linear = operation(reference.linear, onednn.linear)
mlp = operation(reference.mlp, onednn.mlp)
expert_mlp = operation(reference.expert_mlp, onednn.expert_mlp)
along_axis = operation(reference.along_axis, onednn.along_axis)
shift = operation(reference.shift, onednn.shift)
upsample = operation(reference.upsample, onednn.upsample)
