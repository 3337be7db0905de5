"""No config of mmdetection or mmsegmentation is refused for its numbers of classes."""

import importlib.util
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mlp_dense.engine.data import check_class_count, dataset_meta


def configs(package: str) -> list[Path]:
    """One config of each folder: those of a folder have the same heads and data."""
    folder = Path(importlib.util.find_spec(package).origin).parent / '.mim' / 'configs'
    files = sorted(file for file in folder.glob('*/*.py') if not file.parent.name.startswith(('_', 'common')))
    return list({file.parent: file for file in files}.values())


@pytest.mark.slow
@pytest.mark.parametrize('package', ['mmdet', 'mmseg'])
def test_their_configs_are_not_refused(package):
    importlib.import_module(package)
    files = configs(package)
    if not files:
        pytest.skip(f'{package} is installed without its configs')
    checked = 0
    for file in files:
        try:
            cfg = Config.fromfile(file)
            init_default_scope(cfg.get('default_scope', package))
            classes = dataset_meta(cfg.test_dataloader.dataset).get('classes') if cfg.get('test_dataloader') else None
        except (ImportError, KeyError, AttributeError, FileNotFoundError):  # another package, or only a part
            continue
        if classes and 'model' in cfg:
            check_class_count(cfg.model, classes, file.name)
            checked += 1
    assert checked > len(files) / 2, f'{checked} of {len(files)}'
