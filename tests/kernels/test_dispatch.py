"""The choice between references and faster implementations, which refuse whatever they do not know."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.utils import parametrizations, parametrize
from torch.utils.flop_counter import FlopCounterMode

from mlp_dense import kernels
from mlp_dense.backbones.layers import ChannelMLP, Pointwise, WeightedBranches
from mlp_dense.errors import UserError
from mlp_dense.kernels import onednn
from support.models import SMALL, image, loss_of

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason='PyTorch is built without oneDNN')


def test_use_selects_the_reference_for_every_operation(family, two_threads, monkeypatch):
    model, x = family(SMALL).eval(), image(2, 3, 50, 75)
    expected = model(x)
    loss_of(expected).backward()
    gradients = [parameter.grad for parameter in model.parameters()]

    def refuse(*args, **kwargs):
        raise AssertionError('a faster implementation runs')

    for name in ('_linear', '_conv1x1', 'conv1x1_backward', '_shift_kernel'):
        monkeypatch.setattr(onednn, name, refuse)
    with pytest.raises(AssertionError, match='faster'):
        model(x)
    model.zero_grad()
    with kernels.use('reference'):
        outs = model(x)
        with torch.no_grad():
            torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)
    loss_of(outs).backward()
    torch.testing.assert_close(outs, expected, rtol=1e-4, atol=1e-4)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert (parameter.grad - gradient).abs().max() <= 1e-3 * max(1e-2, gradient.abs().max())


def test_use_can_be_nested_and_ends_with_its_block():
    x = torch.ones(1)
    assert kernels.applies(x)
    with kernels.use('reference'):
        assert not kernels.applies(x)
        with kernels.use('fast'):
            assert kernels.applies(x)
        assert not kernels.applies(x)
    with pytest.raises(ZeroDivisionError), kernels.use('reference'):
        _ = 1 / 0
    assert kernels.applies(x)
    with pytest.raises(UserError, match=r"'plain'.*choose one of fast, reference"), kernels.use('plain'):
        pass


@pytest.mark.parametrize('training', [True, False])
def test_hooked_or_wrapped_layer_is_called(two_threads, training):
    mlp, calls = ChannelMLP(4, 8).requires_grad_(training), []
    x = image(2, 5, 5, 4)
    expected = mlp(x)
    with nn.modules.module.register_module_forward_hook(lambda module, *_: calls.append(module)):
        torch.testing.assert_close(mlp(x), expected)
    assert calls == [mlp.fc1, mlp.fc2, mlp]
    mlp.fc1.register_forward_hook(lambda *_: calls.append('fc1'))
    torch.testing.assert_close(mlp(x), expected)
    assert calls[3:] == ['fc1']

    class Doubled(nn.Module):  # LoRA wraps a layer like this
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return 2 * self.layer(x)

    mlp.fc2 = Doubled(mlp.fc2)
    torch.testing.assert_close(mlp(x), 2 * expected)
    forward = mlp.fc2.forward
    mlp.fc2.forward = lambda x: 2 * forward(x)  # as accelerate offloads a layer
    torch.testing.assert_close(mlp(x), 4 * expected)


def test_parametrized_network_and_its_removal(family, two_threads):
    model, x = family(SMALL).eval(), image(2, 3, 33, 47)
    expected = model(x)
    layers = [layer for layer in model.modules() if type(layer) is Pointwise]
    for layer in layers:
        parametrizations.weight_norm(layer)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)
    for layer in layers:
        parametrize.remove_parametrizations(layer, 'weight')
    layer = next(layer for layer in layers if layer.bias is not None)
    assert next(iter(dict(layer.named_parameters()))) == 'bias', 'the order of the parameters changes'
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)


def test_replicas_without_parameters_compute_the_same(family):
    """DataParallel replaces the parameters of a replica by attributes."""
    model, x = family(SMALL).eval(), image(2, 3, 33, 47)
    expected, replica = model(x), copy.deepcopy(model)
    for module in replica.modules():
        parameters, module._parameters = module._parameters, {}
        for name, parameter in parameters.items():
            object.__setattr__(module, name, None if parameter is None else parameter.detach())
    assert list(replica.parameters()) == []
    torch.testing.assert_close(replica(x), expected, rtol=1e-4, atol=1e-4)


class Subclass(Tensor):
    """A tensor that may define its own operators, such as a quantized weight."""


def test_tensor_subclasses_are_refused():
    layer = Pointwise(4, 4)
    assert kernels.applies(image(1, 2, 2, 4), layer)
    assert not kernels.applies(image(1, 2, 2, 4).as_subclass(Subclass), layer)
    layer.weight = nn.Parameter(layer.weight.detach().as_subclass(Subclass))
    assert not kernels.applies(image(1, 2, 2, 4), layer)


@pytest.mark.parametrize('frozen', [True, False])
def test_forward_mode_differentiation_keeps_tangents(family, frozen):
    model, x = family(SMALL).eval().requires_grad_(not frozen), image(1, 3, 33, 47)
    with forward_ad.dual_level():
        outs = model(forward_ad.make_dual(x, torch.ones_like(x)))
        tangents = [forward_ad.unpack_dual(out).tangent for out in outs]
    _, expected = torch.func.jvp(model, (x,), (torch.ones_like(x),))
    torch.testing.assert_close(tuple(tangents), expected, rtol=1e-3, atol=1e-3)


def test_flop_counter_counts_every_product(family):
    model, x = family(SMALL).eval(), image(1, 3, 64, 64)
    counts = []
    for choice in ('fast', 'reference'):
        with kernels.use(choice), torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(x)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 1e6


def test_autocast_region_keeps_the_dtype_of_branches():
    branches, layer = [image(2, 3, 5, 8).bfloat16() for _ in range(3)], WeightedBranches(8)
    with torch.autocast('cpu', torch.bfloat16):
        out = layer(*branches)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), layer(*(x.float() for x in branches)), rtol=2e-2, atol=2e-2)
