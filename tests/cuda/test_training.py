"""Training steps on a GPU: of complete models in mixed precision, and what they leave in memory."""

import gc

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from mmengine.runner import Runner

from mlp_dense.config.config_file import enter_scope, read_config
from mlp_dense.training.machine import adapt_to_cpu
from support.configs import CONFIGS, thin
from support.models import SMALL, image, loss_of
from support.trainings import ScaledOnCPU

SHAPES = [path for path in CONFIGS if path.stem.endswith('_shapes')]


@pytest.mark.slow
@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
@pytest.mark.parametrize('path', SHAPES, ids=lambda path: path.stem)
def test_steps_in_mixed_precision(path, dtype, device, shapes):
    cfg = read_config(path, data_root=shapes)
    enter_scope(cfg)
    thin(cfg)
    cfg.train_dataloader.update(batch_size=2, num_workers=0, persistent_workers=False)
    scaled = dict(type='AmpOptimWrapper', dtype=dtype, loss_scale=dict(init_scale=256.0))  # overflows nowhere
    if device.type == 'cpu':
        adapt_to_cpu(cfg)
        scaled = dict(type=ScaledOnCPU)
    model = MODELS.build(cfg.model)
    model.init_weights()
    model.to(device).train()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper | scaled)
    for _, batch in zip(range(2), Runner.build_dataloader(cfg.train_dataloader, seed=0), strict=False):
        losses = model.train_step(batch, wrapper)
        assert all(torch.as_tensor(value).isfinite().all() for value in losses.values()), losses
    after = dict(model.named_parameters())
    assert all(parameter.isfinite().all() and parameter.dtype == torch.float32 for parameter in after.values())
    weights = [name for name, parameter in after.items() if parameter.ndim > 1]  # a bias before a norm has no gradient
    assert [name for name in weights if torch.equal(after[name], before[name])] == []


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize('with_cp', [False, True], ids=['', 'with_cp'])
def test_a_step_leaves_nothing_in_memory(family, gpu, dtype, with_cp):
    def step() -> int:
        """Return the bytes in use after a step."""
        model = family(SMALL, with_cp=with_cp).train().to(gpu)
        optimizer = torch.optim.AdamW(model.parameters())
        with torch.autocast('cuda', dtype, enabled=dtype != torch.float32):
            outs = model(image(2, 3, 97, 131).to(gpu))
        loss_of([out.float().cpu() for out in outs]).backward()
        optimizer.step()
        return torch.cuda.memory_allocated()

    used = []
    for _ in range(2):  # cuBLAS keeps its workspace after the first step
        assert step() > (used[-1] if used else 0)
        gc.collect()
        torch.cuda.synchronize()
        used.append(torch.cuda.memory_allocated())
    assert used[0] == used[1]
