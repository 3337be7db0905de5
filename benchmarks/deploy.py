"""Times exported models in onnxruntime and, where it is installed, OpenVINO beside eager and compiled PyTorch."""

import copy
import sys
from argparse import Namespace
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import report
from timing import Candidate, Size, common_parser, inference, measure, parse_args

from mlp_dense.config.reading import read_config
from mlp_dense.errors import UserError
from mlp_dense.export.check import CheckImages, compare, read_check_images
from mlp_dense.export.conversion import check_installed, to_int8, to_onnx, trace
from mlp_dense.export.exporting import describe, spread_scores
from mlp_dense.export.graphs import Graph, graph_of
from mlp_dense.export.runtime import ExportedFile, as_texts
from mlp_dense.inference.loading import load_model
from mlp_dense.reports.complexity import complexity
from mlp_dense.training.setup import EXPORTED

ROOT = Path(__file__).parents[1]
DEFAULT = [f'configs/segmentation/{name}_upernet_ade20k-512x512.py' for name in ('hire_mlp_tiny', 'cycle_mlp_b1')]
KINDS = (
    'ours',
    'compiled',
    'bf16',
    'compiled bf16',
    'onnxruntime',
    'int8',
    'openvino',
    'openvino bf16',
    'openvino int8',
)


def parse() -> Namespace:
    parser = common_parser(__doc__)
    parser.add_argument('--configs', nargs='+', default=DEFAULT, metavar='CONFIG', help=f'default: {" ".join(DEFAULT)}')
    parser.add_argument(
        '--kinds', nargs='+', choices=KINDS, default=KINDS, help='the rows of each model (default: all)'
    )
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='changes to the configs, as in tools/train.py'
    )
    parser.set_defaults(size=[Size(512, 512)], rounds=7, device='cpu')
    return parse_args(parser)


def candidates_of(config: str, size: Size, args: Namespace) -> list[Candidate]:
    cfg = read_config(ROOT / config, args.cfg_options)
    model = load_model(cfg, None, 'cpu')
    pictures = read_check_images(cfg, None, most=4)
    spread_scores(model, pictures)
    graph = graph_of(model)
    images = next(pictures.batches_of(*size))['inputs'][0].unsqueeze(0).contiguous()
    content = to_onnx(trace(graph), graph, as_texts(describe(model, graph, None, 'model', 'fp32')))
    compare(model, ExportedFile(content, EXPORTED[0], args.threads), pictures.batches_of(*size), 'fp32')
    runs = {
        **pytorch_runs(graph, model, images),
        **exported_runs(content, pictures, size, images.numpy(), args),
    }
    macs = complexity(model.cfg.model, *size).macs / 1e9
    return [Candidate(Path(config).stem, kind, run(), macs) for kind, run in runs.items() if kind in args.kinds]


def pytorch_runs(graph: Graph, model: Any, images: torch.Tensor) -> dict[str, Callable[[], Callable]]:
    """Ways to make a call, by kind."""

    def eager(kind: Graph) -> Callable[[], object]:
        return inference(lambda: kind(images))

    def compiled(kind: Graph) -> Callable[[], object]:
        fast = torch.compile(kind)
        return inference(lambda: fast(images))

    def half() -> Graph:
        return graph_of(model, dtype=torch.bfloat16)

    return {
        'ours': lambda: eager(graph),
        'compiled': lambda: compiled(copy.deepcopy(graph)),
        'bf16': lambda: eager(half()),
        'compiled bf16': lambda: compiled(half()),
    }


def exported_runs(
    content: bytes, pictures: CheckImages, size: Size, images: np.ndarray, args: Namespace
) -> dict[str, Callable[[], Callable]]:
    """The same of exported files; of OpenVINO there are none where it is not installed."""

    def onnxruntime(given: bytes) -> Callable[[], object]:
        file = ExportedFile(given, EXPORTED[0], args.threads)
        return lambda: file(images)

    def openvino(given: bytes, precision: str) -> Callable[[], object]:
        from openvino import Core

        core = Core()
        settings = dict(INFERENCE_NUM_THREADS=args.threads, INFERENCE_PRECISION_HINT=precision)
        request = core.compile_model(core.read_model(given), 'CPU', settings).create_infer_request()
        return lambda: request.infer([images])

    int8: list[bytes] = []

    def small() -> bytes:
        int8[:] = int8 or [to_int8(content, pictures.singles(tuple(size)))]
        return int8[0]

    runs = {'onnxruntime': lambda: onnxruntime(content), 'int8': lambda: onnxruntime(small())}
    if find_spec('openvino'):
        runs |= {
            'openvino': lambda: openvino(content, 'f32'),
            'openvino bf16': lambda: openvino(content, 'bf16'),
            'openvino int8': lambda: openvino(small(), 'f32'),
        }
    return runs


def main() -> None:
    args = parse()
    check_installed()
    rows = []
    for size in args.size:
        rows += measure(
            [each for config in args.configs for each in candidates_of(config, size, args)], str(size), args
        )
    notes = [] if find_spec('openvino') else ['left out: OpenVINO, which is not installed (pip install openvino)']
    report(rows, 'deploy', notes, args, 'inference of whole models, images of 8 bits to results, batch 1')


if __name__ == '__main__':
    try:
        main()
    except UserError as error:  # in a config, or a package is missing
        sys.exit(f'error: {error}')
