"""First convolutions of RGB images, converted to other bands when a training run begins and at no other time."""

import pytest
import torch

from mlp_dense.checkpoints.matching import load_pretrained, loading
from mlp_dense.errors import CheckpointError
from support.models import SMALL, official


@pytest.mark.parametrize('bands', [1, 5])
def test_response_to_equal_bands_stays(family, bands, save, log_lines):
    path = save(official(family))
    rgb, model = family(SMALL).eval(), family(SMALL, in_channels=bands).eval()
    load_pretrained(rgb, path)
    load_pretrained(model, path)
    grey = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(
        model.stem(grey.expand(-1, bands, -1, -1)), rgb.stem(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4
    )
    assert f'each of its {bands} filters is the mean of those of R, G and B times 3/{bands}' in log_lines[-1]
    assert 'RGB' not in log_lines[0]


def test_only_the_beginning_of_a_training_converts(family):
    model, weights = family(SMALL, in_channels=5), family(SMALL).state_dict()
    with loading('a.pth', inflates=True):
        model.load_state_dict(weights)
    for load in (model.load_state_dict, torch.nn.Sequential(model).load_state_dict):
        prefix = '' if load == model.load_state_dict else '0.'
        with pytest.raises(CheckpointError, match=r'1 of another shape: stem\.conv\.weight'), loading('a.pth'):
            load({prefix + key: value for key, value in weights.items()})


@pytest.mark.parametrize('change', [dict(in_channels=4), dict(arch=dict(SMALL, dims=(32, 32, 48, 64)))])
def test_other_differences_are_errors(family, change, save):
    path = save(family(**{'arch': SMALL, **change}).state_dict())
    with pytest.raises(CheckpointError, match=r'of another shape: .*stem'):
        load_pretrained(family(SMALL, in_channels=5), path)
