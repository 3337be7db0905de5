"""A backbone whose channels do not fit the neck or the heads is refused."""

import pytest
from mmengine.registry import MODELS, init_default_scope

from mlp_dense import load_model
from mlp_dense.checks.channels import check_channels
from mlp_dense.config.config_file import read_config
from mlp_dense.errors import UserError
from mlp_dense.training.machine import adapt_to_cpu
from support.configs import CONFIGS, DETECTION, SEGMENTATION, thin


def test_every_config_has_matching_channels():
    for path in CONFIGS:
        cfg = read_config(path)
        thin(cfg)
        adapt_to_cpu(cfg)
        init_default_scope(cfg.default_scope)
        try:
            check_channels(MODELS.build(cfg.model))
        except UserError as error:
            pytest.fail(f'{path.stem}: {error}')


@pytest.mark.parametrize(
    ('config', 'option', 'sentence'),
    [
        (DETECTION, 'model.backbone.arch=large', r'model\.neck\.in_channels is .* HireMLP returns \['),
        (DETECTION, 'model.neck.in_channels=[1,2,3]', r'model\.neck\.in_channels is \[1, 2, 3\]'),
        (SEGMENTATION, 'model.backbone.arch=large', r'model\.decode_head\.in_channels is'),
        (SEGMENTATION, 'model.auxiliary_head.in_channels=7', r'model\.auxiliary_head\.in_channels is 7'),
        (
            SEGMENTATION,
            'model.auxiliary_head.in_index=9',
            'head.in_channels is .* at in_index 9, but HireMLP',
        ),
    ],
)
def test_mismatched_channels_are_refused(config, option, sentence):
    with pytest.raises(UserError, match=sentence):
        load_model(read_config(config, [option]), None, 'cpu')
