"""This package's scope in the OpenMMLab registries.

mmengine imports ``mlp_dense.registry`` by itself when a config says ``type='mlp_dense.X'``. The backbones are
registered in mmengine's root registry too, so that after ``import mlp_dense`` the bare name is found from every scope.
"""

from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.registry import METRICS as ROOT_METRICS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as ROOT_CONSTRUCTORS
from mmengine.registry import Registry

SCOPE = 'mlp_dense'
MODELS = Registry('model', parent=ROOT_MODELS, scope=SCOPE, locations=['mlp_dense.backbones', 'mlp_dense.engine.tta'])
HOOKS = Registry('hook', parent=ROOT_HOOKS, scope=SCOPE, locations=['mlp_dense.engine.hooks'])
CONSTRUCTORS = Registry(
    'optimizer wrapper constructor', parent=ROOT_CONSTRUCTORS, scope=SCOPE, locations=['mlp_dense.engine.optim']
)
METRICS = Registry('metric', parent=ROOT_METRICS, scope=SCOPE, locations=['mlp_dense.engine.metrics'])


def register_backbone(backbone: type) -> type:
    """Registers a backbone as ``mlp_dense.Name`` and under its bare name."""
    ROOT_MODELS.register_module(module=backbone)
    return MODELS.register_module(module=backbone)
