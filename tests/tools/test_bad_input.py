"""Bad input gets one sentence that says what to do, exit status 2 and no traceback; nothing is overwritten."""

import json
import shutil

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from mlp_dense.errors import UserError
from support.configs import DETECTION, ROOT, SEGMENTATION
from support.tools import call, run


@pytest.fixture
def fails(tmp_path, shapes, capsys):
    """Runs a tool that must fail with one or two lines; returns them."""

    def fails(tool, *args, data=shapes, options=()) -> str:
        work_dir = [] if '--work-dir' in args else ['--work-dir', tmp_path / 'run']
        options = ['--cfg-options', *options] if options else []
        status = call(tool, *args, '--data-root', data, *work_dir, *options)
        printed = capsys.readouterr()
        assert status == 2, printed.err
        assert 'Traceback' not in printed.out + printed.err
        message = printed.err[printed.err.index('error: ') :]
        assert 1 <= len(message.strip().splitlines()) <= 2
        assert not list((tmp_path / 'run').glob('*.pth'))
        return message

    return fails


def test_missing_config(fails, monkeypatch):
    monkeypatch.chdir(ROOT)  # names are looked for where the tool is started
    message = fails('train', 'configs/detection/hire_mlp_mask_rcnn_shape.py')
    assert 'does not exist' in message and 'did you mean configs/detection/hire_mlp_mask_rcnn_shapes.py' in message


def test_missing_data(fails, tmp_path):
    assert '--data-root' in fails('train', DETECTION, data=tmp_path / 'nowhere')
    empty = tmp_path / 'empty'
    empty.mkdir()
    weights = tmp_path / 'x.pth'
    weights.touch()
    for tool, args in (('train', [DETECTION]), ('train', [SEGMENTATION]), ('test', [DETECTION, weights])):
        message = fails(tool, *args, data=empty)
        assert f'{empty}/' in message and 'does not exist' in message


def test_no_image_where_the_config_looks(fails):
    message = fails('train', SEGMENTATION, options=['train_dataloader.dataset.img_suffix=.tif'])
    assert 'no image' in message and 'img_suffix=.tif' in message


def test_missing_checkpoint(fails):
    assert 'no.pth does not exist' in fails('test', DETECTION, 'no.pth')


def test_misspelt_backbone_argument(fails, shapes, tmp_path):
    option = 'model.backbone.drop_rate=0.1'
    message = fails('train', DETECTION, options=[option])
    assert 'drop_rate' in message and 'drop_path_rate' in message
    with pytest.raises(UserError, match='does not know drop_rate'):
        args = [DETECTION, '--data-root', shapes, '--work-dir', tmp_path / 'run', '--cfg-options', option]
        call('train', *args, '--debug')


@pytest.mark.parametrize(
    ('option', 'expected'),
    [
        ('model.backbone.arch=huge', 'tiny, small, base, large'),
        ('model.backbone.type=mlp_dense.HireMPL', 'HireMPL is not in the'),
        ('trian_cfg.max_epochs=1', "the config has no 'trian_cfg'"),
        ('no_equals_sign', 'KEY=VALUE'),
        ('train_dataloader.dataset.pipeline.9.prob=1', 'cannot be applied'),
    ],
)
def test_wrong_option(fails, option, expected):
    assert expected in fails('train', DETECTION, options=[option])


def test_class_count_that_does_not_fit(fails, shapes, tmp_path):
    message = fails('train', DETECTION, options=['model.roi_head.bbox_head.num_classes=80'])
    assert 'model.roi_head.bbox_head.num_classes is 80' in message and '5 classes' in message
    assert '6 classes' in fails('train', SEGMENTATION, options=['model.decode_head.num_classes=5'])
    other = tmp_path / 'other'
    shutil.copytree(shapes, other)
    for file in (other / 'annotations').iterdir():
        content = json.loads(file.read_text())
        content['categories'] = [dict(category, name=f'my {category["name"]}') for category in content['categories']]
        file.write_text(json.dumps(content))
    assert 'names 0 of the 5 classes' in fails('train', DETECTION, data=other)


def test_checkpoint_of_another_model(fails, tmp_path):
    cfg = Config.fromfile(DETECTION)
    init_default_scope('mmdet')
    file = tmp_path / 'other.pth'
    cfg.model.roi_head.bbox_head.num_classes = 80
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), file)
    message = fails('test', DETECTION, file)
    assert 'same number of classes?' in message and 'fc_cls' in message
    other_size = ['model.backbone.arch.dims=[16,64,128,192]']
    assert 'does not fit HireMLP' in fails('test', SEGMENTATION, file, options=other_size)
    torch.save(dict(epoch=3), file)
    assert 'holds no weights' in fails('test', DETECTION, file)
    options = ['model.backbone.init_cfg.type=Pretrained', f'model.backbone.init_cfg.checkpoint={file}']
    assert 'no weights' in fails('train', DETECTION, options=options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('config', 'file', 'workers', 'content'),
    [
        (DETECTION, 'train/000003.jpg', 0, b''),
        (DETECTION, 'train/000003.jpg', 2, b'no image'),
        (SEGMENTATION, 'labels/train/000003.png', 0, b'no image'),
        (SEGMENTATION, 'labels/train/000003.png', 2, b''),
    ],
)
def test_unreadable_image(fails, shapes, tmp_path, monkeypatch, config, file, workers, content):
    monkeypatch.setattr('torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL', 0.2)  # waits 5 s for each worker else
    broken = tmp_path / 'broken'
    shutil.copytree(shapes, broken)
    (broken / file).write_bytes(content)
    message = fails('train', config, data=broken, options=[f'train_dataloader.num_workers={workers}'])
    assert f'{broken}/{file}' in message


@pytest.mark.parametrize('tool', ['train', 'test'])
def test_unwritable_work_dir(fails, tmp_path, tool):
    (tmp_path / 'file').write_text('precious')
    args = [DETECTION] if tool == 'train' else [DETECTION, 'x.pth']
    message = fails(tool, *args, '--work-dir', tmp_path / 'file' / 'run')
    assert 'cannot be written' in message and 'another place' in message
    assert (tmp_path / 'file').read_text() == 'precious'


def test_what_this_machine_or_config_lacks(fails, monkeypatch):
    if not torch.cuda.is_available():
        assert '--amp needs a GPU' in fails('train', DETECTION, '--amp')
    monkeypatch.delenv('RANK', raising=False)
    assert 'start this command with torchrun' in fails('train', DETECTION, '--launcher', 'pytorch')
    assert '.pkl' in fails('test', DETECTION, 'x.pth', '--out', 'predictions.json')


def test_loss_that_is_not_finite(fails):
    options = ['optim_wrapper.optimizer.lr=1e18', 'custom_hooks.0.interval=1', 'optim_wrapper.clip_grad=None']
    message = fails('train', DETECTION, options=options)
    assert 'is not finite' in message and 'lower learning rate' in message


@pytest.mark.slow
def test_exit_status_of_a_process(shapes, tmp_path):
    where = ['--data-root', shapes, '--work-dir', tmp_path]
    assert 'no.pth does not exist' in run('tools/test.py', DETECTION, 'no.pth', *where, status=2)
    options = ['--cfg-options', 'model.rpn_head.feat_channels=17', 'model.rpn_head.in_channels=17']
    unforeseen = run('tools/train.py', DETECTION, *where, *options, status=1)
    assert 'Traceback' in unforeseen, 'an error that nobody foresaw keeps its traceback'
