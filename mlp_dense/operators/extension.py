"""What stands in for ``mmcv._ext``: what mmcv calls, by its names there. Results are written into given tensors."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mlp_dense.operators import announce, deformable, focal_loss, roi_align
from mlp_dense.operators.nms import nms as _nms


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    announce()
    return _nms(boxes, scores, iou_threshold, offset)


def roi_align_forward(
    input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor, pool_mode: int, **how: Any
) -> None:
    announce()
    if pool_mode == 0:
        __getattr__("roi_align with pool_mode='max'")()
    output.copy_(roi_align.roi_align(input, rois, **_roi_align(**how)))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    pool_mode: int,
    **how: Any,
) -> None:
    grad_input.copy_(roi_align.roi_align_gradient(grad_output, rois, grad_input.shape, **_roi_align(**how)))


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    output.copy_(focal_loss.sigmoid_focal_loss(input, target, weight, gamma, alpha))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    loss = partial(focal_loss.sigmoid_focal_loss, target=target, weight=weight, gamma=gamma, alpha=alpha)
    _write_gradients(loss, [input], torch.ones_like(input), [grad_input])


def deform_conv_forward(
    input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, columns: Tensor, ones: Tensor, **how: int
) -> None:
    output.copy_(deformable.deform_conv2d(input, offset, weight, **_deform_conv(**how)))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **how: int,
) -> None:
    convolve = partial(deformable.deform_conv2d, weight=weight, **_deform_conv(**how))
    _write_gradients(convolve, [input, offset], grad_output, [grad_input, grad_offset])


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    scale: float,
    **how: int,
) -> None:
    def convolve(weight: Tensor) -> Tensor:
        return deformable.deform_conv2d(input, offset, weight, **_deform_conv(**how))

    _write_gradients(convolve, [torch.zeros_like(grad_weight)], scale * grad_output, [grad_weight])  # it is linear


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    **how: int,
) -> None:
    output.copy_(_modulated_deform_conv(input, weight, bias, offset, mask, **how))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    **how: int,
) -> None:
    given, wanted = [input, weight, bias, offset, mask], [grad_input, grad_weight, grad_bias, grad_offset, grad_mask]
    _write_gradients(partial(_modulated_deform_conv, **how), given, grad_output, wanted)


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch as attend  # it imports this module

    return attend(value, value_spatial_shapes, sampling_locations, attention_weights)


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    def attend(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        return ms_deform_attn_forward(value, value_spatial_shapes, value_level_start_index, locations, weights, 0)

    given = [value, sampling_locations, attention_weights]
    _write_gradients(attend, given, grad_output, [grad_value, grad_sampling_loc, grad_attn_weight])


def __getattr__(name: str) -> Callable[..., None]:
    """mmcv asks for all of its operators when it is imported; one that is missing here says so when it is called."""
    if name.startswith('__'):
        raise AttributeError(name)

    def missing(*args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(
            f'{name} is an operator of mmcv that mlp_dense.operators does not have; compile those of mmcv: install '
            "'setuptools<80', wheel and ninja, then MMCV_WITH_OPS=1 pip install --no-build-isolation mmcv==2.1.0 "
            '(10 to 25 minutes, with a C++ compiler).'
        )

    return missing


def _roi_align(
    aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int, aligned: bool
) -> dict[str, Any]:
    return dict(size=(aligned_height, aligned_width), scale=spatial_scale, ratio=sampling_ratio, aligned=aligned)


def _deform_conv(
    dH: int, dW: int, padH: int, padW: int, dilationH: int, dilationW: int, **derived: int
) -> dict[str, Sequence[int]]:
    return dict(stride=(dH, dW), padding=(padH, padW), dilation=(dilationH, dilationW))


def _modulated_deform_conv(
    input: Tensor, weight: Tensor, bias: Tensor, offset: Tensor, mask: Tensor, with_bias: bool, **how: int
) -> Tensor:
    sides = {name: (how[f'{short}_h'], how[f'{short}_w']) for name, short in _SHORT.items()}
    output = deformable.deform_conv2d(input, offset, weight, mask=mask, **sides)
    return output + bias[:, None, None] if with_bias else output


_SHORT = dict(stride='stride', padding='pad', dilation='dilation')


def _write_gradients(
    function: Callable[..., Tensor], given: list[Tensor], gradient: Tensor, wanted: Sequence[Tensor]
) -> None:
    """Writes the gradients of what is given into what is wanted."""
    with torch.enable_grad():
        given = [each.detach().requires_grad_() for each in given]
        found = torch.autograd.grad(function(*given), given, gradient, allow_unused=True)
    for target, each in zip(wanted, found, strict=True):
        if each is not None:  # a bias that is not used
            target.copy_(each)
