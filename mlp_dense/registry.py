"""This package's scope in the OpenMMLab registries.

mmengine imports this file when a config says ``type='mlp_dense.X'``, then ``locations``, which register what they hold.
"""

from importlib.util import find_spec

from mmengine import registry as root
from mmengine.registry import Registry


def _child(parent: Registry, *modules: str) -> Registry:
    locations = [f'mlp_dense.{module}' for module in modules]
    return Registry(parent.name, parent=parent, scope='mlp_dense', locations=locations)


def _if_installed(package: str, *modules: str) -> tuple[str, ...]:
    return modules if find_spec(package) else ()


MODELS = _child(
    root.MODELS,
    'training.families',
    *_if_installed('mmdet', 'training.tta', 'export.mmdet_model'),
    *_if_installed('mmseg', 'training.losses', 'export.mmseg_model'),
    *_if_installed('timm', 'classification.model'),
)
HOOKS = _child(
    root.HOOKS, 'training.hooks', 'training.finite_loss_hook', 'training.report_hook', 'training.checkpoint_hook'
)
CONSTRUCTORS = _child(root.OPTIM_WRAPPER_CONSTRUCTORS, 'training.layer_decay')
METRICS = _child(
    root.METRICS,
    'training.label_maps',
    *_if_installed('mmdet', 'training.coco_metric'),
    *_if_installed('timm', 'classification.metrics'),
)
DATASETS = _child(root.DATASETS, *_if_installed('timm', 'classification.data'))
TRANSFORMS = _child(root.TRANSFORMS, *_if_installed('timm', 'classification.data'))
DATA_SAMPLERS = _child(root.DATA_SAMPLERS, *_if_installed('timm', 'classification.data'))
PARAM_SCHEDULERS = _child(root.PARAM_SCHEDULERS, *_if_installed('timm', 'classification.schedule'))
for _registry in [each for each in vars(root).values() if isinstance(each, Registry)]:
    if 'mlp_dense' not in _registry.children:
        _child(_registry)  # else mmengine warns of a default_scope that has none
