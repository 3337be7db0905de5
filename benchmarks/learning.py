"""Trains every family, Swin-T and ResNet-50 on real images from random weights with one recipe, and tests them."""

import argparse
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from counting import gmacs
from mmengine.config import Config
from mmengine.registry import MODELS
from models import PEERS, SMALLEST, set_channels
from report import environment
from trainings import ROOT, Training, records, run_python, train_all

import mlp_dense

CAMVID, COCO = dict(mIoU='mIoU', aAcc='aAcc'), {'box mAP': 'coco/bbox_mAP', 'mask mAP': 'coco/segm_mAP'}
DATA = {  # metrics, image size (long, short side)
    'camvid': (CAMVID, (480, 360)),
    'camvid_upernet': (CAMVID, (480, 360)),
    'coco': (COCO, (640, 384)),
}
THIN = {  # narrower heads for a CPU, on which full heads would take most of the time
    'camvid': {
        'model.neck.out_channels': 128,
        'model.decode_head.in_channels': [128] * 4,
        'model.decode_head.channels': 64,
    },
    'camvid_upernet': {'model.decode_head.channels': 128, 'model.auxiliary_head.channels': 64},
    'coco': {
        **{f'model.{layer}': 64 for layer in ('neck.out_channels', 'rpn_head.in_channels', 'rpn_head.feat_channels')},
        **{f'model.roi_head.{branch}_roi_extractor.out_channels': 64 for branch in ('bbox', 'mask')},
        **{f'model.roi_head.{branch}_head.in_channels': 64 for branch in ('bbox', 'mask')},
        'model.roi_head.bbox_head.fc_out_channels': 256,
        'model.roi_head.mask_head.conv_out_channels': 64,
        'model.train_cfg.rcnn.sampler.num': 128,
        'model.train_cfg.rpn_proposal.max_per_img': 250,
        'model.test_cfg.rpn.max_per_img': 250,
    },
}


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    text = 'Semantic FPN or UperNet on CamVid, or Mask R-CNN on a few images of COCO'
    parser.add_argument('data', choices=DATA, help=text)
    parser.add_argument('--data-root', type=Path, required=True, metavar='DIR', help='folder of the data')
    names = [*SMALLEST, *PEERS]
    parser.add_argument('--models', nargs='+', choices=names, default=names, help='default: all')
    parser.add_argument('--epochs', type=int, default=100, metavar='N', help='the same for all (default: %(default)s)')
    parser.add_argument('--img-scale', nargs=2, type=int, metavar='PIXELS', help='long and short side')
    parser.add_argument('--batch-size', type=int, default=8, metavar='N', help='default: %(default)s')
    parser.add_argument('--images', type=int, metavar='N', help='use only N images of each data set')
    parser.add_argument('--thin', action='store_true', help='narrow heads and few proposals, for a CPU')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--jobs', type=int, default=1, metavar='N', help='simultaneous training runs (default: 1)')
    parser.add_argument('--seed', type=int, default=0, metavar='N')
    parser.add_argument(
        '--out', type=Path, default=Path('work_dirs/evidence'), metavar='DIR', help='for the training runs'
    )
    parser.add_argument('--results', type=Path, required=True, metavar='FILE', help='JSON, with a row for every model')
    args = parser.parse_args()
    if not args.data_root.is_dir():
        parser.error(f'--data-root {args.data_root}: folder not found. docs/datasets.md describes the data sets.')
    args.img_scale = args.img_scale or DATA[args.data][1]
    args.is_camvid = args.data.startswith('camvid')
    return args


def backbone_of(name: str) -> tuple[dict[str, Any], list[int]]:
    """Return the config of a backbone for training from random weights, and the channels of its feature maps."""
    if name in PEERS:
        cfg, channels = PEERS[name]
        # mmdet freezes the statistics of a pre-trained ResNet.
        return dict(cfg, norm_eval=False) if name == 'ResNet-50' else dict(cfg), list(channels)
    family, _, arch = name.partition(':')
    with torch.device('meta'):
        channels = getattr(mlp_dense, family)(arch).out_channels
    return dict(type=f'mlp_dense.{family}', arch=arch, drop_path_rate=0.1), list(channels)


