"""Defects of PyTorch that ``kernels/compat.py`` works around: delete a workaround once its expected failure passes."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from mlp_dense.kernels import compat


@pytest.mark.slow
@pytest.mark.xfail(reason='GroupNorm writes a gradient that is not needed', strict=True)
def test_group_norm_behind_frozen_layers():
    """Run in a separate process, because it crashes."""
    program = """
import torch
norm = torch.nn.GroupNorm(1, 8)
for _ in range(20):
    x = torch.randn(2, 8, 40, 40).contiguous(memory_format=torch.channels_last)
    norm(x).sum().backward()
"""
    assert subprocess.run([sys.executable, '-c', program], capture_output=True).returncode == 0


@pytest.mark.slow
def test_narrow_convolution_in_bf16_reads_no_uninitialized_memory():
    """Have glibc fill new memory with large numbers, which the convolution of PyTorch 2.13 returns on some CPUs."""
    program = """
import torch
from mlp_dense.kernels.compat import Conv
conv = Conv(16, 48, 3, 2, 1).bfloat16()
with torch.no_grad():
    assert conv(torch.randn(2, 16, 20, 2).bfloat16()).isfinite().all()
"""
    environment = {**os.environ, 'MALLOC_PERTURB_': '128', 'MALLOC_MMAP_THRESHOLD_': '2000000000'}
    completed = subprocess.run([sys.executable, '-c', program], env=environment, capture_output=True, text=True)
    assert completed.returncode == 0, completed.stderr


class Rearranged(nn.Module):
    """Two convolutions; between them rows are selected by index and regrouped in pairs."""

    def __init__(self, conv: type[nn.Conv2d]):
        super().__init__()
        self.first, self.second = conv(3, 4, 7, 4, 2), conv(4, 8, 3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x.contiguous(memory_format=torch.channels_last)).permute(0, 2, 3, 1)
        height = x.shape[1]
        y = x.index_select(1, torch.arange(0, compat.round_up(height, 2)) % height)
        y = y.unflatten(1, (-1, 2)).movedim(2, 3).flatten(3)
        y = y.unflatten(3, (2, -1)).movedim(3, 2).flatten(1, 2)
        y = y.index_select(1, torch.arange(0, height) % height)
        return self.second((x + y).permute(0, 3, 1, 2))


@pytest.mark.slow
@pytest.mark.parametrize(
    'conv',
    [
        compat.Conv,
        pytest.param(nn.Conv2d, marks=pytest.mark.xfail(reason='inductor: invalid ranges [0:-1]', strict=True)),
    ],
)
def test_padded_convolution_of_symbolic_size(conv, monkeypatch):
    monkeypatch.setattr('torch._inductor.config.fx_graph_cache', False)  # reuse no graph that was compiled before
    monkeypatch.setattr('torch._functorch.config.enable_autograd_cache', False)
    monkeypatch.setattr('torch._inductor.config.compile_threads', 1)  # without other processes, which import PyTorch
    torch._dynamo.reset()
    model = Rearranged(conv).eval().double()
    compiled = torch.compile(model, fullgraph=True, dynamic=True)
    with torch.inference_mode():
        for size in ((3, 3, 96, 128), (2, 3, 101, 150)):
            x = torch.randn(*size).double()
            torch.testing.assert_close(compiled(x), model(x))
