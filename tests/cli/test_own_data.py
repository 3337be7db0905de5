"""Own data from `mlp-dense new` to a report and a drawn prediction, in every format, with equal losses."""

import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mlp_dense_cli import main
from support.configs import thin
from support.formats import genuine_set, write_as, write_label_maps
from support.tools import NO_WORKERS, call
from support.trainings import records_of

WITH_OUTLINES = ('coco', 'roboflow', 'cvat_coco', 'yolo', 'labelme')
CAMVID = dict(
    sky=(128, 128, 128), building=(128, 0, 0), pole=(192, 192, 128), road=(128, 64, 128), pavement=(60, 40, 222),
    tree=(128, 128, 0), sign=(192, 128, 128), fence=(64, 64, 128), car=(64, 0, 128), pedestrian=(64, 64, 0),
    bicyclist=(0, 128, 192),
)  # fmt: skip


@pytest.fixture
def losses_of(tmp_path, monkeypatch, capsys, one_process):
    """Return a function that makes and trains a model for a copy of a data set, tests it, and predicts on an image.

    It returns the losses and metrics of the training, and checks that nothing has to be edited. The model has few
    channels, and images are small.
    """
    monkeypatch.chdir(tmp_path)

    def losses_of(
        data: Path, *options: str, scale=(96, 72), tested=False, image: Path | None = None
    ) -> dict[int, dict]:
        monkeypatch.setattr(sys, 'argv', ['mlp-dense', 'new', str(data), '--out', f'new_{data.name}', *options])
        main()
        printed = capsys.readouterr().out.splitlines()
        assert [line.split()[1] for line in printed[-3:]] == ['browse', 'train', 'test']
        cfg = Config.fromfile(Path(f'new_{data.name}', f'new_{data.name}.py'))
        thin(cfg)
        file, run = tmp_path / f'{data.name}.py', tmp_path / 'runs' / data.name
        cfg.dump(file)
        small = ['--img-scale', *scale, '--work-dir', run, '--cfg-options', *NO_WORKERS]
        assert call('train', file, '--iters', 2, '--seed', 0, *small) == 0
        if tested:
            assert call('test', file, run / 'iter_2.pth', '--report', run / 'report', *small) == 0
            assert (run / 'report' / 'index.html').is_file()
        if image:
            assert call('predict', image, file, run / 'iter_2.pth', '--out-dir', run / 'predicted') == 0
            assert (run / 'predicted' / 'vis' / f'{image.stem}.png').is_file()
        assert 'Problems in the data' not in capsys.readouterr().out
        records = records_of(run)
        assert len(records) == 3, 'two iterations and a validation'
        by_area = ('_s', '_m', '_l')  # only COCO's files contain areas
        return {key: {k: v for k, v in each.items() if not k.endswith(by_area)} for key, each in records.items()}

    return losses_of


@pytest.mark.slow
def test_copies_with_outlines_have_equal_losses(shared, tmp_path, losses_of):
    splits = genuine_set(shared, train=12, val=4)
    first, *others = (
        losses_of(
            write_as(name, tmp_path / name, splits),
            tested=name != 'labelme',  # its annotations are converted as those of YOLO
            image=splits['val'][0].file if name == 'coco' else None,
        )
        for name in WITH_OUTLINES
    )
    assert {'loss_mask', 'coco/segm_mAP'} <= {key for record in first.values() for key in record}
    for name, losses in zip(WITH_OUTLINES[1:], others, strict=True):
        assert losses == first, name


@pytest.mark.slow
def test_copies_have_equal_losses_of_boxes(shared, tmp_path, losses_of):
    splits = genuine_set(shared, train=12, val=4)
    first = losses_of(write_as('voc', tmp_path / 'voc', splits), tested=True, image=splits['val'][0].file)
    assert {'loss_bbox', 'coco/bbox_mAP'} <= {key for record in first.values() for key in record}
    for name in (*WITH_OUTLINES, 'yolo_boxes'):
        assert losses_of(write_as(name, tmp_path / name, splits), '--head', 'retinanet') == first, name


@pytest.mark.slow
@pytest.mark.parametrize('head', ['upernet', 'semantic_fpn'])
def test_label_maps_of_camvid_have_equal_losses(shared, tmp_path, losses_of, head):
    folder = shared / 'data' / 'camvid'
    splits = {}
    for split, number in (('train', 8), ('val', 4)):
        images = sorted((folder / split).iterdir())[40::20][:number]  # show all classes
        labels = [np.array(Image.open(folder / f'{split}annot' / f'{image.stem}.png')) for image in images]
        splits[split] = [
            (image, np.where(each == 11, np.uint8(255), each)) for image, each in zip(images, labels, strict=True)
        ]
    kinds, image = ('index', 'palette', 'rgb', 'masks'), splits['val'][0][0]
    folders = [write_label_maps(kind, tmp_path / kind, splits, CAMVID) for kind in kinds]
    tested = ('index', 'rgb') if head == 'upernet' else ()  # read in place, and converted
    first, *others = (
        losses_of(data, '--head', head, scale=(120, 90), tested=kind in tested, image=image if kind in tested else None)
        for kind, data in zip(kinds, folders, strict=True)
    )
    assert {'decode.loss_ce', 'mIoU'} <= {key for record in first.values() for key in record}
    for kind, losses in zip(kinds[1:], others, strict=True):
        assert losses == first, kind