def write_config(name: str, args: argparse.Namespace) -> Path:
    cfg = Config.fromfile(Path(__file__).parent / 'recipes' / f'{args.data}.py')
    cfg.model.backbone, channels = backbone_of(name)
    set_channels(cfg, channels)
    cfg.merge_from_dict(THIN[args.data] if args.thin else {})
    if args.is_camvid:
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


def label_maps(data_root: Path) -> list[Path]:
    """Return the label maps of CamVid that the recipe trains on."""
    return [file for split in ('train', 'val') for file in sorted((data_root / f'{split}annot').glob('*.png'))]


def num_images(args: argparse.Namespace) -> int:
    """Return the number of training images."""
    if args.is_camvid:
        return 2 * args.images if args.images else len(label_maps(args.data_root))
    file = args.data_root / 'annotations' / 'instances_train2017.json'
    return args.images or len(json.loads(file.read_text(encoding='utf-8'))['images'])


def class_weights(files: Sequence[Path], num_classes: int) -> list[float]:
    """Return weights 1 / ln(1.02 + p) of classes that cover a fraction p of the pixels (ENet, arXiv 1606.02147)."""
    counts = sum(
        np.bincount(cv2.imread(str(file), cv2.IMREAD_UNCHANGED).ravel(), minlength=256)[:num_classes] for file in files
    )
    return [round(1 / math.log(1.02 + fraction), 4) for fraction in (counts / counts.sum()).tolist()]


def training_of(name: str, args: argparse.Namespace) -> Training:
    length = ('--epochs', args.epochs)
    if args.is_camvid:  # its recipe counts iterations
        length = ('--iters', args.epochs * math.ceil(num_images(args) / args.batch_size))
    arguments = (*length, '--img-scale', *args.img_scale, '--batch-size', args.batch_size)
    arguments += ('--amp',) if args.device == 'cuda' else ('--workers', 0)
    return Training(write_config(name, args), args.data_root, args.seed, [], DATA[args.data][0], arguments)


def result_of(training: Training, folder: Path) -> dict[str, Any]:
    """Return the learning curve of a run, its GPU memory and its last metrics; for COCO also those of a test."""
    logged = records(folder)
    metrics = training.metrics.items()
    validations = [record for record in logged if next(iter(training.metrics.values())) in record]
    curve = [
        dict(step=record['step'], **{name: round(record[key], 4) for name, key in metrics}) for record in validations
    ]
    result = dict(
        curve=curve,
        last={name: curve[-1][name] for name in training.metrics},
        gpu_mb=max(record.get('memory', 0) for record in logged if 'loss' in record),
    )
    if training.metrics is COCO:
        config, checkpoint = folder / Path(training.config).name, (folder / 'last_checkpoint').read_text()
        run_python(ROOT / 'tools/test.py', config, checkpoint, '--work-dir', folder / 'test')
        tested = json.loads((folder / 'test' / 'metrics.json').read_text())
        result['tested'] = {name: round(tested[key], 4) for name, key in metrics}
    return result


def cost(name: str, args: argparse.Namespace) -> dict[str, float]:
    """Return the parameters of a backbone in millions, and the GMACs of one image."""
    model = MODELS.build(backbone_of(name)[0])
    model.eval()  # not chained: mmdet's ResNet.eval() returns None
    image = torch.zeros(1, 3, *reversed(args.img_scale))
    parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    return dict(parameters=round(parameters, 1), gmacs=round(gmacs(lambda: model(image)), 1))


def main() -> None:
    args = read_arguments()
    if args.device == 'cpu':
        os.environ['CUDA_VISIBLE_DEVICES'] = ''
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
    keys = {name: '_'.join(map(str, (name.replace(':', '_'), *recipe.values()))) for name in args.models}
    trainings = {keys[name]: training_of(name, args) for name in args.models}
    results = train_all(trainings, args.jobs, args.out, args.out / f'{args.data}.json', result_of)
    rows = [dict(model=name, **cost(name, args), **results[keys[name]]) for name in args.models]
    result = dict(environment=environment(args.device), recipe=recipe | dict(jobs=args.jobs), rows=rows)
    args.results.parent.mkdir(parents=True, exist_ok=True)
    args.results.write_text(json.dumps(result, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
