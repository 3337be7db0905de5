"""This package's scope in the OpenMMLab registries.

mmengine imports ``mlp_dense.registry`` by itself when a config says ``type='mlp_dense.X'``, and then the modules at
``locations``, which register what they hold.
"""

from importlib.util import find_spec

from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.registry import METRICS as ROOT_METRICS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as ROOT_CONSTRUCTORS
from mmengine.registry import Registry

SCOPE = 'mlp_dense'
MODELS = Registry(
    'model',
    parent=ROOT_MODELS,
    scope=SCOPE,
    locations=['mlp_dense.engine.families', *(['mlp_dense.engine.tta'] if find_spec('mmdet') else [])],
)
HOOKS = Registry('hook', parent=ROOT_HOOKS, scope=SCOPE, locations=['mlp_dense.engine.hooks'])
CONSTRUCTORS = Registry(
    'optimizer wrapper constructor', parent=ROOT_CONSTRUCTORS, scope=SCOPE, locations=['mlp_dense.engine.optim']
)
METRICS = Registry('metric', parent=ROOT_METRICS, scope=SCOPE, locations=['mlp_dense.engine.metrics'])
