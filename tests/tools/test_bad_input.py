"""Bad input gets one sentence that says what to do, exit status 2 and no traceback; nothing is overwritten."""

import json
import shutil

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from mlp_dense import load_model
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
        ('model.backbone.out_indices=[0,1', 'cannot be read'),
        ('model=none', 'has no model with settings'),
        ('train_dataloader.dataset=COCO', 'has no train_dataloader.dataset with settings'),
        ('optim_wrapper.optimizer.type=AdamX', 'optim_wrapper.optimizer.type: AdamX is not in the'),
        ('optim_wrapper.optimizer.lr=fast', "lr is 'fast'; give a number of 0 or more"),
        ('optim_wrapper.optimizer.lr=-1e-3', 'lr is -0.001; give a number'),
        (
            'optim_wrapper.optimizer.learning_rate=1',
            'optim_wrapper.optimizer: AdamW does not know learning_rate; it takes',
        ),
        ('train_dataloader.batch_size=0', 'train_dataloader.batch_size is 0; give a whole number of 1 or more'),
        (
            'train_dataloader.batchsize=4',
            'train_dataloader.batchsize: data loaders have no such setting; did you mean batch_size',
        ),
        ('train_dataloader.num_workers=two', "num_workers is 'two'; give a whole number of 0 or more"),
        ('train_cfg.max_epochs=abc', "train_cfg.max_epochs is 'abc'"),
        ('train_cfg.val_interval=0', 'train_cfg.val_interval is 0'),
        ('train_cfg.val_every=2', 'Loop does not know val_every'),
        (
            'train_dataloader.sampler.shufle=True',
            'train_dataloader.sampler: DefaultSampler does not know shufle; did you mean shuffle',
        ),
        (
            'train_dataloader.dataset.pipeline.2.probability=1',
            'train_dataloader.dataset.pipeline.2: RandomFlip does not know',
        ),
        ('val_evaluator.metrc=bbox', 'val_evaluator: CocoMetric does not know metrc; did you mean metric'),
        ('val_evaluator.metric=boxes', 'val_evaluator: CocoMetric(ann_file='),
        ('param_scheduler.0.type=Linear', 'param_scheduler.0.type: Linear is not in the'),
        (
            'default_hooks.checkpoint.intervall=2',
            'default_hooks.checkpoint.intervall: checkpoints have no such setting; did you mean interval',
        ),
        ('default_hooks.chekpoint.interval=2', "default_hooks.chekpoint is {'interval': 2}; give a dict with a type"),
        ('model.neck.out_channels=wide', "model.neck: FPN(out_channels='wide'"),
        ('model.backbone.init_cfg.type=Pretraned', 'model.backbone.init_cfg.type: Pretraned is not in the'),
        ('model.train_cfg.rpn.assigner.iou=0.5', 'model.train_cfg.rpn.assigner: MaxIoUAssigner does not know iou'),
        ('optim_wrapper.constructor=Decay', 'optim_wrapper.constructor: Decay is not in the'),
        ('default_scope=mmengine', 'Is default_scope right'),
        ('default_scope=mmseg', 'Is default_scope right'),
        ('randomness.seed=4294967296', 'give a number below 4294967296'),
        ('model.backbone.init_cfg=imagenet.pth', "give dict(type='Pretrained', checkpoint='imagenet.pth')"),
        ('randomness.sed=0', "unexpected keyword argument 'sed'"),
    ],
)
def test_wrong_option(fails, option, expected):
    assert expected in fails('train', DETECTION, options=[option])


