"""Every config builds, and its model takes one training step and one test step."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from torch import nn

from mlp_dense.runner import _adapt_to_cpu, dataset_classes

CONFIGS = sorted(
    path
    for folder in ('detection', 'segmentation')
    for path in (Path(__file__).parents[1] / 'configs' / folder).glob('*.py')
)
SIZE = 64


@pytest.fixture(params=CONFIGS, ids=lambda path: path.stem)
def cfg(request):
    cfg = Config.fromfile(request.param)
    init_default_scope(cfg.default_scope)
    _adapt_to_cpu(cfg)
    return cfg


def test_takes_a_training_and_a_test_step(cfg):
    torch.manual_seed(0)
    if 'rpn_head' in cfg.model:  # few proposals: the same code in less time
        cfg.model.train_cfg.rpn_proposal.max_per_img = cfg.model.test_cfg.rpn.max_per_img = 20
    cfg.model.backbone.drop_path_rate = 0.0  # a dropped branch has no gradient
    model = MODELS.build(cfg.model)
    model.init_weights()
    optim_wrapper = _optim_wrapper(cfg, model)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    model.train()
    losses = model.train_step(_batch(cfg), optim_wrapper)
    assert torch.isfinite(losses['loss'])
    untouched = [name for name, parameter in model.named_parameters() if torch.equal(before[name], parameter)]
    assert not untouched, f'no gradient reaches {untouched}'

    model.eval()
    with torch.no_grad():
        (result, *_) = model.test_step(_batch(cfg))
    if cfg.default_scope == 'mmdet':
        assert result.pred_instances.masks.shape[1:] == (SIZE, SIZE)
    else:
        assert result.pred_sem_seg.data.shape == (1, SIZE, SIZE)


def _optim_wrapper(cfg, model):
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    decays = {id(p): group['weight_decay'] for group in wrapper.optimizer.param_groups for p in group['params']}
    undecayed = 'paramwise_cfg' in cfg.optim_wrapper
    for name, parameter in model.named_parameters():
        assert (decays[id(parameter)] == 0) == (undecayed and 'norm' in name), name
    return wrapper


def _batch(cfg):
    pictures = [torch.randint(0, 256, (3, SIZE, SIZE), dtype=torch.uint8) for _ in range(2)]
    if cfg.default_scope == 'mmdet':
        from mmdet.testing import demo_mm_inputs

        classes = cfg.model.roi_head.bbox_head.num_classes
        data = demo_mm_inputs(2, [(3, SIZE, SIZE)] * 2, num_items=[3, 0], num_classes=classes, with_mask=True)
        return dict(inputs=pictures, data_samples=data['data_samples'])
    from mmseg.structures import SegDataSample

    meta = dict(ori_shape=(SIZE, SIZE), img_shape=(SIZE, SIZE), pad_shape=(SIZE, SIZE))
    labels = torch.from_numpy(
        np.random.default_rng(0).integers(0, cfg.model.decode_head.num_classes, (2, 1, SIZE, SIZE))
    )
    samples = [SegDataSample(metainfo=meta, gt_sem_seg=PixelData(data=label)) for label in labels]
    return dict(inputs=pictures, data_samples=samples)


def test_class_counts_and_outputs_agree(cfg):
    classes = dataset_classes(cfg.train_dataloader.dataset)
    backbone = MODELS.build(cfg.model.backbone)
    heads = [cfg.model[name] for name in ('decode_head', 'auxiliary_head') if name in cfg.model]
    if 'roi_head' in cfg.model:
        heads = [cfg.model.roi_head.bbox_head, cfg.model.roi_head.mask_head]
    assert all(head.num_classes == len(classes) for head in heads)
    takes = cfg.model.neck.in_channels if 'neck' in cfg.model else cfg.model.decode_head.in_channels
    assert list(takes) == list(backbone.out_channels)


def test_default_hooks(cfg):
    metric = {'mmdet': 'coco/bbox_mAP', 'mmseg': 'mIoU'}[cfg.default_scope]
    assert cfg.default_hooks.checkpoint.save_best == metric
    assert cfg.default_hooks.visualization.draw
    assert any('FiniteLoss' in hook.type for hook in cfg.custom_hooks)
    assert cfg.auto_scale_lr.base_batch_size in (8, 16, 32)
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in MODELS.build(cfg.model).modules())
