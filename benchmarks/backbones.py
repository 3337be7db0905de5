"""Times the backbones beside their published computation, their matrix products alone, and other backbones."""

import argparse
import copy
from collections.abc import Callable

import torch
from counting import gmacs
from floor import GemmFloor
from models import PEERS, build_peer, check_agreement, published_network, variants
from report import report
from timing import (
    DTYPES,
    Candidate,
    Size,
    alone,
    inference,
    measure,
    network_parser,
    parse_args,
    release_memory,
    training_step,
)
from torch import Tensor, nn

import mlp_dense

FAMILIES = {family.__name__: family.archs for family in mlp_dense.backbones.FAMILIES}
SMALLEST = [f'{family}:{next(iter(archs))}' for family, archs in FAMILIES.items()]


def arch_name(text: str) -> str:
    family, _, arch = text.partition(':')
    if arch not in FAMILIES.get(family, ()):
        allowed = ', '.join(f'{family}:{arch}' for family, archs in FAMILIES.items() for arch in archs)
        raise argparse.ArgumentTypeError(f'{text!r}: give some of {allowed}.')
    return text


def parser() -> argparse.ArgumentParser:
    parser = network_parser(__doc__, PEERS)
    parser.set_defaults(size=[Size(512, 512), Size(800, 1280)], rounds=7)
    parser.add_argument(
        '--arch',
        nargs='*',
        type=arch_name,
        default=SMALLEST,
        metavar='FAMILY:ARCH',
        help=f'default: {" ".join(SMALLEST)}',
    )
    parser.add_argument('--amp', action='store_true', help='with --dtype: weights stay in fp32, operators are cast')
    parser.add_argument('--compile', action='store_true', help='also time torch.compile; compiling takes minutes')
    parser.add_argument('--channels-last', action='store_true', help='images in channels_last memory')
    return parser


def build_models(name: str, args: argparse.Namespace) -> dict[str, nn.Module]:
    """The rows of a network, without the GEMM floor; none of a peer that does not run."""
    if name in PEERS:
        peer = build_peer(name, half=args.dtype != 'fp32' and not args.amp)
        models = {'peer': peer.to(args.device)} if peer else {}
    else:
        models = build_variants(name, args)
    if args.compile and models:
        models['compiled peer' if name in PEERS else 'compiled'] = compiled(next(iter(models.values())), args)
    return models


def build_variants(name: str, args: argparse.Namespace) -> dict[str, nn.Module]:
    family, _, arch = name.partition(':')
    ours = getattr(mlp_dense, family)(arch)
    models = variants(ours, published_network(ours), args.train)
    models = {kind: model.to(args.device) for kind, model in models.items()}
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # while they are compared
    check_agreement(models, args.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.tf32
    if args.dtype != 'fp32' and args.device == 'cpu':
        models['fp32'] = copy.deepcopy(ours)
    return models


def compiled(model: nn.Module, args: argparse.Namespace) -> nn.Module:
    # On a GPU for one size: code that holds for all sizes is slower, and its compilation takes as long again.
    return torch.compile(copy.deepcopy(model), dynamic=False if args.device == 'cuda' else None)


def runs(name: str, kind: str, args: argparse.Namespace) -> bool:
    """Whether a row can run: mmcv's deformable convolution, which the published CycleMLP uses, takes no bf16."""
    return kind != 'published' or args.dtype != 'bf16' or args.amp or not name.startswith('CycleMLP')


def call(model: nn.Module, x: Tensor, args: argparse.Namespace, dtype: str) -> Callable[..., object]:
    """What is timed: inference, or forward and backward with random gradients of the feature maps."""
    x = x if args.amp else x.to(DTYPES[dtype])
    model.to(x.dtype).train(args.train)  # not assigned: mmdet's ResNet.train() returns None

    def forward() -> tuple[Tensor, ...]:
        with torch.autocast(args.device, DTYPES[dtype], enabled=args.amp and dtype != 'fp32'):
            return model(x)

    if not args.train:
        return inference(forward)
    gradients: list[Tensor] = []  # made by the first call, in which a compiled network is compiled

    def forward_and_backward() -> None:
        outputs = forward()
        gradients.extend(torch.randn_like(output) for output in outputs[len(gradients) :])
        torch.autograd.backward(outputs, gradients)

    return training_step(model, forward_and_backward)


def candidates_of(name: str, models: dict[str, nn.Module], x: Tensor, args: argparse.Namespace) -> list[Candidate]:
    for model in models.values():
        model.float().train(False)  # every row runs in fp32
    macs = gmacs(lambda: next(iter(models.values()))(x)) / len(x)
    floor = {}
    if published := models.get('published'):
        floor = {'floor': GemmFloor(published, lambda: published(x), DTYPES[args.dtype], args.device, args.train)}
    dtypes = {kind: 'fp32' if kind == 'fp32' else args.dtype for kind in models}
    calls = {kind: call(model, x, args, dtypes[kind]) for kind, model in models.items() if runs(name, kind, args)}
    return [Candidate(name, kind, run, macs) for kind, run in {**calls, **floor}.items()]


def compiles_again(model: nn.Module, args: argparse.Namespace) -> bool:
    """Whether a network compiled for two batch and image sizes compiles again for others."""

    def run(*shape: int) -> None:
        call(model, torch.randn(shape, device=args.device), args, args.dtype)()

    run(2, 3, 96, 128)
    run(3, 3, 128, 160)
    try:
        with torch.compiler.set_stance('fail_on_recompile'):
            run(4, 3, 128, 160)
            run(3, 3, 160, 192)
    except RuntimeError:
        return True
    return False


def main() -> None:
    own_parser = parser()
    args = parse_args(own_parser)
    if args.amp and args.dtype == 'fp32':
        own_parser.error('--amp goes with --dtype bf16 or fp16.')
    rows, notes, left_out = [], [], []
    for name in (*args.arch, *args.peers):
        models = build_models(name, args)
        left_out += [f'{name} {kind}' for kind in models if not runs(name, kind, args)] if models else [name]
        for size in args.size if models else []:
            x = torch.randn(args.batch_size, 3, *size, device=args.device)
            if args.channels_last:
                x = x.contiguous(memory_format=torch.channels_last)
            with alone(args.lock, args.device):  # products are timed to choose the fastest
                candidates = candidates_of(name, models, x, args)
            rows += measure(candidates, str(size), args)
            del candidates
        # In training inductor (PyTorch 2.13) may fail on dynamic sizes; on a GPU each is compiled for one size.
        if 'compiled' in models and not args.train and args.device == 'cpu':
            again = 'again' if compiles_again(models['compiled'], args) else 'nothing'
            notes.append(f'{name}, compiled for two sizes, compiles {again} for further batch and image sizes')
        del models
        release_memory()
    if left_out:
        notes.insert(0, f'left out, since they do not run in {args.dtype}: {", ".join(left_out)}')
    rows.sort(key=lambda row: list(map(str, args.size)).index(row['case']))
    report(rows, 'backbones', notes, args)


if __name__ == '__main__':
    main()
