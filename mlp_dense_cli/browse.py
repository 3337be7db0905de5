"""Drawing of the output of a data pipeline."""

import argparse
from pathlib import Path

from .arguments import add_image_sizes, check_out_file, config_parser

TILE = 384  # maximum height and width of an image on the sheet, in pixels


def make_parser() -> argparse.ArgumentParser:
    parser = config_parser(
        'Draw images and labels after all transforms of the pipeline, as the network receives them, on one sheet. '
        'Pixels that the training of a segmentor ignores are hatched in black and white.',
        'hire_mlp_mask_rcnn_coco --data-root /data/coco --out data.png',
        'hire_mlp_upernet_ade20k --out data.png --split val --num 4',
    )
    text = 'image to write; an earlier one is replaced'
    parser.add_argument('--out', type=Path, required=True, metavar='FILE.png', help=text)
    parser.add_argument('--num', type=int, default=16, metavar='N', help='number of random images (default: 16)')
    text = 'data to draw, after the transforms of their own pipeline (default: train)'
    parser.add_argument('--split', choices=('train', 'val'), default='train', help=text)
    text = 'random seed; equal seeds select and augment the same images (default: 0)'
    parser.add_argument('--seed', type=int, default=0, metavar='N', help=text)
    add_image_sizes(parser)
    return parser


def main() -> None:
    args = make_parser().parse_args()
    import numpy as np
    from mmengine.runner import set_random_seed
    from rich.progress import track

    from mlp_dense.checks.band_agreement import check_bands
    from mlp_dense.checks.data_config import check_data, labels_keep_their_size
    from mlp_dense.config.config_file import enter_scope, need, read_config
    from mlp_dense.config.validation import building, check_settings
    from mlp_dense.datasets.bands import multi_band_loader
    from mlp_dense.datasets.layout import leaves
    from mlp_dense.errors import UserError, counted
    from mlp_dense.outputs import check_file, write_png
    from mlp_dense.tasks import task_of
    from mlp_dense.training.runner import DenseRunner
    from mlp_dense.training.setup import shrink
    from mlp_dense.visualization.drawing import contact_sheet, draw_item

    if args.num < 1:
        raise UserError(f'--num is {args.num}; set it to 1 or more.')
    if not 0 <= args.seed < 2**32:
        raise UserError(f'--seed is {args.seed}; set it from 0 to {2**32 - 1}.')
    check_out_file(args.out, '.png')
    check_file(args.out)
    cfg = read_config(args.config, args.cfg_options, args.data_root)
    if args.img_scale or args.crop_size:
        print(*shrink(cfg, ['train', 'val', 'test'], args.img_scale, args.crop_size), sep='\n')
    need(cfg, f'{args.split}_dataloader')
    task = task_of(cfg.get('default_scope'))
    enter_scope(cfg)
    check_settings(cfg)
    check_bands(cfg, [args.split])
    check_data(cfg, args.split)
    loader = cfg[f'{args.split}_dataloader']
    loader.update(num_workers=0, persistent_workers=False)
    keep_size = labels_keep_their_size(loader.dataset)
    with building(cfg):
        dataset = DenseRunner.build_dataloader(loader).dataset  # includes the checks of the data set
    set_random_seed(args.seed)
    chosen = np.random.permutation(len(dataset))[: args.num]
    if not len(chosen):
        raise UserError(f'The {args.split} data of this config are empty; set another --data-root.')
    bands = multi_band_loader(next(leaves(loader.dataset)).pipeline)
    to_rgb = None if bands is None else bands.rgb
    tiles = []
    for i in track(chosen, 'drawing'):
        item = dataset[int(i)]
        labels = task.labels_of(item['data_samples'], 'gt')
        tiles.append(draw_item(item, labels, TILE, keep_size, task.draw, dataset.metainfo, to_rgb))
    write_png(args.out, contact_sheet(tiles, TILE))
    print(f'{args.out} shows {len(tiles)} of {counted(len(dataset), "image")}')
