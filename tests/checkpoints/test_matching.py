"""Matching of tensors under all names with those of a backbone, and its report in the log."""

import re

import pytest
import torch

from mlp_dense.checkpoints.matching import LeftOut, load_pretrained, our_name
from mlp_dense.errors import CheckpointError
from reference import reference_of
from support.checkpoints import assert_computes, prefixed, pretrained
from support.models import SMALL, differing, first_bias, official


def test_our_names_are_loaded_without_a_report(family, log_lines):
    source, model = family(SMALL), family(SMALL)
    torch.nn.Sequential(model).load_state_dict({f'0.{key}': value for key, value in source.state_dict().items()})
    assert differing(model.state_dict(), source.state_dict()) == [] and log_lines == []
    model.load_state_dict(official(family))
    assert len(log_lines) == 1 and ' tensors from the given state dict' in log_lines[0]


def test_our_names_with_another_shape_are_an_error(family):
    name = first_bias(family)
    weights = {**family(SMALL).state_dict(), name: torch.ones(9)}
    with pytest.raises(CheckpointError, match=re.escape(f'1 of another shape: {name} (9,) for (16,)')):
        family(SMALL).load_state_dict(weights)


def test_our_file_is_reported_once(family, save, log_lines):
    source, model = family(SMALL), family(SMALL)
    path = save(source.state_dict())
    load_pretrained(model, path)
    assert differing(model.state_dict(), source.state_dict()) == []
    assert log_lines == [f'{family.__name__}: loaded {len(source.state_dict())} tensors from {path}']


def test_prefix_selects_tensors(family, save):
    weights = official(family)
    path = save({f'encoder.{key}': value for key, value in weights.items()} | {'head.weight': torch.ones(2)})
    models = [family(SMALL) for _ in range(3)]
    models[0].load_state_dict(weights)
    for model, prefix in zip(models[1:], ('encoder', 'encoder.'), strict=True):
        load_pretrained(model, path, prefix)
        assert differing(model.state_dict(), models[0].state_dict()) == []
    with pytest.raises(CheckpointError, match=r'weights\.pth does not fit .* 0 of its tensors match'):
        load_pretrained(models[0], path, prefix='decoder')


def test_every_left_out_tensor_has_a_reason(family):
    keys = official(family, classes=10, norms=())
    names = (our_name(key, family.names_in(keys, SMALL['depths'])) for key in keys)
    reasons = {name for name in names if isinstance(name, LeftOut)}
    assert 'classifier head and norm' in reasons and all(len(reason) > 5 for reason in reasons)


def test_log_line_for_a_classifier_counts_all_tensors(family, save, log_lines):
    weights = official(family, norms=(), classes=10)
    model = pretrained(family, path := save(dict(model=weights)))
    line = next(line for line in log_lines if 'loaded' in line)
    reference = reference_of(family)
    ours = family(SMALL, out_norm=False).state_dict()
    loaded = sum(not name.startswith(reference.fresh) for name in ours)
    head = sum(name.startswith(reference.head) for name in weights)
    assert f'{family.__name__}: loaded {loaded} tensors from {path}' in line and '\n' not in line
    assert f'left out {head} (classifier head and norm)' in line
    for reason, ending in reference.left_out.items():
        assert f'left out {sum(name.endswith(ending) for name in weights)} ({reason})' in line
    assert line.count('left out') == 1 + len(reference.left_out)
    assert 'norms with random weights: norms.0, norms.1, norms.2, norms.3' in line
    assert all((norm.weight == 1).all() for norm in model.norms)


def test_detection_file_without_norm0_loads(family, save, log_lines):
    """RetinaNet does not use the first feature map, so the official code drops its norm."""
    weights = official(family, norms=(1, 2, 3))
    pretrained(family, path := save({**prefixed('backbone.', weights), 'rpn_head.weight': torch.ones(2)}))
    line = next(line for line in log_lines if 'loaded' in line)
    assert line.endswith('norms with random weights: norms.0') and 'left out 1 (outside the backbone)' in line
    assert_computes(pretrained(family, path, out_indices=(1, 2, 3)), weights)
    assert 'fresh' not in log_lines[-1]


@pytest.mark.parametrize('out_indices', [(0,), (1, 2), (3,)])
def test_out_indices_select_tensors_of_a_file(family, save, log_lines, out_indices):
    weights = official(family)
    model = pretrained(family, save(weights), out_indices=out_indices)
    assert_computes(model, weights)
    line = next(line for line in log_lines if 'loaded' in line)
    assert f'loaded {len(model.state_dict())} tensors' in line
    assert '(stages and norms not selected by out_indices and out_norm)' in line and 'fresh' not in line
