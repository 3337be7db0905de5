"""Values of reports equal those of pycocotools and mmsegmentation."""

import dataclasses
import json
import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from pycocotools import mask as masks
from safetensors.torch import save_file

from mlp_dense.datasets.image_files import write_image
from mlp_dense.errors import UserError
from mlp_dense.outputs import replacing
from mlp_dense.reports import segmentation
from mlp_dense.reports.detection import match_shard, read_data
from mlp_dense.reports.making import make_comparison, make_report, module_of
from mlp_dense.reports.matching import average_precision
from mlp_dense.reports.page import choose, outline
from mlp_dense.reports.results import Results, read_results, without_undefined
from mlp_dense.tasks import TASKS
from mlp_dense.training.mmdet_fixes import CocoMetric
from support.configs import DETECTION, SEGMENTATION, thin
from support.detections import random_coco
from support.tools import NO_WORKERS, call

CLASSES = 5


@pytest.fixture(scope='module')
def results(tmp_path_factory) -> Path:
    """Return the folder of a report with random detections."""
    return write_results(tmp_path_factory.mktemp('report'), seed=1)


def write_results(root: Path, seed: int, dropped: float = 0.0) -> Path:
    content, detections = random_coco(30, CLASSES, seed=1)
    images = root / 'images'
    images.mkdir(parents=True)
    for image in content['images']:
        cv2.imwrite(str(images / image['file_name']), np.full((240, 320, 3), 128, np.uint8))
    (root / 'truth.json').write_text(json.dumps(content))
    random = np.random.default_rng(seed)
    kept = [detection for detection in detections if random.random() >= dropped]
    results = Results(
        name=f'random {seed}', task='detection', classes=[f'class{i}' for i in range(CLASSES)], palette=None,
        metrics={'coco/bbox_mAP': 0.5}, config='config.py', checkpoint='weights.pth', images=str(images),
        annotations=str(root / 'truth.json'), model={'million parameters': 3.0 + seed, 'GMACs': 2.0},
    )  # fmt: skip
    with replacing(root / 'report') as results.folder:
        results.write()
        for geometry in ('bbox', 'segm'):
            results.file(f'predictions.{geometry}.json').write_text(json.dumps(kept))
    return root / 'report'


def page_of(folder: Path) -> dict:
    return json.loads((folder / 'data.js').read_text().removeprefix('const REPORT = ').rstrip(';\n'))


def test_detection_report_has_all_values_and_sections(results, one_process):
    page = make_report(results, score_thr=0.3, max_images=12)
    content = json.loads((results / 'report.json').read_text())
    table = content['tables']['Classes: masks']
    assert [row['class'] for row in table] == [f'class{i}' for i in range(CLASSES)]
    assert content['segm']['AP'] == pytest.approx(np.mean([row['AP'] for row in table]))
    assert sum(row['objects'] for row in table) == np.sum(content['segm']['confusion'][:-1])
    assert content['segm']['errors'].keys() >= {'classification', 'localization', 'both', 'duplicate', 'missed'}
    sections = page_of(results)['sections']
    titles = [section['title'] for section in sections]
    boxes, masks = ([i for i, title in enumerate(titles) if title.endswith(name)] for name in ('boxes', 'masks'))
    assert titles[:2] == ['Classes: boxes', 'Images'] and max(boxes) < min(masks), 'boxes come before masks'
    (gallery,) = (section for section in sections if section['type'] == 'gallery')
    assert len(gallery['images']) == 12 == len(list((results / 'pictures').iterdir()))
    errors = [sum(item['outcome'] not in ('hit', 'truth') for item in image['objects']) for image in gallery['images']]
    assert errors == sorted(errors, reverse=True) and errors[0] > 0
    assert min(row['never hit'] for row in table) >= 0 < sum(row['never hit'] for row in table)
    assert page == results / 'index.html' and sorted(p.stem for p in (results / 'plots').iterdir()) == sorted(
        f'{name}_{subject}' for subject in ('boxes', 'masks')
        for name in ('precision_recall', 'confusion', 'calibration')
    )  # fmt: skip
    make_report(results, score_thr=0.3, max_images=5)
    assert json.loads((results / 'report.json').read_text()) == content, 'the second report of the same results'
    assert len(list((results / 'pictures').iterdir())) == 5, 'images of the larger report are removed'


