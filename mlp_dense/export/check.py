"""Compares an exported file, run outside of PyTorch's eager mode, with the model on pictures."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..registry import MODELS
from ..tasks import task_of
from .files import ExportedFile, images_of


class Allowed(NamedTuple):
    """How far an export may be from PyTorch's fp32."""

    values: float  # of scores and feature maps, as a part of the largest
    labels: float  # the share of pixels, or of objects, that may differ: of scores that are equal, rounding chooses
    pixels: float  # of the corners of a box


ALLOWED = dict(
    fp32=Allowed(1e-3, 0.01, 0.5),
    fp16=Allowed(0.05, 0.1, 4.0),
    bf16=Allowed(0.2, 0.25, 16.0),
    int8=Allowed(math.inf, 1.0, 4.0),  # how much it loses is for tools/test.py to say
)


class Found(NamedTuple):
    """What one batch showed."""

    said: str
    failures: list[str]


def compare(model: nn.Module, file: ExportedFile, batches: Iterable[Mapping[str, Any]], precision: str) -> list[str]:
    """What to say of an exported file that does on some batches what the model does, in PyTorch and fp32.

    Raises:
        UserError: it does not, or nothing was found on the pictures, so that nothing could be compared.
    """
    allowed, said = ALLOWED[precision], []
    part = file.metadata['part']
    run = _whole if part == 'model' else _maps
    vain = 0
    for batch in batches:
        size = 'x'.join(map(str, (len(batch['inputs']), *batch['inputs'][0].shape)))
        found = run(model, file, batch, allowed)
        vain += not found.said
        said.append(f'{size}: {found.said or "no object"}')
        if found.failures:
            raise UserError(
                f'The exported graph is wrong at {size}: {"; ".join(found.failures)}. Nothing was written; please '
                'report the config, or export another --part.'
            )
    if vain == len(said):
        raise UserError(
            'The model finds no object on the pictures, so the exported graph could not be checked, and nothing was '
            'written; give --images with objects that it finds.'
        )
    return said


def _whole(model: nn.Module, file: ExportedFile, batch: Mapping[str, Any], allowed: Allowed) -> Found:
    compared = _label_maps if task_of(model.cfg.default_scope).label_map else _objects
    with torch.no_grad():
        wanted = [sample.clone() for sample in model.test_step(_copied(batch))]
        given = stand_in(model, file).test_step(_copied(batch))
    return compared(wanted, given, allowed)


def stand_in(model: nn.Module, file: ExportedFile) -> nn.Module:
    """The model of mmdet or mmsegmentation that runs a file instead of a network."""
    kind = task_of(model.cfg.default_scope).exported
    return MODELS.build(dict(type=kind, file=file, model=model.cfg.model)).eval()


def _maps(model: nn.Module, file: ExportedFile, batch: Mapping[str, Any], allowed: Allowed) -> Found:
    with torch.no_grad():
        x = model.data_preprocessor(_copied(batch), False)['inputs']
        wanted = model.backbone(x) if file.metadata['part'] == 'backbone' else model.extract_feat(x)
        given = file(images_of(torch.stack(list(batch['inputs']))))
    found = [_values(name, a, torch.from_numpy(b), allowed) for a, (name, b) in zip(wanted, given.items(), strict=True)]
    return Found(', '.join(each.said for each in found), [failure for each in found for failure in each.failures])


def _label_maps(wanted: list, given: list, allowed: Allowed) -> Found:
    scores = [torch.cat([sample.seg_logits.data.flatten() for sample in each]) for each in (wanted, given)]
    labels = [torch.cat([sample.pred_sem_seg.data.flatten() for sample in each]) for each in (wanted, given)]
    found = _values('scores', *scores, allowed)
    differing = (labels[0] != labels[1]).float().mean().item()
    failures = found.failures + [f'{differing:.1%} of the labels differ'] * (differing > allowed.labels)
    return Found(f'{found.said}, labels differ at {differing:.3%} of the pixels', failures)


def _values(name: str, wanted: Tensor, given: Tensor, allowed: Allowed) -> Found:
    if wanted.shape != given.shape:
        return Found('', [f'{name} are {tuple(given.shape)} instead of {tuple(wanted.shape)}'])
    difference, largest = (wanted - given).abs().max().item(), wanted.abs().max().item()
    said = f'{name} differ by {difference:.1e} at most, of {largest:.2g}'
    return Found(said, [said] * (not difference <= allowed.values * max(largest, 1e-3)))


def _objects(wanted: list, given: list, allowed: Allowed) -> Found:
    total = lost = differing = area = 0
    worst = dict(boxes=0.0, scores=0.0)
    for one, other in zip(wanted, given, strict=True):
        a, b = one.pred_instances, other.pred_instances
        total += max(len(a), len(b))
        pairs = _pairs(a, b, allowed)
        lost += max(len(a), len(b)) - len(pairs)
        for i, j in pairs:
            worst['boxes'] = max(worst['boxes'], (a.bboxes[i] - b.bboxes[j]).abs().max().item())
            worst['scores'] = max(worst['scores'], (a.scores[i] - b.scores[j]).abs().item())
            if 'masks' in a:
                differing += (a.masks[i] != b.masks[j]).sum().item()
                area += a.masks[i].sum().item()
    if not total:
        return Found('', [])
    said = f'{total - lost} of {total} objects are the same; boxes differ by {worst["boxes"]:.1e} pixels at most'
    said += f', scores by {worst["scores"]:.1e}' + (
        f', masks at {differing / area:.2%} of their pixels' if area else ''
    )
    wrong = lost == total or lost > max(allowed.labels * total, 1) or differing > allowed.labels * area + 1
    return Found(said, [said] * wrong)


def _pairs(a: Any, b: Any, allowed: Allowed) -> list[tuple[int, int]]:
    """Which objects of two images are the same: of one class, with boxes and scores that differ by what is allowed."""
    pairs, free = [], set(range(len(b)))
    apart = (a.bboxes[:, None] - b.bboxes[None]).abs().amax(2)
    fits = (
        (apart <= allowed.pixels)
        & (a.labels[:, None] == b.labels)
        & ((a.scores[:, None] - b.scores).abs() <= max(allowed.values, 1e-3))
    )
    for i in range(len(a)):
        choices = [j for j in fits[i].nonzero().flatten().tolist() if j in free]
        if choices:
            j = min(choices, key=lambda j: apart[i, j].item())
            free.remove(j)
            pairs.append((i, j))
    return pairs


def _copied(batch: Mapping[str, Any]) -> dict[str, list]:
    return dict(inputs=list(batch['inputs']), data_samples=[sample.clone() for sample in batch['data_samples']])
