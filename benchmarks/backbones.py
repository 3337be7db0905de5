"""Times the backbones against their published computation, their matrix products alone, and other backbones.

Columns: the median of all calls with half the distance between the quartiles; the ratio to the matrix products alone
(the floor); how many times slower the published computation is; images per second; peak memory of one call.
"""

import copy

import torch
from plain import PlainNetwork
from rich.console import Console
from rich.table import Table
from timing import (
    DTYPES,
    GemmFloor,
    call,
    common_parser,
    environment,
    interleaved,
    peak_memory,
    picture_size,
    save,
    spread,
)
from torch import Tensor, nn

import mlp_dense

SMALLEST = {'HireMLP': 'tiny', 'ASMLP': 'tiny', 'CycleMLP': 'b1'}
PEERS = {
    'Swin-T': dict(type='mmdet.SwinTransformer', embed_dims=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24)),
    'ResNet-50': dict(type='mmdet.ResNet', depth=50),
}


def parse_args():
    parser = common_parser(__doc__)
    parser.add_argument(
        '--arch',
        nargs='+',
        default=[f'{family}:{arch}' for family, arch in SMALLEST.items()],
        metavar='FAMILY:ARCH',
        help='for example HireMLP:small',
    )
    parser.add_argument('--compile', action='store_true', help='also time torch.compile(ours)')
    parser.add_argument('--channels-last', action='store_true', help='give the pictures in channels_last memory')
    parser.add_argument(
        '--no-peers',
        action='store_true',
        help="leave out Swin-T and ResNet-50 (mmdet's Swin knows fp32 only, so they are left out for others)",
    )
    return parser.parse_args()


def randomised(model: nn.Module) -> nn.Module:
    """Weights and statistics large enough for every step to matter."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point() and not name.endswith('offset'):
            low, high = (-0.1, 0.1) if tensor.ndim > 1 or name.endswith('bias') else (0.5, 1.5)
            tensor.data.uniform_(low, high, generator=generator)
    return model


def peers(train: bool) -> dict[str, nn.Module]:
    from mmdet.utils import register_all_modules
    from mmengine.registry import MODELS

    register_all_modules(init_default_scope=False)
    models = {name: MODELS.build(copy.deepcopy(cfg)) for name, cfg in PEERS.items()}
    for model in models.values():
        model.train(train)  # mmdet's ResNet returns nothing here
    return models


def agree(ours: nn.Module, plain: nn.Module, x: Tensor) -> None:
    """Raises an error unless both compute the same maps."""
    with torch.inference_mode():
        for i, (a, b) in enumerate(zip(ours(x), plain(x), strict=True)):
            error = ((a - b).abs().max() / b.abs().max()).item()
            if not error < 1e-4:
                raise SystemExit(
                    f'{type(ours).__name__}: map {i} differs from the published computation by {error:.1e}.'
                )


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    dtype, rows = DTYPES[args.dtype], []
    for size in map(picture_size, args.size):
        x = torch.randn(args.batch_size, 3, *size, device=args.device)
        if args.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        candidates = {}
        for name in args.arch:
            family, _, arch = name.partition(':')
            ours = getattr(mlp_dense, family)(arch).to(args.device).eval()
            plain = randomised(PlainNetwork(family, ours.arch)).to(args.device).eval()
            ours.load_state_dict(plain.state_dict())
            agree(ours, plain, torch.randn(1, 3, 128, 160, device=args.device))
            models = {'ours': ours, 'plain': plain}
            if args.compile:
                models['compiled'] = torch.compile(copy.deepcopy(ours))
            for kind, model in models.items():
                if dtype != torch.float32 and kind == 'plain' and family == 'CycleMLP' and args.device == 'cpu':
                    continue  # mmcv's deformable convolution has no other type there
                candidates[name, kind] = call(model.to(dtype).train(args.train), x.to(dtype), args.train)
            candidates[name, 'floor'] = GemmFloor(plain, x.to(dtype), args.train)
        for name, model in ({} if args.no_peers or args.dtype != 'fp32' else peers(args.train)).items():
            candidates[name, 'peer'] = call(model.to(args.device, dtype), x.to(dtype), args.train)
        title = f'{size[0]}x{size[1]}'
        times = interleaved({f'{n} {k}': run for (n, k), run in candidates.items()}, args.rounds, args.device, title)
        for (name, kind), run in candidates.items():
            median, half = spread(times[f'{name} {kind}'])
            memory = 0 if kind == 'floor' else peak_memory(run, args.device)
            rows.append(dict(size=title, model=name, kind=kind, ms=median * 1e3, spread_ms=half * 1e3, bytes=memory))
    report(rows, args)


def report(rows: list[dict], args) -> None:
    info = environment(args.device)
    work = f'{"training step" if args.train else "inference"}, batch {args.batch_size}, {args.dtype}'
    table = Table(title=f'{work}, {", ".join(f"{key} {value}" for key, value in info.items())}')
    for column in ('size', 'model', 'what', 'ms', '/ floor', '/ ours', 'img/s', 'MB'):
        table.add_column(column, justify='left' if column in ('size', 'model', 'what') else 'right')
    times = {(row['size'], row['model'], row['kind']): row['ms'] for row in rows}
    for row in rows:
        floor = times.get((row['size'], row['model'], 'floor'))
        ours = times.get((row['size'], row['model'], 'ours'))
        row['over_floor'] = row['ms'] / floor if floor else None
        row['over_ours'] = row['ms'] / ours if ours else None
        ratios = [f'{row[key]:.2f}' if row[key] else '' for key in ('over_floor', 'over_ours')]
        row['img_s'] = args.batch_size * 1e3 / row['ms']
        table.add_row(
            *(row['size'], row['model'], row['kind'], f'{row["ms"]:.1f} ± {row["spread_ms"]:.1f}', *ratios),
            *(f'{row["img_s"]:.2f}', f'{row["bytes"] / 1e6:.0f}' if row['bytes'] else ''),
        )
    Console(width=130).print(table)
    name = f'backbones_{"train" if args.train else "forward"}_{args.device}_{args.dtype}_b{args.batch_size}'
    save(args.out, name, rows, info)
    print(f'{args.out / name}.json')


if __name__ == '__main__':
    main()
