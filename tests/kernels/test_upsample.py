"""The transposed convolution of the fixed grids, which is trained as a linear layer."""

import pytest
import torch
from torch import nn

from mlp_dense.kernels import upsample
from support.models import image


@pytest.mark.parametrize('frozen', [(), ('x',), ('weight',), ('bias',), ('x', 'bias')], ids=str)
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last], ids=str)
def test_gradients_of_a_transposed_convolution(two_threads, frozen, layout):
    inputs = dict(x=image(2, 5, 3, 4).contiguous(memory_format=layout), weight=image(5, 6, 2, 2), bias=image(6))
    tensors = {name: tensor.requires_grad_(name not in frozen) for name, tensor in inputs.items()}
    trained = [tensor for tensor in tensors.values() if tensor.requires_grad]
    out = upsample(**tensors)
    node = out.grad_fn
    while 'TrainedLinear' not in node.name():  # fails at the end of the graph, or behind another convolution
        node = node.next_functions[0][0]
    expected = nn.functional.conv_transpose2d(*tensors.values(), stride=2)
    torch.testing.assert_close(out, expected)
    outer = image(*out.shape)
    for create_graph in (False, True):
        gradients = (torch.autograd.grad(y, trained, outer, True, create_graph) for y in (out, expected))
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)
