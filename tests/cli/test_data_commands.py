"""Commands for own data: mlp-dense data convert, check and stats."""

import sys
from unittest.mock import patch

import numpy as np

from mlp_dense_cli import run


def call(command, *arguments):
    with patch.object(sys, 'argv', [f'mlp-dense {command}', *map(str, arguments)]):
        run(command)


def test_stats_prints_the_settings_of_a_config(tmp_path, capsys):
    for i in range(2):
        np.save(tmp_path / f'{i}.npy', np.arange(24.0).reshape(2, 3, 4) + i)
    call('data stats', tmp_path, '--channels', 'last')
    assert 'in_channels=4), data_preprocessor=dict(mean=[10.5, 11.5, 12.5, 13.5]' in capsys.readouterr().out
