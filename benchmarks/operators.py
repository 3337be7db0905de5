"""Times mmcv's operators as this package computes them beside the compiled ones, alone and in Mask R-CNN."""

import importlib
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import detectors
import mmcv.ops
import torch
from mmengine.registry import MODELS
from report import report
from timing import Candidate, Size, common_parser, inference, measure, parse_args, training_step
from torch import Tensor

from mlp_dense import operators
from mlp_dense.config.reading import adapt_to_cpu, enter_scope, read_config
from mlp_dense.datasets.shapes import write_shapes
from mlp_dense.operators import extension, nms, roi_align
from mlp_dense.training.runner import DenseRunner

ROOT = Path(__file__).parents[1]
DEMO = ROOT / 'configs/detection/hire_mlp_mask_rcnn_shapes.py'
LAYERS = [sys.modules[f'mmcv.ops.{name}'] for name in ('nms', 'roi_align', 'focal_loss')]
FOCAL_LOSS = 'focal loss and its gradient'


def kinds(device: str) -> list[str]:
    """Whose operators can run here."""
    found = ['ours', *(['torchvision'] if operators.has_torchvision(device) else [])]
    return [*found, *(['mmcv'] if operators.running() == 'compiled' else [])]


def over(kind: str, run: Callable[..., object]) -> Callable[..., object]:
    """A call in which mmcv's layers call the operators of a kind."""
    module: ModuleType = importlib.import_module('mmcv._ext') if kind == 'mmcv' else extension

    def call(**how: bool) -> object:
        for layer in LAYERS:
            layer.ext_module = module
        for chooser in (nms, roi_align):
            chooser.by_torchvision = lambda *_: kind == 'torchvision'
        return run(**how)

    return call


def clustered_boxes(num: int, side: float, size: Size) -> tuple[Tensor, Tensor]:
    """(N, 4) boxes around N / 20 centres in an image, with (N,) scores: as a detector proposes them."""
    centres = torch.rand(num // 20, 2) * torch.tensor([size.width, size.height])
    centres = centres[torch.randint(len(centres), (num,))] + side / 15 * torch.randn(num, 2)
    sides = side * (1 + 0.2 * torch.randn(num, 2).clamp(-4, 4))
    return torch.cat([centres - sides / 2, centres + sides / 2], 1), torch.rand(num)


def calls(size: Size, device: str) -> dict[str, Callable[..., object]]:
    """What is timed: NMS of the boxes of one image, RoIAlign of 500 boxes on the finest map of a pyramid, and the
    focal loss of 20,000 samples and 80 classes."""
    boxes, scores = (each.to(device) for each in clustered_boxes(9000, 120, size))
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
    """A training step of the demo: forward and backward, the model at its beginning."""
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
    """Inference of Mask R-CNN with HireMLP tiny, in which a hundred objects are found."""
    cfg = detectors.read('mask_rcnn', 'hire_mlp_tiny', size, Namespace(cfg_options=[]))
    model, data = detectors.build(cfg).to(device).eval(), detectors.batch(cfg, size, 1)
    return inference(lambda: model.test_step(data))


def main() -> None:
    parser = common_parser(__doc__)
    parser.set_defaults(rounds=7, size=[detectors.HEADS['mask_rcnn'][1]])
    args = parse_args(parser)
    rows, own = [], kinds(args.device)
    with tempfile.TemporaryDirectory() as folder:
        shapes = Path(folder, 'shapes')
        write_shapes(shapes, num_train=32, num_val=1)
        for size in args.size:
            timed = calls(size, args.device)
            timed |= {'demo, training step': demo_step(shapes, args.device), 'Mask R-CNN': mask_rcnn(size, args.device)}
            for name, run in timed.items():
                # Of the focal loss torchvision has none that stands in for mmcv's, and mmcv none for a CPU.
                few = ['ours', *(['mmcv'] if 'mmcv' in own and args.device == 'cuda' else [])]
                timed_kinds = few if name == FOCAL_LOSS else own
                rows += measure([Candidate(name, kind, over(kind, run)) for kind in timed_kinds], str(size), args)
    notes = [] if 'mmcv' in own else ["mmcv's operators are not compiled here: make setup OPERATORS=compiled."]
    report(rows, 'operators', notes, args, what='beside the compiled ones', chart=False)


if __name__ == '__main__':
    main()
