"""Configs that `mlp-dense new` writes: their contents for each kind of data, and errors before anything is written."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope
from PIL import Image

from mlp_dense.config import config_text, new_config, training_plan
from mlp_dense.config.new_config import Choices
from mlp_dense.config.training_plan import BACKBONES, HEADS
from mlp_dense.errors import UserError
from mlp_dense.formats import read, write
from mlp_dense.formats import split as split_data
from support.formats import Sample, coco_content, link, write_as, write_json, write_label_maps

CLASSES = ('person', 'car', 'chair')
TABLE = dict(road=(128, 64, 128), car=(0, 0, 142), tree=(107, 142, 35))


def samples(folder: Path, split: str, number: int, labels=(0, 1, 2), size=(64, 48)) -> list[Sample]:
    """Write images of noise with one object of each label."""
    folder.mkdir(parents=True, exist_ok=True)
    result = []
    for i in range(number):
        file = folder / f'{split}_{i}.jpg'
        Image.effect_noise(size, 40 + i).convert('RGB').save(file)
        corners = [[2.5 + label, 3.0, 30.25, 4.0 + i, 20.0, 40.75] for label in labels]
        result.append(Sample(file, *size, list(zip(labels, corners, strict=True))))
    return result


@pytest.fixture
def splits(tmp_path) -> dict[str, list[Sample]]:
    return {split: samples(tmp_path / 'images', split, number) for split, number in (('train', 4), ('val', 2))}


@pytest.fixture
def new(tmp_path):
    """Return a function that writes a config, checks its length, and returns its text, content and printed lines."""

    def new(data: Path, **choices) -> tuple[str, Config, list[str]]:
        out = tmp_path / 'written'
        shutil.rmtree(out, ignore_errors=True)
        file, lines = new_config.new_config(data, out, Choices(f'mlp-dense new {data}', **choices))
        text = file.read_text(encoding='utf-8')
        assert file == out / 'written.py' and len(text.splitlines()) <= 30
        cfg = Config.fromfile(file)
        init_default_scope(cfg.default_scope)
        return text, cfg, lines

    return new


def built(cfg: Config, split: str):
    """Return the data set of a split, with paths and objects but without its transforms."""
    return DATASETS.build(dict(cfg[f'{split}_dataloader'].dataset, pipeline=[]))


def build_model(cfg: Config) -> torch.nn.Module:
    with torch.device('meta'):
        return MODELS.build(cfg.model)


def refused(data: Path, out: Path, match: str, **choices) -> None:
    """Check that the data are refused, and that nothing is written."""
    before = sorted(out.parent.iterdir())
    with pytest.raises(UserError, match=match):
        new_config.new_config(data, out, Choices('mlp-dense new', **choices))
    assert sorted(out.parent.iterdir()) == before


IN_PLACE = ('coco', 'roboflow', 'cvat_coco')
CONVERTED = ('yolo', 'labelme', 'cvat', 'voc')


@pytest.mark.parametrize('dialect', [*IN_PLACE, *CONVERTED])
def test_config_names_all_images_and_objects_in_one_order(splits, new, tmp_path, dialect):
    text, cfg, lines = new(write_as(dialect, tmp_path / 'data', splits))
    boxes = dialect == 'voc'
    assert cfg.model.type == ('RetinaNet' if boxes else 'MaskRCNN')
    assert (tmp_path / 'written' / 'data').exists() == (dialect in CONVERTED)
    assert text.startswith(f'# mlp-dense new {tmp_path / "data"}\n')
    assert '3 classes, objects for training: person 4, car 4, chair 4' in lines
    assert '# 3 classes, objects for training: person 4, car 4, chair 4\n' in text
    for split, expected in splits.items():
        dataset = built(cfg, split)
        assert dataset.metainfo['classes'] == CLASSES and len(dataset) == len(expected)
        for info, sample in zip(map(dataset.get_data_info, range(len(dataset))), expected, strict=True):
            assert Path(info['img_path']).samefile(sample.file) and (info['width'], info['height']) == (64, 48)
            assert [each['bbox_label'] for each in info['instances']] == [label for label, _ in sample.objects]
            for each, (_, polygon) in zip(info['instances'], sample.objects, strict=True):
                xs, ys = polygon[0::2], polygon[1::2]
                assert each['bbox'] == [min(xs), min(ys), max(xs), max(ys)]
                assert boxes or each['mask'] == [polygon]
    assert Path(cfg.val_evaluator.ann_file).is_file() and cfg.test_evaluator == cfg.val_evaluator
    paths = str(tmp_path)
    assert not [line for line in text.splitlines() if len(line) > 120 and paths not in line]


@pytest.mark.parametrize(
    ('family', 'head'),
    [
        *((family, 'mask_rcnn') for family in BACKBONES),
        *((family, head) for family in ('hire', 'mixer') for head in HEADS[1:4]),  # mixer has its own normalization
    ],
)
def test_models_of_all_families_and_heads_build(splits, new, tmp_path, family, head):
    if head in ('upernet', 'semantic_fpn'):
        data = write_label_maps('index', tmp_path / 'data', label_maps(splits), TABLE)
    else:
        data = write_as('coco', tmp_path / 'data', splits)
    text, cfg, _ = new(data, family=family, head=head)
    model = build_model(cfg)
    backbone = BACKBONES[family]
    assert isinstance(model.backbone, backbone) and model.backbone.arch == backbone(next(iter(backbone.archs))).arch
    assert ('SyncBN' in str(cfg.model.backbone)) == ('SyncBN' in backbone.norms_allowed)
    assert (cfg.model.data_preprocessor.mean == [127.5] * 3) == (family == 'mixer')
    assert not [line for line in text.splitlines() if len(line) > 120]


def label_maps(splits: dict[str, list[Sample]], values=(0, 1, 2)) -> dict[str, list[tuple[Path, np.ndarray]]]:
    """Return a label map of vertical stripes for each image; the first class has nearly all pixels."""
    labels = np.full((48, 64), values[0], np.uint8)
    labels[:, :2], labels[:, 2:5], labels[:4, 60:] = values[1], values[2], 255
    return {split: [(sample.file, labels) for sample in members] for split, members in splits.items()}


@pytest.mark.parametrize('kind', ['index', 'palette', 'rgb', 'masks', 'sixteen'])
def test_label_maps_of_every_kind_give_one_config(splits, new, tmp_path, kind):
    text, cfg, lines = new(write_label_maps(kind, tmp_path / 'data', label_maps(splits), TABLE))
    assert (tmp_path / 'written' / 'data').exists() == (kind not in ('index', 'palette'))
    assert '3 classes, per cent of the labelled pixels for training: road 92.15, car 3.14, tree 4.71' in lines
    assert cfg.model.decode_head.loss_decode.class_weight == [0.25, 1.22, 1.0]
    assert cfg.scale == (171, 128) and cfg.crop_size == (128, 171), 'small images are enlarged'
    for split, expected in splits.items():
        dataset = DATASETS.build(cfg[f'{split}_dataloader'].dataset)
        assert [Path(info['img_path']).name for info in dataset.load_data_list()] == [
            each.file.name for each in expected
        ]
        assert dataset.metainfo['classes'] == tuple(TABLE)
        sample = dataset[0]['data_samples'].gt_sem_seg.data
        assert {*sample.unique().tolist()} <= {0, 1, 2, 255} and (split == 'train' or sample.shape == (1, 48, 64))
    assert 'Rare classes have larger weights in the loss (class_weight in the config).' in lines
    assert '0.52% of the pixels for training are ignored.' in lines
    assert cfg.metainfo.get('palette') == ([list(c) for c in TABLE.values()] if kind == 'rgb' else None)
    assert 'class_weight' in text and build_model(cfg).decode_head.num_classes == 3


@pytest.mark.parametrize('test', [True, False])
def test_twenty_colours_and_shares_fit_into_the_config(new, tmp_path, test):
    names = {f'class_with_a_long_name_{i}': (10 * i, 5, 255 - i) for i in range(1, 21)}
    labels = np.repeat(np.arange(20, dtype=np.uint8), 4)[:, None].repeat(64, 1)
    labels[:4, 1:] = 1
    splits = {}
    for split in ('train', 'val', 'test') if test else ('train', 'val'):
        splits[split] = [(each.file, labels) for each in samples(tmp_path / 'images', split, 3, size=(64, 80))]
    text, cfg, lines = new(write_label_maps('rgb', tmp_path / 'data', splits, names))
    assert cfg.metainfo.palette == [list(colour) for colour in names.values()] and cfg.metainfo.classes == (*names,)
    assert all(f'{name} ' in lines[-1] for name in names) and '# 20 classes' in text
    assert not [line for line in text.splitlines()[1:] if line.startswith('#') and len(line) > 120]


def test_balanced_label_maps_have_no_class_weights(splits, new, tmp_path):
    pairs = label_maps(splits)
    for members in pairs.values():
        members[:] = [(file, np.repeat(np.uint8([[0], [1], [2]]), 16, 0).repeat(64, 1)) for file, _ in members]
    text, cfg, _ = new(write_label_maps('index', tmp_path / 'data', pairs, TABLE), head='semantic_fpn')
    assert 'class_weight' not in text and cfg.model.decode_head.loss_decode.type == 'CrossEntropyLoss'


def test_class_called_void_is_trained_and_mentioned(splits, new, tmp_path):
    data = write_label_maps('index', tmp_path / 'data', label_maps(splits), {'road': 0, 'Void': 1, 'tree': 2})
    _, cfg, lines = new(data)
    assert cfg.metainfo.classes == ('road', 'Void', 'tree')
    assert 'Void is a class; to ignore its pixels, call it "ignored" in labelmap.txt or classes.txt.' in lines


def test_names_and_paths_may_have_any_letters(new, tmp_path):
    names = ('driver\'s "car"', 'Brücke {a}', '歩行者', 'a\\b')
    data = tmp_path / "my 'data' {x} é"
    members = samples(tmp_path / 'images', 'train', 4, labels=range(4))
    for dialect in ('coco', 'labelme'):
        folder = write_as(dialect, data / dialect, dict(train=members, val=members[:1]), names)
        text, cfg, _ = new(folder)
        assert cfg.metainfo.classes == names and '4 classes' in text
        assert [len(built(cfg, split)) for split in ('train', 'val')] == [4, 1]


def test_many_classes_are_one_line(new, tmp_path):
    names = tuple(f'class number {i}' for i in range(120))
    members = samples(tmp_path / 'images', 'train', 3, labels=range(120))
    data = write_as('coco', tmp_path / 'data', dict(train=members, val=members, test=members), names)
    text, cfg, lines = new(data)
    assert cfg.metainfo.classes == names and cfg.model.roi_head.mask_head.num_classes == 120
    assert {line[:8] for line in text.splitlines() if len(line) > 120} >= {'metainfo'}  # paths can be long
    assert lines[-1].startswith('120 classes, objects for training: class number 0 3,') and lines[-1].endswith(' ...')


def test_one_class_and_one_image(new, tmp_path):
    member = samples(tmp_path / 'images', 'train', 1, labels=(0,))
    text, cfg, _ = new(write_as('coco', tmp_path / 'data', dict(train=member, val=member), ('only',)))
    assert cfg.metainfo.classes == ('only',) and cfg.batch_size == 2 and cfg.max_iters == 200
    assert "classes=('only',)" in text and len(built(cfg, 'train')) == 1


def test_images_without_objects_are_used(splits, new, tmp_path):
    splits['train'][1].objects.clear()
    _, cfg, _ = new(write_as('coco', tmp_path / 'data', splits))
    assert len(built(cfg, 'train')) == 4


def test_boxes_and_outlines_make_a_config_for_boxes(splits, new, tmp_path):
    data = write_as('coco', tmp_path / 'data', splits)
    file = data / 'annotations' / 'instances_train2017.json'
    content = json.loads(file.read_text())
    content['annotations'][3]['segmentation'] = []
    file.write_text(json.dumps(content))
    _, cfg, lines = new(data)
    assert cfg.model.type == 'RetinaNet'
    assert '1 of 18 objects have no outline (annotation 4), so that the config is for boxes.' in lines
    refused(data, tmp_path / 'out', r'annotation 4\); pass --head retinanet', head='mask_rcnn')


# Splits


def test_data_without_validation_are_divided(new, tmp_path):
    members = samples(tmp_path / 'images', 'x', 10)
    _, cfg, lines = new(write_as('coco', tmp_path / 'data', dict(train=members)))
    assert [len(built(cfg, split)) for split in ('train', 'val', 'test')] == [8, 2, 2]
    assert 'Split with the seed 0: train 8, val 2 images.' in lines
    names = {Path(info['img_path']).name for split in ('train', 'val') for info in built(cfg, split).load_data_list()}
    assert names == {member.file.name for member in members}


@pytest.mark.parametrize(
    ('present', 'expected', 'line'),
    [
        (('train', 'val', 'test'), (5, 4, 3), None),
        (('train', 'test'), (5, 3, 3), 'There is no validation split: the test split is used for it.'),
        (('val', 'test'), (6, 1, 1), 'The splits val, test of the source are merged.'),
        (('val',), (3, 1, 1), 'Split with the seed 0: train 3, val 1 images.'),
        (('train', 'val', 'extra'), (5, 4, 4), 'Not used: the splits extra'),
    ],
)
@pytest.mark.parametrize('dialect', ['coco', 'cvat'])
def test_splits(new, tmp_path, dialect, present, expected, line):
    numbers = dict(train=5, val=4, test=3, extra=2)
    splits = {split: samples(tmp_path / 'images', split, numbers[split]) for split in present}
    text, cfg, lines = new(write_as(dialect, tmp_path / 'data', splits))
    assert tuple(len(built(cfg, split)) for split in ('train', 'val', 'test')) == expected
    assert line is None or any(line in each for each in lines)
    assert line or any(' for 5 train, 4 val, 3 test images of' in each for each in lines)
    assert ('\ntest = ' in text) == (line is None)
    assert Path(cfg.test_evaluator.ann_file).is_file() and Path(cfg.val_evaluator.ann_file).is_file()


@pytest.mark.parametrize('numbers', [dict(train=6), dict(val=6, test=1)])
def test_divided_label_maps_have_the_images_of_their_split(new, tmp_path, numbers):
    splits = {split: samples(tmp_path / 'images', split, number) for split, number in numbers.items()}
    data = write_label_maps('index', tmp_path / 'data', label_maps(splits), TABLE)
    _, cfg, _ = new(data)
    seen = []
    for split in ('train', 'val'):
        infos = DATASETS.build(dict(cfg[f'{split}_dataloader'].dataset, pipeline=[])).load_data_list()
        assert infos and all(Path(info['seg_map_path']).is_file() for info in infos)
        seen += [Path(info['img_path']) for info in infos]
    assert sorted(file.name for file in seen) == sorted(
        each.file.name for members in splits.values() for each in members
    )
    divided = split_data(read(data), (0.8, 0.2))
    with pytest.raises(UserError, match='share a folder of images; use images="link"'):
        write(divided, tmp_path / 'kept', 'labels', images='keep')


@pytest.mark.parametrize(('split', 'remedy'), [('train', 'label some images'), ('val', 'remove the split')])
def test_split_without_an_object_is_refused(splits, tmp_path, split, remedy):
    for sample in splits[split]:
        sample.objects.clear()
    refused(write_as('coco', tmp_path / 'data', splits), tmp_path / 'out', f'split {split} of .* no object.*{remedy}')


def test_class_without_an_object_in_validation_is_mentioned(splits, new, tmp_path):
    for sample in splits['val']:
        del sample.objects[1]
    assert '1 class without an object in val: car.' in new(write_as('coco', tmp_path / 'data', splits))[2]


# Sizes, memory and balance


@pytest.mark.parametrize(
    ('sizes', 'scale'),
    [
        ([(32, 32)], (128, 128)),
        ([(640, 480)], (640, 480)),
        ([(6000, 4000)], (1200, 800)),
        ([(4000, 400)], (1333, 133)),
        ([(480, 640), (480, 640), (640, 480)], (640, 480)),
        ([(100, 300), (300, 100), (500, 500)], (300, 300)),
    ],
)
def test_images_have_their_median_size_within_limits(sizes, scale):
    plan = training_plan.plan('', 'hire', 'tiny', 'mask_rcnn', None, dict(train=len(sizes)), sizes)
    assert plan.scale == scale
    assert plan.size[0] < plan.size[1] if sizes[0] == (480, 640) else True


@pytest.mark.parametrize('kind', ['coco', 'labels', 'classes'])
@pytest.mark.parametrize('cores', [1, 3, 64])
def test_workers_are_at_most_the_cores(splits, new, tmp_path, monkeypatch, kind, cores):
    monkeypatch.setattr(training_plan.os, 'sched_getaffinity', lambda _: {*range(cores)}, raising=False)
    if kind == 'coco':
        data = write_as('coco', tmp_path / 'data', splits)
    elif kind == 'labels':
        data = write_label_maps('index', tmp_path / 'data', label_maps(splits), TABLE)
    else:
        pytest.importorskip('timm')
        data = class_folders(tmp_path, train=4, val=2)
    _, cfg, _ = new(data)
    loaders = [cfg[f'{split}_dataloader'] for split in ('train', 'val', 'test')]
    assert [loader.num_workers for loader in loaders] == [min(cores, 4 if kind == 'labels' else 2)] * 3


@pytest.mark.parametrize(
    ('head', 'images', 'memory', 'batch_size'),
    [
        ('mask_rcnn', 8, 64e9, 2),
        ('mask_rcnn', 30, 64e9, 3),
        ('mask_rcnn', 5000, 64e9, 4),
        ('mask_rcnn', 5000, 4e9, 3),
        ('upernet', 5000, 2e9, 2),
        ('classifier', 30, 64e9, 6),
        ('classifier', 5000, 64e9, 128),
        ('classifier', 5000, 2e9, 4),
    ],
)
def test_batch_fits_into_the_memory(monkeypatch, head, images, memory, batch_size):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(training_plan, 'free_memory', lambda: memory)
    plan = training_plan.plan('', 'hire', 'tiny', head, None, dict(train=images), [(640, 480)])
    assert plan.batch_size == batch_size


def test_small_data_get_more_epochs():
    plans = [
        training_plan.plan('', 'hire', 'tiny', 'retinanet', None, dict(train=n), [(99, 99)])
        for n in (10, 10_000, 10**6)
    ]
    assert [plan.epochs for plan in plans] == [100, 41, 12]
    assert plans[0].iterations == 500


def test_rare_classes_are_repeated(new, tmp_path):
    common, rare = samples(tmp_path / 'images', 'a', 29, (0, 1)), samples(tmp_path / 'images', 'b', 1, (0, 2))
    text, cfg, lines = new(write_as('coco', tmp_path / 'data', dict(train=common + rare, val=rare)))
    assert 'oversample_thr=0.1, dataset=train)  # repeats rare classes' in text
    assert 'Images of rare classes are repeated (oversample_thr in the config).' in lines
    assert 'All objects have outlines; for boxes only, pass --head retinanet.' in lines
    dataset = cfg.train_dataloader.dataset
    assert dataset.type == 'ClassBalancedDataset' and dataset.dataset.filter_cfg.filter_empty_gt is False
    repeated = DATASETS.build(dict(dataset, dataset=dict(dataset.dataset, pipeline=[])))
    assert len(repeated) == 29 + 2 and Path(repeated.get_data_info(30)['img_path']).name == 'b_0.jpg'


# Weights


def test_weights_are_checked_before_anything_is_written(splits, new, tmp_path):
    data, file = write_as('coco', tmp_path / 'data', splits), tmp_path / "weights 'tiny'.pth"
    torch.save(BACKBONES['hire']('tiny').state_dict(), file)
    _, cfg, lines = new(data, weights=str(file))
    assert cfg.model.backbone.init_cfg == dict(type='Pretrained', checkpoint=str(file))
    assert not any('random weights' in line for line in lines)
    refused(data, tmp_path / 'out', 'does not fit HireMLP', weights=str(file), arch='small')
    refused(data, tmp_path / 'out', 'does not exist; pass a file or an https URL', weights='no.pth')
    assert any('random weights; --weights FILE' in line for line in new(data)[2])


# Classifiers


def class_folders(root: Path, **numbers: int) -> Path:
    for split, number in numbers.items():
        for name in ('cat', "dog's"):
            for sample in samples(root / 'new', f'{name}{split}', number, size=(50, 40)):
                link(sample.file, root / 'data' / split / name)
    return root / 'data'


def test_folders_of_classes_make_a_classifier(new, tmp_path):
    pytest.importorskip('timm')
    text, cfg, lines = new(class_folders(tmp_path, train=8, val=2, test=3))
    assert cfg.metainfo.classes == ('cat', "dog's") and cfg.model.head.num_classes == 2
    assert (cfg.batch_size, cfg.max_epochs, cfg.size) == (4, 100, 32)
    sets = [DATASETS.build(cfg[f'{split}_dataloader'].dataset) for split in ('train', 'val', 'test')]
    assert [len(dataset) for dataset in sets] == [16, 4, 6] and sets[0][0]['inputs'].shape == (3, 32, 32)
    assert "2 classes, images for training: cat 8, dog's 8" in lines
    assert not [line for line in text.splitlines() if len(line) > 120 and str(tmp_path) not in line]
    for family in BACKBONES:
        build_model(new(tmp_path / 'data', family=family)[1])


def test_folders_of_images_and_masks_are_not_classes(splits, new, tmp_path):
    root = tmp_path / 'data'
    for split, members in label_maps(splits).items():
        for image, labels in members:
            link(image, root / split / 'images')
            (root / split / 'masks').mkdir(parents=True, exist_ok=True)
            Image.fromarray(labels).save(root / split / 'masks' / f'{image.stem}.png')
    assert new(root)[1].model.type == 'EncoderDecoder'


def test_annotations_are_preferred_to_folders_of_classes(splits, new, tmp_path):
    root = tmp_path / 'data'
    for split, members in splits.items():
        for sample in members:
            link(sample.file, root / split / 'cats')
        write_json(root / split / '_annotations.coco.json', coco_content(members, CLASSES, prefix='cats/'))
    assert new(root)[1].model.type == 'MaskRCNN'


@pytest.mark.parametrize(
    ('change', 'match'),
    [
        (lambda root: shutil.rmtree(root / 'val'), 'no folders train/CLASS and val/CLASS'),
        (lambda root: (root / 'val' / 'cat').rename(root / 'val' / 'Cat'), r'other classes than train \(Cat, cat\)'),
        (lambda root: [file.unlink() for file in (root / 'train' / 'cat').iterdir()], 'no image of cat; add images'),
        (lambda root: [shutil.rmtree(root / split / 'cat') for split in ('train', 'val')], 'one class .*add a second'),
    ],
)
def test_incomplete_folders_of_classes_are_refused(tmp_path, change, match):
    data = class_folders(tmp_path, train=2, val=1)
    change(data)
    refused(data, tmp_path / 'out', match, head='classifier')


# Refusals


@pytest.mark.parametrize(
    ('choices', 'match'),
    [
        (dict(head='upernet'), 'The head upernet cannot use them; pass --head mask_rcnn or retinanet'),
        (dict(head='mask_rcn'), "The head 'mask_rcn' does not exist; choose one of mask_rcnn"),
        (dict(head='classifier'), 'no folders train/CLASS'),
        (dict(family='hyre'), "family 'hyre' does not exist; choose one of hire"),
        (dict(arch='huge'), "family hire has no arch 'huge'; choose one of tiny"),
        (dict(format='yolo'), 'no annotations in a known format'),
    ],
)
def test_choices_that_do_not_suit_are_refused(splits, tmp_path, choices, match):
    refused(write_as('coco', tmp_path / 'data', splits), tmp_path / 'out', match, **choices)


def test_label_maps_of_one_class_are_refused(splits, tmp_path):
    pairs = label_maps(splits, values=(0, 0, 0))
    data = write_label_maps('index', tmp_path / 'data', pairs, dict(road=0))
    refused(data, tmp_path / 'out', r'one class \(road\).*label the other pixels as a second class')
    refused(data, tmp_path / 'out', 'pass --head upernet or semantic_fpn', head='retinanet')


def test_existing_folders_and_those_of_the_data_are_refused(splits, tmp_path):
    data, out = write_as('coco', tmp_path / 'data', splits), tmp_path / 'out'
    refused(tmp_path / 'nothing', out, 'nothing does not exist; pass the folder of the data')
    refused(data, data / 'new', 'is in the folder of the data; pass a folder outside of')
    out.mkdir()
    (out / 'mine.txt').write_text('mine')
    refused(data, out, 'is not an empty folder; pass a new folder with --out')
    assert [file.name for file in out.iterdir()] == ['mine.txt']


@pytest.mark.parametrize('exists', [True, False])
def test_nothing_remains_after_an_error(splits, tmp_path, monkeypatch, exists):
    data, out = write_as('yolo', tmp_path / 'data', splits), tmp_path / 'out'

    def fail(plan, classes, places, root):
        assert all(place.annotations.is_file() for place in places.values())
        raise UserError('the disk is full')

    monkeypatch.setattr(config_text, 'detector', fail)
    if exists:
        out.mkdir()
    refused(data, out, 'the disk is full')
    assert out.exists() == exists and not (exists and [*out.iterdir()])


def test_default_folder_has_the_name_of_data_and_model(splits, tmp_path, monkeypatch):
    data = write_as('coco', tmp_path / 'my.data', splits)
    monkeypatch.chdir(tmp_path)
    write = partial(new_config.new_config, data, None, Choices('mlp-dense new my.data'))
    file, _ = write()
    assert file == Path('my.data_hire_mask_rcnn', 'my.data_hire_mask_rcnn.py') and Config.fromfile(file).batch_size == 2
    with pytest.raises(UserError, match=r'my\.data_hire_mask_rcnn exists and is not an empty folder'):
        write()
