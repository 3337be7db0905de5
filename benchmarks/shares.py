"""Prints the fractions of time that operator groups take in a backbone, as multiples of the GEMM floor."""

from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from backbones import arch_name, call
from counting import GemmFloor, silent
from models import SMALLEST
from timing import DTYPES, Size, interleaved, network_parser, parse, release_memory, spread
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

import mlp_dense

GROUPS = {  # parts of operator names; the first group that matches counts. Products include bias and activation
    'products': 'mkldnn::_linear_pointwise conv aten::linear addmm aten::mm aten::bmm',
    'depthwise': '',
    'norms': 'norm var_mean',
    'waves': 'aten::cos aten::sin',
    'arithmetic': 'add mul sum gelu clamp_min threshold softmax div relu sub',
    'copies': 'copy clone cat pad fill zeros contiguous reshape flatten index gather where slice_backward',
}


def read_arguments() -> Namespace:
    parser = network_parser(__doc__)
    parser.set_defaults(size=[Size(512, 512)], rounds=5)
    parser.add_argument('--arch', nargs='+', type=arch_name, default=SMALLEST, metavar='FAMILY:ARCH')
    args = parse(parser)
    args.amp = args.train and args.dtype != 'fp32'
    return args


def group_of(name: str, shapes: Sequence[Sequence[int]]) -> str:
    weight = 2 if 'backward' in name else 1
    if 'conv' in name and shapes[weight : weight + 1] and list(shapes[weight][1:2]) == [1]:
        return 'depthwise'
    return next((group for group, parts in GROUPS.items() if any(part in name for part in parts.split())), 'other')


def operator_times(run: Callable[[], object], rounds: int, device: str) -> Counter[str]:
    """Return the times of the operators by group."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == 'cuda' else [])]
    with silent(), profile(activities=activities, record_shapes=True) as profiler:
        for _ in range(rounds):
            run()
    times: Counter[str] = Counter()
    for operator in profiler.key_averages(group_by_input_shape=True):
        if operator.device_type == DeviceType.CPU:  # entries of kernels on a GPU repeat the time of their operator
            time = operator.self_device_time_total if device == 'cuda' else operator.self_cpu_time_total
            times[group_of(operator.key, operator.input_shapes)] += time
    return times


def shares(name: str, size: Size, args: Namespace) -> dict[str, float]:
    """Return the time of each group, and of all, relative to the products alone."""
    family, _, arch = name.partition(':')
    model = getattr(mlp_dense, family)(arch)
    model = model.to(args.device).eval()
    x = torch.randn(args.batch_size, 3, *size, device=args.device)
    floor = GemmFloor(lambda: model(x), DTYPES[args.dtype], args.device, args.train)
    run = call(model, x, args, args.dtype)
    ours, products = (spread(times)[0] for times in interleaved([run, floor], args.rounds, args.device, name))
    times = operator_times(run, args.rounds, args.device)
    ratios = {group: times[group] / times.total() * ours / products for group in (*GROUPS, 'other')}
    return ratios | {'all': ours / products}


def main() -> None:
    args = read_arguments()
    for size in args.size:
        print(f'| {size} | {" | ".join((*GROUPS, "other", "all"))} |\n|---|{"---:|" * (len(GROUPS) + 2)}')
        for name in args.arch:
            ratios = shares(name, size, args)
            release_memory()
            print(f'| {name} | {" | ".join(f"{ratio:.2f}" for ratio in ratios.values())} |')


if __name__ == '__main__':
    main()
