"""torch.compile on a GPU: whole models, close to what they compute without it."""

import copy

import pytest
import torch
import torch._inductor.config

from support.devices import DEVICE, assert_near, assert_near_gradients
from support.models import image, loss_of

TINY = dict(depths=(1, 2), dims=(16, 32))
"""The second block of a stage may shift where the first does not."""
BACKEND = 'inductor' if DEVICE == 'cuda' else 'aot_eager'  # for a CPU inductor needs a compiler, and minutes

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings('default')]  # inductor's warnings on a GPU are not errors


@pytest.fixture(autouse=True)
def nothing_compiled():
    torch._dynamo.reset()


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_infers_and_trains(family, device, dtype):
    model = family(TINY, out_indices=(0, 1)).train().to(device)
    part = 0.9 if dtype != torch.float32 and hasattr(model, 'is_sparse') else 1.0  # items go to other experts
    other, x, results = copy.deepcopy(model), image(2, 3, 50, 75).to(device), []
    with torch.no_grad(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        inferred = torch.compile(copy.deepcopy(model).eval(), fullgraph=True, dynamic=False, backend=BACKEND)(x)
        assert_near(inferred, copy.deepcopy(model).eval()(x), 1e-4 if dtype == torch.float32 else 0.05, part)
    # Random numbers as without it: those of a router.
    with torch._inductor.config.patch(fallback_random=True):
        for run in (torch.compile(other, fullgraph=True, dynamic=False, backend=BACKEND), model):
            torch.manual_seed(0)
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                outs = run(x)
            loss_of([out.float().cpu() for out in outs]).backward()
            results.append(outs)
    gradients, expected = ([parameter.grad for parameter in network.parameters()] for network in (other, model))
    assert all(gradient.dtype == torch.float32 for gradient in gradients)
    if dtype == torch.float32:
        assert_near(*results, 1e-4)
        assert_near_gradients(gradients, expected, 1e-3)
        torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=1e-4, atol=1e-4)
    else:  # rounded between other operators
        assert_near(*results, 0.05, part)
        assert all(gradient.isfinite().all() for gradient in gradients)
