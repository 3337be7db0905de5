"""Problems of images and labels are reported before the first iteration."""

import shutil

import cv2
import pytest
from mmengine.config import Config

from mlp_dense.checks.data_check import is_truncated
from mlp_dense.registry import config_path
from support.configs import DETECTION, SEGMENTATION


@pytest.mark.slow
def test_table_lists_unreadable_images_and_wrong_sizes(data, change_annotations, train):
    train_images = sorted((data / 'train').iterdir())
    train_images[1].write_bytes(b'no image')
    change_annotations('train', lambda content: content['images'][2].update(width=103))
    status, output, errors = train(DETECTION, max_unreadable=0.2)
    assert status == 0, errors
    table = output[output.index('Problems in the data') :]
    assert f'train      1  images or label maps cannot be read, and will be skipped: {train_images[1]}\n' in table
    assert f'train      1  image size differs from the annotations: {train_images[2]}\n' in table
    assert 'also in the training data' not in table


def test_truncated_image_is_detected(data):
    """OpenCV 4 pads a truncated JPEG with grey, OpenCV 5 refuses it."""
    file = next((data / 'train').iterdir())
    assert not is_truncated(file)
    file.write_bytes(file.read_bytes()[:-300])
    assert is_truncated(file)


@pytest.mark.slow
def test_validation_on_training_images_is_reported(data, train):
    shutil.copy(data / 'annotations' / 'instances_train.json', data / 'annotations' / 'instances_val.json')
    status, output, _ = train(DETECTION, **{'val_dataloader.dataset.data_prefix.img': 'train/'})
    assert status == 0
    assert 'val        2  images are also in the training data: the metrics will be too good: ' in output


@pytest.mark.slow
def test_data_without_problems_print_no_table(train):
    status, output, _ = train(SEGMENTATION)
    assert status == 0 and 'Problems in the data' not in output


@pytest.mark.slow
@pytest.mark.parametrize(('options', 'detected'), [([], False), (['--check-data'], True)])
def test_check_data_checks_all_images(data, train, monkeypatch, options, detected):
    monkeypatch.setattr('mlp_dense.checks.data_check.SAMPLE', 2)
    monkeypatch.setattr('mlp_dense.checks.data_check.MAX_MAPS', 2)
    file = sorted((data / 'labels' / 'train').iterdir())[3]
    labels = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    labels[:] = 200
    cv2.imwrite(str(file), labels)
    status, output, errors = train(SEGMENTATION, *options, **{'train_dataloader.sampler.shuffle': False})
    assert status == 2 and f'{file.name} contains the label 200' in errors
    assert ('error   train      1  ' in output) == detected
    assert ('Iter(train)' in output) != detected


@pytest.mark.slow
@pytest.mark.parametrize(('options', 'trains'), [([], False), (['--train'], True)])
def test_check_data_ends_unless_train_follows(train, tmp_path, options, trains):
    status, output, errors = train(SEGMENTATION, '--check-data', *options)
    assert status == 0, errors
    assert ('Checked 10 images, their labels and annotations.' in output) != trains
    assert ('Iter(train)' in output) == (tmp_path / 'run' / 'iter_4.pth').exists() == trains


def test_data_of_other_projects_are_checked():
    assert Config.fromfile(config_path('_base_/exact_training.py')).exact_hooks.data_check.type == (
        'mlp_dense.DataCheckHook'
    )
