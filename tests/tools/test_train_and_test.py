"""The tools from end to end, each in a process of its own as a user starts it."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
import torch

ROOT = Path(__file__).parents[2]
DETECTION = 'configs/detection/hire_mlp_mask_rcnn_shapes.py'
SEGMENTATION = 'configs/segmentation/hire_mlp_upernet_shapes.py'
QUICK = {  # for --cfg-options
    DETECTION: ['train_cfg.max_epochs=2', 'train_cfg.val_interval=2', 'default_hooks.visualization.interval=1'],
    SEGMENTATION: [
        'train_cfg.max_iters=4',
        'train_cfg.val_interval=4',
        'default_hooks.checkpoint.interval=2',
        'default_hooks.logger.interval=1',
        'default_hooks.visualization.interval=1',
    ],
}
METRICS = {
    DETECTION: ('coco/bbox_mAP', 'coco/segm_mAP', 'coco/bbox_mAP_50'),
    SEGMENTATION: ('aAcc', 'mIoU', 'mAcc'),
}

pytestmark = pytest.mark.slow


def run(*command, status: int = 0, timeout: int = 300) -> str:
    """Runs `python COMMAND` in the repository; returns its output and checks its exit status."""
    command = [sys.executable, *map(str, command)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == status, done.stdout[-1500:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope='module', params=[DETECTION, SEGMENTATION], ids=['detection', 'segmentation'])
def trained(request, shapes, tmp_path_factory):
    """(config, work dir, checkpoint, options) after a short training on the embedded data."""
    work_dir = tmp_path_factory.mktemp('run')
    options = ['--data-root', shapes, '--cfg-options', *QUICK[request.param]]
    log = run('tools/train.py', request.param, '--work-dir', work_dir, '--seed', 0, *options)
    assert 'starts from random weights' in log
    return request.param, work_dir, Path((work_dir / 'last_checkpoint').read_text()), options


def test_trains_and_tests(trained, shapes, tmp_path):
    config, work_dir, checkpoint, _ = trained
    assert list(work_dir.glob('best_*.pth')), 'no best checkpoint was kept'
    assert list(work_dir.glob('*/vis_data/vis_image/*.png')), 'validation drew nothing'
    out, drawn = tmp_path / 'out.pkl', tmp_path / 'drawn'
    log = run(
        *('tools/test.py', config, checkpoint, '--data-root', shapes, '--work-dir', tmp_path),
        *('--show-dir', drawn, '--out', out),
    )
    metrics = json.loads((tmp_path / 'metrics.json').read_text())
    for name in METRICS[config]:
        assert name in metrics and f'{name} ' in log
    with out.open('rb') as file:
        assert len(pickle.load(file)) == 8
    pictures = sorted(drawn.iterdir())
    assert [path.name for path in pictures] == [f'{i:06}.png' for i in range(8)]
    assert cv2.imread(str(pictures[0])).shape == (384, 768, 3), 'truth and prediction, enlarged, side by side'


def test_tta_merges_views(trained, shapes, tmp_path):
    config, _, checkpoint, _ = trained
    run('tools/test.py', config, checkpoint, '--data-root', shapes, '--work-dir', tmp_path, '--tta')
    metrics = json.loads((tmp_path / 'metrics.json').read_text())
    assert set(METRICS[config]) <= set(metrics)


@pytest.mark.parametrize('options', [[], ['--tta']], ids=str)
def test_the_fused_model_has_the_same_metrics(trained, shapes, tmp_path, options):
    config, _, checkpoint, _ = trained
    metrics = []
    for fuse in ([], ['--fuse']):
        work_dir = tmp_path / str(len(fuse))
        run('tools/test.py', config, checkpoint, '--data-root', shapes, '--work-dir', work_dir, *options, *fuse)
        metrics.append(json.loads((work_dir / 'metrics.json').read_text()))
    assert metrics[0] == pytest.approx(metrics[1], abs=1e-3)


def test_the_best_checkpoint_is_what_the_log_says(trained, shapes, tmp_path):
    config, work_dir, checkpoint, _ = trained
    log = next(work_dir.glob('*/*.log')).read_text()
    run('tools/test.py', config, checkpoint, '--data-root', shapes, '--work-dir', tmp_path)
    name = METRICS[config][0] if config == DETECTION else 'mIoU'
    value = json.loads((tmp_path / 'metrics.json').read_text())[name]
    assert f'{name}: {value:.4f}' in log, 'testing the checkpoint differs from the validation during training'


def test_refuses_to_overwrite_and_resumes_when_asked(trained):
    config, work_dir, checkpoint, options = trained
    before = checkpoint.stat().st_mtime_ns
    log = run('tools/train.py', config, '--work-dir', work_dir, *options, status=2)
    assert log.strip().splitlines()[-1].endswith('go on with --resume, or give another --work-dir.')
    assert checkpoint.stat().st_mtime_ns == before
    log = run('tools/train.py', config, '--work-dir', work_dir, '--resume', *options)
    assert 'resumed epoch: ' in log


def test_killed_and_resumed(shapes, tmp_path):
    command = [
        sys.executable,
        'tools/train.py',
        SEGMENTATION,
        '--work-dir',
        tmp_path,
        '--data-root',
        shapes,
        '--resume',
    ]
    options = ['--cfg-options', *QUICK[SEGMENTATION]]
    endless = [*options, 'train_cfg.max_iters=10000', 'train_cfg.val_interval=10000']
    command.remove('--resume')
    process = subprocess.Popen([*map(str, command), *endless], cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not (tmp_path / 'last_checkpoint').exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_2.pth'))
    log = run(*command[1:], '--resume', *options)
    assert 'resumed epoch: 0, iter: 2' in log
    assert 'Iter(train) [3/4]' in log and 'Iter(train) [2/4]' not in log
    assert (tmp_path / 'iter_4.pth').exists()


def test_resuming_gives_what_an_unbroken_training_gives(shapes, tmp_path):
    """Optimizer, schedule and weights come back exactly; the order of the data is drawn anew by mmengine's sampler."""
    fixed = [
        *QUICK[SEGMENTATION],
        'train_dataloader.dataset.indices=8',
        'train_dataloader.dataset.pipeline.2.prob=0.0',
        'train_dataloader.sampler.shuffle=False',
        'model.decode_head.dropout_ratio=0.0',
        'model.auxiliary_head.dropout_ratio=0.0',
    ]
    start = ['tools/train.py', SEGMENTATION, '--data-root', shapes, '--seed', 0]
    run(*start, '--work-dir', tmp_path / 'unbroken', '--cfg-options', *fixed)
    run(
        *start,
        '--work-dir',
        tmp_path / 'resumed',
        '--resume',
        tmp_path / 'unbroken' / 'iter_2.pth',
        '--cfg-options',
        *fixed,
    )
    states = [
        torch.load(tmp_path / name / 'iter_4.pth', weights_only=False)['state_dict'] for name in ('unbroken', 'resumed')
    ]
    for name, tensor in states[0].items():
        torch.testing.assert_close(
            tensor, states[1][name], rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f'{name}: {text}'
        )


