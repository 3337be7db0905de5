"""Invalid input prints one sentence with a remedy and no traceback, exits with 2 and overwrites nothing."""

import json
import shutil

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from mlp_dense.errors import UserError
from support.configs import DETECTION, ROOT, SEGMENTATION
from support.tools import NO_WORKERS, call, run


@pytest.fixture
def fails(tmp_path, shapes, capsys):
    """Run a tool that must fail with one or two lines; return them."""

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


def test_missing_data_are_named(fails, tmp_path):
    assert '--data-root' in fails('train', DETECTION, data=tmp_path / 'nowhere')
    empty = tmp_path / 'empty'
    empty.mkdir()
    weights = tmp_path / 'x.pth'
    weights.touch()
    for tool, args in (('train', [DETECTION]), ('train', [SEGMENTATION]), ('test', [DETECTION, weights])):
        message = fails(tool, *args, data=empty)
        assert f'{empty}/' in message and 'does not exist' in message


def test_data_set_without_images_is_refused(fails):
    message = fails('train', SEGMENTATION, options=['train_dataloader.dataset.img_suffix=.tif'])
    assert "has no image with the suffix .tif, but 16 with .jpg; set img_suffix='.jpg'." in message


def test_unknown_backbone_argument_suggests_a_similar_one(fails, shapes, tmp_path):
    option = 'model.backbone.drop_rate=0.1'
    message = fails('train', DETECTION, options=[option])
    assert 'drop_rate' in message and 'drop_path_rate' in message
    with pytest.raises(UserError, match='drop_rate'):
        args = [DETECTION, '--data-root', shapes, '--work-dir', tmp_path / 'run', '--cfg-options', option]
        call('train', *args, '--debug')


@pytest.mark.parametrize(
    ('option', 'expected'),
    [
        ('model=none', 'has no model with settings'),
        ('optim_wrapper.optimizer.learning_rate=1', 'optimizer: AdamW has no argument learning_rate; allowed: '),
        ('train_cfg.val_every=2', 'Loop has no argument val_every'),
        ('train_dataloader.sampler.shuffled=1', 'sampler: DefaultSampler has no argument shuffled; did you mean'),
        ('val_evaluator.metrc=bbox', 'val_evaluator: CocoMetric has no argument metrc; did you mean metric'),
        ('val_evaluator.metric=boxes', 'val_evaluator: CocoMetric(ann_file='),
        ('param_scheduler.0.type=Linear', 'param_scheduler.0.type: Linear is not in the'),
        ('default_hooks.checkpoints.interval=2', "hooks.checkpoints is {'interval': 2}; set a dict with a type"),
        ('model.backbone.init_cfg.type=Pretraned', 'model.backbone.init_cfg.type: Pretraned is not in the'),
        ('model.train_cfg.rpn.assigner.iou=0.5', 'model.train_cfg.rpn.assigner: MaxIoUAssigner has no argument iou'),
        ('optim_wrapper.constructor=Decay', 'optim_wrapper.constructor: Decay is not in the'),
        ('default_scope=mmseg', 'Check default_scope'),
        ('randomness.sed=0', "unexpected keyword argument 'sed'"),
    ],
)
def test_invalid_option_is_explained(fails, option, expected):
    assert expected in fails('train', DETECTION, options=[option])


def test_invalid_option_of_a_test_is_explained(fails, tmp_path):
    weights = tmp_path / 'x.pth'
    weights.touch()
    for option in ('test_dataloader.dataset.annfile=x', 'test_evaluator.metrc=bbox', 'test_cfg.fp=16'):
        path, _, name = option.partition('=')[0].rpartition('.')
        message = fails('test', DETECTION, weights, options=[option])
        assert f'{path}: ' in message and f'has no argument {name}' in message


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ("model = dict(type='RetinaNet')", 'model: RetinaNet has no argument rpn_head, roi_head'),
        ("model = dict(backbone=dict(type='ResNet', depth=18))", 'model.backbone: ResNet has no argument arch'),
        ("train_cfg = dict(type='IterBasedTrainLoop', max_iters=9)", 'Loop has no argument max_epochs'),
        ("optim_wrapper = dict(optimizer=dict(type='SGD', lr=1, betas=(0, 1)))", 'SGD has no argument betas'),
        ("optim_wrapper = dict(optimizer=dict(type='Rprop', lr=1))", 'Rprop has no argument weight_decay'),
    ],
)
def test_forgotten_delete_is_explained(fails, tmp_path, text, expected):
    file = tmp_path / 'child.py'
    file.write_text(f'_base_ = {DETECTION!r}\n{text}\n')
    message = fails('train', file)
    assert expected in message and 'set _delete_=True next to the new type' in message


def test_arguments_in_another_order_are_explained(tmp_path, capsys):
    assert call('predict', DETECTION, 'x.pth', 'image.jpg', '--out-dir', tmp_path) == 2
    assert 'is a config; use the order INPUT CONFIG CHECKPOINT.' in capsys.readouterr().err
    (tmp_path / 'x.pth').write_bytes(b'')
    assert call('test', tmp_path / 'x.pth', DETECTION) == 2
    assert 'x.pth is not a config' in capsys.readouterr().err


