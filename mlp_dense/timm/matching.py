"""Matches the tensors of a checkpoint with those of a classifier."""

import re

import torch
from torch import Tensor, nn

from ..checkpoints.matching import match_to_backbone
from ..checkpoints.reading import Checkpoint


def match_to_classifier(model: nn.Module, checkpoint: Checkpoint, in_chans: int) -> tuple[dict[str, Tensor], str]:
    """See ``VisionMLP.matched``."""
    own, behind, others = model.state_dict(), {}, {}
    norm = f'norms.{len(model.feature_info) - 1}'  # of a dense backbone
    for key, tensor in checkpoint.weights.items():
        name = re.sub(rf'^(backbone\.)?(norm|ln1|{norm})\.', 'norm.', key)
        name = re.sub(r'^(backbone\.)?head\.(fc\.)?(?=weight$|bias$)', 'head.fc.', name)
        if name.startswith(('norm.', 'head.')) and tensor.shape == getattr(own.get(name), 'shape', None):
            behind[name] = tensor
        else:
            others[key] = tensor
    with torch.device('meta'):
        backbone = model.family(model.arch, in_chans, out_norm=False, **model.arguments)
    tensors, report = match_to_backbone(backbone, Checkpoint(checkpoint.source, None, others))
    found = {key: tensor for key, tensor in tensors.items() if key in own and not tensor.is_meta} | behind
    for what, keys in (('loaded', behind), ('fresh', own.keys() - found.keys())):
        if keys:
            report += f'; {" and ".join(sorted({key.partition(".")[0] for key in keys}, reverse=True))} {what}'
    return found, report
