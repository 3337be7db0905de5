"""The configs of the repository, by absolute paths: no test depends on the folder that it is started in."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path for path in (ROOT / 'configs').glob('*/*.py') if path.parent.name != '_base_')


def config(name: str) -> str:
    """The file of `detection/NAME` or `segmentation/NAME`."""
    return str(ROOT / 'configs' / f'{name}.py')


DETECTION = config('detection/hire_mlp_mask_rcnn_shapes')
SEGMENTATION = config('segmentation/hire_mlp_upernet_shapes')
