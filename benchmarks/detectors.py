"""Times whole Mask R-CNN and UperNet models of this package's configs beside the same models with other backbones."""

import copy
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from counting import gmacs
from floor import GemmFloor
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from models import PEERS, check_agreement, published_network, variants
from report import report
from timing import DTYPES, Candidate, Size, alone, inference, measure, network_parser, parse_args, training_step
from torch import nn

from mlp_dense.config.reading import adapt_to_cpu, enter_scope, read_config
from mlp_dense.errors import UserError

ROOT = Path(__file__).parents[1]
HEADS = {  # configs, and the image size that they are for
    'mask_rcnn': ('configs/detection/{}_mask_rcnn_1x_coco.py', Size(800, 1280)),
    'upernet': ('configs/segmentation/{}_upernet_ade20k-512x512.py', Size(512, 512)),
}
SMALLEST = ('hire_mlp_tiny', 'as_mlp_tiny', 'cycle_mlp_b1')


def parse() -> Namespace:
    parser = network_parser(__doc__, PEERS)
    parser.set_defaults(rounds=3)
    parser.add_argument('--heads', nargs='+', choices=HEADS, default=list(HEADS), help='of the models (default: all)')
    parser.add_argument(
        '--models', nargs='+', default=SMALLEST, metavar='NAME', help=f'backbones (default: {" ".join(SMALLEST)})'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='changes to the configs, for example model.test_cfg.rpn.max_per_img=100',
    )
    args = parse_args(parser)
    for head in args.heads:
        names = config_names(head)
        for name in args.models:
            if name not in names:
                parser.error(f'--models {name}: for {head} give some of {", ".join(names)}.')
    if args.dtype == 'bf16' and 'mask_rcnn' in args.heads:
        parser.error("--dtype bf16 goes with --heads upernet only: mmcv's NMS and RoIAlign do not take it.")
    if args.train and args.batch_size < 2 and 'upernet' in args.heads:
        parser.error("--train --batch-size 1 goes with --heads mask_rcnn only: UperNet's BatchNorm needs 2 images.")
    return args


def config_names(head: str) -> list[str]:
    before, _, after = HEADS[head][0].partition('{}')
    names = [path.name.removesuffix(after) for path in ROOT.glob(f'{before}*{after}')]
    return sorted(name for name in names if not name.endswith('cascade'))


def read(head: str, name: str, size: Size, args: Namespace) -> Config:
    cfg = read_config(ROOT / HEADS[head][0].format(name), args.cfg_options)
    adapt_to_cpu(cfg)  # in a single process SyncBN is BN
    enter_scope(cfg)
    cfg.model.backbone.drop_path_rate = 0.0  # as in the published networks of benchmarks/published.py
    if head == 'upernet':
        cfg.model.data_preprocessor.size = tuple(size)  # training images are padded to it
    return cfg


def build(cfg: Config) -> nn.Module:
    model = MODELS.build(cfg.model)
    if hasattr(model, 'roi_head'):
        # Random weights detect nothing, which leaves the mask head idle: make every proposal an object of class 0.
        model.roi_head.bbox_head.fc_cls.bias.data[0] = 10
    return model


def build_variants(cfg: Config, args: Namespace) -> dict[str, nn.Module]:
    ours = build(cfg)
    published = copy.deepcopy(ours)
    published.backbone = published_network(ours.backbone)
    models = {kind: model.to(args.device) for kind, model in variants(ours, published, args.train).items()}
    backbones = {kind: model.backbone for kind, model in models.items()}
    check_agreement(backbones, args.device)
    return models


def build_peer(cfg: Config, name: str, args: Namespace) -> nn.Module:
    cfg = copy.deepcopy(cfg)
    backbone, channels = PEERS[name]
    cfg.model.backbone = copy.deepcopy(backbone)
    if 'neck' in cfg.model:
        cfg.model.neck.in_channels = list(channels)
    else:
        cfg.model.decode_head.in_channels = list(channels)
        cfg.model.auxiliary_head.in_channels = channels[2]
    return build(cfg).to(args.device)


def batch(cfg: Config, size: Size, num: int) -> dict[str, list]:
    """Random images with random labels, as a data loader yields them."""
    meta = dict.fromkeys(('ori_shape', 'img_shape', 'pad_shape'), tuple(size)) | dict(scale_factor=(1.0, 1.0))
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for _ in range(num)]
    if 'decode_head' in cfg.model:
        label_maps = [torch.randint(cfg.model.decode_head.num_classes, (1, *size)) for _ in images]
        samples = [SegDataSample(metainfo=meta, gt_sem_seg=PixelData(data=labels)) for labels in label_maps]
    else:
        samples = [DetDataSample(metainfo=meta, gt_instances=random_objects(size)) for _ in images]
    return dict(inputs=images, data_samples=samples)


def random_objects(size: Size, num: int = 8) -> InstanceData:
    """Objects that fill their boxes, whose sides are 0.1 to 0.5 of those of the image."""
    sides = 0.1 + 0.4 * torch.rand(num, 2)
    corners = (1 - sides) * torch.rand(num, 2)
    boxes = torch.cat([corners, corners + sides], 1) * torch.tensor([size.width, size.height] * 2)
    masks = np.zeros((num, *size), dtype=np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        mask[top:bottom, left:right] = 1
    return InstanceData(bboxes=boxes, labels=torch.arange(num), masks=BitmapMasks(masks, *size))


def candidates_of(name: str, models: dict[str, nn.Module], data: dict, args: Namespace) -> list[Candidate]:
    dtype = DTYPES[args.dtype]

    def forward(model: nn.Module) -> object:
        with torch.autocast(args.device, dtype, enabled=args.dtype != 'fp32'):
            if not args.train:
                return model.test_step(data)
            losses = model(**model.data_preprocessor(data, training=True), mode='loss')
            return model.parse_losses(losses)[0]

    def call(model: nn.Module) -> Callable[..., object]:
        model.train(args.train)
        return (
            training_step(model, lambda: forward(model).backward()) if args.train else inference(lambda: forward(model))
        )

    first = next(iter(models.values())).eval()
    macs = gmacs(lambda: first.test_step(data)) / args.batch_size
    runs = {kind: call(model) for kind, model in models.items()}
    if published := models.get('published'):
        runs['floor'] = GemmFloor(published, lambda: forward(published), dtype, args.device, args.train)
    return [Candidate(name, kind, run, macs) for kind, run in runs.items()]


def main() -> None:
    args = parse()
    rows = []
    for head in args.heads:
        for size in args.size or [HEADS[head][1]]:
            models = {}
            for name in args.models:
                cfg = read(head, name, size, args)
                models[name] = build_variants(cfg, args)
            models |= {name: {'peer': build_peer(cfg, name, args)} for name in args.peers}
            data = batch(cfg, size, args.batch_size)
            with alone(args.lock, args.device):  # products are timed to choose the fastest
                candidates = [each for name, own in models.items() for each in candidates_of(name, own, data, args)]
            rows += measure(candidates, f'{head} {size}', args)
    report(rows, 'detectors', [], args)


if __name__ == '__main__':
    try:
        main()
    except UserError as error:  # in --cfg-options
        sys.exit(f'error: {error}')
