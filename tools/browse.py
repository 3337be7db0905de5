"""Shows what a pipeline makes of the data: tools/browse.py CONFIG --out data.png"""

import argparse
from pathlib import Path
from typing import Any

from arguments import check_out_file, config_parser, run_tool

TILE = 384  # height and width of a picture on the sheet, in pixels


def parse_args() -> argparse.Namespace:
    parser = config_parser(
        'Draws pictures and labels as the network gets them, after every augmentation, on one sheet. Pixels that a '
        'training of segmentation ignores are hatched in black and white.'
    )
    parser.add_argument('--out', type=Path, required=True, metavar='FILE.png', help='picture to write, or to redraw')
    parser.add_argument('--num', type=int, default=16, metavar='N', help='pictures, drawn at random (default: 16)')
    parser.add_argument(
        '--split', choices=('train', 'val'), default='train', help='data and pipeline of which loader (default: train)'
    )
    parser.add_argument(
        '--seed', type=int, default=0, metavar='N', help='the same number gives the same sheet (default: 0)'
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    import numpy as np
    from mmengine.registry import init_default_scope
    from mmengine.runner import set_random_seed
    from rich.progress import track

    from mlp_dense.reports.drawing import contact_sheet
    from mlp_dense.engine.runner import DenseRunner
    from mlp_dense.errors import UserError
    from mlp_dense.engine.configs import read_config
    from mlp_dense.engine.data import check_data

    if args.num < 1:
        raise UserError(f'--num is {args.num}; give 1 or more.')
    check_out_file(args.out, '.png')
    cfg = read_config(args)
    init_default_scope(cfg.default_scope)
    check_data(cfg, args.split)
    loader = cfg[f'{args.split}_dataloader']
    loader.update(num_workers=0, persistent_workers=False)
    in_original_size = loads_labels_last(loader.dataset)
    dataset = DenseRunner.build_dataloader(loader).dataset  # with its checks
    set_random_seed(args.seed)
    chosen = np.random.permutation(len(dataset))[: args.num]
    if not len(chosen):
        raise UserError(f'The {args.split} data of this config are empty.')
    tiles = [tile(dataset[int(i)], dataset.metainfo, in_original_size) for i in track(chosen, 'drawing')]
    contact_sheet(tiles, TILE).save(args.out, optimize=True)
    print(f'{len(tiles)} of {len(dataset)} pictures are in {args.out}')


def tile(item: dict, meta: dict, in_original_size: bool) -> tuple[Any, tuple[str, str]]:
    """The drawn picture of an item of a data set, and the lines of text below it."""
    import mmcv
    import torch

    from mlp_dense.reports.drawing import draw_instances, draw_label_map, resize_picture, resize_sample

    sample = item['data_samples']
    picture = item['inputs'].permute(1, 2, 0).clamp(0, 255).to(torch.uint8).numpy()[..., ::-1]  # from BGR
    height, width = picture.shape[:2]
    old = sample.ori_shape if in_original_size else (height, width)
    new_width, new_height = mmcv.rescale_size((width, height), (TILE, TILE))
    new_width, new_height = max(1, new_width), max(1, new_height)
    picture = resize_picture(picture, new_width, new_height)
    sample = resize_sample(sample, *old, new_height, new_width)
    names = meta['classes'], meta.get('palette')
    if 'gt_instances' in sample:
        picture = draw_instances(picture, sample.gt_instances, *names)
    else:
        picture = draw_label_map(picture, sample.gt_sem_seg.data[0].numpy(), *names)
    flip = f', flipped {sample.flip_direction}ly' if sample.get('flip') and sample.flip_direction else ''
    size = f'{sample.ori_shape[1]} x {sample.ori_shape[0]} became {width} x {height} pixels{flip}'
    return picture, (Path(sample.img_path).name, size)


def loads_labels_last(dataset: Any) -> bool:
    """Whether labels are loaded after the picture is resized, as test pipelines do: they keep the original size."""
    while 'pipeline' not in dataset:  # wrappers, such as RepeatDataset
        dataset = dataset['dataset'] if 'dataset' in dataset else dataset['datasets'][0]
    names = [str(transform['type']) for transform in dataset['pipeline']]
    before = names[: next((i for i, name in enumerate(names) if 'Annotations' in name), 0)]
    return any('Resize' in name for name in before)


if __name__ == '__main__':
    run_tool(main)
