"""Learning curves: reading and drawing."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from mlp_dense.errors import UserError
from mlp_dense.visualization.curves import plot_runs, read_run
from support.tools import call


def write(work_dir: Path, stamp: str, records: list[dict], tail: str = '') -> Path:
    file = work_dir / stamp / 'vis_data' / 'scalars.json'
    file.parent.mkdir(parents=True)
    file.write_text('\n'.join([*map(json.dumps, records), tail]))
    return file


def train(iteration: int, loss: float = 1.0, **extra) -> dict:
    return dict(lr=0.1, loss=loss, loss_cls=loss / 2, acc=90.0, time=0.1, iter=iteration, step=iteration, **extra)


def detection(work_dir: Path) -> Path:
    """Write a training run with epochs of 40 iterations, logged every 15."""
    records = [train(i, 3 / i, epoch=(i + 39) // 40) for i in range(15, 121, 15)]
    records.insert(5, {'coco/bbox_mAP': 0.1, 'coco/bbox_mAP_l': -1.0, 'coco/bbox_mAP_50': 0.3, 'time': 1.0, 'step': 2})
    records += [{'coco/bbox_mAP': 0.4, 'coco/bbox_mAP_l': -1.0, 'coco/bbox_mAP_50': 0.6, 'time': 1.0, 'step': 3}]
    return write(work_dir, '20260101_000000', records)


def segmentation(work_dir: Path) -> None:
    write(work_dir, '20260101_000000', [*map(train, range(10, 51, 10)), {'mIoU': 3.0, 'aAcc': 60.0, 'step': 50}])


def test_read_run_converts_epochs_to_iterations(tmp_path):
    run = read_run(detection(tmp_path / 'run').parents[2])
    assert run.name == 'run'
    assert run.metrics == {'coco/bbox_mAP': {80: 0.1, 120: 0.4}, 'coco/bbox_mAP_50': {80: 0.3, 120: 0.6}}
    assert list(run.losses) == ['loss', 'loss_cls'] and list(run.lr) == list(range(15, 121, 15))
    assert read_run(tmp_path / 'run' / '20260101_000000' / 'vis_data' / 'scalars.json') == run


def test_read_run_replaces_lost_iterations_of_a_resumed_training(tmp_path):
    write(tmp_path, '20260101_000000', [train(i, loss=1.0) for i in (10, 20, 30, 40)], tail='{"lr": 0.1, "lo')
    write(tmp_path, '20260102_000000', [train(i, loss=2.0) for i in (20, 30)] + [{'mIoU': 50.0, 'step': 30}])
    write(tmp_path, '20260103_000000', [])
    run = read_run(tmp_path)
    assert run.losses['loss'] == {10: 1.0, 20: 2.0, 30: 2.0}
    assert run.metrics == {'mIoU': {30: 50.0}}


def test_read_run_reads_the_scaled_learning_rate(tmp_path):
    """The log's `base_lr` is not scaled, because mmengine leaves it unchanged under --auto-scale-lr."""
    write(tmp_path, '20260101_000000', [train(10, base_lr=0.8)])
    assert read_run(tmp_path).lr == {10: 0.1}


@pytest.mark.parametrize('make', [detection, segmentation])
def test_plot_of_one_run_has_the_documented_size(make, tmp_path, capsys):
    make(tmp_path / 'run')
    out = tmp_path / 'new' / 'curves.png'
    for smooth in (0, 0.9):
        assert call('plot_log', tmp_path / 'run', '--out', out, '--smooth', smooth) == 0
        assert str(out) in capsys.readouterr().out
    assert cv2.imread(str(out)).shape == (1200, 1100, 3)


def test_several_runs_have_a_colour_and_a_short_name_each(tmp_path, monkeypatch):
    plotted = []

    def record(runs, *arguments):
        plotted.extend(runs)
        plot_runs(runs, *arguments)

    monkeypatch.setattr('mlp_dense.visualization.curves.plot_runs', record)
    detection(tmp_path / 'a' / 'run')
    segmentation(tmp_path / 'b' / 'run')
    out = tmp_path / 'curves.png'
    assert call('plot_log', tmp_path / 'a' / 'run', tmp_path / 'b' / 'run', '--out', out) == 0
    assert [run.name for run in plotted] == ['run (a)', 'run (b)']
    colours = {tuple(colour) for colour in np.unique(cv2.imread(str(out)).reshape(-1, 3), axis=0)}
    assert {(180, 119, 31), (14, 127, 255)} <= colours, 'one colour per run'


def test_plot_runs_smooths_losses_only(tmp_path, monkeypatch):
    detection(tmp_path)
    drawn = []
    monkeypatch.setattr('matplotlib.axes.Axes.plot', lambda self, x, y, **style: drawn.append((list(x), list(y))))
    plot_runs([read_run(tmp_path)], tmp_path / 'curves.png', ['mAP'], smooth=0.9)
    assert ([80, 120], [0.1, 0.4]) in drawn
    losses = [y for x, y in drawn if x == list(range(15, 121, 15))]
    assert losses[0][0] == losses[1][0] and losses[0][-1] < losses[1][-1], 'raw values, then smoothed values'


def test_infinite_losses_are_drawn(tmp_path):
    write(tmp_path, '20260101_000000', [train(10), train(20, loss=float('nan')), train(30, loss=float('inf'))])
    assert call('plot_log', tmp_path, '--out', tmp_path / 'curves.png', '--smooth', 0.5) == 0


def test_wrong_arguments_raise_errors(tmp_path, capsys):
    with pytest.raises(UserError, match='does not exist'):
        read_run(tmp_path / 'absent')
    with pytest.raises(UserError, match=r'has no scalars\.json'):
        read_run(tmp_path)
    file = write(tmp_path, '20260101_000000', [train(10)])
    for arguments, sentence in (
        ([tmp_path / 'absent', '--out', tmp_path / 'a.png'], 'does not exist'),
        ([tmp_path, '--out', tmp_path / 'a.jpg'], 'ends in .png'),
        ([tmp_path, '--out', file / 'a.png'], 'cannot be written'),
        ([tmp_path, '--out', tmp_path / 'a.png', '--smooth', 1], 'below 1'),
    ):
        assert call('plot_log', *arguments) == 2
        assert sentence in capsys.readouterr().err
    file.write_text('[1, 2]\n' * 2)
    with pytest.raises(UserError, match='has lines that are not JSON'):
        read_run(tmp_path)
    file.write_bytes(b'\xff\xfe\x00')
    with pytest.raises(UserError, match=r'scalars\.json has lines that are not JSON'):
        read_run(tmp_path)


def test_shares_of_experts_have_a_panel(tmp_path):
    shares = [{f'expert/blocks.{b}.mlp/{i}': (i + 1) / 6 for b in (0, 1) for i in range(3)} for _ in range(2)]
    shares = [dict(record, iter=iteration, step=iteration) for record, iteration in zip(shares, (10, 20), strict=True)]
    write(tmp_path / 'run', '20260101_000000', [*map(train, (10, 20)), *shares])
    run = read_run(tmp_path / 'run')
    assert run.shares.keys() == {f'blocks.{b}.mlp/{i}' for b in (0, 1) for i in range(3)} and not run.metrics
    assert run.shares['blocks.1.mlp/2'] == {10: 0.5, 20: 0.5}
    for runs, height in (([run], 1600), ([run, run], 1200)):
        plot_runs(runs, tmp_path / 'curves.png', ['mIoU'])
        assert cv2.imread(str(tmp_path / 'curves.png')).shape[:2] == (height, 1100)
