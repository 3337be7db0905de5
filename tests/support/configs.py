"""Configs of the repository by absolute paths, so that no test depends on the working directory."""

from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from mlp_dense.config.config_file import walk
from support.models import SMALL

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path for task in ('detection', 'segmentation') for path in (ROOT / 'configs' / task).glob('*.py'))
CLASSIFIERS = sorted((ROOT / 'configs' / 'classification').glob('*.py'))  # they need timm
WIDTHS = ('channels', 'in_channels', 'out_channels', 'feat_channels', 'conv_out_channels', 'fc_out_channels')
LAYERS = ('stacked_convs', 'num_convs', 'num_shared_convs')
LEVELS = ('in_channels', 'feature_strides', 'featmap_strides')


def config(name: str) -> str:
    """Return the file of `detection/NAME` or `segmentation/NAME`."""
    return str(ROOT / 'configs' / f'{name}.py')


DETECTION = config('detection/hire_mlp_mask_rcnn_shapes')
SEGMENTATION = config('segmentation/hire_mlp_upernet_shapes')


def thin(cfg: Config) -> None:
    """Reduce the channels of the model of a config, for tests of how its components work together."""
    model, width = cfg.model, 16
    for _, container, key, value in walk(model):
        if key in WIDTHS and isinstance(value, int) and container is not model.backbone:
            container[key] = width
    model.backbone.arch = SMALL
    outputs = [SMALL['dims'][i] for i in model.backbone.get('out_indices', range(4))]
    if 'neck' in model:
        model.neck.in_channels = outputs
    if 'decode_head' in model:
        model.decode_head.in_channels = [width] * 4 if 'neck' in model else outputs
    if 'auxiliary_head' in model:
        model.auxiliary_head.in_channels = outputs[2]


def shallow(cfg: Config, stages: Sequence[int] = (0, 1)) -> None:
    """Keep some outputs of the backbone of a thin config, and few layers and proposals: an export converts each layer.

    RetinaNet has the strides 32, 64 and 128, and a pyramid for regions has one level more than outputs.
    """
    model, proposals = cfg.model, cfg.model.test_cfg.get('rpn', cfg.model.test_cfg)
    model.pop('auxiliary_head', None)
    if model.type == 'RetinaNet':
        stages = (3,)
        model.bbox_head.anchor_generator.strides = [32, 64, 128]
    model.backbone.update(arch=dict(model.backbone.arch, depths=(1, 1, 1, 1)), out_indices=stages)
    for _, container, key, value in walk(model):
        if key in LAYERS:
            container[key] = 1
        elif key in LEVELS and isinstance(value, (list, tuple)):
            container[key] = [value[i] for i in stages if i < len(value)] or value[-1:]  # RetinaNet has three inputs
    if 'nms_pre' in proposals:
        proposals.nms_pre = 100
    if 'decode_head' in model:
        model.decode_head.in_index = (0, 1)
    if 'rpn_head' in model:
        proposals.max_per_img = 50
        model.rpn_head.anchor_generator.strides = [4, 8, 16]
    if 'neck' in model:
        model.neck.num_outs = 2 if 'decode_head' in model else 3
    if model.type == 'CascadeRCNN':
        model.roi_head.update(num_stages=2, stage_loss_weights=[1, 0.5], bbox_head=model.roi_head.bbox_head[:2])
        model.train_cfg.rcnn = model.train_cfg.rcnn[:2]


def thin_config(name: str, folder: Path) -> str:
    """Write `detection/NAME` or `segmentation/NAME` with few channels; return the file."""
    cfg = Config.fromfile(config(name))
    thin(cfg)
    file = folder / Path(config(name)).name
    cfg.dump(file)
    return str(file)
