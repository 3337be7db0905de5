"""Adaptation of configs to this machine."""

import pytest
from mmcv.cnn import build_norm_layer
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mlp_dense.training.machine import adapt_to_cpu


@pytest.mark.parametrize('norm', ['SyncBN', 'MMSyncBN'])
def test_norms_that_need_several_processes_are_replaced_on_a_cpu(norm):
    init_default_scope('mmdet')
    cfg = Config(dict(model=dict(neck=dict(norm_cfg=dict(type=norm, requires_grad=True)))))
    adapt_to_cpu(cfg)
    assert type(build_norm_layer(cfg.model.neck.norm_cfg, 4)[1]).__name__ == 'BatchNorm2d'