def test_wrong_option_of_a_test(fails, tmp_path):
    weights = tmp_path / 'x.pth'
    weights.touch()
    for option in ('test_dataloader.dataset.annfile=x', 'test_evaluator.metrc=bbox', 'test_cfg.fp=16'):
        place, _, name = option.partition('=')[0].rpartition('.')
        assert f'{place}: ' in (message := fails('test', DETECTION, weights, options=[option]))
        assert f'does not know {name}' in message


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        (
            "model = dict(type='RetinaNet')",
            'model: RetinaNet does not know rpn_head, roi_head; settings of the inherited MaskRCNN',
        ),
        (
            "model = dict(backbone=dict(type='ResNet', depth=18))",
            'model.backbone: ResNet does not know arch; settings of the',
        ),
        (
            "train_cfg = dict(type='IterBasedTrainLoop', max_iters=9)",
            'Loop does not know max_epochs; settings of the inherited EpochBasedTrainLoop',
        ),
        ("optim_wrapper = dict(optimizer=dict(type='SGD', lr=1, betas=(0, 1)))", 'SGD does not know betas'),
        (
            "optim_wrapper = dict(optimizer=dict(type='Rprop', lr=1))",
            'Rprop does not know weight_decay; settings of the inherited AdamW',
        ),
    ],
)
def test_a_forgotten_delete(fails, tmp_path, text, expected):
    file = tmp_path / 'child.py'
    file.write_text(f'_base_ = {DETECTION!r}\n{text}\n')
    message = fails('train', file)
    assert expected in message
    assert ('add _delete_=True beside the new type' in message) == ('betas' not in text)


def test_a_forgotten_delete_of_a_backbone_in_another_config(tmp_path):
    (tmp_path / 'base.py').write_text(
        """
default_scope = 'mmdet'
model = dict(type='RetinaNet', backbone=dict(type='ResNet', depth=50, num_stages=4), neck={}, bbox_head={})
test_dataloader = dict(dataset=dict(type='CocoDataset'))
"""
    )
    child = "_base_ = './base.py'\nmodel = dict(backbone=dict(type='mlp_dense.HireMLP', arch='small'))"
    (tmp_path / 'child.py').write_text(child)
    expected = 'model.backbone: HireMLP does not know depth, num_stages; .* of the inherited ResNet are left'
    with pytest.raises(UserError, match=expected):
        load_model(tmp_path / 'child.py', None)


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('lr = 1\nmodel = dict(type=\n', "line 2, cannot be read: SyntaxError: '(' was never closed."),
        ('lr = 1\n\nlr = lr / 0\n', 'line 3, cannot be read: ZeroDivisionError: division by zero'),
        ('import nowhere\nmodel = nowhere.Model\n', 'line 1 for No module'),
        ("_base_ = './missing.py'\n", 'missing.py'),
        ("custom_imports = dict(imports=['nowhere'])\n", 'custom_imports cannot be imported: Failed to import nowhere'),
        (
            f"_base_ = {DETECTION!r}\ntrain_dataloader = dict(dataset=dict(pipeline=dict(type='X')))\n",
            'cannot be read: TypeError',
        ),
    ],
)
def test_a_config_that_cannot_be_read(fails, tmp_path, text, expected):
    file = tmp_path / 'broken.py'
    file.write_text(text)
    message = fails('train', file)
    assert f'error: {file}' in message and expected in message


def test_the_file_of_a_chain_of_configs_that_cannot_be_read(fails, tmp_path):
    (tmp_path / 'broken.py').write_text('a = 1\na[0]\n')
    (tmp_path / 'child.py').write_text("_base_ = './broken.py'\n")
    assert f'{tmp_path}/broken.py, line 2, cannot' in fails('train', tmp_path / 'child.py')


def test_a_json_config_that_cannot_be_read(fails, tmp_path):
    file = tmp_path / 'broken.json'
    file.write_text('{"model": ')
    assert f'error: {file}' in fails('train', file)


def test_arguments_in_the_order_of_another_tool(tmp_path, capsys):
    assert call('predict', DETECTION, 'x.pth', 'image.jpg', '--out-dir', tmp_path) == 2
    assert 'is a config; use the order INPUT CONFIG CHECKPOINT.' in capsys.readouterr().err
    (tmp_path / 'x.pth').write_bytes(b'')
    assert call('test', tmp_path / 'x.pth', DETECTION) == 2
    assert 'x.pth is not a config' in capsys.readouterr().err


