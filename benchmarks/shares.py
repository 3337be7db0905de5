"""Shows what the inference, or a training step, of a backbone spends its time in, as multiples of the GEMM floor."""

from argparse import Namespace
from collections import Counter

import torch
from backbones import SMALLEST, arch_name, call
from floor import GemmFloor
from models import published_network
from timing import DTYPES, Size, common_parser, interleaved, parse_args, release_memory, spread
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEventAvg
from torch.profiler import ProfilerActivity, profile

import mlp_dense

GROUPS = {
    'products': 'mkldnn::_linear_pointwise aten::addmm aten::mm aten::bmm',  # with the bias and the activation
    'depthwise': '',
    'norms': """aten::native_batch_norm aten::native_layer_norm aten::native_group_norm
        aten::native_batch_norm_backward aten::native_layer_norm_backward aten::native_group_norm_backward
        aten::var_mean aten::linalg_vector_norm""",
    'waves': 'aten::cos aten::sin',
    'arithmetic': """aten::add aten::add_ aten::mul aten::mul_ aten::addcmul_ aten::sum aten::gelu aten::gelu_backward
        aten::clamp_min aten::threshold_backward aten::addcmul aten::_softmax aten::_softmax_backward_data aten::div""",
    'copies': """aten::copy_ aten::cat aten::constant_pad_nd aten::fill_ aten::index aten::index_put_ aten::gather
        aten::masked_fill_ aten::where aten::index_select aten::index_add_""",
}
GROUP_OF = {name: group for group, names in GROUPS.items() for name in names.split()}


def group_of(operator: FunctionEventAvg) -> str:
    weight = 2 if 'backward' in operator.key else 1
    if 'convolution' in operator.key and operator.input_shapes[weight : weight + 1]:
        return 'depthwise' if operator.input_shapes[weight][1:2] == [1] else 'products'
    return GROUP_OF.get(operator.key, 'other')


def shares(name: str, size: Size, args: Namespace) -> dict[str, float]:
    """The time of a backbone's inference or training step by kind of operator (on a GPU of its kernels), and of all:
    its parts of a profile, times what it takes without one relative to the products alone."""
    family, _, arch = name.partition(':')
    model = getattr(mlp_dense, family)(arch)
    published = published_network(model).to(args.device)
    x = torch.randn(args.batch_size, 3, *size, device=args.device)
    floor = GemmFloor(published, lambda: published(x), DTYPES[args.dtype], args.device, args.train)
    run = call(model.to(args.device), x, args, args.dtype)
    ours, alone = (spread(times)[0] for times in interleaved([run, floor], args.rounds, args.device, name))
    gpu = args.device == 'cuda'
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    with profile(activities=activities, record_shapes=True) as profiler:
        for _ in range(args.rounds):
            run()
        if gpu:
            torch.cuda.synchronize()
    times: Counter[str] = Counter()
    for operator in profiler.key_averages(group_by_input_shape=True):
        if operator.device_type == DeviceType.CPU:  # else a kernel, whose time its operator has
            times[group_of(operator)] += operator.self_device_time_total if gpu else operator.self_cpu_time_total
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
            print(f'| {name} | {" | ".join(f"{time:.2f}" for time in found.values())} |')


if __name__ == '__main__':
    main()