def test_two_processes_with_gloo(shapes, tmp_path):
    """SyncBN and mixed precision of the published configs are replaced, gradients are averaged over both processes."""
    command = [
        '-m',
        'torch.distributed.run',
        '--nproc_per_node=2',
        '--master_port=29517',
        'tools/train.py',
        SEGMENTATION,
    ]
    options = [
        '--data-root',
        shapes,
        '--work-dir',
        tmp_path,
        '--launcher',
        'pytorch',
        '--cfg-options',
        *QUICK[SEGMENTATION],
    ]
    log = run(*command, *options)
    assert 'GPU number: 2' in log or 'world_size: 2' in log or 'Distributed launcher: pytorch' in log
    assert 'Iter(val)' in log and (tmp_path / 'iter_4.pth').exists()


COCO_SMALL = [
    *('train_cfg.max_epochs=1', 'train_dataloader.dataset.indices=4', 'val_dataloader.dataset.indices=4'),
    *(
        'test_dataloader.dataset.indices=4',
        'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False',
    ),
    *('val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False'),
    *('test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False'),
    *('val_dataloader.dataset.pipeline.1.scale=(160,96)', 'test_dataloader.dataset.pipeline.1.scale=(160,96)'),
    *('model.train_cfg.rpn_proposal.max_per_img=50', 'model.test_cfg.rpn.max_per_img=50'),
    'model.test_cfg.rcnn.score_thr=0.0',  # two iterations give low scores; without a box there is no table
]
SINGLE_SCALE = ['train_dataloader.dataset.pipeline.2.scale=(160,96)']
MULTI_SCALE = [
    'train_dataloader.dataset.pipeline.3.transforms.0.0.scales=[(160,96),(128,80)]',
    'train_dataloader.dataset.pipeline.3.transforms.1.2.scales=[(160,96),(128,80)]',
]


