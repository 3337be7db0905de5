"""Mixtures of experts: only the chosen experts are computed, and a balancing loss joins the gradient exactly once."""

import logging
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mlp_dense import kernels
from mlp_dense.backbones import experts as module
from mlp_dense.backbones.experts import BALANCE_WEIGHT, Experts, imbalance
from mlp_dense.kernels import expert_mixing as mixing
from mlp_dense.training.hooks import BalanceHook
from support.configs import config
from support.tools import call
from support.trainings import ScaledOnCPU, records_of, write_config

DIM, HIDDEN, EXPERTS, CHOSEN = 6, 5, 4, 2


def built(seed: int = 0) -> Experts:
    torch.manual_seed(seed)
    model = Experts(DIM, HIDDEN, EXPERTS, CHOSEN).double()
    nn.init.normal_(model.router.weight, std=0.5)
    return model


def gradients(model: nn.Module, *images: Tensor, weight: float = 0.0) -> dict[str, Tensor]:
    """Return gradients of the balancing loss, plus `weight` times the outputs, over some batches."""
    model.zero_grad()
    for i, x in enumerate(images):
        torch.manual_seed(i)
        (weight * model(x)).sum().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_only_the_chosen_experts_are_computed():
    model, x = built().eval(), torch.randn(3, 10, DIM, dtype=torch.float64)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(x)
    assert counter.get_total_flops() == 2 * 30 * (DIM * EXPERTS + CHOSEN * 2 * DIM * HIDDEN)


def test_rows_are_padded_on_a_cpu(monkeypatch, two_threads):
    model, x = built().float().eval(), torch.randn(150, DIM)
    exact, rows = built().eval(), []
    assert not kernels.applies(x.double())
    expert_mlp = mixing.expert_mlp
    monkeypatch.setattr(mixing, 'expert_mlp', lambda x, *weights: rows.append(x.shape[2]) or expert_mlp(x, *weights))
    for experts, dtype in ((model, torch.float32), (exact, torch.float64)):
        experts(x.to(dtype)).square().sum().backward()
    assert all(count % mixing.ROWS == 0 for count in rows[:EXPERTS]) and sum(rows[EXPERTS:]) == CHOSEN * len(x)
    for a, b in zip(model.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(a.grad.double(), b.grad, rtol=1e-3, atol=1e-3)


def test_operator_of_compiled_code_has_the_gradients_of_autograd():
    model, items = built(), torch.randn(30, DIM, dtype=torch.float64, requires_grad=True)
    gates, chosen = torch.rand(30, EXPERTS, dtype=torch.float64).topk(CHOSEN)
    gates.requires_grad_()
    weights = model.fc1.weight, model.fc1.bias, model.fc2.weight, model.fc2.bias
    outer = torch.randn(30, DIM, dtype=torch.float64)
    outs = [mix(items, gates, chosen, *weights) for mix in (mixing.mix_chosen, torch.ops.mlp_dense.mix_experts.default)]
    torch.testing.assert_close(*outs)
    torch.testing.assert_close(*(torch.autograd.grad(out, (items, gates, *weights), outer) for out in outs))


def test_wrapped_router_is_called():
    """LoRA wraps it."""
    model, x = built().eval(), torch.randn(20, DIM, dtype=torch.float64)
    expected, router = model(x), model.router
    model.router = nn.Sequential(router)
    assert torch.equal(model(x), expected)
    model.router.register_forward_hook(lambda module, inputs, logits: -logits)
    assert not torch.equal(model(x), expected)


def test_imbalance_is_the_formula():
    torch.manual_seed(0)
    logits = torch.randn(7, EXPERTS, dtype=torch.float64)
    noisy = logits + torch.randn_like(logits) / EXPERTS
    importance, load = [0.0] * EXPERTS, [0.0] * EXPERTS
    for item, noise in zip(logits.tolist(), noisy.tolist(), strict=True):
        total = sum(math.exp(value) for value in item)
        threshold = sorted(noise)[-CHOSEN]
        for i, value in enumerate(item):
            importance[i] += math.exp(value) / total
            load[i] += (1 - math.erf((threshold - value) * EXPERTS / 2**0.5)) / 2 / 7

    def squared_variation(values: list[float]) -> float:
        mean = sum(values) / len(values)
        return sum((value - mean) ** 2 for value in values) / len(values) / mean**2

    expected = (squared_variation(importance) + squared_variation(load)) / 2
    assert imbalance(logits, noisy, CHOSEN).item() == pytest.approx(expected, rel=1e-12)


def test_gradient_is_that_of_the_formula():
    model, x = built().train(), torch.randn(9, DIM, dtype=torch.float64)
    actual = gradients(model, x)

    def value() -> float:
        torch.manual_seed(0)
        model(x)
        return model.balance.item()

    weight, step = model.router.weight, 1e-6
    for i in range(EXPERTS):
        for j in range(DIM):
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    weight[i, j] += sign * step
                values.append(value())
                with torch.no_grad():
                    weight[i, j] -= sign * step
            assert actual['router.weight'][i, j].item() == pytest.approx(
                (values[0] - values[1]) / (2 * step), rel=1e-4, abs=1e-9
            )
    assert all(not gradient.any() for name, gradient in actual.items() if not name.startswith('router'))
    # It is added to the gradient of what is minimized, and nothing is added in evaluation.
    both = gradients(model, x, weight=1.0)['router.weight']
    alone = (value(), torch.autograd.grad(without_loss(model, x), model.router.weight))[1][0]
    torch.testing.assert_close(both, alone + actual['router.weight'])
    assert not gradients(model.eval(), x)['router.weight'].any()


def without_loss(model: Experts, x: Tensor) -> Tensor:
    """Return the sum of the outputs with the noise of training, without the balancing loss."""
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, 'BALANCE_WEIGHT', 0.0)
        return model(x).sum()


