"""Losses of the first ten iterations of both demos, compared with stored ones.

`python tests/test_golden_losses.py` stores new ones. Do that only for a change that is meant to change the numbers, and
give the reason in the commit.

With the reference kernels the losses of segmentation differ by 4e-6 and its gradient norms by 1e-4. Those of detection
differ by 5e-4 and 2e-3, because rounding decides which of two equal proposals is sampled. ReLU in place of GELU, a
learning rate that is 5 % higher, another weight of a loss, or missing flips exceed the tolerance of segmentation.
"""

import json
import platform
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from mlp_dense.datasets.shapes import write_shapes
from support.configs import DETECTION, SEGMENTATION
from support.tools import NO_WORKERS, call

GOLDEN = Path(__file__).parent / 'assets' / 'golden_losses.json'
DEMOS = {  # config, options for ten iterations without a validation in between
    'detection': (DETECTION, ['train_cfg.max_epochs=5', 'train_cfg.val_interval=5']),
    'segmentation': (SEGMENTATION, ['train_cfg.max_iters=10', 'train_cfg.val_interval=10']),
}
ITERATIONS = 10
TOLERANCES = {
    'detection': {'lr': 1e-6, 'grad_norm': 2e-2, 'loss': 5e-3},
    'segmentation': {'lr': 1e-6, 'grad_norm': 1e-3, 'loss': 1e-4},
}
"""Relative, for each demo; `loss` holds for every loss."""


def losses_of(demo: str, folder: Path) -> list[dict[str, float]]:
    """Train a demo for ten iterations; return learning rate, losses and gradient norm of each iteration."""
    config, options = DEMOS[demo]
    write_shapes(folder / 'shapes', num_train=16, num_val=1, size=96)  # two batches
    options = [*NO_WORKERS, *options, 'default_hooks.logger.interval=1']
    arguments = ['--data-root', folder / 'shapes', '--work-dir', folder / 'run', '--seed', 0, '--cfg-options', *options]
    assert call('train', config, *arguments) == 0
    (log,) = folder.glob('run/*/vis_data/scalars.json')
    records = [json.loads(line) for line in log.read_text().splitlines()]
    return [
        {key: value for key, value in record.items() if 'loss' in key or key in ('lr', 'grad_norm')}
        for record in records
        if 'loss' in record
    ]


@pytest.mark.slow
@pytest.mark.parametrize('demo', DEMOS)
def test_first_losses_equal_the_golden_ones(demo, tmp_path, on_cpu):
    golden, tolerances = json.loads(GOLDEN.read_text()), TOLERANCES[demo]
    losses = losses_of(demo, tmp_path)
    assert len(losses) == len(golden[demo]) == ITERATIONS
    for i, (computed, stored) in enumerate(zip(losses, golden[demo], strict=True), 1):
        assert computed.keys() == stored.keys()
        for key, value in stored.items():
            expected = pytest.approx(value, rel=tolerances.get(key, tolerances['loss']))
            assert computed[key] == expected, f'{demo}, iteration {i}, {key} (stored with {golden["made_with"]})'


if __name__ == '__main__':
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        results = {demo: losses_of(demo, Path(directory, demo)) for demo in DEMOS}
    made_with = f'torch {torch.__version__}, {platform.machine()}'
    GOLDEN.write_text(json.dumps(dict(made_with=made_with, **results), indent=1) + '\n')
    print(f'{GOLDEN} is written.', file=sys.stderr)
