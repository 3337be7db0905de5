"""Invalid settings are refused before anything is built, or explained with their path in the config."""

import pytest
from mmengine.registry import MODELS

from mlp_dense.config.config_file import enter_scope, read_config
from mlp_dense.config.validation import building, check_settings
from mlp_dense.errors import UserError
from support.configs import DETECTION


@pytest.mark.parametrize(
    ('option', 'expected'),
    [
        ('optim_wrapper.optimizer.lr=fast', "optimizer.lr is 'fast'; set a number of 0 or more"),
        ('optim_wrapper.optimizer.lr=-1e-3', 'lr is -0.001; set a number'),
        ('optim_wrapper.optimizer.type=AdamX', 'optim_wrapper.optimizer.type: AdamX is not in the'),
        ('train_dataloader.batch_size=0', 'train_dataloader.batch_size is 0; set a whole number of 1 or more'),
        ('train_dataloader.num_workers=two', "num_workers is 'two'; set a whole number of 0 or more"),
        ('train_cfg.max_epochs=abc', "train_cfg.max_epochs is 'abc'"),
        ('train_cfg.val_interval=0', 'train_cfg.val_interval is 0'),
        ('randomness.seed=4294967296', 'set a number below 4294967296'),
        ('model.backbone.init_cfg=imagenet.pth', r"set dict\(type='Pretrained', checkpoint='imagenet.pth'\)"),
        ('train_dataloader.dataset=COCO', 'has no train_dataloader.dataset with settings'),
        ('train_dataloader.batchsize=4', r'r\.batchsize: data loaders have no such setting; did you mean batch_size'),
        ('default_hooks.checkpoint.intervals=2', r't\.intervals: checkpoints have no such setting; did you mean'),
    ],
)
def test_invalid_setting_is_refused(option, expected):
    cfg = read_config(DETECTION, [option])
    enter_scope(cfg)
    with pytest.raises(UserError, match=expected):
        check_settings(cfg)


@pytest.mark.parametrize('running', [False, True])
def test_errors_are_explained_while_building(running):
    cfg = read_config(DETECTION, ['model.neck.out_channels=wide'])
    enter_scope(cfg)
    with pytest.raises(UserError, match=r"model\.neck: FPN\(out_channels='wide'"), building(cfg, running):
        MODELS.build(cfg.model)
    with pytest.raises(RuntimeError if running else UserError, match='shape'), building(cfg, running):
        raise RuntimeError('the shape of a tensor')
