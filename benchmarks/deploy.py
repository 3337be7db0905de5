"""Times exported models in onnxruntime and, if installed, OpenVINO next to eager and compiled PyTorch."""

import sys
from argparse import Namespace
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import report
from timing import Candidate, Size, common_parser, inference, measure, parse

from mlp_dense.config.config_file import read_config
from mlp_dense.errors import UserError, explained_imports
from mlp_dense.export.check import CheckImages, compare, read_check_images
from mlp_dense.export.exporting import describe, graph_of, spread_scores
from mlp_dense.export.graphs import trace
from mlp_dense.export.runtime import ExportedFile
from mlp_dense.inference import load_model
from mlp_dense.reports.complexity import complexity
from mlp_dense.training.setup import EXPORTED

ROOT = Path(__file__).parents[1]
DEFAULT = [f'configs/segmentation/{name}_upernet_ade20k-512x512.py' for name in ('hire_mlp_tiny', 'cycle_mlp_b1')]
PYTORCH = ['ours', 'compiled', 'bf16', 'compiled bf16']
RUNTIMES = ['onnxruntime', 'int8', 'openvino', 'openvino bf16', 'openvino int8']


def read_arguments() -> Namespace:
    parser = common_parser(__doc__)
    parser.add_argument('--configs', nargs='+', default=DEFAULT, metavar='CONFIG', help=f'default: {" ".join(DEFAULT)}')
    kinds = [*PYTORCH, *RUNTIMES]
    parser.add_argument('--kinds', nargs='+', choices=kinds, default=kinds, help='variants (default: all)')
    text = 'changes to the configs, as in tools/train.py'
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help=text)
    parser.set_defaults(size=[Size(512, 512)], rounds=7, device='cpu')
    return parse(parser)


def candidates_of(config: str, size: Size, args: Namespace) -> list[Candidate]:
    with explained_imports():
        from mlp_dense.export.conversion import to_onnx
    cfg = read_config(ROOT / config, args.cfg_options)
    model = load_model(cfg, None, 'cpu')
    samples = read_check_images(cfg, None, most=4)
    spread_scores(model, samples)
    graph = graph_of(model)
    images = next(samples.batches(size))['inputs'][0].unsqueeze(0).contiguous()
    content = to_onnx(trace(graph), graph, describe(model, graph, None, 'model', 'fp32'))
    compare(model, ExportedFile(content, EXPORTED[0]), samples.batches(size), 'fp32')
    exported_call = exported_calls(content, samples, size, images.numpy(), args.threads)
    macs = complexity(model.cfg.model, *size).macs / 1e9
    candidates = []
    for variant in args.kinds:
        if variant.startswith('openvino') and not find_spec('openvino'):
            continue
        run = pytorch_call(variant, model, images) if variant in PYTORCH else exported_call(variant)
        candidates.append(Candidate(Path(config).stem, variant, run, macs))
    return candidates


def pytorch_call(variant: str, model: Any, images: torch.Tensor) -> Callable[[], object]:
    graph = graph_of(model, dtype=torch.bfloat16 if 'bf16' in variant else torch.float32)
    run = torch.compile(graph) if 'compiled' in variant else graph
    return inference(lambda: run(images))


def exported_calls(
    content: bytes, samples: CheckImages, size: Size, images: np.ndarray, threads: int
) -> Callable[[str], Callable[[], object]]:
    """Return a function from a variant to the call of its exported file."""

    @cache
    def int8() -> bytes:
        from mlp_dense.export.conversion import to_int8

        return to_int8(content, samples.resized(size))

    def call_of(variant: str) -> Callable[[], object]:
        exported = int8() if 'int8' in variant else content
        if not variant.startswith('openvino'):
            file = ExportedFile(exported, EXPORTED[0])
            return lambda: file(images)
        from openvino import Core

        core = Core()
        precision = 'bf16' if 'bf16' in variant else 'f32'
        settings = dict(INFERENCE_NUM_THREADS=threads, INFERENCE_PRECISION_HINT=precision)
        request = core.compile_model(core.read_model(exported), 'CPU', settings).create_infer_request()
        return lambda: request.infer([images])

    return call_of


def main() -> None:
    args = read_arguments()
    rows = []
    for size in args.size:
        candidates = [candidate for config in args.configs for candidate in candidates_of(config, size, args)]
        rows += measure(candidates, str(size), args)
    notes = [] if find_spec('openvino') else ['left out: OpenVINO is not installed (pip install openvino)']
    report(rows, 'deploy', notes, args, title='inference of complete models, 8-bit images to results, batch 1')


if __name__ == '__main__':
    try:
        main()
    except UserError as error:  # in a config, or a package is missing
        sys.exit(f'error: {error}')
