"""Contact sheet of the outputs of a pipeline, with correctly placed labels."""

import cv2
import numpy as np
import pytest

from support.configs import DETECTION, SEGMENTATION
from support.tools import call


@pytest.mark.parametrize('config', [DETECTION, SEGMENTATION])
@pytest.mark.parametrize('split', ['train', 'val'])
def test_sheet_depends_on_the_seed_only(config, split, shapes, tmp_path, capsys):
    def sheet(seed: int) -> np.ndarray:
        out = tmp_path / 'new' / f'{seed}.png'
        arguments = ['--data-root', shapes, '--out', out, '--num', 3, '--seed', seed, '--split', split]
        assert call('browse', config, *arguments) == 0
        return cv2.imread(str(out))

    first = sheet(0)
    assert first.shape == (2 * (384 + 2 * 21 + 8), 2 * (384 + 8), 3)
    assert (first == sheet(0)).all() and (first != sheet(1)).any()
    assert f'3 of {16 if split == "train" else 8} images' in capsys.readouterr().out


def test_labels_match_resized_images(shapes, tmp_path, monkeypatch):
    """A test pipeline resizes the image alone, so the boxes must be scaled for drawing."""
    boxes = []
    for factor in (1.0, 2.0):
        drawn = []
        monkeypatch.setattr(cv2, 'rectangle', lambda _, *corners, drawn=drawn: drawn.append(corners[:2]))
        options = ['--cfg-options', f'val_dataloader.dataset.pipeline.1.scale_factor={factor}']
        arguments = ['--data-root', shapes, '--split', 'val', '--num', 1, '--out', tmp_path / 'sheet.png', *options]
        assert call('browse', DETECTION, *arguments) == 0
        boxes.append(drawn)
    assert len(boxes[0]) and boxes[0] == boxes[1]


def test_invalid_arguments_are_explained(shapes, tmp_path, capsys):
    valid = [DETECTION, '--data-root', shapes, '--out', tmp_path / 'a.png']  # later options replace these
    for arguments, sentence in (
        (['configs/absent.py', '--out', tmp_path / 'a.png'], 'does not exist'),
        ([*valid, '--data-root', tmp_path], 'does not exist, and the train data'),
        ([*valid, '--out', tmp_path / 'a.gif'], 'ends in .png'),
        ([*valid, '--num', 0], '1 or more'),
        ([*valid, '--seed', -1], '--seed is -1; '),
        ([*valid, '--img-scale', 0], 'of 1 pixel or more.'),
        ([*valid, '--cfg-options', 'train_dataloader.dataset.pipeline.2.foo=1'], 'pipeline.2: RandomFlip has no'),
        ([*valid, '--cfg-options', 'train_dataloader=none'], 'has no train_dataloader with settings'),
    ):
        assert call('browse', *arguments) == 2
        assert sentence in capsys.readouterr().err
