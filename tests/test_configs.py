"""Every config agrees with its name, and one config per family and head takes a training and a test step."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from torch import nn

from mlp_dense.backbones import FAMILIES
from mlp_dense.config.config_file import walk
from mlp_dense.datasets.layout import dataset_meta
from mlp_dense.training.machine import adapt_to_cpu
from reference import reference_of
from support.configs import CONFIGS, thin

SIZE = 64
BY_NAME = {cls.__module__.rpartition('.')[2]: cls for cls in FAMILIES}
BY_HEAD = {
    'cascade_mask_rcnn': 'CascadeRCNN',
    'mask_rcnn': 'MaskRCNN',
    'retinanet': 'RetinaNet',
    'upernet': 'UPerHead',
    'semantic_fpn': 'FPNHead',
}
NAME = re.compile(rf'({"|".join(BY_NAME)})_(?:(.+?)_)??({"|".join(BY_HEAD)})(?:_|$)')
ONE_PER_HEAD = {NAME.match(path.stem).group(1, 3): path for path in reversed(CONFIGS)}
"""One config per family and head: with few channels, the others are nearly identical."""
SCHEDULES = {1: [8, 11], 3: [27, 33]}
DATA = {
    'coco': 'coco',
    'ade20k': 'ADEChallengeData2016',
    'camvid': 'camvid',
    'shapes': 'shapes',
    'bands': 'shapes_bands',
}


def read(path: Path) -> Config:
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    return cfg


@pytest.mark.parametrize('path', ONE_PER_HEAD.values(), ids=['-'.join(key) for key in ONE_PER_HEAD])
def test_model_takes_a_training_and_a_test_step(path):
    cfg = read(path)
    adapt_to_cpu(cfg)
    torch.manual_seed(0)
    thin(cfg)
    if 'rpn_head' in cfg.model:  # few proposals and results save time
        cfg.model.train_cfg.rpn_proposal.max_per_img = cfg.model.test_cfg.rpn.max_per_img = 20
    cfg.model.test_cfg.get('rcnn', cfg.model.test_cfg).max_per_img = 3
    if cfg.model.data_preprocessor.get('size'):  # padded to it in training
        cfg.model.data_preprocessor.size = (SIZE, SIZE)
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
    if cfg.default_scope == 'mmseg':
        assert result.pred_sem_seg.data.shape == (1, SIZE, SIZE)
    elif 'roi_head' in cfg.model:
        assert result.pred_instances.masks.shape[1:] == (SIZE, SIZE)
    else:
        assert result.pred_instances.bboxes.shape[1:] == (4,)


def _optim_wrapper(cfg, model):
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    decays = {id(p): group['weight_decay'] for group in wrapper.optimizer.param_groups for p in group['params']}
    undecayed = 'paramwise_cfg' in cfg.optim_wrapper
    for name, parameter in model.named_parameters():
        assert (decays[id(parameter)] == 0) == (undecayed and 'norm' in name), name
    return wrapper


def _batch(cfg):
    images = [torch.randint(0, 256, (3, SIZE, SIZE), dtype=torch.uint8) for _ in range(2)]
    num_classes = len(dataset_meta(cfg.train_dataloader.dataset)['classes'])
    if cfg.default_scope == 'mmdet':
        from mmdet.testing import demo_mm_inputs

        with_mask = 'roi_head' in cfg.model
        sizes = [(3, SIZE, SIZE)] * 2
        data = demo_mm_inputs(2, sizes, num_items=[3, 0], num_classes=num_classes, with_mask=with_mask)
        return dict(inputs=images, data_samples=data['data_samples'])
    from mmseg.structures import SegDataSample

    meta = dict(ori_shape=(SIZE, SIZE), img_shape=(SIZE, SIZE), pad_shape=(SIZE, SIZE))
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, num_classes, (2, 1, SIZE, SIZE)))
    labels[:, :, :9] = cfg.model.decode_head.get('ignore_index', 255)
    samples = [SegDataSample(metainfo=meta, gt_sem_seg=PixelData(data=label)) for label in labels]
    return dict(inputs=images, data_samples=samples)


def test_configs_agree_with_their_names():
    for path in CONFIGS:
        cfg, name = read(path), path.stem
        check_name(cfg, name)
        check_runtime(cfg, name)
        adapt_to_cpu(cfg)
        assert cfg.optim_wrapper.type == 'OptimWrapper', name
        check_channels_and_classes(cfg, name)


def check_name(cfg: Config, name: str) -> None:
    family, arch, head = NAME.match(name).groups()
    assert cfg.model.backbone.type == f'mlp_dense.{BY_NAME[family].__name__}', name
    assert BY_HEAD[head] == (cfg.model.type if cfg.default_scope == 'mmdet' else cfg.model.decode_head.type), name
    if arch:
        assert cfg.model.backbone.arch == arch and arch in BY_NAME[family].archs, name
    if schedule := re.search(r'_(\d)x_', name):
        times = int(schedule[1])
        assert cfg.train_cfg.max_epochs == 12 * times, name
        assert cfg.param_scheduler[1].end == cfg.train_cfg.max_epochs, name
        assert cfg.param_scheduler[1].milestones == SCHEDULES[times], name
    data = re.split('_|-', re.sub(r'-\d+x\d+', '', name))[-1]
    assert DATA[data] in cfg.train_dataloader.dataset.data_root, name


def check_channels_and_classes(cfg: Config, name: str) -> None:
    """Build the model, and compare the heads with the backbone and the data set."""
    classes = dataset_meta(cfg.train_dataloader.dataset)['classes']
    assert {value for _, _, key, value in walk(cfg.model) if key == 'num_classes'} == {len(classes)}, name
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    channels = model.backbone.out_channels
    in_channels = cfg.model.neck.in_channels if 'neck' in cfg.model else cfg.model.decode_head.in_channels
    assert list(in_channels) == list(channels), name
    if 'auxiliary_head' in cfg.model:
        assert cfg.model.auxiliary_head.in_channels == channels[2], name
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()), f'{name} on a CPU'


def check_runtime(cfg: Config, name: str) -> None:
    """Check hooks, precision and the scaling of the learning rate."""
    metric = {'mmdet': 'coco/bbox_mAP', 'mmseg': 'mIoU'}[cfg.default_scope]
    assert cfg.default_hooks.checkpoint.save_best == metric, name
    assert cfg.default_hooks.visualization.draw != name.endswith('bands'), name
    assert cfg.default_hooks.finite_loss.type == 'mlp_dense.FiniteLossHook', name
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper', name
    gpus = 1 if any(data in name for data in ('shapes', 'bands', 'camvid')) else 8
    base_batch_size = gpus * cfg.train_dataloader.batch_size
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=base_batch_size), name
    assert 'tta_model' in cfg and 'tta_pipeline' in cfg, name
    if cfg.default_scope == 'mmseg':  # the last step of the schedule ends with the training, and is saved
        assert cfg.param_scheduler[-1].end == cfg.train_cfg.max_iters, name
        assert cfg.train_cfg.max_iters % cfg.default_hooks.checkpoint.interval == 0, name


@pytest.mark.parametrize('dataset', ['ade20k', 'camvid'])
def test_tta_uses_the_sizes_of_the_papers(dataset):
    cfg = Config.fromfile(next(path for path in CONFIGS if f'upernet_{dataset}' in path.stem))
    sizes, flips, *_ = cfg.tta_pipeline[1].transforms
    ratios = [size.scale[1] / 512 if 'scale' in size else size.scale_factor for size in sizes]
    assert ratios == [0.5, 0.75, 1.0, 1.25, 1.5, 1.75] and [flip.prob for flip in flips] == [0.0, 1.0]


def test_every_arch_has_its_configs(family):
    names, family_name = {path.stem for path in CONFIGS}, family.__module__.rpartition('.')[2]
    assert {f'{family_name}_mask_rcnn_coco', f'{family_name}_upernet_ade20k'} <= names
    expected = {'upernet_ade20k-512x512': ' '.join(family.archs), **reference_of(family).configs}
    assert {f'{family_name}_{arch}_{end}' for end, archs in expected.items() for arch in archs.split()} <= names
