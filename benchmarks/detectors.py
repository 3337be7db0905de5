"""Times complete Mask R-CNN and UperNet models of this package's configs next to the same heads on other backbones."""

import copy
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from counting import GemmFloor, gmacs
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from models import PEERS, check_agreement, published_network, set_channels, variants
from report import report
from timing import DTYPES, Candidate, Size, inference, measure, network_parser, parse, training_step
from torch import nn

from mlp_dense.config.config_file import enter_scope, read_config
from mlp_dense.errors import UserError
from mlp_dense.training.machine import adapt_to_cpu

ROOT = Path(__file__).parents[1]
HEADS = {  # configs, and the image size that they are for
    'mask_rcnn': ('configs/detection/{}_mask_rcnn_1x_coco.py', Size(800, 1280)),
    'upernet': ('configs/segmentation/{}_upernet_ade20k-512x512.py', Size(512, 512)),
}
SMALLEST = ['hire_mlp_tiny', 'as_mlp_tiny', 'cycle_mlp_b1']


def read_arguments() -> Namespace:
    parser = network_parser(__doc__, PEERS)
    parser.set_defaults(rounds=3)
    parser.add_argument('--heads', nargs='+', choices=HEADS, default=list(HEADS), help='default: all')
    names = ' '.join(SMALLEST)
    parser.add_argument('--models', nargs='+', default=SMALLEST, metavar='NAME', help=f'backbones (default: {names})')
    text = 'changes to the configs, for example model.test_cfg.rpn.max_per_img=100'
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help=text)
    args = parse(parser)
    for head in args.heads:
        names = config_names(head)
        for name in args.models:
            if name not in names:
                parser.error(f'--models {name}: use one of {", ".join(names)} with --heads {head}.')
    if args.dtype == 'bf16' and 'mask_rcnn' in args.heads:
        parser.error("--dtype bf16 needs --heads upernet, because mmcv's NMS and RoIAlign do not support bf16.")
    if args.train and args.batch_size < 2 and 'upernet' in args.heads:
        parser.error("--train --batch-size 1 needs --heads mask_rcnn, because UperNet's BatchNorm needs 2 images.")
    return args


def config_names(head: str) -> list[str]:
    before, _, after = HEADS[head][0].partition('{}')
    names = [path.name.removesuffix(after) for path in ROOT.glob(f'{before}*{after}')]
    return sorted(name for name in names if not name.endswith('cascade'))


def read(head: str, name: str, size: Size, options: list[str]) -> Config:
    cfg = read_config(ROOT / HEADS[head][0].format(name), options)
    adapt_to_cpu(cfg)  # in a single process SyncBN is BN
    enter_scope(cfg)
    cfg.model.backbone.drop_path_rate = 0.0  # the published networks have no stochastic depth
    if head == 'upernet':
        cfg.model.data_preprocessor.size = tuple(size)  # training images are padded to it
    return cfg


def build(cfg: Config, device: str) -> nn.Module:
    model = MODELS.build(cfg.model)
    if hasattr(model, 'roi_head'):
        # Random weights detect nothing, so the mask head would idle. This makes every proposal an object of class 0.
        model.roi_head.bbox_head.fc_cls.bias.data[0] = 10
    return model.to(device)


def build_variants(cfg: Config, args: Namespace) -> dict[str, nn.Module]:
    ours = build(cfg, 'cpu')
    published = copy.deepcopy(ours)
    published.backbone = published_network(ours.backbone)
    published = published if published.backbone else None
    models = {variant: model.to(args.device) for variant, model in variants(ours, published, args.train).items()}
    check_agreement({variant: model.backbone for variant, model in models.items()}, args.device)
    return models


def build_peer(cfg: Config, name: str, device: str) -> nn.Module:
    cfg = copy.deepcopy(cfg)
    cfg.model.backbone, channels = copy.deepcopy(PEERS[name])
    set_channels(cfg, channels)
    return build(cfg, device)


def batch(cfg: Config, size: Size, num: int) -> dict[str, list]:
    """Return random images with random labels in the format of a data loader."""
    meta = dict.fromkeys(('ori_shape', 'img_shape', 'pad_shape'), tuple(size)) | dict(scale_factor=(1.0, 1.0))
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for _ in range(num)]
    if 'decode_head' in cfg.model:
        label_maps = [torch.randint(cfg.model.decode_head.num_classes, (1, *size)) for _ in images]
        samples = [SegDataSample(metainfo=meta, gt_sem_seg=PixelData(data=labels)) for labels in label_maps]
    else:
        samples = [DetDataSample(metainfo=meta, gt_instances=random_objects(size)) for _ in images]
    return dict(inputs=images, data_samples=samples)


def random_objects(size: Size, num: int = 8) -> InstanceData:
    """Return objects that fill their boxes; box sides are 0.1 to 0.5 of the image sides."""
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
        if args.train:
            return training_step(model, lambda: forward(model).backward())
        return inference(lambda: forward(model))

    first = next(iter(models.values())).eval()  # ours or a peer
    macs = gmacs(lambda: first.test_step(data)) / args.batch_size
    calls = {variant: call(model) for variant, model in models.items()}
    if 'ours' in models:
        calls['floor'] = GemmFloor(lambda: forward(first), dtype, args.device, args.train)
    return [Candidate(name, variant, run, macs) for variant, run in calls.items()]


def main() -> None:
    args = read_arguments()
    rows = []
    for head in args.heads:
        for size in args.size or [HEADS[head][1]]:
            models = {}
            for name in args.models:
                cfg = read(head, name, size, args.cfg_options)
                models[name] = build_variants(cfg, args)
            models |= {name: {'peer': build_peer(cfg, name, args.device)} for name in args.peers}
            data = batch(cfg, size, args.batch_size)
            candidates = [
                candidate for name, built in models.items() for candidate in candidates_of(name, built, data, args)
            ]
            rows += measure(candidates, f'{head} {size}', args)
    report(rows, 'detectors', [], args)


if __name__ == '__main__':
    try:
        main()
    except UserError as error:  # in --cfg-options
        sys.exit(f'error: {error}')
