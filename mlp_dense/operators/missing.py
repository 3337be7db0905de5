"""Operators of mmcv without a fallback: what a call of them reports."""

WITH_CPU_KERNEL = (
    *('active_rotated_filter', 'bbox_overlaps', 'bezier_align', 'box_iou', 'contour_expand', 'dynamic_voxelize'),
    *('hard_voxelize', 'nms', 'pixel_group', 'points_in_boxes_cpu', 'psamask', 'roi_align', 'rotated_feature_align'),
    'softnms',
)
"""Beginnings of the names of mmcv's operators that run on a CPU, if they are compiled."""


def explanation(operator: str) -> str:
    """Return a sentence about a missing operator and the remedy."""
    runs = 'Compile' if operator.startswith(WITH_CPU_KERNEL) else 'It needs a GPU also in mmcv. Use one, and compile'
    return (
        f'{operator} is an operator of mmcv without a fallback in mlp_dense.operators. {runs} the operators of mmcv: '
        "install 'setuptools<80', wheel and ninja, then run MMCV_WITH_OPS=1 pip install --no-build-isolation "
        'mmcv==2.1.0 (10 to 25 minutes, with a C++ compiler).'
    )
