"""Fallback for ``mmcv._ext`` with the function and argument names of mmcv.

mmcv passes tensors by position. Most operators write their results into tensors that it passes.
"""

# ruff: noqa: D103, N803  mmcv documents and names these functions

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mlp_dense.errors import UserError
from mlp_dense.operators import (
    announce,
    carafe,
    deformable,
    focal_loss,
    full_precision,
    masked_conv,
    psa_mask,
    roi_align,
    roi_pool,
)
from mlp_dense.operators import border_align as border
from mlp_dense.operators import nms as suppression
from mlp_dense.operators.missing import explanation

AVERAGE = 1
"""The mode of RoIAlign that computes means; 0 computes maxima."""

BASE = 128


def get_compiler_version() -> str:
    return 'n/a'  # as mmcv without operators


get_compiling_cuda_version = get_compiler_version


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    announce()
    return suppression.nms(boxes, scores, iou_threshold, offset)


def softnms(boxes: Tensor, scores: Tensor, dets: Tensor, iou_threshold: float, method: int, **settings: Any) -> Tensor:
    method_name = ('naive', 'linear', 'gaussian')[method]
    kept, kept_scores = suppression.soft_nms(boxes, scores, iou_threshold, method=method_name, **settings)
    dets[: len(kept)] = torch.cat([boxes[kept], kept_scores[:, None].to(boxes.dtype)], 1)
    return kept


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    return [group.tolist() for group in suppression.nms_match(dets[:, :4], dets[:, 4], iou_threshold)]


def roi_align_forward(*tensors: Tensor, pool_mode: int, **settings: Any) -> None:
    announce()
    maps, rois, output, argmax_y, argmax_x = tensors
    if pool_mode == AVERAGE:
        output.copy_(roi_align.roi_align(maps, rois, **_roi_align(**settings)))
        return
    values, indices = roi_align.roi_align_max(maps, rois, **_roi_align(**settings))
    output.copy_(values)
    for target, digits in zip((argmax_y, argmax_x), _digits(indices), strict=True):
        target.copy_(digits)


def roi_align_backward(*tensors: Tensor, pool_mode: int, **settings: Any) -> None:
    grad_output, rois, argmax_y, argmax_x, grad_input = tensors
    geometry = _roi_align(**settings)
    if pool_mode == AVERAGE:
        grad_input.copy_(roi_align.roi_align_gradient(grad_output, rois, grad_input.shape, **geometry))
        return
    indices = BASE * argmax_y.long() + argmax_x.long()

    def select(maps: Tensor) -> Tensor:
        return roi_align.roi_align_max(maps, rois, **geometry, chosen=indices)[0]

    _write_gradients(select, [grad_input], grad_output, [grad_input])


def roi_pool_forward(*tensors: Tensor, spatial_scale: float, pooled_height: int, pooled_width: int) -> None:
    maps, rois, output, argmax = tensors
    cells = roi_pool.roi_pool_cells(maps, rois, (pooled_height, pooled_width), spatial_scale)
    output.copy_(roi_pool.values_of(maps, rois, cells))
    argmax.copy_(cells)


def roi_pool_backward(*tensors: Tensor, **settings: Any) -> None:
    grad_output, rois, argmax, grad_input = tensors
    select = partial(roi_pool.values_of, rois=rois, cells=argmax.long())
    _write_gradients(select, [grad_input], grad_output, [grad_input])


def border_align_forward(*tensors: Tensor, pool_size: int) -> None:
    maps, boxes, *outputs = tensors
    for output, result in zip(outputs, border.border_align(maps, boxes, pool_size), strict=True):
        output.copy_(result)


def border_align_backward(*tensors: Tensor, pool_size: int) -> None:
    grad_output, boxes, indices, grad_input = tensors

    def select(maps: Tensor) -> Tensor:
        return border.border_align(maps, boxes, pool_size, chosen=indices.long())[0]

    _write_gradients(select, [grad_input], grad_output, [grad_input])


def sigmoid_focal_loss_forward(*tensors: Tensor, **settings: Any) -> None:
    logits, target, weight, output = tensors
    output.copy_(focal_loss.sigmoid_focal_loss(logits, target, weight, **settings))


