"""Fallback for ``mmcv._ext`` with the function and argument names of mmcv.

mmcv passes tensors by position. Most operators write their results into tensors that it passes.
"""

# ruff: noqa: D103, N803  mmcv documents and names these functions

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mlp_dense.errors import UserError
from mlp_dense.operators import announce, deformable, roi_align
from mlp_dense.operators.nms import nms as _nms


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    announce()
    return _nms(boxes, scores, iou_threshold, offset)


def roi_align_forward(*tensors: Tensor, pool_mode: int, **settings: Any) -> None:
    announce()
    if pool_mode == 0:
        __getattr__("roi_align with pool_mode='max'")()
    maps, rois, output, _, _ = tensors
    output.copy_(roi_align.roi_align(maps, rois, **_roi_align(**settings)))


def roi_align_backward(*tensors: Tensor, pool_mode: int, **settings: Any) -> None:
    grad_output, rois, _, _, grad_input = tensors
    grad_input.copy_(roi_align.roi_align_gradient(grad_output, rois, grad_input.shape, **_roi_align(**settings)))


def sigmoid_focal_loss_forward(*tensors: Tensor, **settings: Any) -> None:
    logits, target, weight, output = tensors
    output.copy_(_focal_loss(logits, target, weight, **settings))


def sigmoid_focal_loss_backward(*tensors: Tensor, **settings: Any) -> None:
    logits, target, weight, grad_input = tensors
    loss = partial(_focal_loss, target=target, weight=weight, **settings)
    _write_gradients(loss, [logits], torch.ones_like(logits), [grad_input])


def deform_conv_forward(*tensors: Tensor, **settings: int) -> None:
    x, weight, offset, output, _, _ = tensors
    expected = (2 * settings['deformable_group'] * weight[0, 0].numel(), *output.shape[2:])
    if offset.shape[1:] != expected:
        raise UserError(f'Offsets of shape {(*offset.shape[1:],)} do not fit; pass offsets of shape {expected}.')
    output.copy_(deformable.deform_conv2d(x, offset, weight, **_deform_conv(**settings)))


def deform_conv_backward_input(*tensors: Tensor, **settings: int) -> None:
    x, offset, grad_output, grad_input, grad_offset, weight, _ = tensors
    convolve = partial(deformable.deform_conv2d, weight=weight, **_deform_conv(**settings))
    _write_gradients(convolve, [x, offset], grad_output, [grad_input, grad_offset])


def deform_conv_backward_parameters(*tensors: Tensor, scale: float, **settings: int) -> None:
    x, offset, grad_output, grad_weight, _, _ = tensors
    convolve = partial(deformable.deform_conv2d, x, offset, **_deform_conv(**settings))
    weight = torch.zeros_like(grad_weight)  # the convolution is linear, so its weight has no influence
    _write_gradients(convolve, [weight], scale * grad_output, [grad_weight])


def modulated_deform_conv_forward(*tensors: Tensor, **settings: Any) -> None:
    x, weight, bias, _, offset, mask, output, _ = tensors
    output.copy_(_modulated_deform_conv(x, weight, bias, offset, mask, **settings))


def modulated_deform_conv_backward(*tensors: Tensor, **settings: Any) -> None:
    x, weight, bias, _, offset, mask, _, *gradients, grad_output = tensors
    convolve = partial(_modulated_deform_conv, **settings)
    _write_gradients(convolve, [x, weight, bias, offset, mask], grad_output, gradients)


def ms_deform_attn_forward(*tensors: Tensor, im2col_step: int = 0) -> Tensor:
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch as attend  # imports this module

    value, shapes, _, locations, weights = tensors
    return attend(value, shapes, locations, weights)


