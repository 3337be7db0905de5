"""Shows what the inference, or a training step, of a backbone spends its time in, as multiples of the GEMM floor."""

import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from backbones import SMALLEST, arch_name, call
from floor import GemmFloor
from models import published_network
from timing import DTYPES, Size, common_parser, interleaved, parse_args, release_memory, spread
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

import mlp_dense
from mlp_dense.kernels import dispatch

GROUPS = {  # by a part of the name; the first that fits. Products have their bias and activation with them
    'products': 'mkldnn::_linear_pointwise conv aten::linear addmm aten::mm aten::bmm',
    'depthwise': '',
    'norms': 'norm var_mean',
    'waves': 'aten::cos aten::sin',
    'arithmetic': 'add mul sum gelu clamp_min threshold softmax div relu sub',
    'copies': 'copy clone cat pad fill zeros contiguous reshape flatten index gather where slice_backward',
}


def group_of(name: str, shapes: Sequence[Sequence[int]]) -> str:
    weight = 2 if 'backward' in name else 1
    if 'conv' in name and shapes[weight : weight + 1] and list(shapes[weight][1:2]) == [1]:
        return 'depthwise'
    return next((group for group, parts in GROUPS.items() if any(part in name for part in parts.split())), 'other')


class Times(TorchDispatchMode):
    """The seconds of the operators that run on a CPU, by their groups: a profiler slows those that pass over memory."""

    def __init__(self):
        super().__init__()
        self.of: Counter[str] = Counter()

    def __enter__(self):
        self.modes, dispatch._dispatch_modes = dispatch._dispatch_modes, lambda: 0  # else the references run
        return super().__enter__()

    def __exit__(self, *error):
        dispatch._dispatch_modes = self.modes
        return super().__exit__(*error)

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        begin = time.perf_counter()
        made = operator(*args, **(kwargs or {}))
        taken = time.perf_counter() - begin
        shapes = [arg.shape for arg in args if isinstance(arg, Tensor)]
        self.of[group_of(operator.name(), shapes)] += taken
        return made


def times_on_gpu(run: Callable[[], object], rounds: int) -> Counter[str]:
    """The same of the kernels on a GPU."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], record_shapes=True) as profiler:
        for _ in range(rounds):
            run()
        torch.cuda.synchronize()
    times: Counter[str] = Counter()
    for operator in profiler.key_averages(group_by_input_shape=True):
        if operator.device_type == DeviceType.CPU:  # else a kernel, whose time its operator has
            times[group_of(operator.key, operator.input_shapes)] += operator.self_device_time_total
    return times


def shares(name: str, size: Size, args: Namespace) -> dict[str, float]:
    """The time of a backbone's inference or training step by kind of operator, and of all, relative to the products
    alone."""
    family, _, arch = name.partition(':')
    model = getattr(mlp_dense, family)(arch)
    published = published_network(model).to(args.device)
    x = torch.randn(args.batch_size, 3, *size, device=args.device)
    floor = GemmFloor(published, lambda: published(x), DTYPES[args.dtype], args.device, args.train)
    run = call(model.to(args.device), x, args, args.dtype)
    ours, alone = (spread(times)[0] for times in interleaved([run, floor], args.rounds, args.device, name))
    if args.device == 'cuda':
        times = times_on_gpu(run, args.rounds)
    else:
        with Times() as mode:
            for _ in range(args.rounds):
                run()
        times = mode.of
    parts = {group: times[group] / times.total() * ours / alone for group in (*GROUPS, 'other')}
    return parts | {'all': ours / alone}


def main() -> None:
    parser = common_parser(__doc__)
    parser.add_argument('--train', action='store_true', help='a training step instead of inference; bf16 and fp16: AMP')
    parser.add_argument('--batch-size', type=int, metavar='N', help='images (default: 1, 2 in training)')
    parser.add_argument('--dtype', choices=DTYPES, default='fp32', help='data type (default: %(default)s)')
    parser.set_defaults(batch_size=None, size=[Size(512, 512)], rounds=5)
    parser.add_argument('--arch', nargs='+', type=arch_name, default=SMALLEST, metavar='FAMILY:ARCH')
    args = parse_args(parser)
    args.amp = args.train and args.dtype != 'fp32'
    for size in args.size:
        print(f'| {size} | {" | ".join((*GROUPS, "other", "all"))} |\n|---|{"---:|" * (len(GROUPS) + 2)}')
        for name in args.arch:
            found = shares(name, size, args)
            release_memory()
            print(f'| {name} | {" | ".join(f"{each:.2f}" for each in found.values())} |')


if __name__ == '__main__':
    main()
