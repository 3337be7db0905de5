"""Times mmcv's operators as this package computes them next to the compiled ones, alone and in Mask R-CNN."""

import importlib
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import detectors
import mmcv.ops
import torch
from mmengine.registry import MODELS
from report import report
from timing import Candidate, Size, common_parser, inference, measure, parse, training_step
from torch import Tensor

from mlp_dense import operators
from mlp_dense.config.config_file import enter_scope, read_config
from mlp_dense.datasets.shapes import write_shapes
from mlp_dense.operators import extension, nms, roi_align
from mlp_dense.training.machine import adapt_to_cpu
from mlp_dense.training.runner import DenseRunner

DEMO = detectors.ROOT / 'configs/detection/hire_mlp_mask_rcnn_shapes.py'
LAYERS = [sys.modules[f'mmcv.ops.{name}'] for name in ('nms', 'roi_align', 'focal_loss')]
FOCAL_LOSS = 'focal loss and its gradient'


def read_arguments() -> Namespace:
    parser = common_parser(__doc__)
    parser.set_defaults(rounds=7, size=[detectors.HEADS['mask_rcnn'][1]])
    return parse(parser)


def available(operator: str, device: str) -> list[str]:
    """Return the implementations of an operator that can run here."""
    compiled = operators.running() == 'compiled'
    if operator == FOCAL_LOSS:  # torchvision has no equivalent of mmcv's, and mmcv has none for a CPU
        return ['ours', *(['mmcv'] if compiled and device == 'cuda' else [])]
    torchvision = operators.has_torchvision(device)
    return ['ours', *(['torchvision'] if torchvision else []), *(['mmcv'] if compiled else [])]


def using(implementation: str, run: Callable[..., object]) -> Callable[..., object]:
    """Return a call in which mmcv's layers use an implementation of the operators."""
    module = importlib.import_module('mmcv._ext') if implementation == 'mmcv' else extension

    def call(**options: bool) -> object:
        for layer in LAYERS:
            layer.ext_module = module
        for chooser in (nms, roi_align):
            chooser.by_torchvision = lambda *_: implementation == 'torchvision'
        return run(**options)

    return call


def clustered_boxes(num: int, side: float, size: Size) -> tuple[Tensor, Tensor]:
    """Return (N, 4) boxes around N / 20 centres in an image, as a detector proposes them, and (N,) scores."""
    centres = torch.rand(num // 20, 2) * torch.tensor([size.width, size.height])
    centres = centres[torch.randint(len(centres), (num,))] + side / 15 * torch.randn(num, 2)
    sides = side * (1 + 0.2 * torch.randn(num, 2).clamp(-4, 4))
    return torch.cat([centres - sides / 2, centres + sides / 2], 1), torch.rand(num)


def calls(size: Size, device: str) -> dict[str, Callable[..., object]]:
    """Return the timed operators: NMS of one image, RoIAlign on the finest map, focal loss of 20,000 samples."""
    boxes, scores = (tensor.to(device) for tensor in clustered_boxes(9000, 120, size))
    maps = torch.randn(1, 256, size.height // 4, size.width // 4, device=device, requires_grad=True)
    rois = torch.cat([boxes.new_zeros(500, 1), clustered_boxes(500, 60, size)[0].to(device)], 1)
    align = mmcv.ops.RoIAlign(7, spatial_scale=0.25, sampling_ratio=0)
    gradient = torch.randn(500, 256, 7, 7, device=device)
    logits = torch.randn(20000, 80, device=device, requires_grad=True)
    labels = torch.randint(81, (20000,), device=device)
    return {
        'NMS, 9,000 boxes': inference(lambda: mmcv.ops.nms(boxes, scores, 0.7)),
        'RoIAlign, 500 boxes': inference(lambda: align(maps, rois)),
        'RoIAlign and its gradient': lambda **_: torch.autograd.grad(align(maps, rois), maps, gradient),
        FOCAL_LOSS: lambda **_: torch.autograd.grad(mmcv.ops.sigmoid_focal_loss(logits, labels), logits),
    }


def demo_step(shapes: Path, device: str) -> Callable[..., object]:
    """Return a training step of the detection demo: forward and backward with initial weights."""
    cfg = read_config(DEMO, data_root=shapes)
    adapt_to_cpu(cfg)
    enter_scope(cfg)
    model = MODELS.build(cfg.model).to(device)
    model.init_weights()
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    data = next(iter(DenseRunner.build_dataloader(cfg.train_dataloader, seed=0)))

    def forward_and_backward() -> None:
        losses = model(**model.data_preprocessor(data, training=True), mode='loss')
        model.parse_losses(losses)[0].backward()

    return training_step(model.train(), forward_and_backward)


def mask_rcnn(size: Size, device: str) -> Callable[..., object]:
    """Return the inference of Mask R-CNN with HireMLP tiny, which detects a hundred objects."""
    cfg = detectors.read('mask_rcnn', 'hire_mlp_tiny', size, [])
    model, data = detectors.build(cfg, device).eval(), detectors.batch(cfg, size, 1)
    return inference(lambda: model.test_step(data))


def main() -> None:
    args = read_arguments()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        shapes = Path(folder, 'shapes')
        write_shapes(shapes, num_train=32, num_val=1)
        for size in args.size:
            runs = calls(size, args.device)
            runs |= {'demo, training step': demo_step(shapes, args.device), 'Mask R-CNN': mask_rcnn(size, args.device)}
            for name, run in runs.items():
                candidates = [Candidate(name, key, using(key, run)) for key in available(name, args.device)]
                rows += measure(candidates, str(size), args)
    compiled = operators.running() == 'compiled'
    notes = [] if compiled else ["mmcv's operators are not compiled here: run make setup OPERATORS=compiled."]
    report(rows, 'operators', notes, args, title='ours next to the compiled ones', chart=False)


if __name__ == '__main__':
    main()
