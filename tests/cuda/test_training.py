"""Training steps on a GPU: of whole models in mixed precision, and what they leave in memory."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from mmengine.runner import Runner

from mlp_dense.config.config_file import enter_scope, read_config
from mlp_dense.training.machine import adapt_to_cpu
from support.configs import CONFIGS, thin
from support.devices import DEVICE, allocated
from support.models import SMALL, image, loss_of
from support.trainings import ScaledOnCPU

SHAPES = [path for path in CONFIGS if path.stem.endswith('_shapes')]


@pytest.fixture
def data_of(shapes):
    """Read a config over the embedded data; returns it with few channels, and its batches of training."""

    def data_of(path):
        cfg = read_config(path, data_root=shapes)
        enter_scope(cfg)
        thin(cfg)
        cfg.train_dataloader.update(batch_size=2, num_workers=0, persistent_workers=False)
        return cfg, Runner.build_dataloader(cfg.train_dataloader, seed=0)

    return data_of


def wrapper_of(cfg, model: torch.nn.Module, dtype: str):
    """Mixed precision with a scaler, whose first scale overflows nowhere."""
    if DEVICE == 'cpu':
        wrapper = cfg.optim_wrapper | dict(type=ScaledOnCPU)
    else:
        wrapper = cfg.optim_wrapper | dict(type='AmpOptimWrapper', dtype=dtype, loss_scale=dict(init_scale=256.0))
    return build_optim_wrapper(model, wrapper)


@pytest.mark.slow
@pytest.mark.parametrize(
    'dtype', ['bfloat16', pytest.param('float16', marks=pytest.mark.skipif(DEVICE == 'cpu', reason='needs a GPU'))]
)
@pytest.mark.parametrize('path', SHAPES, ids=lambda path: path.stem)
def test_steps_in_mixed_precision(path, dtype, device, data_of):
    cfg, batches = data_of(path)
    if device.type == 'cpu':
        adapt_to_cpu(cfg)
    model = MODELS.build(cfg.model)
    model.init_weights()
    model.to(device).train()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    wrapper = wrapper_of(cfg, model, dtype)
    for _, batch in zip(range(2), batches, strict=False):
        losses = model.train_step(batch, wrapper)
        assert all(torch.as_tensor(value).isfinite().all() for value in losses.values()), losses
    after = dict(model.named_parameters())
    assert all(parameter.isfinite().all() and parameter.dtype == torch.float32 for parameter in after.values())
    weights = [name for name, parameter in after.items() if parameter.ndim > 1]  # a bias before a norm has no gradient
    assert [name for name in weights if torch.equal(after[name], before[name])] == []


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize('with_cp', [False, True], ids=['', 'with_cp'])
def test_a_step_leaves_nothing_in_memory(family, device, dtype, with_cp):
    def step() -> None:
        model = family(SMALL, with_cp=with_cp).train().to(device)
        optimizer = torch.optim.AdamW(model.parameters())
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            outs = model(image(2, 3, 97, 131).to(device))
        loss_of([out.float().cpu() for out in outs]).backward()
        optimizer.step()
        assert allocated(device) > before

    before = -1
    step()  # cuBLAS keeps its workspace
    before = allocated(device)
    step()
    assert allocated(device) == before
