"""Commands for user data: mlp-dense data convert, check and stats."""

import json
import sys
from unittest.mock import patch

import numpy as np
import pytest

from mlp_dense_cli import run
from support.formats import shapes_set, write_as


def call(command, *arguments):
    with patch.object(sys, 'argv', [f'mlp-dense {command}', *map(str, arguments)]):
        run(command)


def test_stats_prints_the_settings_of_a_config(tmp_path, capsys):
    for i in range(2):
        np.save(tmp_path / f'{i}.npy', np.arange(24.0).reshape(2, 3, 4) + i)
    call('data stats', tmp_path, '--channels', 'last')
    assert 'in_channels=4), data_preprocessor=dict(mean=[10.5, 11.5, 12.5, 13.5]' in capsys.readouterr().out


@pytest.fixture
def yolo(shapes, tmp_path):
    write_as('yolo', tmp_path / 'yolo', shapes_set(shapes, tmp_path / 'images'), ('disc', 'square', 'star'))
    return tmp_path / 'yolo'


def test_convert_prints_counts(yolo, tmp_path, capsys):
    call('data convert', yolo, tmp_path / 'voc', '--to', 'voc', '--split', 0.5, 0.5)
    printed = capsys.readouterr().out
    assert 'YOLO labels with the classes of data.yaml.' in printed and 'objects: ' in printed
    assert (tmp_path / 'voc' / 'ImageSets' / 'Main' / 'val.txt').is_file()


def test_check_examines_a_folder_in_another_format(yolo, capsys):
    with pytest.raises(SystemExit) as ended:
        call('data check', yolo, '--json')
    result = json.loads(capsys.readouterr().out)
    assert ended.value.code == result['status'] and set(result['images']) == {'train', 'val'}
    assert sum(result['object_sizes']['train'].values()) > 0
