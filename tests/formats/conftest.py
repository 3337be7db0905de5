"""Small sets of annotated images for the formats."""

import pytest

from support.formats import Splits, shapes_set


@pytest.fixture(scope='session')
def samples(shapes, tmp_path_factory) -> Splits:
    return shapes_set(shapes, tmp_path_factory.mktemp('samples') / 'images')
