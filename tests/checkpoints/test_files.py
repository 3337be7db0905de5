"""Checkpoints are read without mmengine and without executing code."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

PROGRAM = """
import sys
sys.modules['mmengine'] = None  # as if it were not installed
from mlp_dense.checkpoints import inspection, matching, writing
from mlp_dense.checkpoints.reading import Checkpoint, read_checkpoint

checkpoint = Checkpoint.read(sys.argv[1])
print(checkpoint.container, *checkpoint.weights, checkpoint.averaged, *checkpoint.dataset_meta['classes'])
print(*read_checkpoint(sys.argv[1]))
print({name.partition('.')[0] for name in sys.modules} & {'mmcv', 'mmdet', 'mmseg'}, 'torch._dynamo' in sys.modules)
"""


@pytest.mark.slow
def test_mmengines_files_are_read_without_mmengine(save):
    content = dict(
        state_dict={'module.w': torch.ones(2)},
        message_hub=dict(loss=HistoryBuffer([1.5, 0.5], [1, 1]), best=np.float64(0.5), curve=np.arange(3)),
        optimizer=dict(state={}, param_groups=[{}]),
        meta=dict(dataset_meta=dict(classes=('cat', 'dog')), epoch=1),
    )
    command = [sys.executable, '-c', PROGRAM, save(content)]
    completed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert completed.stdout.splitlines() == [
        'state_dict w False cat dog',
        'state_dict message_hub optimizer meta',
        'set() False',
    ]
