"""Small sets of annotated images for the formats."""

from pathlib import Path

import pytest
from PIL import Image

from support.formats import Splits, shapes_set


@pytest.fixture(scope='session')
def samples(shapes, tmp_path_factory) -> Splits:
    return shapes_set(shapes, tmp_path_factory.mktemp('samples') / 'images')


@pytest.fixture
def write_files(tmp_path):
    """Return a function that writes files by path: texts, bytes, and images for sizes (width, height)."""

    def write(files: dict[str, str | bytes | tuple[int, int]], root: Path = tmp_path / 'data') -> Path:
        for name, content in files.items():
            file = root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, tuple):
                Image.effect_noise(content, 60).save(file)
            else:
                file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return root

    return write
