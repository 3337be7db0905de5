"""What every backbone promises, shown for every registered arch or, where the size does not matter, for a small one."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import mlp_dense
from mlp_dense.backbones.stages import DropPath
from reference import reference_of
from support.models import ARCHS, SMALL, differing, loss_of, picture


@pytest.fixture(scope='module', params=ARCHS, ids=lambda pair: f'{pair[0].__name__}-{pair[1]}')
def full(request):
    """A backbone of each registered arch with its initial weights."""
    cls, arch = request.param
    torch.manual_seed(0)
    return cls(arch, drop_path_rate=0.3)


@pytest.fixture
def small(family):
    torch.manual_seed(0)
    return family(SMALL)


# Every registered arch


@pytest.mark.parametrize('height, width', [(64, 64), (33, 47)])
def test_outputs_are_what_the_attributes_say(full, height, width):
    x = picture(2, 3, height, width)
    with torch.no_grad():
        outs = full.eval()(x)
    assert isinstance(outs, tuple)
    assert full.out_channels == tuple(full.arch['dims']) == tuple(out.shape[1] for out in outs)
    assert full.out_strides == (4, 8, 16, 32)
    reference = reference_of(type(full))
    sizes = list(zip(reference.map_sizes(height), reference.map_sizes(width), strict=True))
    assert [tuple(out.shape[2:]) for out in outs] == sizes
    if (height, width) == (64, 64):
        assert [64 // out.shape[2] for out in outs] == list(full.out_strides)
    assert all(out.shape[0] == 2 and out.is_contiguous() and out.isfinite().all() for out in outs)


def test_drop_path_rises_linearly_over_all_blocks(full):
    rates = [layer.rate for layer in full.modules() if isinstance(layer, DropPath)]
    n = sum(full.arch['depths'])
    assert rates == pytest.approx([0.3 * b / (n - 1) for b in range(n)])


def test_every_parameter_gets_a_gradient(full):
    full.train().zero_grad(set_to_none=True)
    loss_of(full(picture(2, 3, 64, 64))).backward()
    assert [name for name, p in full.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    full.zero_grad(set_to_none=True)


def test_initial_weights_are_those_of_the_official_code(full):
    for name, layer in full.named_modules():
        if isinstance(layer, (nn.GroupNorm, nn.LayerNorm, _BatchNorm)):
            assert (layer.weight == 1).all() and (layer.bias == 0).all(), name
        elif isinstance(layer, (nn.Linear, nn.Conv2d)):
            weight, bound = layer.weight, 1 / math.sqrt(layer.weight[0].numel())
            if reference_of(type(full)).drawn_by_paper(layer):
                expected_std, limit = 0.02, 0.2
                assert layer.bias is None or (layer.bias == 0).all(), name
            else:  # PyTorch's default: uniform within the bound
                expected_std, limit = bound / math.sqrt(3), bound
                assert layer.bias is None or (0.5 * bound < layer.bias.abs().max() <= bound), name
            assert weight.std().item() == pytest.approx(expected_std, rel=5 / math.sqrt(weight.numel())), name
            assert 0.8 * min(limit, 3 * expected_std) < weight.abs().max() <= limit, name


# Pictures


@pytest.mark.parametrize('height, width', [(1, 1), (1, 9), (2, 5), (3, 3), (5, 2), (13, 50), (203, 271)])
@pytest.mark.parametrize('batch', [1, 3])
def test_any_picture_size_and_batch_size(small, batch, height, width):
    x = picture(batch, 3, height, width)
    before = x.clone()
    with torch.no_grad():
        outs = small.eval()(x)
    reference = reference_of(type(small))
    sizes = zip(reference.map_sizes(height), reference.map_sizes(width), strict=True)
    assert [tuple(out.shape) for out in outs] == [
        (batch, c, h, w) for c, (h, w) in zip(SMALL['dims'], sizes, strict=True)
    ]
    assert torch.equal(x, before)
    with torch.no_grad():  # pictures of a batch do not see each other
        torch.testing.assert_close(small(x[:1]), tuple(out[:1] for out in outs))


@pytest.mark.parametrize(
    'lay_out',
    [
        lambda x: x.contiguous(memory_format=torch.channels_last),
        lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
        lambda x: torch.cat([x, x], 3)[..., : x.shape[3]],
    ],
    ids=['channels_last', 'transposed', 'slice'],
)
def test_memory_layout_of_the_picture_does_not_matter(small, lay_out):
    x = picture(2, 3, 61, 45)
    laid_out = lay_out(x)
    assert laid_out.stride() != x.stride()
    outs, others = small.train()(x), small.train()(laid_out)
    torch.testing.assert_close(outs, others)
    assert torch.equal(laid_out, x)
    assert all(out.is_contiguous() for out in (*outs, *others))  # mmcv's RoIAlign reads memory in this order


def test_model_in_channels_last_memory_gives_the_same(small):
    x = picture(2, 3, 61, 45)
    expected = small.eval()(x)
    outs = small.to(memory_format=torch.channels_last)(x)
    torch.testing.assert_close(outs, expected)
    assert all(out.is_contiguous() for out in outs)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast_trains_and_stays_near_float32(small, dtype):
    x = picture(2, 3, 64, 48)
    expected = copy.deepcopy(small).train()(x)
    with torch.autocast('cpu', dtype):
        outs = small.train()(x)
    loss_of(out.float() for out in outs).backward()
    assert all(p.grad.isfinite().all() and p.grad.dtype == torch.float32 for p in small.parameters())
    for out, exact in zip(outs, expected, strict=True):
        assert (out.float() - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
def test_whole_model_in_another_precision(small, dtype):
    x = picture(2, 3, 64, 48)
    expected = small.eval()(x)
    for out, exact in zip(small.to(dtype)(x.to(dtype)), expected, strict=True):
        assert out.dtype == dtype
        assert (out.float() - exact).abs().max() < (0.05 if dtype == torch.bfloat16 else 1e-5) * exact.abs().max()


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
def test_cuda_gives_what_the_cpu_gives(small, dtype):
    x = picture(2, 3, 64, 48)
    expected = small.eval()(x)
    with torch.autocast('cuda', dtype, enabled=dtype != torch.float32):
        outs = small.cuda()(x.cuda())
    for out, exact in zip(outs, expected, strict=True):
        assert (out.float().cpu() - exact).abs().max() < (1e-2 if dtype == torch.float32 else 0.05) * exact.abs().max()


def test_other_number_of_picture_channels(family):
    assert family(SMALL, in_channels=5)(picture(2, 5, 64, 64))[0].shape == (2, 8, 16, 16)


# Training


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
                outs = model(picture(4, 3, 64, 48, dtype=torch.float64))
            loss_of(outs).backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        results.append((outs, gradients, model.state_dict(), sum(kept)))
    (outs, gradients, state, kept), (outs_cp, gradients_cp, state_cp, kept_cp) = results
    torch.testing.assert_close(outs_cp, outs)
    assert None not in gradients.values()
    torch.testing.assert_close(gradients_cp, gradients)
    torch.testing.assert_close(state_cp, state)  # also running statistics and num_batches_tracked
    assert kept_cp < 0.5 * kept


def test_drop_path_is_per_picture_and_only_in_training(family):
    torch.manual_seed(0)
    model = family(SMALL, drop_path_rate=0.6)
    layer = model.stages[-1].blocks[-1].drop_path
    ones = torch.ones(2000, 2, 1, 3)
    out = layer.train()(ones)
    torch.testing.assert_close(out.flatten(1).unique(dim=1).shape, (2000, 1))  # a picture is kept or left as a whole
    torch.testing.assert_close(out.unique(), torch.tensor([0, 1 / 0.4]))
    assert out.mean().item() == pytest.approx(1, abs=0.15)
    assert torch.equal(layer.eval()(ones), ones)

    x = picture(4, 3, 64, 64)
    assert not torch.equal(model.train()(x)[-1], model(x)[-1])
    assert torch.equal(model.eval()(x)[-1], model(x)[-1])


@pytest.mark.parametrize('frozen_stages', range(-1, 5))
def test_frozen_stages(family, frozen_stages):
    model = family(SMALL, frozen_stages=frozen_stages, drop_path_rate=0.5)
    assert model.train() is model and model.train(False) is model
    model.train()
    frozen = [] if frozen_stages < 0 else [model.stem, *model.stages[:frozen_stages]]
    of_frozen = {m for part in frozen for m in part.modules()}
    assert all(m.training == (m not in of_frozen) for m in model.modules())
    fixed = {id(p) for part in frozen for p in part.parameters()}
    assert all(p.requires_grad == (id(p) not in fixed) for p in model.parameters())

    before = copy.deepcopy(model.state_dict())
    loss_of(model(picture(2, 3, 64, 64))).backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    changed = {'.'.join(name.split('.')[:2]) for name in differing(model.state_dict(), before)}
    changed = {name.split('.')[0] if name.startswith('stem') else name for name in changed}
    stages = {f'stages.{i}' for i in range(max(frozen_stages, 0), 4)} | {f'norms.{i}' for i in range(4)}
    assert changed == stages | ({'stem'} if frozen_stages < 0 else set())


def test_norm_eval_keeps_running_statistics(family):
    for norm_eval in (False, True):
        model = family(SMALL, norm_eval=norm_eval).train()
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
        assert all(norm.training != norm_eval for norm in norms) and model.training
        assert all(p.requires_grad for p in model.parameters())
        before = copy.deepcopy(dict(model.named_buffers()))
        model(picture(2, 3, 64, 64))
        assert bool(differing(dict(model.named_buffers()), before)) == (bool(norms) and not norm_eval)


# Choice of outputs


@pytest.mark.parametrize('out_norm', [True, False])
@pytest.mark.parametrize('out_indices', [(0,), (3,), (1, 2, 3), [0, 2], (0, 1, 2, 3)])
def test_selected_outputs_and_no_unused_parameters(family, out_indices, out_norm):
    full = family(SMALL, drop_path_rate=0.5)
    model = family(SMALL, drop_path_rate=0.5, out_indices=out_indices, out_norm=out_norm)
    assert model.out_channels == tuple(SMALL['dims'][i] for i in out_indices)
    assert model.out_strides == tuple(4 * 2**i for i in out_indices)
    loss_of(model.train()(picture(4, 3, 64, 64))).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert set(model.state_dict()) <= set(full.state_dict())
    rates, full_rates = ([m.rate for m in net.modules() if isinstance(m, DropPath)] for net in (model, full))
    assert rates == full_rates[: len(rates)]
    assert any(name.startswith('norms.') for name in model.state_dict()) == out_norm

    model.load_state_dict(full.state_dict())
    x = picture(1, 3, 64, 40)
    outs = model.eval()(x)
    assert len(outs) == len(out_indices)
    if out_norm:
        torch.testing.assert_close(outs, tuple(full.eval()(x)[i] for i in out_indices))


def test_output_norm_changes_only_its_own_output(family):
    model = family(SMALL).eval()
    x = picture(1, 3, 64, 40)
    before = model(x)
    nn.init.constant_(model.norms[1].weight, 3.0)
    same = [torch.equal(out, old) for out, old in zip(model(x), before, strict=True)]
    assert same == [True, False, True, True]


# Arguments


def test_arguments_of_the_caller_are_not_modified(family):
    arguments = dict(
        arch=dict(depths=[1, 1, 1, 1], dims=[8, 8, 8, 8]),
        out_indices=[1, 3],
        norm_cfg=dict(type=next(iter(family.norms_allowed)), requires_grad=False),
        init_cfg=[dict(type='Constant', layer='Conv2d', val=0.5)],
    )
    before, archs = copy.deepcopy(arguments), copy.deepcopy(family.archs)
    model = family(**arguments)
    model.init_weights()
    model.train()(picture(2, 3, 64, 64))
    assert arguments == before and family.archs == archs
    assert (model.stem.conv.weight == 0.5).all()  # the other kinds of init_cfg work as everywhere
    norms = [p for name, p in model.named_parameters() if 'norm' in name]
    assert norms and not any(p.requires_grad for p in norms)


def test_init_weights_without_init_cfg_keeps_the_initial_weights(small):
    before = copy.deepcopy(small.state_dict())
    small.init_weights()
    assert differing(small.state_dict(), before) == []


def test_sync_bn():
    model = mlp_dense.HireMLP(SMALL).eval()
    synced = mlp_dense.HireMLP(SMALL, norm_cfg=dict(type='SyncBN', eps=1e-5)).eval()
    norms = [m for m in synced.modules() if isinstance(m, _BatchNorm)]
    assert len(norms) > 40 and all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    synced.load_state_dict(model.state_dict())
    x = picture(2, 3, 64, 64)
    torch.testing.assert_close(synced(x), model(x))


# Tools of PyTorch


@pytest.mark.parametrize(
    'duplicate', [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=['deepcopy', 'pickle']
)
def test_copies_give_the_same(small, duplicate):
    x = picture(2, 3, 64, 48)
    torch.testing.assert_close(duplicate(small.eval())(x), small(x))


def test_building_on_the_meta_device(family):
    with torch.device('meta'):
        model = family(SMALL)
    assert all(p.is_meta for p in model.parameters())


@pytest.mark.parametrize('mode', ['eval', 'train', 'with_cp'])
def test_compiles_without_graph_breaks(family, mode):
    torch._dynamo.reset()
    model = family(dict(depths=(1, 2), dims=(8, 12)), out_indices=(0, 1), with_cp=mode == 'with_cp').train(
        mode != 'eval'
    )
    other = copy.deepcopy(model)
    compiled = torch.compile(other, fullgraph=True, dynamic=False, backend='aot_eager')
    for size in ((64, 64), (50, 75)):
        x = picture(2, 3, *size)
        outs, expected = compiled(x), model(x)
        torch.testing.assert_close(outs, expected, rtol=1e-4, atol=1e-4)
        loss_of(outs).backward()
        loss_of(expected).backward()
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=1e-4, atol=1e-4)
