"""mmengine's ways to a checkpoint: all of them end in this package's reader, which runs nothing in a file."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.config import Config
from mmengine.runner.checkpoint import (
    CheckpointLoader,
    get_deprecated_model_names,
    get_external_models,
    get_mmcls_models,
    get_torchvision_models,
)

from ..checkpoints.files import check_exists
from ..checkpoints.reading import Checkpoint, below
from ..errors import CheckpointError
from .reading import walk

ZOOS = {
    'torchvision': get_torchvision_models,
    'modelzoo': get_torchvision_models,
    'open-mmlab': get_external_models,
    'openmmlab': get_external_models,
    'mmcls': get_mmcls_models,
}


@contextmanager
def safe_loaders() -> Iterator[None]:
    """Inside, an ``init_cfg`` of any module, a teacher, a ``load_from`` is read by :class:`Checkpoint`. Outside, for
    other projects that only import this package, nothing changes."""
    before = CheckpointLoader._schemes
    CheckpointLoader._schemes = {'': load_from_reader}
    try:
        yield
    finally:
        CheckpointLoader._schemes = before


def load_from_reader(source: str, map_location: Any = None) -> dict[str, Any]:
    """What a file, an address or the name of a model in a zoo holds. CheckpointError: it is unknown or unusable."""
    zoo, _, name = source.partition('://')
    if zoo in ZOOS:
        models, name = ZOOS[zoo](), get_deprecated_model_names().get(name, name)
        if name not in models:
            raise CheckpointError(f'{source}: {zoo} has no model of this name.')
        source = models[name]
    checkpoint = Checkpoint.read(source, map_location)
    return dict(state_dict=below('backbone', checkpoint.weights)) if zoo == 'mmcls' else checkpoint.content


def check_pretrained(cfg: Config) -> None:
    """CheckpointError: a file that the config starts from, or an ``init_cfg`` of the model, is missing; said before
    anything is built."""
    named = [
        value for _, part, key, value in walk(cfg.model) if key == 'checkpoint' and part.get('type') == 'Pretrained'
    ]
    for file in filter(None, [cfg.get('load_from'), *named]):
        check_exists(file)