def sigmoid_focal_loss_backward(*tensors: Tensor, **settings: Any) -> None:
    logits, target, weight, grad_input = tensors
    loss = partial(focal_loss.sigmoid_focal_loss, target=target, weight=weight, **settings)
    _write_gradients(loss, [logits], torch.ones_like(logits), [grad_input])


def softmax_focal_loss_forward(*tensors: Tensor, **settings: Any) -> None:
    softmax, target, weight, output = tensors
    output.copy_(focal_loss.softmax_focal_loss(_logarithm(softmax), target, weight, **settings))


def softmax_focal_loss_backward(*tensors: Tensor, **settings: Any) -> None:
    softmax, target, weight, _, grad_input = tensors
    loss = partial(focal_loss.softmax_focal_loss, target=target, weight=weight, **settings)
    _write_gradients(loss, [_logarithm(softmax)], torch.ones_like(softmax[:, 0]), [grad_input])


def carafe_forward(*tensors: Tensor, **settings: Any) -> None:
    features, masks, saved, _, _, output = tensors
    output.copy_(carafe.carafe(features, masks, **settings))
    saved.copy_(features)


def carafe_backward(*tensors: Tensor, **settings: Any) -> None:
    grad_output, saved, masks, _, _, _, _, *gradients = tensors
    _write_gradients(partial(carafe.carafe, **settings), [saved, masks], grad_output, gradients)


def carafe_naive_forward(*tensors: Tensor, **settings: Any) -> None:
    features, masks, output = tensors
    output.copy_(carafe.carafe(features, masks, **settings))


def carafe_naive_backward(*tensors: Tensor, **settings: Any) -> None:
    grad_output, features, masks, *gradients = tensors
    _write_gradients(partial(carafe.carafe, **settings), [features, masks], grad_output, gradients)


def masked_im2col_forward(*tensors: Tensor, kernel_h: int, kernel_w: int, pad_h: int, pad_w: int) -> None:
    features, rows, columns, output = tensors
    output.copy_(masked_conv.masked_im2col(features, rows, columns, (kernel_h, kernel_w), (pad_h, pad_w)))


def masked_col2im_forward(*tensors: Tensor, height: int, width: int, channels: int) -> None:
    values, rows, columns, output = tensors
    output.copy_(masked_conv.masked_col2im(values, rows, columns, (height, width)))


def psamask_forward(*tensors: Tensor, psa_type: int, h_mask: int, w_mask: int, **derived: int) -> None:
    masks, output = tensors
    output.copy_(psa_mask.psa_mask(masks, (h_mask, w_mask), distribute=psa_type == 1))


def psamask_backward(*tensors: Tensor, psa_type: int, h_mask: int, w_mask: int, **derived: int) -> None:
    grad_output, grad_input = tensors
    place = partial(psa_mask.psa_mask, mask_size=(h_mask, w_mask), distribute=psa_type == 1)
    _write_gradients(place, [grad_input], grad_output, [grad_input])


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
        raise NotImplementedError(explanation(name))

    return missing


def _roi_align(
    aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int, aligned: bool
) -> Any:
    return dict(size=(aligned_height, aligned_width), scale=spatial_scale, ratio=sampling_ratio, aligned=aligned)


def _digits(indices: Tensor) -> tuple[Tensor, Tensor]:
    """Return numbers that half precision can represent, for indices of samples."""
    return indices // BASE, indices % BASE


def _logarithm(softmax: Tensor) -> Tensor:
    """Return logits of probabilities. mmcv passes only probabilities, and clamps them to the same minimum."""
    return full_precision(softmax).clamp(min=torch.finfo(torch.float32).tiny).log()


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
        result = function(*inputs)
        if not result.requires_grad:  # no boxes, or no samples in them
            return
        gradients = torch.autograd.grad(result, inputs, grad_output, allow_unused=True)
    for output, gradient in zip(outputs, gradients, strict=True):
        if gradient is not None:  # None for an unused bias
            output.copy_(gradient)