def test_order_of_category_ids_does_not_matter(tmp_path):
    precisions = []
    for name, ids in (('ascending', range(1, 2 * CLASSES, 2)), ('descending', range(2 * CLASSES - 1, 0, -2))):
        folder = write_results(tmp_path / name, seed=1)
        for file in (tmp_path / name / 'truth.json', folder / 'results' / 'predictions.bbox.json'):
            content = json.loads(file.read_text())
            for record in content if isinstance(content, list) else content['annotations']:
                record['category_id'] = ids[record['category_id'] // 2]
            if isinstance(content, dict):
                content['categories'] = [dict(id=ids[i], name=f'class{i}') for i in range(CLASSES)]
            file.write_text(json.dumps(content))
        (folder / 'results' / 'predictions.segm.json').unlink()
        data = read_data(read_results(folder))
        matches, _ = match_shard([data.sample(image, 'bbox') for image in data.images], 'bbox', CLASSES, 0.3)
        precisions.append(average_precision([areas[0] for areas in matches]).tolist())
    assert precisions[0] == precisions[1] and len(set(precisions[0])) == CLASSES


IDS = {
    'from 0': lambda i: i,
    'with gaps': lambda i: 7 * i + 3,
    'text': 'a{}'.format,
    'UUIDs': lambda i: str(uuid.UUID(int=i)),
    'equal': lambda i: 1,
    'absent': lambda i: None,
}


@pytest.mark.parametrize('name', IDS)
def test_ap_is_the_same_in_metric_report_and_comparison_for_any_ids(name, tmp_path):
    """The annotations of one image have text as ids of the image."""
    folder = write_results(tmp_path, seed=1)
    expected = scores_of(read_results(folder))
    truth = json.loads((tmp_path / 'truth.json').read_text())
    for i, annotation in enumerate(truth['annotations']):
        annotation['id'] = IDS[name](i)
        annotation['image_id'] = str(annotation['image_id']) if i < 5 else annotation['image_id']
    (tmp_path / 'truth.json').write_text(json.dumps(truth))
    results = read_results(folder)
    ap_of_classes = scores_of(results)
    np.testing.assert_array_equal(ap_of_classes, expected)
    for geometry, measured in (('segm', np.nanmean(ap_of_classes)), ('bbox', None)):
        metric = CocoMetric(ann_file=str(tmp_path / 'truth.json'), metric=geometry)
        metric.dataset_meta = dict(classes=results.classes)
        detections = json.loads(results.file(f'predictions.{geometry}.json').read_text())
        for image in truth['images']:
            metric.process(
                {}, [dict(img_id=image['id'], ori_shape=(240, 320), pred_instances=of_image(image, detections))]
            )
        ap = metric.evaluate(len(truth['images']))[f'coco/{geometry}_mAP']
        assert measured is None or ap == pytest.approx(measured, abs=6e-4)
    values = module_of(results).report(results, 0.3, 1, ThreadPoolExecutor(1), tmp_path).values
    assert values['bbox']['AP'] == pytest.approx(ap, abs=6e-4)
    assert values['segm']['AP'] == pytest.approx(np.nanmean(ap_of_classes))


def scores_of(results: Results) -> np.ndarray:
    """Return the AP of each class, as a comparison uses it."""
    return module_of(results).scores(results, 0.3, ThreadPoolExecutor(1)).of_classes(None)


def of_image(image: dict, detections: list[dict]) -> dict:
    """Return the detections of an image as a detector predicts them."""
    own = [detection for detection in detections if detection['image_id'] == image['id']]
    boxes = torch.tensor([detection['bbox'] for detection in own]).reshape(-1, 4)
    labels = torch.tensor([detection['category_id'] // 2 for detection in own], dtype=torch.long)
    scores = torch.tensor([detection['score'] for detection in own])
    corners = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
    return dict(bboxes=corners, labels=labels, scores=scores, masks=[detection['segmentation'] for detection in own])


def test_crowds_count_as_objects_in_the_report_too(tmp_path):
    folder = write_results(tmp_path, seed=1)
    counts = {}
    for crowds in ('ignored', 'as-objects'):
        data = read_data(dataclasses.replace(read_results(folder), crowds=crowds))
        counts[crowds] = sum(annotation['iscrowd'] for annotation in data.truth.anns.values())
    assert counts['ignored'] > 0 == counts['as-objects']


def test_report_without_sched_getaffinity(tmp_path, monkeypatch):
    """MacOS does not have this function."""
    monkeypatch.delattr(os, 'sched_getaffinity', raising=False)
    folder = segmented(tmp_path).folder
    assert make_report(folder, max_images=1).is_file()


def test_comparison_has_differences_and_intervals(results, tmp_path):
    worse = write_results(tmp_path / 'worse', seed=2, dropped=0.8)
    page = make_comparison([results, worse], tmp_path / 'compared', resamples=100)
    content = json.loads((page.parent / 'report.json').read_text())
    first, second = content['tables']['Runs']
    assert first['difference'] == 0 and second['difference to'] < 0, 'most of the detections are dropped'
    assert second['difference'] == pytest.approx(second['mean segm AP'] - first['mean segm AP'])
    assert second['from'] < second['mean segm AP'] < second['to']


def test_equal_runs_have_no_difference(results, tmp_path, one_process):
    same = write_results(tmp_path / 'same', seed=1)
    page = make_comparison([results, same], tmp_path / 'equal', resamples=20)
    content = json.loads((page.parent / 'report.json').read_text())
    second = content['tables']['Runs'][1]
    assert second['difference'] == 0
    assert second['run'].startswith('random 1 (') and second['run'].endswith('/same)'), 'the runs have one name'
    with pytest.raises(UserError, match='differ in task or classes; choose tests of the same data set'):
        file = same / 'results' / 'run.json'
        file.write_text(file.read_text().replace('"class4"', '"other"'))
        make_comparison([results, same], tmp_path / 'refused')


def test_every_task_has_a_report_module():
    for task in TASKS.values():
        results = Results(task.name, task.name, [], None, {}, '', '', '')
        assert all(callable(getattr(module_of(results), name)) for name in ('report', 'scores'))


def test_choose_takes_the_worst_image_of_each_class():
    classes = [{0}, {1}, {0}, set()]
    assert choose([3, 1, 2, 0], classes, 2) == [0, 1], 'the only image of class 1 comes before the second of class 0'
    assert choose([3, 1, 2, 0], classes, 4) == [0, 2, 1, 3]


@pytest.mark.parametrize('config', [DETECTION, SEGMENTATION], ids=['detection', 'segmentation'])
@pytest.mark.slow
def test_report_of_the_test_tool_equals_its_metrics(config, shapes, tmp_path, capsys):
    """Weights are random; a second report of the same results is equal."""
    cfg = Config.fromfile(config)
    thin(cfg)
    if config == DETECTION:
        cfg.model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=20)
    cfg.dump(tmp_path / 'thin.py')
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    weights = tmp_path / 'weights.safetensors'
    save_file(model.state_dict(), weights)
    folder = tmp_path / 'report'
    options = ['--data-root', shapes, '--work-dir', tmp_path / 'test', '--report', folder, '--cfg-options', *NO_WORKERS]
    assert call('test', tmp_path / 'thin.py', weights, *options) == 0
    assert f'{folder}/index.html' in capsys.readouterr().out
    metrics = json.loads((tmp_path / 'test' / 'metrics.json').read_text())
    content = json.loads((folder / 'report.json').read_text())
    run = json.loads((folder / 'results' / 'run.json').read_text())
    assert run['model'].keys() == {'million parameters', 'GMACs', 'ms an image (cpu)'}
    assert min(run['model'].values()) > 0
    if config == DETECTION:
        for geometry in ('bbox', 'segm'):
            for name, metric in dict(AP='mAP', AP50='mAP_50', AP75='mAP_75', AP_large='mAP_l').items():
                value = content[geometry][name]
                assert (value and round(value, 3)) == pytest.approx(metrics[f'coco/{geometry}_{metric}'], abs=1e-9)
    else:
        for name in ('mIoU', 'mAcc', 'aAcc'):
            assert 100 * content[name] == pytest.approx(metrics[name], abs=0.0051)
    assert len(list((folder / 'pictures').iterdir())) == 8
    assert call('report', folder) == 0
    assert json.loads((folder / 'report.json').read_text()) == content
    (folder / 'mine.txt').write_text('')
    assert call('test', tmp_path / 'thin.py', weights, *options) == 2
    assert 'contains files that mlp_dense did not write (mine.txt)' in capsys.readouterr().err


def segmented(folder: Path) -> Results:
    """Write two images of two classes and an ignored one: a square of 40 pixels, predicted 10 pixels to the right."""
    results = Results(
        name='squares', task='segmentation', classes=['ground', 'square'], palette=[[0, 0, 0], [255, 0, 0]],
        metrics={}, config='', checkpoint='', images='', ignore_index=7,
    )  # fmt: skip
    truth, predicted = np.zeros((2, 100, 200), np.uint8)
    truth[30:70, 50:90], predicted[30:70, 60:100] = 1, 1
    truth[:10] = 7
    with replacing(folder / 'report') as results.folder:
        for side, labels in (('truth', truth), ('labels', predicted)):
            for name in 'ab':
                write_image(results.file(side, f'{name}.png'), labels)
        results.write()
        results.file('images.json').write_text(json.dumps(dict.fromkeys('ab', str(folder / 'image.jpg'))))
    write_image(folder / 'image.jpg', np.zeros((100, 200, 3), np.uint8))
    results.folder = folder / 'report'
    return results


def test_segmentation_report_equals_a_manual_count(tmp_path):
    results = segmented(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        image, _ = segmentation.count_images(results, dict.fromkeys('ab', ''), pool)
        report = segmentation.report(results, 0.3, 5, pool, tmp_path)
    assert image.confusion.tolist() == [[200 * 90 - 1600 - 400, 400], [400, 1200]]
    assert image.error == pytest.approx(800 / 18000)
    band = 0.02 * np.hypot(100, 200)
    assert 4 < band < 5
    inside = 40 * 40 - 32 * 32  # pixels of the square with a distance of up to 4 to the pixels next to its boundary
    assert abs(image.near[1].sum() - inside) <= 4 * 40, 'a frame of the square, four or five pixels wide'
    columns = {column.name: column.values for column in report.sections[0].columns}
    assert columns['IoU'][1] == pytest.approx(1200 / 2000) and columns['accuracy'][1] == pytest.approx(0.75)
    assert report.values['mIoU'] == pytest.approx(np.mean([16000 / 16800, 0.6]))
    gallery = report.sections[1]
    assert 'ground predicted as square: 50 %' in gallery.images[0].caption
    drawn = cv2.imread(str(tmp_path / gallery.images[0].file))
    assert drawn.shape == (640, 1280, 3), 'four enlarged images'
    blue, _, red = drawn[115, 640 + 175].astype(int)
    assert red > 100 > blue, 'the palette is RGB: the square of the ground truth is red'


@pytest.mark.parametrize('change, message', [
    (lambda folder: (folder / 'results' / 'run.json').unlink(), 'run.json cannot be read'),
    (lambda folder: (folder / 'results' / 'run.json').write_text('{}'), 'cannot be read'),
    (lambda folder: (folder / 'results' / 'images.json').unlink(), 'images.json cannot be read .*; restore it, or run'),
    (lambda folder: (folder / 'results' / 'labels' / 'a.png').write_text(''), 'cannot be read; run the test again'),
])  # fmt: skip
def test_damaged_results_raise_an_error(tmp_path, change, message, one_process):
    folder = segmented(tmp_path).folder
    change(folder)
    with pytest.raises(UserError, match=message):
        make_report(folder)


@pytest.mark.parametrize('change, message', [
    (lambda content: content.pop('images'), "has no list 'images'"),
    (lambda content: content['images'].clear(), 'lists no image; restore it'),
    (lambda content: content.pop('categories'), "has no list 'categories'"),
    (lambda content: content['images'][1].pop('height'), 'height of image 000001.jpg is None'),
    (lambda content: content['images'][1].pop('file_name'), 'image 10 has the file_name None'),
    (lambda content: content['categories'][1].pop('name'), 'category 3 has the name None'),
])  # fmt: skip
def test_incomplete_annotation_file_raises_an_error(tmp_path, change, message):
    folder = write_results(tmp_path, seed=1)
    content = json.loads((tmp_path / 'truth.json').read_text())
    change(content)
    (tmp_path / 'truth.json').write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf'truth\.json.*{message}'):
        make_report(folder)


def test_undefined_metrics_are_none():
    metrics = without_undefined({'coco/bbox_mAP_s': -1.0, 'mIoU': np.float64(0.5), 'mAcc': float('nan'), 'top1': 0})
    assert metrics == {'coco/bbox_mAP_s': None, 'mIoU': 0.5, 'mAcc': None, 'top1': 0.0}
    facts = Results('name', 'detection', [], None, metrics, '', '', '').facts(3)
    assert [facts[name] for name in metrics] == ['undefined', '0.500', 'undefined', '0.000']


def test_report_of_older_results_goes_to_another_folder(tmp_path, one_process):
    """Folders of earlier versions contain no marker; they can be read, but are not changed."""
    folder = segmented(tmp_path).folder
    (folder / '.mlp_dense.json').unlink()
    before = sorted(folder.rglob('*'))
    with pytest.raises(UserError, match='choose a new or empty folder'):
        make_report(folder)
    assert sorted(folder.rglob('*')) == before
    assert make_report(folder, out=tmp_path / 'page') == tmp_path / 'page' / 'index.html'
    assert sorted(folder.rglob('*')) == before and len(list((tmp_path / 'page' / 'pictures').iterdir())) == 2


def test_comparison_keeps_the_results_of_its_folder(tmp_path):
    folders = [segmented(tmp_path / name).folder for name in 'ab']
    make_comparison(folders, folders[0], resamples=5)
    assert read_results(folders[0]).task == 'segmentation'


def test_outline_is_scaled_to_the_image():
    rle = masks.merge(masks.frPyObjects([[10, 10, 50, 10, 50, 40, 10, 40]], 60, 80))
    assert outline(rle, 60, 80).startswith('M10 10L') and outline(rle, 60, 80).endswith('Z')
    assert outline(rle, 30, 40).startswith('M5 5L')
