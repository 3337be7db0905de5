"""Loading of images of any bands and bits, their statistics and their display."""

import sys

import cv2
import numpy as np
import pytest

from mlp_dense.datasets import bands, stats
from mlp_dense.datasets.bands import LoadMultiBandImage
from mlp_dense.datasets.shapes import BAND_CLASSES, write_shapes
from mlp_dense.errors import NotInstalledError, UnreadableError, UserError

tifffile = pytest.importorskip('tifffile', reason="tifffile of the extra 'data' is not installed")
SAVED = np.random.default_rng(0).integers(0, 2**16, (20, 30, 5), dtype=np.uint16)
LABELLED = dict(photometric='minisblack')
RGB = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
FILES = {
    'interleaved.tif': lambda file: tifffile.imwrite(file, SAVED, planarconfig='contig', **LABELLED),
    'planar.tif': lambda file: tifffile.imwrite(file, np.moveaxis(SAVED, 2, 0), planarconfig='separate', **LABELLED),
    'compressed.tiff': lambda file: tifffile.imwrite(
        file, SAVED, planarconfig='contig', compression='zlib', predictor=True, **LABELLED
    ),
    'pages.tif': lambda file: tifffile.imwrite(file, np.moveaxis(SAVED, 2, 0)),
    'rows_as_pages.tif': lambda file: tifffile.imwrite(file, SAVED),
    'imagej.tif': lambda file: tifffile.imwrite(file, np.moveaxis(SAVED, 2, 0), imagej=True, metadata=dict(axes='CYX')),
    'last.npy': lambda file: np.save(file, SAVED),
    'first.npy': lambda file: np.save(file, np.moveaxis(SAVED, 2, 0)),
    'float.npy': lambda file: np.save(file, SAVED.astype(np.float64)),
}


@pytest.mark.parametrize('name', FILES)
def test_all_layouts_of_a_file_give_equal_bands(name, tmp_path):
    FILES[name](tmp_path / name)
    results = LoadMultiBandImage()(dict(img_path=str(tmp_path / name)))
    assert results['img'].dtype == np.float32 and np.array_equal(results['img'], SAVED)
    assert results['img_shape'] == results['ori_shape'] == (20, 30)


def test_overviews_are_ignored(tmp_path):
    with tifffile.TiffWriter(tmp_path / 'image.tif') as file:
        for step in (1, 2):
            reduced = dict(subfiletype=1) if step > 1 else {}
            file.write(SAVED[::step, ::step], planarconfig='contig', metadata=None, **LABELLED, **reduced)
    assert np.array_equal(LoadMultiBandImage().read(tmp_path / 'image.tif'), SAVED)


@pytest.mark.parametrize(
    ('name', 'image'),
    [
        ('grey.png', SAVED[..., :1]),
        ('deep.png', SAVED[..., :3]),
        ('alpha.png', SAVED[..., :4]),
        ('rgb.bmp', RGB),
        ('grey.npy', SAVED[..., :1]),
        ('grey_lzw.tif', SAVED[..., :1]),
        ('rgb_lzw.tif', SAVED[..., :3]),
    ],
)
def test_ordinary_files_keep_their_bits_in_rgb_order(name, image, tmp_path):
    file = tmp_path / name
    if file.suffix == '.npy':
        np.save(file, image[..., 0])
    else:
        cv2.imwrite(str(file), image[..., [2, 1, 0, 3][: image.shape[2]]] if image.shape[2] > 1 else image)
    assert np.array_equal(LoadMultiBandImage().read(file), image)


