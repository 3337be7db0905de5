"""Nothing is written that a caller or a hook may hold, and no output shares memory with anything else."""

import pytest
import torch
from torch import Tensor, nn

from mlp_dense import fuse
from mlp_dense.backbones.wave_mlp import GroupedConv
from support.models import SMALL, image, loss_of

SIZES = [(33, 47), (1, 1)]


class Watch:
    """The inputs and outputs of the modules of a model, each with a copy; hooked layers disable fast paths."""

    def __init__(self, model: nn.Module, left_alone: tuple[type, ...]):
        self.seen: list[tuple[str, Tensor, Tensor]] = []
        for name, module in model.named_modules():
            if not isinstance(module, left_alone):
                module.register_forward_pre_hook(lambda _, args, name=name: self.keep(f'input of {name}', args))
                module.register_forward_hook(lambda _, args, out, name=name: self.keep(f'output of {name}', out))

    def keep(self, name: str, value: Tensor | tuple[Tensor, ...]) -> None:
        values = value if isinstance(value, tuple) else (value,)
        self.seen += [(name, tensor, tensor.detach().clone()) for tensor in values]

    def changed(self) -> list[str]:
        return [name for name, tensor, copy in self.seen if not torch.equal(tensor, copy)]


LAYERS = (nn.Linear, GroupedConv)
left_alone = pytest.mark.parametrize('left_alone', [(), LAYERS], ids=['all hooked', 'layers of fast paths not hooked'])


@left_alone
@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('prepare', [lambda model: model, fuse], ids=['as trained', 'fused'])
def test_inference_writes_nothing_that_a_hook_holds(small, prepare, size, left_alone):
    model = prepare(small.eval())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    watch = Watch(model, left_alone)
    with torch.inference_mode():
        model(image(2, 3, *size))
    assert len(watch.seen) > 2 * sum(SMALL['depths']) and watch.changed() == []
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@left_alone
@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('with_cp', [False, True])
def test_training_writes_nothing_that_a_hook_holds(family, with_cp, size, left_alone, two_threads):
    model = family(SMALL, drop_path_rate=0.5, with_cp=with_cp).train()
    watch = Watch(model, left_alone)
    loss_of(model(image(2, 3, *size).requires_grad_())).backward()
    assert len(watch.seen) > 2 * sum(SMALL['depths']) and watch.changed() == []


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('out_norm', [True, False])
@pytest.mark.parametrize('training', [True, False])
def test_outputs_share_no_memory(family, size, out_norm, training):
    model, stages, x = family(SMALL, out_norm=out_norm).train(training), [], image(2, 3, *size)
    for stage in model.stages:
        stage.register_forward_hook(lambda module, args, out: stages.append(out))
    with torch.set_grad_enabled(training):
        outs = model(x)
    addresses = [tensor.untyped_storage().data_ptr() for tensor in (x, *stages, *outs)]
    assert len(addresses) == 1 + 2 * len(SMALL['dims']) == len(set(addresses))