def test_accumulated_gradients_count_the_loss_once():
    model, images = built().train(), [torch.randn(9, DIM, dtype=torch.float64) for _ in range(2)]
    single = []
    for i, x in enumerate(images):
        torch.manual_seed(i)
        model.zero_grad()
        (0 * model(x)).sum().backward()
        single.append(model.router.weight.grad)
    model.set_loss_scale(0.5)
    torch.testing.assert_close(gradients(model, *images)['router.weight'], (single[0] + single[1]) / 2)


def test_hook_sets_the_scale_of_the_loss():
    model = nn.Sequential(built(), built())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    plain = OptimWrapper(optimizer, accumulative_counts=4)
    for wrapper, expected in ((plain, 0.25), (ScaledOnCPU(optimizer=optimizer), 4.0)):
        runner, hook = SimpleNamespace(model=model, optim_wrapper=wrapper), BalanceHook()
        hook.before_train(runner)
        hook.before_train_iter(runner, 0)
        assert [experts.loss_scale.item() for experts in model] == [expected] * 2
        hook.after_train(runner)
        assert [experts.loss_scale.item() for experts in model] == [1.0] * 2


def test_loss_scales_of_two_models_are_independent():
    scaled, other, x = built().train(), built().train(), torch.randn(9, DIM, dtype=torch.float64)
    scaled.set_loss_scale(4.0)
    torch.testing.assert_close(gradients(scaled, x)['router.weight'], 4 * gradients(other, x)['router.weight'])
    assert 'loss_scale' not in scaled.state_dict()


def test_experts_without_items_have_a_gradient_of_zero():
    model = built().train()
    with torch.no_grad():
        model.router.weight.zero_()
        model.router.weight[0] = 100.0
        model.router.weight[1] = 50.0
    actual = gradients(model, torch.rand(9, DIM, dtype=torch.float64) + 1, weight=1.0)
    for name in ('fc1.weight', 'fc1.bias', 'fc2.weight', 'fc2.bias'):
        assert not actual[name][2:].any() and actual[name][0].any()


@pytest.mark.slow
def test_training_logs_it(shapes: Path, tmp_path):
    short = {'train_cfg.max_epochs': 1, 'train_dataloader.dataset.indices': 4, 'default_hooks.logger.interval': 1}
    cfg = write_config(config('detection/sparse_mlp_mask_rcnn_shapes'), tmp_path, shapes, **short)
    assert call('train', cfg, '--work-dir', tmp_path / 'run') == 0
    values = [record['loss_balance'] for record in records_of(tmp_path / 'run').values() if 'loss' in record]
    assert values and all(0 < value < BALANCE_WEIGHT * EXPERTS * 8 for value in values)


def test_hook_writes_shares_and_warns_of_dead_experts(caplog):
    experts, written = Experts(6, 5, EXPERTS, 1), []
    hub, logger = SimpleNamespace(update_scalar=lambda *_: None), logging.getLogger('experts')
    visualizer = SimpleNamespace(add_scalars=lambda scalars, step: written.append((step, scalars)))
    runner = SimpleNamespace(model=nn.Sequential(experts), message_hub=hub, logger=logger, visualizer=visualizer)
    hook = BalanceHook(interval=2)
    hook.before_train(runner)
    rounds = ([5, 3], [3, 5], [8, 0], [8, 0], [0, 8], [8, 0], [8, 0], [8, 0])  # of expert 0 and 1; 4 get a constant
    for runner.iter, (first, second) in enumerate(rounds):
        experts.shares = torch.tensor([first, second, *[4.0] * (EXPERTS - 2)])
        hook.after_train_iter(runner, runner.iter)
    assert [step for step, _ in written] == [2, 4, 6, 8]
    for (step, scalars), shares in zip(written, ([8, 8], [16, 0], [8, 8], [16, 0]), strict=True):
        assert scalars.pop('iter') == step and sum(scalars.values()) == pytest.approx(1)
        total = sum(shares) + 8 * (EXPERTS - 2)
        assert [scalars[f'expert/0/{i}'] for i in range(2)] == pytest.approx([share / total for share in shares])
    assert [message[:30] for message in caplog.messages] == [f'Expert 1 of {EXPERTS} in 0 is dead: it '[:30]]  # once
