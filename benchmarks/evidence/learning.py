"""Trains every family, Swin-T and ResNet-50 on real images from random weights with one recipe, and tests them."""

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where the other benchmarks are

import cv2
import numpy as np
import torch
from backbones import SMALLEST
from counting import gmacs
from mmengine.config import Config
from mmengine.registry import MODELS
from models import PEERS
from report import environment
from trainings import ROOT, Training, records, train_all

import mlp_dense

HERE = Path(__file__).parent
NAMES = [*SMALLEST, *PEERS]
CAMVID, COCO = dict(mIoU='mIoU', aAcc='aAcc'), {'box mAP': 'coco/bbox_mAP', 'mask mAP': 'coco/segm_mAP'}
DATA = {  # metrics, image size (long, short side)
    'camvid': (CAMVID, (480, 360)),
    'camvid_upernet': (CAMVID, (480, 360)),
    'coco': (COCO, (640, 384)),
}
THIN = {  # the config's heads for machines without a GPU, where they would take most of the time
    'camvid': {
        'model.neck.out_channels': 128,
        'model.decode_head.in_channels': [128] * 4,
        'model.decode_head.channels': 64,
    },
    'camvid_upernet': {'model.decode_head.channels': 128, 'model.auxiliary_head.channels': 64},
    'coco': {
        **{f'model.{layer}': 64 for layer in ('neck.out_channels', 'rpn_head.in_channels', 'rpn_head.feat_channels')},
        **{f'model.roi_head.{part}_roi_extractor.out_channels': 64 for part in ('bbox', 'mask')},
        **{f'model.roi_head.{part}_head.in_channels': 64 for part in ('bbox', 'mask')},
        'model.roi_head.bbox_head.fc_out_channels': 256,
        'model.roi_head.mask_head.conv_out_channels': 64,
        'model.train_cfg.rcnn.sampler.num': 128,
        'model.train_cfg.rpn_proposal.max_per_img': 250,
        'model.test_cfg.rpn.max_per_img': 250,
    },
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    text = 'Semantic FPN or UperNet on CamVid, or Mask R-CNN on a few images of COCO'
    parser.add_argument('data', choices=DATA, help=text)
    parser.add_argument('--data-root', type=Path, required=True, metavar='DIR', help='of the data')
    parser.add_argument('--models', nargs='+', choices=NAMES, default=NAMES, help='default: all')
    parser.add_argument('--epochs', type=int, default=100, metavar='N', help='the same for all (default: %(default)s)')
    parser.add_argument('--img-scale', nargs=2, type=int, metavar='PIXELS', help='long and short side')
    parser.add_argument('--batch-size', type=int, default=8, metavar='N', help='default: %(default)s')
    parser.add_argument('--images', type=int, metavar='N', help='only so many, of each part of the data')
    parser.add_argument('--thin', action='store_true', help='narrow heads and few proposals: for a CPU')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--jobs', type=int, default=1, metavar='N', help='trainings at a time (default: 1)')
    parser.add_argument('--seed', type=int, default=0, metavar='N')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/evidence'), metavar='DIR', help='of the trainings')
    parser.add_argument('--results', type=Path, required=True, metavar='FILE', help='JSON, with a row for every model')
    args = parser.parse_args()
    if not args.data_root.is_dir():
        parser.error(
            f'--data-root {args.data_root}: there is no such folder; docs/datasets.md says where the data are.'
        )
    args.img_scale = args.img_scale or DATA[args.data][1]
    return args


def backbone_of(name: str) -> tuple[dict[str, Any], list[int]]:
    """The config of a backbone for a training from random weights, and the channels of its feature maps."""
    if name in PEERS:
        cfg, channels = PEERS[name]
        # mmdet freezes the statistics of a pre-trained ResNet.
        return dict(cfg, norm_eval=False) if name == 'ResNet-50' else dict(cfg), list(channels)
    family, _, arch = name.partition(':')
    with torch.device('meta'):
        channels = getattr(mlp_dense, family)(arch).out_channels
    return dict(type=f'mlp_dense.{family}', arch=arch, drop_path_rate=0.1), list(channels)


def write_config(name: str, args: argparse.Namespace) -> Path:
    cfg = Config.fromfile(HERE / f'{args.data}.py')
    cfg.model.backbone, channels = backbone_of(name)
    if cfg.model.get('neck'):
        cfg.model.neck.in_channels = channels
    else:
        cfg.model.decode_head.in_channels = channels
        cfg.model.auxiliary_head.in_channels = channels[cfg.model.auxiliary_head.in_index]
    cfg.merge_from_dict(THIN[args.data] if args.thin else {})
    if is_camvid(args):
        weights = class_weights(label_maps(args.data_root), cfg.model.decode_head.num_classes)
        loss = dict(type='mlp_dense.WeightedCrossEntropyLoss', class_weight=weights)
        cfg.model.decode_head.loss_decode = loss
        if 'auxiliary_head' in cfg.model:
            cfg.model.auxiliary_head.loss_decode = dict(loss, loss_weight=0.4)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader) if args.images else ():
        for dataset in loader.dataset.get('datasets', [loader.dataset]):
            dataset.indices = args.images
    file = args.out / f'{name.replace(":", "_")}.py'
    file.parent.mkdir(parents=True, exist_ok=True)
    cfg.dump(file)
    return file.resolve()


