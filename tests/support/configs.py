"""The configs of the repository, by absolute paths: no test depends on the folder that it is started in."""

from pathlib import Path

from mmengine.config import Config

from mlp_dense.config.reading import walk
from support.models import SMALL

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path for task in ('detection', 'segmentation') for path in (ROOT / 'configs' / task).glob('*.py'))
CLASSIFIERS = sorted((ROOT / 'configs' / 'classification').glob('*.py'))  # they need timm
WIDTHS = ('channels', 'in_channels', 'out_channels', 'feat_channels', 'conv_out_channels', 'fc_out_channels')


def config(name: str) -> str:
    """The file of `detection/NAME` or `segmentation/NAME`."""
    return str(ROOT / 'configs' / f'{name}.py')


DETECTION = config('detection/hire_mlp_mask_rcnn_shapes')
SEGMENTATION = config('segmentation/hire_mlp_upernet_shapes')


def thin(cfg: Config) -> None:
    """The same model of a config with few channels: for tests of what its parts make of each other."""
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
    """Writes `detection/NAME` or `segmentation/NAME` with few channels; returns the file."""
    cfg = Config.fromfile(config(name))
    thin(cfg)
    file = folder / Path(config(name)).name
    cfg.dump(file)
    return str(file)
