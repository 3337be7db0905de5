"""Configs of the repository by absolute paths, so that no test depends on the working directory."""

from pathlib import Path

from mmengine.config import Config

from mlp_dense.config.config_file import walk
from support.models import SMALL

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path for task in ('detection', 'segmentation') for path in (ROOT / 'configs' / task).glob('*.py'))
CLASSIFIERS = sorted((ROOT / 'configs' / 'classification').glob('*.py'))  # they need timm
WIDTHS = ('channels', 'in_channels', 'out_channels', 'feat_channels', 'conv_out_channels', 'fc_out_channels')


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


def thin_config(name: str, folder: Path) -> str:
    """Write `detection/NAME` or `segmentation/NAME` with few channels; return the file."""
    cfg = Config.fromfile(config(name))
    thin(cfg)
    file = folder / Path(config(name)).name
    cfg.dump(file)
    return str(file)
