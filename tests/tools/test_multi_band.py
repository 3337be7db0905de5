"""Images of five bands and 16 bits from training to predictions, as a user handles them."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mlp_dense.checkpoints.matching import STEM
from mlp_dense.datasets.bands import LoadMultiBandImage
from mlp_dense.datasets.shapes import write_shapes
from mlp_dense.inference import load_model
from support.configs import config, thin_config
from support.tools import call, log_of

pytest.importorskip('tifffile', reason="tifffile of the extra 'data' is not installed")
pytestmark = pytest.mark.slow
TASKS = {'detection/hire_mlp_mask_rcnn_bands': '--epochs', 'segmentation/hire_mlp_upernet_bands': '--iters'}
BATCHES = ['train_dataloader.batch_size=2', 'val_dataloader.batch_size=2', 'test_dataloader.batch_size=2']


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('data') / 'shapes_bands'
    write_shapes(root, num_train=4, num_val=3, size=96, bands=5)
    return root


@pytest.fixture(scope='module', params=TASKS, ids=['detection', 'segmentation'])
def trained(request, data, tmp_path_factory):
    """Train shortly from the stem of an RGB model; return the config, the work dir and the checkpoint."""
    folder = tmp_path_factory.mktemp('run')
    file, rgb = thin_config(request.param, folder), folder / 'rgb.pth'

    weights = load_model(
        thin_config(request.param.replace('bands', 'shapes'), folder), None, 'cpu'
    ).backbone.state_dict()
    torch.save(weights, rgb)
    start = ['model.backbone.init_cfg.type=Pretrained', f'model.backbone.init_cfg.checkpoint={rgb}']
    options = ['--data-root', data, TASKS[request.param], 2, '--work-dir', folder / 'run', '--seed', 0]
    assert call('train', file, *options, '--cfg-options', *BATCHES, *start, 'default_hooks.checkpoint.interval=1') == 0
    return file, folder / 'run', (folder / 'run' / 'last_checkpoint').read_text()


def test_pretrained_stem_is_converted_and_trained(trained):
    _, work_dir, checkpoint = trained
    assert 'converted the first convolution from RGB: each of its 5 filters' in log_of(work_dir)
    stem = torch.load(checkpoint, weights_only=False)['state_dict'][f'backbone.{STEM}']
    assert stem.shape[1] == 5 and (stem[:, 3] - stem[:, 4]).abs().max() > 0, 'each band has its own gradient'


def test_report_draws_the_bands(trained, data, tmp_path, one_process):
    file, _, checkpoint = trained
    report, shown = tmp_path / 'report', tmp_path / 'shown'
    options = ['--data-root', data, '--work-dir', tmp_path / 'work', '--report', report, '--show-dir', shown]
    assert call('test', file, checkpoint, *options, '--cfg-options', *BATCHES) == 0
    assert 'bands 0, 1, 2 as red, green, blue; percentiles 2 to 98' in (report / 'data.js').read_text()
    drawn = sorted((report / 'pictures').iterdir())
    assert len(drawn) == len(list(shown.glob('*.png'))) == 3
    assert all(cv2.imread(str(path)).std() > 5 for path in [*drawn, *shown.glob('*.png')])
    run = json.loads((report / 'results' / 'run.json').read_text())
    assert run['loading'] == dict(channels=None, show=[0, 1, 2]) and run['model']['GMACs'] > 0
    drawn[0].unlink()
    assert call('report', report) == 0 and drawn[0].exists()


def test_tiff_and_numpy_files_have_equal_predictions(trained, data, tmp_path, capsys):
    file, _, checkpoint = trained
    for path in sorted((data / 'val').iterdir()):
        (tmp_path / 'images').mkdir(exist_ok=True)
        np.save(tmp_path / 'images' / f'{path.stem}.npy', LoadMultiBandImage().read(path).astype(np.uint16))
    first = predictions(data / 'val', file, checkpoint, tmp_path / 'tif')
    assert first and first == predictions(tmp_path / 'images', file, checkpoint, tmp_path / 'npy')
    assert capsys.readouterr().out.count('drawn: bands 0, 1, 2 as red') == 2


def predictions(source: Path, file: str, model: str | Path, out: Path) -> dict[str, bytes]:
    """Predict on a folder; return the results by name, except for the list of the images."""
    assert call('predict', source, file, model, '--out-dir', out, '--score-thr', 0) == 0
    paths = (path for path in out.rglob('*.*') if path.name != 'images.json')
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


def test_sheet_shows_chosen_bands(data, tmp_path):
    file, sheets = config('segmentation/hire_mlp_upernet_bands'), []
    for show in ('(0,1,2)', '(4,4,4)'):
        out, setting = tmp_path / f'{len(sheets)}.png', f'train_dataloader.dataset.pipeline.0.show={show}'
        assert call('browse', file, '--data-root', data, '--out', out, '--num', 1, '--cfg-options', setting) == 0
        sheets.append(cv2.imread(str(out)))
    assert sheets[0].shape == sheets[1].shape and not np.array_equal(*sheets)


def test_data_check_names_an_image_of_other_bands(data, tmp_path, capsys):
    images = tmp_path / 'data'
    write_shapes(images, num_train=2, num_val=1, size=32, bands=4)
    file = config('segmentation/hire_mlp_upernet_bands')
    assert call('train', file, '--data-root', images, '--check-data', '--work-dir', tmp_path / 'run') == 2
    assert '000000.tif has 4 bands, but the model takes 5; use images with 5 bands' in capsys.readouterr().err