@pytest.mark.parametrize(
    ('family', 'scale'),
    [('hire', SINGLE_SCALE), ('as', MULTI_SCALE), ('cycle', SINGLE_SCALE)],
    ids=['hire', 'as', 'cycle'],
)
def test_coco(family, scale, shared, tmp_path):
    config = f'configs/detection/{family}_mlp_mask_rcnn_coco.py'
    options = [
        '--data-root',
        shared / 'data' / 'coco_tiny',
        '--work-dir',
        tmp_path,
        '--cfg-options',
        *COCO_SMALL,
        *scale,
    ]
    run('tools/train.py', config, *options)
    log = run('tools/test.py', config, tmp_path / 'epoch_1.pth', *options)
    for task in ('bbox', 'segm'):
        assert f'Evaluating {task}' in log
        assert f'coco/{task}_mAP ' in log
    assert 'Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all' in log


@pytest.mark.parametrize('family', ['hire', 'as', 'cycle'])
def test_ade20k(family, shared, tmp_path):
    config = f'configs/segmentation/{family}_mlp_upernet_ade20k.py'
    small = [
        *('train_cfg.max_iters=2', 'train_cfg.val_interval=10', 'default_hooks.checkpoint.interval=2'),
        *(
            'train_dataloader.batch_size=2',
            'train_dataloader.num_workers=0',
            'train_dataloader.persistent_workers=False',
        ),
        *(
            'train_dataloader.dataset.pipeline.2.scale=(256,64)',
            'train_dataloader.dataset.pipeline.3.crop_size=(64,64)',
        ),
        *('model.data_preprocessor.size=(64,64)', 'test_dataloader.dataset.pipeline.1.scale=(256,64)'),
        *('test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False'),
        'test_dataloader.dataset.indices=2',  # the maps of 150 classes are enlarged to the size of the picture
    ]
    options = ['--data-root', shared / 'data' / 'ade_tiny', '--work-dir', tmp_path, '--cfg-options', *small]
    run('tools/train.py', config, *options)
    log = run('tools/test.py', config, tmp_path / 'iter_2.pth', *options)
    assert 'aAcc' in log and 'mIoU' in log and 'mAcc' in log and 'wall' in log


def test_help_is_instant():
    for tool in sorted((ROOT / 'tools').glob('[!a]*.py')):
        start = time.monotonic()
        text = run(tool, '--help')
        assert time.monotonic() - start < 2
        assert 'usage:' in text
    imported = run('-X', 'importtime', ROOT / 'tools' / 'train.py', '--help')
    assert not {line.rpartition('|')[2].strip() for line in imported.splitlines()} & {'torch', 'mmengine', 'numpy'}


def test_interrupted_data_set_is_made_again(tmp_path):
    (tmp_path / 'shapes.partial').mkdir()
    (tmp_path / 'shapes.partial' / 'half').write_text('')
    run('tools/make_shapes.py', tmp_path / 'shapes', '--num-train', 2, '--num-val', 1, '--size', 64)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['shapes']
    assert os.listdir(tmp_path / 'shapes' / 'val') == ['000000.jpg']