def test_jpeg_is_turned_by_its_orientation_as_by_mmcv(tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(RGB).save(tmp_path / 'a.jpg', exif=exif)
    assert np.array_equal(LoadMultiBandImage().read(tmp_path / 'a.jpg')[..., ::-1], cv2.imread(str(tmp_path / 'a.jpg')))


@pytest.mark.parametrize(('shape', 'found'), [((5, 20, 6), 'both the first'), ((20, 7, 30), 'neither the first')])
def test_unclear_layout_needs_a_setting(shape, found, tmp_path):
    np.save(tmp_path / 'a.npy', np.zeros(shape))
    with pytest.raises(UserError, match=rf"a\.npy has shape .*{found}.*set channels='first' or channels='last'"):
        LoadMultiBandImage().read(tmp_path / 'a.npy')
    assert LoadMultiBandImage(channels='first').read(tmp_path / 'a.npy').shape == (*shape[1:], shape[0])
    assert LoadMultiBandImage(channels='last').read(tmp_path / 'a.npy').shape == shape


def _write_two_images(file):
    with tifffile.TiffWriter(file) as writer:
        for _ in range(2):
            writer.write(SAVED[..., 0], metadata=None, contiguous=False)
            writer.write(SAVED[:9, :9, 0], metadata=None, contiguous=False)


BAD = {
    'absent.tif': (lambda file: None, UnreadableError, 'does not exist'),
    'text.tif': (
        lambda file: file.write_text('x' * 99),
        UnreadableError,
        r'is not a readable image .*replace',
    ),
    'short.npy': (lambda file: file.write_bytes(b'\x93NUMPY\1\0'), UnreadableError, 'is not a readable image'),
    'text.png': (lambda file: file.write_text('x' * 99), UnreadableError, 'OpenCV cannot decode it'),
    'pickle.npy': (lambda file: np.save(file, np.array([{}]), allow_pickle=True), UnreadableError, 'not a readable'),
    'complex.npy': (lambda file: np.save(file, np.ones((4, 4), complex)), UnreadableError, 'save integers or real'),
    'empty.npy': (lambda file: np.save(file, np.ones((0, 4))), UnreadableError, r'shape \(0, 4\)'),
    'nan.npy': (lambda file: np.save(file, np.where(SAVED < 99, np.nan, SAVED)), UnreadableError, r'NaN.*\['),
    'line.npy': (lambda file: np.save(file, np.ones(4)), UserError, 'save one image of height, width and bands'),
    'several.tif': (_write_two_images, UserError, 'contains several images, of shapes'),
    'time.tif': (
        lambda file: tifffile.imwrite(file, np.moveaxis(SAVED, 2, 0), imagej=True, metadata=dict(axes='TYX')),
        UserError,
        'with axes TYX; save one image',
    ),
}


@pytest.mark.parametrize(('name', 'write', 'error', 'message'), [(name, *case) for name, case in BAD.items()], ids=BAD)
def test_unusable_file_is_one_sentence(name, write, error, message, tmp_path):
    write(tmp_path / name)
    with pytest.raises(error, match=message) as raised:
        LoadMultiBandImage().read(tmp_path / name)
    assert name in str(raised.value) and type(raised.value) is error


@pytest.mark.parametrize('name', ['interleaved.tif', 'compressed.tiff', 'pages.tif', 'last.npy'])
def test_truncated_file_is_unreadable(name, tmp_path):
    FILES[name](tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) * 9 // 10])
    with pytest.raises(UnreadableError, match='is not a readable image'):
        LoadMultiBandImage().read(tmp_path / name)


def test_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    FILES['planar.tif'](tmp_path / 'planar.tif')
    monkeypatch.setitem(sys.modules, 'tifffile', None)
    message = r"tifffile is not installed: pip install 'mlp_dense\[data\]'"
    with pytest.raises(NotInstalledError, match=message):
        LoadMultiBandImage().read(tmp_path / 'planar.tif')
    with pytest.raises(NotInstalledError, match=message):
        write_shapes(tmp_path / 'a', bands=5)
    assert not (tmp_path / 'a').exists()


@pytest.mark.parametrize('arguments', [dict(channels='middle'), dict(show=[0, 1]), dict(show=[0, 1, -1])])
def test_wrong_argument_is_one_sentence(arguments):
    with pytest.raises(UserError, match=r'LoadMultiBandImage: .*; use '):
        LoadMultiBandImage(**arguments)


def test_chosen_bands_are_stretched_between_their_percentiles():
    image = np.tile(np.arange(1000, dtype=np.float32)[:, None, None], (1, 2, 4)) * [1, 10, 100, 0]
    shown = LoadMultiBandImage(show=(2, 0, 3)).rgb(image)
    assert shown.shape == (1000, 2, 3) and shown.dtype == np.uint8
    assert not shown[..., 2].any(), 'a constant band is black'
    assert np.array_equal(shown[..., 0], shown[..., 1]), 'bands of other ranges look equal'
    assert np.count_nonzero(shown[:, 0, 0] == 0) >= 20 and np.count_nonzero(shown[:, 0, 0] == 255) >= 20
    assert abs(int(shown[500, 0, 0]) - 127) < 2
    assert np.ptp(LoadMultiBandImage().rgb(image[..., :2]), axis=2).max() == 0, 'grey'
    assert 'bands 2, 0, 3 as red' in LoadMultiBandImage(show=(2, 0, 3)).description(4)
    with pytest.raises(
        UserError, match=r'show is \[0, 1, 9\], but an image has 4 bands; set show to bands from 0 to 3\.'
    ):
        LoadMultiBandImage(show=(0, 1, 9)).rgb(image)


def test_statistics_are_those_of_all_pixels(tmp_path):
    arrays = [SAVED, SAVED[:19] // 2, SAVED[:, :17] + 5]
    for i, array in enumerate(arrays):
        np.save(tmp_path / f'{i}.npy', array + np.array([0, 0, 0, 0, 10.0**7]))
    mean, std = stats.measure_bands(stats.image_files(tmp_path), LoadMultiBandImage())
    pixels = np.concatenate([array.reshape(-1, 5) for array in arrays]) + np.array([0, 0, 0, 0, 10.0**7])
    pixels = pixels.astype(np.float32).astype(float)
    assert mean == pytest.approx(pixels.mean(0), 1e-9) and std == pytest.approx(pixels.std(0), 1e-9)
    scope = {}
    exec(stats.settings(mean, std), scope)
    assert scope['model']['backbone'] == dict(in_channels=5) and len(scope['model']['data_preprocessor']['std']) == 5


def test_statistics_of_other_bands_or_of_nothing_are_errors(tmp_path):
    with pytest.raises(UserError, match=r'contains no images; .*\.npy'):
        stats.image_files(tmp_path)
    np.save(tmp_path / 'a.npy', SAVED)
    np.save(tmp_path / 'b.npy', SAVED[..., :4])
    with pytest.raises(UserError, match=r'a\.npy has 5 bands, but .*b\.npy has 4'):
        stats.measure_bands(stats.image_files(tmp_path), LoadMultiBandImage())
    np.save(tmp_path / 'b.npy', SAVED * [1, 1, 1, 1, 0])
    with pytest.raises(UserError, match=r'Bands \[4\] are constant over 1 image;'):
        stats.measure_bands([tmp_path / 'b.npy'], LoadMultiBandImage())


def test_discs_differ_in_infrared_bands_alone(tmp_path):
    write_shapes(tmp_path / 'data', num_train=40, num_val=1, size=64, bands=5)
    files = sorted((tmp_path / 'data' / 'train').iterdir())
    images = [LoadMultiBandImage().read(file) for file in files]
    assert {image.shape for image in images} == {(64, 64, 5)} and files[0].suffix == '.tif'
    labels = [cv2.imread(str(tmp_path / f'data/labels/train/{file.stem}.png'), -1) for file in files]
    pairs = list(zip(images, labels, strict=True))
    objects = {
        name: np.array([image[labels == label].mean(0) for image, labels in pairs if label in labels])
        for label, name in enumerate(BAND_CLASSES, start=2)
    }
    cold, warm = objects['cold disc'], objects['warm disc']
    assert (cold[:, 3:].max(0) < warm[:, 3:].min(0)).all(), 'one threshold on an infrared band separates them'
    difference = np.abs(cold[:, :3].mean(0) - warm[:, :3].mean(0))
    assert (difference < cold[:, :3].std(0)).all(), 'red, green and blue overlap'
    with pytest.raises(UserError, match='4 to 12 bands'):
        write_shapes(tmp_path / 'other', bands=2)
    assert bands.multi_band_loader([dict(type='LoadImageFromFile')]) is None
