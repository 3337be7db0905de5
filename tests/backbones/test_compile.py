"""torch.compile takes every backbone whole, for all sizes, and gives the same numbers."""

import copy

import pytest
import torch

from mlp_dense import ASMLP, CycleMLP, HireMLP, SparseMLP, WaveMLP
from mlp_dense.backbones import FAMILIES
from mlp_dense.backbones.fixed_grid import FixedGridMLP
from support.models import image, loss_of

MIXED = (HireMLP, FixedGridMLP)
"""Families whose second block of a stage mixes in another way than the first."""


def small_arch(family: type) -> dict:
    """Return two stages with every kind of block."""
    return dict(depths=(1, 2 if issubclass(family, MIXED) else 1), dims=(16, 32))


@pytest.fixture(autouse=True)
def nothing_compiled():
    torch._dynamo.reset()


@pytest.mark.parametrize(
    'family, with_cp', [*((family, False) for family in FAMILIES), (HireMLP, True), (SparseMLP, True)]
)
def test_trains_without_graph_breaks(family, with_cp):
    # Recomputation is that of all blocks.
    arch, indices = (dict(depths=(1,), dims=(16,)), (0,)) if with_cp else (small_arch(family), (0, 1))
    model = family(arch, out_indices=indices, with_cp=with_cp).train()
    other, x = copy.deepcopy(model), image(2, 3, 50, 75)
    compiled = torch.compile(other, fullgraph=True, dynamic=False, backend='aot_eager')
    torch.manual_seed(0)
    outs = compiled(x)
    torch.manual_seed(0)  # of the noise of a router
    expected = model(x)
    torch.testing.assert_close(outs, expected, rtol=1e-4, atol=1e-4)
    loss_of(outs).backward()
    loss_of(expected).backward()
    gradients = ([parameter.grad for parameter in network.parameters()] for network in (other, model))
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=1e-4, atol=1e-4)


def test_experts_train_in_autocast():
    model = SparseMLP(dict(depths=(2,), dims=(16,)), out_indices=(0,)).train()
    other, x = copy.deepcopy(model), image(2, 3, 50, 75)
    for network in (torch.compile(other, fullgraph=True, dynamic=False, backend='aot_eager'), model):
        torch.manual_seed(0)  # of the noise of a router
        with torch.autocast('cpu', torch.bfloat16):
            outs = network(x)
        loss_of(out.float() for out in outs).backward()
    for compiled, parameter in zip(other.parameters(), model.parameters(), strict=True):
        assert compiled.grad.dtype == torch.float32
        assert (compiled.grad - parameter.grad).abs().max() <= 0.05 * parameter.grad.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize(
    'family, dtype',  # float64 runs the references; float32 runs an operator
    [
        *((family, torch.float64) for family in FAMILIES),
        *((family, torch.float32) for family in (ASMLP, HireMLP, WaveMLP)),
    ],
)
def test_compiled_code_holds_for_all_sizes(family, dtype):
    depths = (2,) if issubclass(family, MIXED) else (1,)
    model = family(dict(depths=depths, dims=(16,)), out_indices=(0,)).eval().to(dtype)
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
    with torch.inference_mode():
        for size in ((2, 3, 64, 96), (3, 3, 96, 128)):  # the second makes all sizes dynamic
            compiled(image(*size, dtype=dtype))
        with torch.compiler.set_stance('fail_on_recompile'):
            for size in ((4, 3, 128, 160), (2, 3, 160, 96), (2, 3, 101, 150)):
                x = image(*size, dtype=dtype)
                torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_inductor_infers_for_all_sizes():
    model = HireMLP(dict(depths=(1,), dims=(4,)), out_indices=(0,)).eval().double()
    compiled = torch.compile(model, fullgraph=True, dynamic=True)
    with torch.inference_mode():
        for size in ((3, 3, 96, 128), (2, 3, 101, 150)):
            x = image(*size, dtype=torch.float64)
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_inductor_trains(two_threads):
    model = CycleMLP(dict(depths=(1,), dims=(16,)), out_indices=(0,))
    x = image(2, 3, 101, 150)
    compiled = torch.compile(model, fullgraph=True, dynamic=False)

    def gradients(of):
        model.zero_grad()
        loss_of(of(x)).backward()
        return [parameter.grad for parameter in model.parameters()]

    torch.testing.assert_close(gradients(compiled), gradients(model), rtol=1e-3, atol=1e-3)


OPERATORS = {
    'linear': lambda: (torch.rand(2, 7, 9, 6), torch.rand(5, 6), torch.rand(5), 'gelu'),
    'mix_experts': lambda: (
        torch.rand(9, 6, requires_grad=True),
        torch.rand(9, 2, requires_grad=True),
        torch.tensor([[0, 1], [1, 2], [2, 0]] * 3),
        *(torch.rand(3, *size, requires_grad=True) for size in ((5, 6), (5,), (6, 5), (6,))),
    ),
}


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason='PyTorch is built without oneDNN')
@pytest.mark.parametrize('name', OPERATORS)
def test_operators_for_torch_compile(name):
    torch.library.opcheck(getattr(torch.ops.mlp_dense, name).default, OPERATORS[name]())


def test_tracing_records_the_references(small):
    with torch.no_grad():
        graph = torch.jit.trace(small.eval(), image(1, 3, 64, 64), check_trace=False).inlined_graph
    assert not any(node.kind().startswith('mkldnn::') for node in graph.nodes())
