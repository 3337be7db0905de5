"""This package's scope in the OpenMMLab registries.

mmengine imports this file when a config says ``type='mlp_dense.X'``, then ``locations``, which register what they hold.
"""

from importlib.util import find_spec

from mmengine import registry as root
from mmengine.registry import Registry


def _child(parent: Registry, *modules: str) -> Registry:
    locations = [f'mlp_dense.engine.{module}' for module in modules]
    return Registry(parent.name, parent=parent, scope='mlp_dense', locations=locations)


MODELS = _child(root.MODELS, 'families', *(['tta'] if find_spec('mmdet') else []))
HOOKS = _child(root.HOOKS, 'hooks', 'numerics', 'saving')
CONSTRUCTORS = _child(root.OPTIM_WRAPPER_CONSTRUCTORS, 'optim')
METRICS = _child(root.METRICS, 'metrics', *(['coco'] if find_spec('mmdet') else []))