def test_a_part_of_a_config(fails):
    part = ROOT / 'configs' / '_base_' / 'models' / 'upernet.py'
    assert 'has no train_dataloader with settings; give a whole config' in fails('train', part)
    assert 'has no test_dataloader with settings; give a whole config' in fails('test', part, 'x.pth')


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
    other_size = ['model.backbone.arch.depths=[2,2,2,1]']
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
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, 'is_available', lambda: False)
        assert '--amp needs a GPU' in fails('train', DETECTION, '--amp')
    monkeypatch.delenv('RANK', raising=False)
    assert 'start this command with torchrun' in fails('train', DETECTION, '--launcher', 'pytorch')
    assert '.pkl' in fails('test', DETECTION, 'x.pth', '--out', 'predictions.json')


def test_torchvision_of_another_pytorch(fails, monkeypatch):
    def collect_env() -> dict:
        raise RuntimeError('operator torchvision::nms does not exist')

    monkeypatch.setattr('mmengine.runner.runner.collect_env', collect_env)
    assert 'torchvision was built for another PyTorch' in fails('train', DETECTION)


def test_loss_that_is_not_finite(fails):
    options = ['optim_wrapper.optimizer.lr=1e18', 'optim_wrapper.clip_grad=None']
    message = fails('train', DETECTION, options=options)
    assert 'is not finite' in message and 'lower learning rate' in message


@pytest.mark.slow
def test_exit_status_of_a_process(shapes, tmp_path):
    where = ['--data-root', shapes, '--work-dir', tmp_path]
    assert 'no.pth does not exist' in run('tools/test.py', DETECTION, 'no.pth', *where, status=2)
    options = ['--cfg-options', 'model.rpn_head.feat_channels=17', 'model.rpn_head.in_channels=17']
    unforeseen = run('tools/train.py', DETECTION, *where, *options, status=1)
    assert 'Traceback' in unforeseen, 'an error that nobody foresaw keeps its traceback'


@pytest.mark.parametrize(
    ('args', 'options', 'expected'),
    [
        ([], ['train_dataloader.batchsize=3'], 'did you mean batch_size'),
        ([], ['train_dataloader.dataset.type=Coco'], 'train_dataloader.dataset.type: Coco is not in the'),
        ([], ['train_dataloader.dataset.pipeline.2.foo=1'], 'train_dataloader.dataset.pipeline.2: RandomFlip does not'),
        ([], ['train_dataloader=none'], 'has no train_dataloader with settings'),
        ([], ['default_scope=None'], 'default_scope is None; allowed: mmdet, mmseg'),
        (['--seed', -1], [], '--seed is -1; give a number from 0'),
    ],
    ids=str,
)
def test_browsing_a_wrong_config(shapes, tmp_path, capsys, args, options, expected):
    args = [*args, *(['--cfg-options', *options] if options else [])]
    assert call('browse', DETECTION, '--data-root', shapes, '--out', tmp_path / 'a.png', *args) == 2
    assert expected in capsys.readouterr().err


def test_wrong_arguments_of_other_tools(tmp_path, capsys):
    (tmp_path / 'file').write_text('precious')
    for expected, *command in (
        ('16 pixels or more', 'make_shapes', tmp_path / 'new', '--size', 5),
        ('At least 1 image', 'make_shapes', tmp_path / 'new', '--num-train', 0),
        ('a seed from 0', 'make_shapes', tmp_path / 'new', '--seed', -1),
        ('is a file; give another folder', 'make_shapes', tmp_path / 'file', '--num-train', 1, '--num-val', 1),
        ('cannot be written', 'model_zoo', '--out', tmp_path / 'file' / 'zoo.md'),
        ('ends in .md', 'model_zoo', '--out', tmp_path),
        ('cannot be written', 'test', DETECTION, 'x.pth', '--show-dir', tmp_path / 'file'),
        ('is no file that ends in .py', 'test', tmp_path, 'x.pth'),
    ):
        assert call(*command) == 2
        assert expected in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['file'] and (tmp_path / 'file').read_text() == 'precious'


def test_nothing_to_measure(fails):
    assert 'has no test_evaluator' in fails('test', DETECTION, 'x.pth', options=['test_evaluator=None'])
    assert 'has no tta_model' in fails('test', DETECTION, 'x.pth', '--tta', options=['tta_model=None'])
