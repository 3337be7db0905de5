"""The operations that the networks run, each as a reference and at most one faster implementation.

The references (``reference.py``) define what is computed; ``onednn.py`` computes the same faster on a CPU. For each
call one predicate, :func:`~mlp_dense.kernels.dispatch.applies`, selects one of them. ``with use('reference'):``
disables every faster implementation.
"""

from . import onednn, reference
from .dispatch import applies, known_layer, operation, use
from .reference import along_axis, cyclic_window, sum_positions, weighted_sum

linear = operation(reference.linear, onednn.linear)
linear_gelu = operation(reference.linear_gelu, onednn.linear_gelu)
mlp = operation(reference.mlp, onednn.mlp)
expert_mlp = operation(reference.expert_mlp, onednn.expert_mlp)
shift = operation(reference.shift, onednn.shift)
grouped_conv = operation(reference.grouped_conv, onednn.grouped_conv)
mix_waves = operation(reference.mix_waves, onednn.mix_waves)
upsample = operation(reference.upsample, onednn.upsample)
nchw_output = operation(reference.nchw_output, onednn.nchw_output)

__all__ = [
    'along_axis',
    'applies',
    'cyclic_window',
    'expert_mlp',
    'grouped_conv',
    'known_layer',
    'linear',
    'linear_gelu',
    'mix_waves',
    'mlp',
    'nchw_output',
    'shift',
    'sum_positions',
    'upsample',
    'use',
    'weighted_sum',
]
