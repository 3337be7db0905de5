"""Bad input gets one sentence that says what to do, exit status 2 and no traceback; nothing is overwritten."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
DETECTION = 'configs/detection/hire_mlp_mask_rcnn_shapes.py'
SEGMENTATION = 'configs/segmentation/hire_mlp_upernet_shapes.py'

pytestmark = pytest.mark.slow


@pytest.fixture
def fails(tmp_path, shapes):
    """Runs a tool that must fail with one or two lines; returns them."""

    def fails(tool, *args, data=shapes, options=(), debug=False) -> str:
        command = [sys.executable, f'tools/{tool}.py', *map(str, args), '--data-root', str(data)]
        if '--work-dir' not in command:
            command += ['--work-dir', str(tmp_path / 'run')]
        command += ['--cfg-options', *options] if options else []
        done = subprocess.run([*command, *(['--debug'] if debug else [])], cwd=ROOT, capture_output=True, text=True)
        if debug:
            assert done.returncode == 1 and 'Traceback' in done.stderr
            return done.stderr
        assert done.returncode == 2, done.stderr[-3000:]
        assert 'Traceback' not in done.stdout + done.stderr
        message = done.stderr[done.stderr.index('error: ') :]
        assert 1 <= len(message.strip().splitlines()) <= 2
        assert not list((tmp_path / 'run').glob('*.pth'))
        return message

    return fails


def test_missing_config(fails):
    message = fails('train', 'configs/detection/hire_mlp_mask_rcnn_shape.py')
    assert 'does not exist' in message and f'did you mean {DETECTION}' in message


def test_missing_data(fails, tmp_path):
    assert '--data-root' in fails('train', DETECTION, data=tmp_path / 'nowhere')
    empty = tmp_path / 'empty'
    empty.mkdir()
    for tool, args in (('train', [DETECTION]), ('train', [SEGMENTATION]), ('test', [DETECTION, 'x.pth'])):
        message = fails(tool, *args, data=empty)
        assert f'{empty}/' in message and 'does not exist' in message


def test_no_picture_where_the_config_looks(fails):
    message = fails('train', SEGMENTATION, options=['train_dataloader.dataset.img_suffix=.tif'])
    assert 'no picture' in message and 'img_suffix=.tif' in message


def test_missing_checkpoint(fails):
    assert 'no.pth does not exist' in fails('test', DETECTION, 'no.pth')


def test_misspelt_backbone_argument(fails):
    message = fails('train', DETECTION, options=['model.backbone.drop_rate=0.1'])
    assert 'drop_rate' in message and 'drop_path_rate' in message
    assert 'does not know drop_rate' in fails('train', DETECTION, options=['model.backbone.drop_rate=0.1'], debug=True)


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
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope

    cfg = Config.fromfile(ROOT / DETECTION)
    init_default_scope('mmdet')
    file = tmp_path / 'other.pth'
    cfg.model.roi_head.bbox_head.num_classes = 80
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), file)
    message = fails('test', DETECTION, file)
    assert 'same number of classes?' in message and 'fc_cls' in message
    assert 'does not fit HireMLP' in fails(
        'test', SEGMENTATION, file, options=['model.backbone.arch.dims=[16,64,128,192]']
    )
    torch.save(dict(epoch=3), file)
    assert 'holds no weights' in fails('test', DETECTION, file)
    assert 'no weights' in fails(
        'train',
        DETECTION,
        options=['model.backbone.init_cfg.type=Pretrained', f'model.backbone.init_cfg.checkpoint={file}'],
    )


@pytest.mark.parametrize(
    ('config', 'file', 'workers', 'content'),
    [
        (DETECTION, 'train/000003.jpg', 0, b''),
        (DETECTION, 'train/000003.jpg', 2, b'no picture'),
        (SEGMENTATION, 'labels/train/000003.png', 0, b'no picture'),
        (SEGMENTATION, 'labels/train/000003.png', 2, b''),
    ],
)
def test_unreadable_picture(fails, shapes, tmp_path, config, file, workers, content):
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
    assert 'cannot be written' in message and 'another --work-dir' in message
    assert (tmp_path / 'file').read_text() == 'precious'


def test_nothing_to_resume(fails, tmp_path):
    assert 'no checkpoint to resume' in fails('train', DETECTION, '--resume')
    weights = tmp_path / 'weights.pth'
    torch.save(dict(state_dict=dict(weight=torch.zeros(1))), weights)
    assert 'nothing can be resumed from it' in fails('train', DETECTION, '--resume', weights)


def test_what_this_machine_or_config_lacks(fails, monkeypatch):
    if not torch.cuda.is_available():
        assert '--amp needs a GPU' in fails('train', DETECTION, '--amp')
    assert 'start this command with torchrun' in fails('train', DETECTION, '--launcher', 'pytorch')
    assert '.pkl' in fails('test', DETECTION, 'x.pth', '--out', 'predictions.json')


def test_unforeseen_errors_keep_their_traceback(shapes, tmp_path):
    command = [sys.executable, 'tools/train.py', DETECTION, '--data-root', shapes, '--work-dir', tmp_path]
    options = ['--cfg-options', 'model.rpn_head.feat_channels=17', 'model.rpn_head.in_channels=17']
    done = subprocess.run(list(map(str, [*command, *options])), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and 'Traceback' in done.stderr


def test_loss_that_is_not_finite(fails):
    message = fails(
        'train',
        DETECTION,
        options=['optim_wrapper.optimizer.lr=1e18', 'custom_hooks.0.interval=1', 'optim_wrapper.clip_grad=None'],
    )
    assert 'is not finite' in message and 'lower learning rate' in message
