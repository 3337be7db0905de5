"""Behaviour that all tools share, and tools/make_shapes.py."""

import os
from unittest.mock import Mock

import pytest

from support.tools import TOOLS, call, run

SCRIPTS = sorted(TOOLS.glob('*.py'))


@pytest.mark.slow
@pytest.mark.parametrize('file', SCRIPTS, ids=lambda file: file.stem)
def test_help_imports_no_heavy_package(file):
    text = run('-X', 'importtime', file, '--help')
    assert 'usage:' in text
    imported = {line.rpartition('|')[2].strip() for line in text.splitlines()}
    assert 'argparse' in imported and not imported & {'torch', 'mmengine', 'numpy'}


def test_failed_data_set_leaves_nothing_and_other_folders_stay(tmp_path, monkeypatch):
    (tmp_path / 'shapes.partial').mkdir()
    (tmp_path / 'shapes.partial' / 'mine').write_text('')
    arguments = [tmp_path / 'shapes', '--num-train', 2, '--num-val', 1, '--size', 64]
    with monkeypatch.context() as patch:
        patch.setattr('pathlib.Path.write_bytes', Mock(side_effect=OSError(28, 'No space left on device')))
        assert call('make_shapes', *arguments) == 2
    assert os.listdir(tmp_path) == ['shapes.partial']
    assert call('make_shapes', *arguments) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ['shapes', 'shapes.partial']
    assert os.listdir(tmp_path / 'shapes.partial') == ['mine']
    assert os.listdir(tmp_path / 'shapes' / 'val') == ['000000.jpg']


ENDING = """
import atexit, sys
from mlp_dense_cli.arguments import run_tool

def main():
    import torch
    torch.distributed.init_process_group('gloo', store=torch.distributed.HashStore(), rank=0, world_size=1)
    atexit.register(print, 'exit functions run')
    {last}

class TornDown:
    def __del__(self):
        print('interpreter shut down')

torn_down = TornDown()
run_tool(main)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ('last', 'status', 'message'),
    [
        ('print("done")', 0, 'done'),
        ('sys.exit(143)', 143, ''),
        ('sys.exit("why")', 1, 'why'),
        ('1 / 0', 1, 'ZeroDivisionError'),
        ('from mlp_dense.errors import UserError; raise UserError("Do this.")', 2, 'error: Do this.'),
    ],
)
def test_distributed_process_ends_before_its_interpreter(last, status, message):
    """Otherwise a thread of gloo can abort the process."""
    text = run('-c', ENDING.format(last=last), status=status)
    assert message in text and 'exit functions run' in text and 'interpreter shut down' not in text
