"""Every config builds, says what its name says, and its model takes one training step and one test step."""

import re

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from torch import nn

from mlp_dense.backbones import FAMILIES
from mlp_dense.checks.data_config import dataset_meta
from mlp_dense.config.reading import adapt_to_cpu, walk
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
KINDS = [NAME.match(path.stem).group(1, 3) for path in CONFIGS]  # thin, the variants of a family are nearly the same
PARAMS = [
    pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if kind in KINDS[:i] else [])
    for i, (path, kind) in enumerate(zip(CONFIGS, KINDS, strict=True))
]


@pytest.fixture(params=PARAMS)
def path(request):
    return request.param


@pytest.fixture
def cfg(path):
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    adapt_to_cpu(cfg)
    return cfg


def test_takes_a_training_and_a_test_step(cfg):
    torch.manual_seed(0)
    thin(cfg)
    if 'rpn_head' in cfg.model:  # few proposals and results: the same code in less time
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


def test_is_what_its_name_says(cfg, path):
    family, arch, head = NAME.match(path.stem).groups()
    assert cfg.model.backbone.type == f'mlp_dense.{BY_NAME[family].__name__}'
    assert BY_HEAD[head] == (cfg.model.type if cfg.default_scope == 'mmdet' else cfg.model.decode_head.type)
    if arch:
        assert cfg.model.backbone.arch == arch and arch in BY_NAME[family].archs
    if schedule := re.search(r'_(\d)x_', path.stem):
        assert cfg.train_cfg.max_epochs == 12 * int(schedule[1])
        assert cfg.param_scheduler[1].end == cfg.train_cfg.max_epochs
        assert cfg.param_scheduler[1].milestones == {1: [8, 11], 3: [27, 33]}[int(schedule[1])]
    data = {'coco': 'coco', 'ade20k': 'ADEChallengeData2016', 'camvid': 'camvid', 'shapes': 'shapes'}
    assert data[re.split('_|-', re.sub(r'-\d+x\d+', '', path.stem))[-1]] in cfg.train_dataloader.dataset.data_root


def test_class_counts_and_outputs_agree(cfg):
    classes = dataset_meta(cfg.train_dataloader.dataset)['classes']
    assert {value for _, _, key, value in walk(cfg.model) if key == 'num_classes'} == {len(classes)}
    with torch.device('meta'):
        backbone = MODELS.build(cfg.model.backbone)
    takes = cfg.model.neck.in_channels if 'neck' in cfg.model else cfg.model.decode_head.in_channels
    assert list(takes) == list(backbone.out_channels)
    if 'auxiliary_head' in cfg.model:
        assert cfg.model.auxiliary_head.in_channels == backbone.out_channels[2]


def test_hooks_precision_and_learning_rate_scaling(path):
    cfg = Config.fromfile(path)
    metric = {'mmdet': 'coco/bbox_mAP', 'mmseg': 'mIoU'}[cfg.default_scope]
    assert cfg.default_hooks.checkpoint.save_best == metric
    assert cfg.default_hooks.visualization.draw
    assert cfg.default_hooks.finite_loss.type == 'mlp_dense.FiniteLossHook'
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    gpus = 1 if 'shapes' in path.stem or 'camvid' in path.stem else 8
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=gpus * cfg.train_dataloader.batch_size)
    assert 'tta_model' in cfg and 'tta_pipeline' in cfg
    if cfg.default_scope == 'mmseg':  # the last step of the schedule ends with the training, and is saved
        assert cfg.param_scheduler[-1].end == cfg.train_cfg.max_iters
        assert cfg.train_cfg.max_iters % cfg.default_hooks.checkpoint.interval == 0


def test_without_a_gpu_no_sync_bn_is_left(cfg):
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
    assert cfg.optim_wrapper.type == 'OptimWrapper'


@pytest.mark.parametrize('dataset', ['ade20k', 'camvid'])
def test_tta_has_the_sizes_of_the_papers(dataset):
    cfg = Config.fromfile(next(path for path in CONFIGS if f'upernet_{dataset}' in path.stem))
    sizes, flips, *_ = cfg.tta_pipeline[1].transforms
    ratios = [size.scale[1] / 512 if 'scale' in size else size.scale_factor for size in sizes]
    assert ratios == [0.5, 0.75, 1.0, 1.25, 1.5, 1.75] and [flip.prob for flip in flips] == [0.0, 1.0]


def test_every_arch_has_its_configs(family):
    names, short = {path.stem for path in CONFIGS}, family.__module__.rpartition('.')[2]
    assert {f'{short}_mask_rcnn_coco', f'{short}_upernet_ade20k'} <= names
    wanted = {'upernet_ade20k-512x512': ' '.join(family.archs), **reference_of(family).configs}
    assert {f'{short}_{arch}_{name}' for name, archs in wanted.items() for arch in archs.split()} <= names
