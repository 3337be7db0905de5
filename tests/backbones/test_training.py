"""Training: recomputation, stochastic depth, freezing, running statistics."""

import copy

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from support.models import SMALL, differing, image, loss_of, official


@pytest.mark.parametrize(
    'arguments', [{}, dict(norm_eval=True), dict(frozen_stages=2)], ids=['all', 'norm_eval', 'frozen']
)
def test_with_cp_changes_nothing_but_memory(family, arguments):
    results = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        model = family(SMALL, with_cp=with_cp, drop_path_rate=0.5, **arguments).double().train()
        kept = []
        for _ in range(2):
            with torch.autograd.graph.saved_tensors_hooks(
                lambda t, kept=kept: kept.append(t.numel()) or t, lambda t: t
            ):
                outs = model(image(4, 3, 64, 48, dtype=torch.float64))
            loss_of(outs).backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        results.append((outs, gradients, model.state_dict(), sum(kept)))
    (outs, gradients, state, kept), (outs_cp, gradients_cp, state_cp, kept_cp) = results
    torch.testing.assert_close(outs_cp, outs)
    assert None not in gradients.values()
    torch.testing.assert_close(gradients_cp, gradients)
    torch.testing.assert_close(state_cp, state)  # also running statistics and num_batches_tracked
    assert kept_cp < 0.7 * kept


def test_drop_path_is_per_image_and_only_in_training(family):
    model = family(SMALL, drop_path_rate=0.6)
    layer = model.stages[-1].blocks[-1].drop_path
    ones = torch.ones(2000, 2, 1, 3)
    out = layer.train()(ones)
    torch.testing.assert_close(out.flatten(1).unique(dim=1).shape, (2000, 1))  # an image is kept or left as a whole
    torch.testing.assert_close(out.unique(), torch.tensor([0, 1 / 0.4]))
    assert out.mean().item() == pytest.approx(1, abs=0.15)
    assert torch.equal(layer.eval()(ones), ones)

    x = image(4, 3, 64, 64)
    assert not torch.equal(model.train()(x)[-1], model(x)[-1])
    assert torch.equal(model.eval()(x)[-1], model(x)[-1])


@pytest.mark.parametrize('frozen_stages', range(-1, 5))
def test_frozen_stages(family, frozen_stages):
    model = family(SMALL, frozen_stages=frozen_stages, drop_path_rate=0.5)
    assert model.train() is model and model.train(False) is model
    model.train()
    frozen = [] if frozen_stages < 0 else [model.stem, *model.stages[:frozen_stages]]
    of_frozen = {m for module in frozen for m in module.modules()}
    assert all(m.training == (m not in of_frozen) for m in model.modules())
    fixed = {id(p) for module in frozen for p in module.parameters()}
    assert all(p.requires_grad == (id(p) not in fixed) for p in model.parameters())

    before = copy.deepcopy(model.state_dict())
    loss_of(model(image(2, 3, 64, 64))).backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    changed = {'.'.join(name.split('.')[:2]) for name in differing(model.state_dict(), before)}
    changed = {name.split('.')[0] if name.startswith('stem') else name for name in changed}
    outputs = {'.'.join(name.split('.')[:2]) for name in before if name.startswith(('norms.', 'pyramid.'))}
    stages = outputs | {f'stages.{i}' for i in range(max(frozen_stages, 0), 4)}
    assert changed == stages | ({'stem'} if frozen_stages < 0 else set())


@pytest.mark.parametrize('norm_eval', [False, True])
def test_norm_eval_keeps_running_statistics(family, norm_eval):
    if not any(name.endswith('.running_mean') for name in official(family)):
        pytest.skip(f'no norm of {family.__name__} has running statistics')
    model = family(SMALL, norm_eval=norm_eval).train()
    norms = {name: m for name, m in model.named_modules() if isinstance(m, _BatchNorm)}
    assert norms and all(norm.training != norm_eval for norm in norms.values()) and model.training
    assert all(p.requires_grad for p in model.parameters())
    before = copy.deepcopy(dict(model.named_buffers()))
    model(image(2, 3, 64, 64))
    changed = {name.rpartition('.')[0] for name in differing(dict(model.named_buffers()), before)}
    assert changed == (set() if norm_eval else set(norms))
