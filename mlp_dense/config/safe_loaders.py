"""Checkpoint loading of mmengine, routed through this package's reader, which executes no code of a file."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.config import Config
from mmengine.runner import checkpoint as zoos
from mmengine.runner.checkpoint import CheckpointLoader

from ..checkpoints.files import check_exists
from ..checkpoints.reading import Checkpoint, below
from ..errors import CheckpointError
from .config_file import setting, walk

ZOOS = dict.fromkeys(('torchvision', 'modelzoo'), zoos.get_torchvision_models)
ZOOS |= dict.fromkeys(('open-mmlab', 'openmmlab'), zoos.get_external_models) | dict(mmcls=zoos.get_mmcls_models)


@contextmanager
def safe_loaders() -> Iterator[None]:
    """Read every ``init_cfg``, teacher and ``load_from`` inside the context with :class:`Checkpoint`.

    Outside of it nothing changes for other projects that import this package.
    """
    before = CheckpointLoader._schemes
    CheckpointLoader._schemes = {'': load_from_reader}
    try:
        yield
    finally:
        CheckpointLoader._schemes = before


def load_from_reader(source: str, map_location: Any = None) -> dict[str, Any]:
    """Read a file, a URL or a model of a zoo. Raises CheckpointError if it is unknown or unusable."""
    zoo, _, name = source.partition('://')
    if zoo in ZOOS:
        models, name = ZOOS[zoo](), zoos.get_deprecated_model_names().get(name, name)
        if name not in models:
            raise CheckpointError(f'{source}: {zoo} has no model of this name.')
        source = models[name]
    checkpoint = Checkpoint.read(source, map_location)
    return dict(state_dict=below('backbone', checkpoint.weights)) if zoo == 'mmcls' else checkpoint.content


def check_pretrained(cfg: Config) -> None:
    """Raise CheckpointError if ``load_from`` or an ``init_cfg`` of the model names a missing file."""
    pretrained = [node.get('checkpoint') for *_, node in walk(cfg.model) if setting(node, 'type') == 'Pretrained']
    for file in filter(None, [cfg.get('load_from'), *pretrained]):
        check_exists(file)
