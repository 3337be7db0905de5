"""Reports of tests: their numbers are those of pycocotools and mmsegmentation."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from pycocotools import mask as masks

from mlp_dense.errors import UserError
from mlp_dense.reports import make_comparison, make_report, processes, segmentation
from mlp_dense.reports.gallery import choose
from mlp_dense.reports.results import Results
from support.configs import DETECTION, SEGMENTATION, thin
from support.detections import random_coco
from support.tools import NO_WORKERS, call

CLASSES = 5


@pytest.fixture(scope='module')
def results(tmp_path_factory) -> Path:
    """The folder of a report, whose detections are made up."""
    return write_results(tmp_path_factory.mktemp('report'), seed=1)


def write_results(root: Path, seed: int, worse: float = 0.0) -> Path:
    content, found = random_coco(30, CLASSES, seed=1)
    images = root / 'images'
    images.mkdir(parents=True)
    for image in content['images']:
        cv2.imwrite(str(images / image['file_name']), np.full((240, 320, 3), 128, np.uint8))
    (root / 'truth.json').write_text(json.dumps(content))
    random = np.random.default_rng(seed)
    kept = [each for each in found if random.random() >= worse]
    tested = Results(
        name=f'made up {seed}', task='detection', classes=[f'class{i}' for i in range(CLASSES)], palette=None,
        metrics={'coco/bbox_mAP': 0.5}, config='config.py', checkpoint='weights.pth', images=str(images),
        annotations=str(root / 'truth.json'), model={'million parameters': 3.0 + seed, 'GMACs': 2.0},
        folder=root / 'report',
    )  # fmt: skip
    tested.write()
    for kind in ('bbox', 'segm'):
        tested.file(f'predictions.{kind}.json').write_text(json.dumps(kept))
    return root / 'report'


def test_detection(results):
    page = make_report(results, score_thr=0.3, pictures=12)
    content = json.loads((results / 'report.json').read_text())
    table = content['tables']['Classes: masks']
    assert [row['class'] for row in table] == [f'class{i}' for i in range(CLASSES)]
    assert content['segm']['AP'] == pytest.approx(np.mean([row['AP'] for row in table]))
    assert sum(row['objects'] for row in table) == np.sum(content['segm']['confusion'][:-1])
    assert content['segm']['errors'].keys() >= {'classification', 'localization', 'both', 'duplicate', 'missed'}
    data = json.loads((results / 'data.js').read_text().removeprefix('const REPORT = ').rstrip(';\n'))
    (gallery,) = (section for section in data['sections'] if section['type'] == 'gallery')
    assert len(gallery['pictures']) == 12 == len(list((results / 'pictures').iterdir()))
    errors = [sum(gallery['kinds'][o[0]][0] not in ('hit', 'truth') for o in p['objects']) for p in gallery['pictures']]
    assert errors == sorted(errors, reverse=True) and errors[0] > 0
    never = content['tables']['Objects missed by every threshold']
    assert len(never) == sum(row['never hit'] for row in table) > 0
    assert page == results / 'index.html' and sorted(p.stem for p in (results / 'plots').iterdir()) == sorted(
        f'{name}_{kind}' for kind in ('boxes', 'masks')
        for name in ('precision_recall', 'errors', 'confusion', 'calibration')
    )  # fmt: skip
    make_report(results, score_thr=0.3, pictures=12)
    assert json.loads((results / 'report.json').read_text()) == content, 'again from the same results'
    make_report(results, score_thr=0.3, pictures=5)
    assert len(list((results / 'pictures').iterdir())) == 5, 'those of the larger page are gone'


def test_comparison(results, tmp_path):
    other = write_results(tmp_path / 'worse', seed=2, worse=0.8)
    page = make_comparison([results, other], tmp_path / 'compared', resamples=100)
    content = json.loads((page.parent / 'report.json').read_text())
    first, second = content['tables']['Runs']
    assert first['difference'] is None and second['difference to'] < 0, 'most of the detections are gone'
    assert second['difference'] == pytest.approx(second['mean segm AP'] - first['mean segm AP'])
    assert second['from'] < second['mean segm AP'] < second['to']
    same = write_results(tmp_path / 'same', seed=3)
    page = make_comparison([results, same], tmp_path / 'equal', resamples=20)
    assert json.loads((page.parent / 'report.json').read_text())['tables']['Runs'][1]['difference'] == 0
    with pytest.raises(UserError, match='are not of the same task and classes: compare equal tests'):
        file = same / 'results' / 'run.json'
        file.write_text(file.read_text().replace('"class4"', '"other"'))
        make_comparison([results, same], tmp_path / 'refused')


def test_worst_of_every_class():
    assert choose([3, 1, 2, 0], [{0}, {1}, {0}, set()], 2) == [0, 1], (
        'the only one of class 1 comes before the second of 0'
    )
    assert choose([3, 1, 2, 0], [{0}, {1}, {0}, set()], 4) == [0, 2, 1, 3]


@pytest.mark.parametrize('config', [DETECTION, SEGMENTATION], ids=['detection', 'segmentation'])
@pytest.mark.slow
def test_of_a_test(config, shapes, tmp_path, capsys):
    """With random weights; a second report of the same results is the same."""
    cfg = Config.fromfile(config)
    thin(cfg)
    if config == DETECTION:
        cfg.model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=20)
    cfg.dump(tmp_path / 'thin.py')
    init_default_scope(cfg.default_scope)
    import torch

    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'weights.pth')
    folder = tmp_path / 'report'
    options = ['--data-root', shapes, '--work-dir', tmp_path / 'test', '--report', folder, '--cfg-options', *NO_WORKERS]
    assert call('test', tmp_path / 'thin.py', tmp_path / 'weights.pth', *options) == 0
    assert f'The report: {folder}/index.html' in capsys.readouterr().out
    metrics = json.loads((tmp_path / 'test' / 'metrics.json').read_text())
    content = json.loads((folder / 'report.json').read_text())
    run = json.loads((folder / 'results' / 'run.json').read_text())
    assert (
        run['model'].keys() == {'million parameters', 'GMACs', 'ms an image (cpu)'} and min(run['model'].values()) > 0
    )
    if config == DETECTION:
        for kind in ('bbox', 'segm'):
            for ours, theirs in dict(AP='mAP', AP50='mAP_50', AP75='mAP_75', AP_large='mAP_l').items():
                value = content[kind][ours]
                assert round(-1 if value is None else value, 3) == pytest.approx(
                    metrics[f'coco/{kind}_{theirs}'], abs=1e-9
                )
    else:
        for name in ('mIoU', 'mAcc', 'aAcc'):
            assert 100 * content[name] == pytest.approx(metrics[name], abs=0.0051)
    assert len(list((folder / 'pictures').iterdir())) == 8
    assert call('report', folder) == 0
    assert json.loads((folder / 'report.json').read_text()) == content
    (folder / 'mine.txt').write_text('')
    assert call('test', tmp_path / 'thin.py', tmp_path / 'weights.pth', *options) == 2
    assert 'holds other things than a report (mine.txt)' in capsys.readouterr().err


def segmented(folder: Path) -> Results:
    """Two images of two classes and one that is ignored: a square of 40 pixels, found 10 pixels further right."""
    results = Results(
        name='made up', task='segmentation', classes=['ground', 'square'], palette=[[0, 0, 0], [255, 0, 0]],
        metrics={}, config='', checkpoint='', images='', ignore_index=7, folder=folder,
    )  # fmt: skip
    truth, found = np.zeros((2, 100, 200), np.uint8)
    truth[30:70, 50:90], found[30:70, 60:100] = 1, 1
    truth[:10] = 7
    for side, labels in (('truth', truth), ('labels', found)):
        results.file(side).mkdir(parents=True)
        for name in 'ab':
            cv2.imwrite(str(results.file(side, f'{name}.png')), labels)
    results.write()
    cv2.imwrite(str(folder / 'image.jpg'), np.zeros((100, 200, 3), np.uint8))
    results.file('images.json').write_text(json.dumps(dict.fromkeys('ab', str(folder / 'image.jpg'))))
    return results


def test_segmentation_by_hand(tmp_path):
    results = segmented(tmp_path)
    with processes() as pool:
        image, _ = segmentation.read_images(results, pool)
        report = segmentation.report(results, 0.3, 5, pool)
    assert image.confusion.tolist() == [[200 * 90 - 1600 - 400, 400], [400, 1200]]
    assert image.wrong == pytest.approx(800 / 18000)
    assert image.sizes[1].tolist() == [[0, 0, 0, 0], [1, 1, 1600, 1200], [0, 0, 0, 0]]
    assert image.sizes[0].tolist() == [[0] * 4, [0] * 4, [1, 1, 16400, 16000]]
    band = 0.02 * np.hypot(100, 200)
    assert 4 < band < 5
    inside = 40 * 40 - 32 * 32  # pixels of the square whose distance to one outside is up to 4: those have distance 0
    assert abs(image.near[1].sum() - inside) <= 4 * 40, 'a frame of the square, four or five pixels wide'
    rows = {row[0]: row for row in report.sections[0].rows}
    assert rows['square'][1] == pytest.approx(1200 / 2000) and rows['square'][2] == pytest.approx(0.75)
    assert report.numbers['mIoU'] == pytest.approx(np.mean([16000 / 16800, 0.6]))
    gallery = report.sections[1]
    assert 'ground taken for square: 50 %' in gallery.pictures[0].caption
    assert cv2.imread(str(tmp_path / gallery.pictures[0].file)).shape == (640, 1280, 3), 'four enlarged ones'


@pytest.mark.parametrize('change, said', [
    (lambda folder: (folder / 'results' / 'run.json').unlink(), 'holds no results'),
    (lambda folder: (folder / 'results' / 'run.json').write_text('{}'), 'cannot be read'),
    (lambda folder: (folder / 'results' / 'images.json').unlink(), 'images.json does not exist; test again with'),
    (lambda folder: (folder / 'results' / 'labels' / 'a.png').write_text(''), 'cannot be read; test again'),
])  # fmt: skip
def test_damaged_results(tmp_path, change, said):
    folder = segmented(tmp_path).folder
    change(folder)
    with pytest.raises(UserError, match=said):
        make_report(folder)


def test_masks():
    """Of the outline, as of a mask in counts and polygons."""
    from mlp_dense.reports.coco_results import as_rle
    from mlp_dense.reports.gallery import outline

    polygon = [[10, 10, 50, 10, 50, 40, 10, 40]]
    rle = as_rle(polygon, 60, 80)
    assert masks.area(rle) == 40 * 30
    assert masks.area(as_rle(dict(size=[60, 80], counts=[0, 60, 4740]), 60, 80)) == 60
    assert outline(rle, 60, 80).startswith('M10 10L') and outline(rle, 60, 80).endswith('Z')
    assert outline(rle, 30, 40).startswith('M5 5L')