def ms_deform_attn_backward(*tensors: Tensor, im2col_step: int) -> None:
    value, shapes, starts, locations, weights, grad_output, *gradients = tensors

    def attend(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        return ms_deform_attn_forward(value, shapes, starts, locations, weights)

    _write_gradients(attend, [value, locations, weights], grad_output, gradients)


def __getattr__(name: str) -> Callable[..., None]:
    """Return a function that raises an error when it is called.

    mmcv gets all of its operators when it is imported, so a missing operator is an error only when it is used.
    """
    if name.startswith('__'):
        raise AttributeError(name)

    def missing(*args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(
            f'{name} is an operator of mmcv without a fallback in mlp_dense.operators. Compile the operators of mmcv: '
            "install 'setuptools<80', wheel and ninja, then run MMCV_WITH_OPS=1 pip install --no-build-isolation "
            'mmcv==2.1.0 (10 to 25 minutes, with a C++ compiler).'
        )

    return missing


def _roi_align(
    aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int, aligned: bool
) -> Any:
    return dict(size=(aligned_height, aligned_width), scale=spatial_scale, ratio=sampling_ratio, aligned=aligned)


def _focal_loss(logits: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float) -> Tensor:
    """Return RetinaNet's loss (N, C) of logits (N, C) in their dtype, computed at least in float32 (arXiv 1708.02002).

    `target` (N,) is the class of each sample, or C for the background. `weight` (C,) contains weights of the samples by
    their class, or is empty. `gamma` reduces the loss of easy samples, and `alpha` is the weight of positive ones.
    """
    x = logits if logits.dtype == torch.float64 else logits.float()
    positive = F.one_hot(target, x.shape[1] + 1)[:, :-1].to(x.dtype)
    p = x.sigmoid()
    loss = -alpha * positive * (1 - p) ** gamma * F.logsigmoid(x)
    loss = loss - (1 - alpha) * (1 - positive) * p**gamma * F.logsigmoid(-x)
    if len(weight):
        loss = loss * F.pad(weight, (0, 1), value=1)[target, None]
    return loss.to(logits.dtype)


def _deform_conv(dH: int, dW: int, padH: int, padW: int, dilationH: int, dilationW: int, **derived: int) -> Any:
    return dict(stride=(dH, dW), padding=(padH, padW), dilation=(dilationH, dilationW))


def _modulated_deform_conv(
    x: Tensor, weight: Tensor, bias: Tensor, offset: Tensor, mask: Tensor, with_bias: bool, **settings: int
) -> Tensor:
    kernel, stride, padding, dilation = (
        (settings[f'{name}_h'], settings[f'{name}_w']) for name in ('kernel', 'stride', 'pad', 'dilation')
    )
    geometry = zip(x.shape[2:], kernel, stride, padding, dilation, strict=True)
    size = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in geometry]
    planes = settings['deformable_group'] * kernel[0] * kernel[1]
    offset, mask = _first_values(offset, 2 * planes, *size), _first_values(mask, planes, *size)
    output = deformable.deform_conv2d(x, offset, weight, mask=mask, stride=stride, padding=padding, dilation=dilation)
    return output + bias[:, None, None] if with_bias else output


def _first_values(maps: Tensor, *shape: int) -> Tensor:
    """Return the first values of each image of maps (B, C, H, W) in a smaller shape.

    mmcv reads offsets and masks so. DyHead and GLIP pass those of a finer level.
    """
    if maps.shape[1:].numel() < math.prod(shape):
        raise UserError(f'Offsets or a mask of shape {(*maps.shape[1:],)} do not fit; pass maps of shape {shape}.')
    return maps.flatten(1)[:, : math.prod(shape)].unflatten(1, shape)


def _write_gradients(
    function: Callable[..., Tensor], inputs: list[Tensor], grad_output: Tensor, outputs: Sequence[Tensor]
) -> None:
    """Write the gradients of a function with respect to its inputs into `outputs`."""
    with torch.enable_grad():
        inputs = [tensor.detach().requires_grad_() for tensor in inputs]
        gradients = torch.autograd.grad(function(*inputs), inputs, grad_output, allow_unused=True)
    for output, gradient in zip(outputs, gradients, strict=True):
        if gradient is not None:  # None for an unused bias
            output.copy_(gradient)
