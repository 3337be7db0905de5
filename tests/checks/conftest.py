"""Generated data that a test can change, and short training runs on them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mlp_dense.datasets.shapes import write_shapes
from support.tools import call
from support.trainings import SHORT, write_config


@pytest.fixture
def data(tmp_path) -> Path:
    write_shapes(tmp_path / 'data', num_train=8, num_val=4, size=96)
    return tmp_path / 'data'


@pytest.fixture
def change_annotations(data):
    """Return a function that changes the content of an annotation file."""

    def change_annotations(split: str, change: Callable[[dict], object]) -> None:
        file = data / 'annotations' / f'instances_{split}.json'
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    return change_annotations


@pytest.fixture
def train(data, tmp_path, capsys):
    """Train briefly, in `run`; return its exit status, output and errors, which are one line if it is 2."""

    def train(base: str, *options, **changes) -> tuple[int, str, str]:
        file = write_config(base, tmp_path, data, **(SHORT[base] | changes))
        status = call('train', file, '--work-dir', tmp_path / 'run', *options)
        output, errors = capsys.readouterr()
        assert status == 0 or len(errors.strip().splitlines()) == 1, errors
        return status, output, errors

    return train
