"""tools/train.py --dry-run reports what a training run needs, explains errors and writes nothing."""

import re
import tempfile

import pytest
from torch.optim.optimizer import register_optimizer_step_post_hook

from support.configs import DETECTION, SEGMENTATION, thin_config
from support.tools import call

NAMES = {DETECTION: 'detection/hire_mlp_mask_rcnn_shapes', SEGMENTATION: 'segmentation/hire_mlp_upernet_shapes'}


@pytest.fixture
def dry_run(shapes, tmp_path, monkeypatch, capsys):
    """Run the tool on a thin config; return its exit status, output and errors, and check that it leaves no file."""
    (tmp_path / 'temporary').mkdir()
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'temporary'))

    def dry_run(config, *args, options=()) -> tuple[int, str, str]:
        file = thin_config(NAMES[config], tmp_path)
        before = set(tmp_path.rglob('*'))
        where = ['--data-root', shapes, '--work-dir', tmp_path / 'run', '--dry-run']
        status = call('train', file, *where, *args, *(['--cfg-options', *options] if options else []))
        after = {path for path in tmp_path.rglob('*') if not re.search('torchinductor|pymp', str(path))}
        assert after == before, 'Python itself writes the excluded files'
        printed = capsys.readouterr()
        assert 'Traceback' not in printed.out + printed.err
        return status, printed.out, printed.err[printed.err.find('error: ') :]

    return dry_run


@pytest.mark.parametrize(
    ('config', 'schedule', 'metric'),
    [
        (DETECTION, '30 iterations and 2 validations of 1 batch', 'coco/segm_mAP'),
        (SEGMENTATION, '1000 iterations and 2 validations of 1 batch', 'mIoU'),
    ],
    ids=['detection', 'segmentation'],
)
def test_report_contains_schedule_time_and_memory(dry_run, config, schedule, metric):
    status, output, _ = dry_run(config)
    assert status == 0 and 'training and validation work; nothing is written' in output
    assert f'end         {schedule}: about 0:' in output and metric in output
    assert 's with 8 images' in output and 'GB in this process' in output


@pytest.mark.filterwarnings('ignore:Detected call of `scheduler.step')  # mmengine, when gradients are accumulated
def test_optimizer_steps_once_after_accumulating(dry_run):
    steps = []
    handle = register_optimizer_step_post_hook(lambda *_: steps.append(1))
    status, *_ = dry_run(SEGMENTATION, options=['optim_wrapper.accumulative_counts=5'])
    handle.remove()
    assert status == 0 and steps == [1]


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (['val_evaluator.iou_metrics=[mFoo]'], 'The validation fails: KeyError: '),
        (['default_hooks.checkpoint.save_best=mIou'], 'mIou'),
        (['model.decode_head.loss_decode.class_weight=[1.0]'], 'The training fails: RuntimeError: '),
        (['val_dataloader.dataset.pipeline.2.meta_keys=[nothing]'], 'The validation fails: KeyError: '),
        (['optim_wrapper.optimizer.lr=fast'], "lr is 'fast'"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else '',
)
def test_error_is_one_sentence(dry_run, options, expected):
    status, _, error = dry_run(SEGMENTATION, options=options)
    assert status == 2 and expected in error and len(error.strip().splitlines()) == 1


def test_unsuitable_work_dir_is_refused(dry_run, tmp_path):
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / 'last_checkpoint').write_text('iter_1.pth')
    status, _, error = dry_run(SEGMENTATION)
    assert status == 2 and 'contains a training run already' in error
