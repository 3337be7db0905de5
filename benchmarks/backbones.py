"""Times the backbones next to their published computation, their matrix products alone, and other backbones."""

import argparse
import copy
from collections.abc import Callable

import torch
from counting import GemmFloor, gmacs
from models import ARCHS, PEERS, SMALLEST, build_peer, check_agreement, published_network, variants
from report import report
from timing import DTYPES, Candidate, Size, inference, measure, network_parser, parse, release_memory, training_step
from torch import Tensor, nn

import mlp_dense
from mlp_dense import kernels


def arch_name(text: str) -> str:
    family, _, arch = text.partition(':')
    if arch not in ARCHS.get(family, ()):
        allowed = ', '.join(f'{family}:{arch}' for family, archs in ARCHS.items() for arch in archs)
        raise argparse.ArgumentTypeError(f'{text!r}: use one of {allowed}.')
    return text


def read_arguments() -> argparse.Namespace:
    parser = network_parser(__doc__, PEERS)
    parser.set_defaults(size=[Size(512, 512), Size(800, 1280)], rounds=7)
    archs = dict(nargs='*', type=arch_name, default=SMALLEST, metavar='FAMILY:ARCH')
    parser.add_argument('--arch', **archs, help=f'default: {" ".join(SMALLEST)}')
    parser.add_argument('--amp', action='store_true', help='with --dtype: keep the weights in fp32, cast operators')
    parser.add_argument('--compile', action='store_true', help='also time torch.compile; compiling takes minutes')
    parser.add_argument('--channels-last', action='store_true', help='images in channels_last memory')
    args = parse(parser)
    if args.amp and args.dtype == 'fp32':
        parser.error('--amp needs --dtype bf16 or fp16.')
    return args


def build_models(name: str, args: argparse.Namespace) -> dict[str, nn.Module]:
    """Return the variants of a network without the GEMM floor; an empty dict for a peer that cannot run."""
    if name in PEERS:
        peer = build_peer(name, half=args.dtype != 'fp32' and not args.amp)
        models = {'peer': peer.to(args.device)} if peer else {}
    else:
        models = build_variants(name, args)
    if args.compile and models:
        model = copy.deepcopy(next(iter(models.values())))
        # On a GPU for one size: code for all sizes is slower, and compiling it takes as long again.
        dynamic = False if args.device == 'cuda' else None
        models['compiled peer' if name in PEERS else 'compiled'] = torch.compile(model, dynamic=dynamic)
    return models


def build_variants(name: str, args: argparse.Namespace) -> dict[str, nn.Module]:
    family, _, arch = name.partition(':')
    ours = getattr(mlp_dense, family)(arch)
    models = variants(ours, published_network(ours), args.train)
    models = {variant: model.to(args.device) for variant, model in models.items()}
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # only for the comparison
    check_agreement(models, args.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.tf32
    if args.dtype != 'fp32' and args.device == 'cpu':
        models['fp32'] = copy.deepcopy(ours)
    return models


def can_run(name: str, variant: str, args: argparse.Namespace) -> bool:
    """Whether a variant supports the data type: mmcv's deformable convolution, in published CycleMLP, has no bf16."""
    return variant != 'published' or args.dtype != 'bf16' or args.amp or not name.startswith('CycleMLP')


def call(
    model: nn.Module, x: Tensor, args: argparse.Namespace, dtype: str, choice: str = 'fast'
) -> Callable[..., object]:
    """Return the timed call: inference, or forward and backward with random gradients of the feature maps."""
    x = x if args.amp else x.to(DTYPES[dtype])
    model.to(x.dtype).train(args.train)  # not assigned: mmdet's ResNet.train() returns None

    def forward() -> tuple[Tensor, ...]:
        autocast = torch.autocast(args.device, DTYPES[dtype], enabled=args.amp and dtype != 'fp32')
        with autocast, kernels.use(choice):
            return model(x)

    if not args.train:
        return inference(forward)
    gradients: list[Tensor] = []  # made by the first call, which compiles a compiled network

    def forward_and_backward() -> None:
        outputs = forward()
        gradients.extend(torch.randn_like(output) for output in outputs[len(gradients) :])
        torch.autograd.backward(outputs, gradients)

    return training_step(model, forward_and_backward)


def candidates_of(name: str, models: dict[str, nn.Module], x: Tensor, args: argparse.Namespace) -> list[Candidate]:
    for model in models.values():
        model.float().train(False)  # every variant runs in fp32
    macs = gmacs(lambda: next(iter(models.values()))(x)) / len(x)
    floor = {}
    if ours := models.get('ours'):  # before `call` changes its data type
        floor = {'floor': GemmFloor(lambda: ours(x), DTYPES[args.dtype], args.device, args.train)}
    calls = {
        variant: call(model, x, args, 'fp32' if variant == 'fp32' else args.dtype)
        for variant, model in models.items()
        if can_run(name, variant, args)
    }
    if ours:
        calls['reference'] = call(ours, x, args, args.dtype, 'reference')
    return [Candidate(name, variant, run, macs) for variant, run in {**calls, **floor}.items()]


def compiles_again(model: nn.Module, args: argparse.Namespace) -> bool:
    """Whether a network that was compiled for two batch and image sizes compiles again for others."""

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
    args = read_arguments()
    rows, notes, left_out = [], [], []
    for name in (*args.arch, *args.peers):
        models = build_models(name, args)
        left_out += [f'{name} {variant}' for variant in models if not can_run(name, variant, args)]
        left_out += [] if models else [name]
        for size in args.size if models else []:
            x = torch.randn(args.batch_size, 3, *size, device=args.device)
            if args.channels_last:
                x = x.contiguous(memory_format=torch.channels_last)
            rows += measure(candidates_of(name, models, x, args), str(size), args)
        # In training inductor (PyTorch 2.13) may fail on dynamic sizes. On a GPU it compiles for one size.
        if 'compiled' in models and not args.train and args.device == 'cpu':
            count = 'more' if compiles_again(models['compiled'], args) else 'no more'
            notes.append(f'{name}: compiled for two sizes, {count} compilations for further batch and image sizes')
        del models
        release_memory()
    if left_out:
        notes.insert(0, f'left out, no support for {args.dtype}: {", ".join(left_out)}')
    rows.sort(key=lambda row: list(map(str, args.size)).index(row['case']))
    report(rows, 'backbones', notes, args)


if __name__ == '__main__':
    main()
