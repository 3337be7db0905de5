"""A training run with values that are not finite ends at that iteration and saves none of them."""

from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import Tensor, nn

from mlp_dense.errors import UserError
from mlp_dense.training.finite_loss_hook import FiniteLossHook
from support.configs import SEGMENTATION
from support.tools import call, own_globals
from support.trainings import ScaledOnCPU, write_config

WRONG = 5  # the iteration, from 1


class Model(BaseModel):
    """Spoils one value in iteration `WRONG`, or in all later iterations if it `stays`."""

    def __init__(self, spoil: str = '', stays: bool = False):
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 2))
        self.register_buffer('mask', torch.tensor([0.0, -torch.inf]))
        self.register_buffer('mean', torch.zeros(2))
        self.spoil, self.stays = spoil, stays

    def forward(self, inputs: Tensor, mode: str = 'loss') -> dict[str, Tensor]:
        number = int(inputs[0, 0])
        now = self.spoil if number == WRONG or (self.stays and number > WRONG) else ''
        x = self.first(torch.ones_like(self.first.weight))
        x = self.second(x * (torch.inf if now == 'loss' else 1))
        if now == 'gradient':  # 0 * the infinite derivative of a root
            x = x + 0 * (self.first.weight - self.first.weight.detach()).abs().sqrt().sum()
        if now == 'weight':
            self.first.weight.data[0, 0] = torch.nan
        if now == 'buffer':
            self.mean[1] = torch.nan
        return dict(loss_good=(self.first.bias**2).sum(), loss_bad=(x**2).sum())


def train(folder: Path, model: Model, hook: Hook | None = None, **wrapper) -> None:
    Runner(
        model,
        str(folder),
        train_dataloader=dict(
            dataset=[torch.tensor([float(i)]) for i in range(1, 13)],
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_size=1,
            collate_fn=lambda batch: [torch.stack(batch)],
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=12),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)) | wrapper,
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1, max_keep_ckpts=1)),
        custom_hooks=[hook or FiniteLossHook()],
        experiment_name='numbers',
        randomness=dict(seed=0),
    ).train()


def saved(folder: Path) -> dict[str, dict[str, Tensor]]:
    return {path.stem: torch.load(path, weights_only=False)['state_dict'] for path in folder.glob('*.pth')}


SENTENCES = {
    'loss': 'first.weight.*losses that are not finite: loss_bad; the first module with such an output is second.',
    'gradient': r'not finite: the gradient of first\.weight \(if the batch is repeated, all losses',
    'weight': r'not finite: first\.weight\.',
    'buffer': r'not finite: mean\.',
}


@pytest.mark.parametrize('spoil', SENTENCES)
@pytest.mark.parametrize('accumulated', [1, 3])
def test_training_stops_before_anything_is_spoilt(tmp_path, spoil, accumulated):
    with pytest.raises(UserError, match=f'iteration {WRONG}: ') as caught:
        train(tmp_path, Model(spoil), accumulative_counts=accumulated)
    if (spoil, accumulated) != ('loss', 3):  # in mid-cycle the loss is seen first
        caught.match(SENTENCES[spoil])
    else:
        caught.match('not finite: loss_bad.*the first module with such an output is second')
    assert list(saved(tmp_path)) == [f'iter_{WRONG - 1}'], 'the last good one'
    (state,) = saved(tmp_path).values()
    assert all(tensor.isfinite().all() for name, tensor in state.items() if name != 'mask')


def test_initial_weights_that_are_not_finite_are_refused(tmp_path):
    model = Model()
    model.second[1].bias.data[0] = torch.inf
    with pytest.raises(UserError, match=r'Not finite before the training: second\.1\.bias'):
        train(tmp_path, model)


@pytest.mark.parametrize('accumulated', [1, 3])
def test_steps_skipped_by_the_scaler_are_accepted(tmp_path, accumulated):
    model = Model('gradient')
    train(tmp_path, model, type=ScaledOnCPU, accumulative_counts=accumulated)
    assert list(saved(tmp_path)) == ['iter_12']
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_many_skipped_steps_in_a_row_are_an_error(tmp_path):
    with pytest.raises(
        UserError, match=r'iteration 7: gradients overflowed in 3 steps in a row.*loss_bad; .* second\.'
    ):
        train(tmp_path, Model('loss', stays=True), FiniteLossHook(max_skipped=3), type=ScaledOnCPU)


def test_finite_training_is_unchanged(tmp_path):
    weights = []
    for name, hook in (('with', FiniteLossHook()), ('without', Hook())):
        torch.manual_seed(0)
        model = Model()
        torch.manual_seed(1)
        with own_globals():
            train(tmp_path / name, model, hook)
        weights.append(model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.slow
def test_diverging_training_is_explained(shapes, tmp_path, capsys):
    changes = {
        'train_cfg.max_iters': 9,
        'optim_wrapper.optimizer': dict(_delete_=True, type='SGD', lr=1e30),
        'param_scheduler': [dict(type='LinearLR', start_factor=1e-30, by_epoch=False, begin=0, end=4)],
        'default_hooks.checkpoint': dict(interval=1, max_keep_ckpts=2, save_last=True),
    }
    config = write_config(SEGMENTATION, tmp_path, shapes, **changes)
    assert call('train', config, '--work-dir', tmp_path / 'run', '--seed', 0) == 2
    error = capsys.readouterr().err
    assert 'Stopped at iteration' in error and 'not finite: ' in error and 'lower learning rate' in error
    assert len(error.strip().splitlines()) == 1
    kept = saved(tmp_path / 'run')
    assert 1 <= len(kept) <= 2 and all(t.isfinite().all() for state in kept.values() for t in state.values())
    assert Path((tmp_path / 'run' / 'last_checkpoint').read_text()).stem in kept