def is_camvid(args: argparse.Namespace) -> bool:
    return args.data.startswith('camvid')


def label_maps(data_root: Path) -> list[Path]:
    """Those that the recipe trains on."""
    return [file for part in ('train', 'val') for file in sorted((data_root / f'{part}annot').glob('*.png'))]


def num_images(args: argparse.Namespace) -> int:
    """How many images are trained on."""
    if is_camvid(args):
        return 2 * args.images if args.images else len(label_maps(args.data_root))
    file = args.data_root / 'annotations' / 'instances_train2017.json'
    return args.images or len(json.loads(file.read_text(encoding='utf-8'))['images'])


def class_weights(files: Sequence[Path], num_classes: int) -> list[float]:
    """Weights 1 / ln(1.02 + p) of classes with a share p of the pixels (ENet, arXiv 1606.02147, sec. 5.2)."""
    counts = sum(
        np.bincount(cv2.imread(str(file), cv2.IMREAD_UNCHANGED).ravel(), minlength=256)[:num_classes] for file in files
    )
    return [round(1 / math.log(1.02 + share), 4) for share in (counts / counts.sum()).tolist()]


def training(name: str, args: argparse.Namespace) -> Training:
    metrics, _ = DATA[args.data]
    length = ('--epochs', args.epochs)
    if is_camvid(args):  # whose recipe counts iterations
        length = ('--iters', args.epochs * math.ceil(num_images(args) / args.batch_size))
    arguments = (*length, '--img-scale', *args.img_scale, '--batch-size', args.batch_size)
    arguments += ('--amp',) if args.device == 'cuda' else ('--workers', 0)
    return Training(write_config(name, args), args.data_root, args.seed, (), metrics, arguments)


def result_of(training: Training, folder: Path) -> dict[str, Any]:
    """The learning curve of a training, what it cost, and its last metrics: of COCO on the images of its test."""
    logged = records(folder)
    validations = [record for record in logged if next(iter(training.metrics.values())) in record]
    steps = [record for record in logged if 'loss' in record]
    curve = [
        dict(step=record['step'], **{name: round(record[key], 4) for name, key in training.metrics.items()})
        for record in validations
    ]
    found = dict(
        curve=curve,
        last={name: curve[-1][name] for name in training.metrics},
        gpu_mb=max(record.get('memory', 0) for record in steps),
    )
    if training.metrics is COCO:
        found['tested'] = tested(training, folder)
    return found


def tested(training: Training, folder: Path) -> dict[str, float]:
    config, checkpoint = folder / Path(training.config).name, (folder / 'last_checkpoint').read_text()
    command = [sys.executable, ROOT / 'tools/test.py', config, checkpoint, '--work-dir', folder / 'test']
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stdout + done.stderr)[-900:])
    metrics = json.loads((folder / 'test' / 'metrics.json').read_text())
    return {name: round(metrics[key], 4) for name, key in training.metrics.items()}


def cost(name: str, args: argparse.Namespace) -> dict[str, float]:
    """Millions of parameters of a backbone, and GMACs of one image."""
    model = MODELS.build(backbone_of(name)[0])
    model.eval()  # of mmdet's ResNet that gives nothing
    wide, high = args.img_scale
    image = torch.zeros(1, 3, high, wide)
    parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    return dict(parameters=round(parameters, 1), gmacs=round(gmacs(lambda: model(image)), 1))


def main() -> None:
    args = parse_args()
    if args.device == 'cpu':
        os.environ['CUDA_VISIBLE_DEVICES'] = ''
    runs = argparse.Namespace(jobs=args.jobs, out=args.out, results=args.out / f'{args.data}.json')
    args.out.mkdir(parents=True, exist_ok=True)
    recipe = dict(
        data=args.data,
        epochs=args.epochs,
        images=num_images(args),
        size='x'.join(map(str, args.img_scale)),
        batch=args.batch_size,
        seed=args.seed,
        precision='fp16-AMP' if args.device == 'cuda' else 'fp32',
        heads='thin' if args.thin else 'full',
    )
    names = {name: '_'.join(map(str, (name.replace(':', '_'), *recipe.values()))) for name in args.models}
    found = train_all({names[name]: training(name, args) for name in args.models}, runs, result_of)
    rows = [dict(model=name, **cost(name, args), **found[names[name]]) for name in args.models]
    recipe['jobs'] = args.jobs
    result = dict(environment=environment(args.device), recipe=recipe, rows=rows)
    args.results.parent.mkdir(parents=True, exist_ok=True)
    args.results.write_text(json.dumps(result, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