def test_missing_checkpoint_and_section_of_a_config_are_refused(fails, tmp_path):
    assert 'no.pth does not exist' in fails('test', DETECTION, 'no.pth')
    assert 'is a folder; pass a file in it' in fails('test', DETECTION, tmp_path)
    section = ROOT / 'configs' / '_base_' / 'models' / 'upernet.py'
    assert 'has no train_dataloader with settings; pass a complete config' in fails('train', section)
    assert 'has no test_dataloader with settings; pass a complete config' in fails('test', section, 'x.pth')


def test_mismatched_classes_are_named(fails, shapes, tmp_path):
    message = fails('train', DETECTION, options=['model.roi_head.bbox_head.num_classes=80'])
    assert 'model.roi_head.bbox_head.num_classes is 80' in message and '5 classes (disc, square, ' in message
    assert 'instances_train.json has: disc, square, ' in message
    assert '6 classes' in fails('train', SEGMENTATION, options=['model.decode_head.num_classes=5'])
    other = tmp_path / 'other'
    shutil.copytree(shapes, other)
    for file in (other / 'annotations').iterdir():
        content = json.loads(file.read_text())
        content['categories'][0]['name'] = 'dog'
        file.write_text(json.dumps(content))
    message = fails('train', DETECTION, data=other)
    assert 'has 4 of the 5 classes' in message and 'Missing in the file: disc. Only in the file: dog.' in message
    assert 'json has: dog, square, ' in message


def test_checkpoint_of_another_model_is_refused(fails, tmp_path):
    cfg = Config.fromfile(DETECTION)
    init_default_scope('mmdet')
    file = tmp_path / 'other.pth'
    cfg.model.roi_head.bbox_head.num_classes = 80
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), file)
    message = fails('test', DETECTION, file)
    assert 'same number of classes?' in message and 'fc_cls' in message
    other_size = ['model.backbone.arch.depths=[2,2,2,1]']
    message = fails('test', SEGMENTATION, file, options=other_size)
    assert 'other.pth does not fit HireMLP' in message and 'given state dict' not in message
    torch.save(dict(epoch=3), file)
    assert 'holds no weights' in fails('test', DETECTION, file)
    options = ['model.backbone.init_cfg.type=Pretrained', f'model.backbone.init_cfg.checkpoint={file}']
    assert 'no weights' in fails('train', DETECTION, options=options)


@pytest.mark.parametrize('tool', ['train', 'test'])
def test_unwritable_work_dir_is_refused(fails, tmp_path, tool):
    (tmp_path / 'file').write_text('precious')
    args = [DETECTION] if tool == 'train' else [DETECTION, 'x.pth']
    message = fails(tool, *args, '--work-dir', tmp_path / 'file' / 'run')
    assert 'cannot be written' in message and 'another folder' in message
    assert (tmp_path / 'file').read_text() == 'precious'


def test_options_that_the_machine_cannot_run_are_refused(fails, monkeypatch):
    monkeypatch.delenv('RANK', raising=False)
    assert 'start this command with torchrun' in fails('train', DETECTION, '--launcher', 'pytorch')
    assert '.pkl' in fails('test', DETECTION, 'x.pth', '--out', 'predictions.json')


def test_torchvision_for_another_pytorch_is_explained(fails, monkeypatch):
    def collect_env() -> dict:
        raise RuntimeError('operator torchvision::nms does not exist')

    monkeypatch.setattr('mmengine.runner.runner.collect_env', collect_env)
    assert 'torchvision was built for another PyTorch' in fails('train', DETECTION)


@pytest.mark.slow
def test_exit_status_is_2_for_explained_errors_only(shapes, tmp_path):
    where = ['--data-root', shapes, '--work-dir', tmp_path]
    assert 'no.pth does not exist' in run('tools/test.py', DETECTION, 'no.pth', *where, status=2)
    options = ['--cfg-options', 'model.rpn_head.feat_channels=17', 'model.rpn_head.in_channels=17', *NO_WORKERS]
    with pytest.raises(RuntimeError, match='channels'):  # an unexpected error keeps its traceback
        call('train', DETECTION, *where, *options)


def test_invalid_arguments_of_other_tools_are_explained(tmp_path, capsys):
    (tmp_path / 'file').write_text('precious')
    for expected, *command in (
        ('16 pixels or more', 'make_shapes', tmp_path / 'new', '--size', 5),
        ('t least 1 image', 'make_shapes', tmp_path / 'new', '--num-train', 0),
        ('a seed from 0', 'make_shapes', tmp_path / 'new', '--seed', -1),
        ('is a file; ', 'make_shapes', tmp_path / 'file', '--num-train', 1, '--num-val', 1),
        ('cannot be written', 'model_zoo', '--out', tmp_path / 'file' / 'zoo.md'),
        ('ends in .md', 'model_zoo', '--out', tmp_path),
        ('cannot be written', 'test', DETECTION, 'x.pth', '--show-dir', tmp_path / 'file'),
        ('is not a config: its name must end in .py', 'test', tmp_path, 'x.pth'),
    ):
        assert call(*command) == 2
        assert expected in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['file'] and (tmp_path / 'file').read_text() == 'precious'


def test_missing_evaluator_is_explained(fails):
    assert 'has no test_evaluator' in fails('test', DETECTION, 'x.pth', options=['test_evaluator=None'])
    assert 'has no tta_model' in fails('test', DETECTION, 'x.pth', '--tta', options=['tta_model=None'])
