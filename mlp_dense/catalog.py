"""Configs of this package: their folder and their names.

It imports the standard library only, because ``mlp-dense`` loads this file without PyTorch.
"""

from difflib import get_close_matches
from pathlib import Path


def folder() -> Path:
    """Return the folder of the configs, in the installed package or else in the clone."""
    package = Path(__file__).parent
    installed = package / '.mim' / 'configs'
    return (installed if installed.exists() else package.parent / 'configs').resolve()


def names() -> list[str]:
    """Return the names of all configs, such as ``detection/hire_mlp_mask_rcnn_coco``."""
    return sorted(f'{file.parent.name}/{file.stem}' for file in folder().glob('[!_]*/*.py'))


def find(name: str) -> Path | None:
    """Return the file of a config by its name, with or without its folder, or as mmengine's ``mlp_dense::NAME.py``."""
    matches = [each for each in names() if name in (each, each.partition('/')[2], f'mlp_dense::{each}.py')]
    return folder() / f'{matches[0]}.py' if matches else None


def similar(name: str) -> str | None:
    """Return the most similar config: a name of this package, or a file in the folder of the path `name`.

    The result is None if there is no match.
    """
    files = [str(file) for file in Path(name).parent.glob('*.py')]
    full_names = names()
    short_names = [each.partition('/')[2] for each in full_names]
    close = get_close_matches(name, [*files, *short_names, *full_names], n=1)
    return close[0] if close else None


def config_path(name: str) -> str:
    """Return the path of a config below ``configs/`` of this package, such as ``_base_/exact_training.py``."""
    return str(folder() / name)
