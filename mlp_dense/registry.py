"""Scope `mlp_dense` in the registries of mmengine, and in the paths of configs.

mmengine imports this file when a config contains ``type='mlp_dense.X'``. A type is imported when it is first looked up,
so a package that only other types need may be missing or broken.
"""

from importlib import import_module

from mmengine import registry as root
from mmengine.registry import Registry

from . import mmengine_privates
from .backbones import FAMILIES
from .catalog import config_path
from .errors import NotInstalledError, explain_import


class LazyRegistry(Registry):
    """A registry of scope `mlp_dense`; `modules` maps modules below mlp_dense to the names of their types."""

    def __init__(self, parent: Registry, modules: dict[str, str] | None = None):
        # Without a location, mmengine would import mlp_dense.utils, because add_config_source lists the package.
        super().__init__(parent.name, parent=parent, scope='mlp_dense', locations=['mlp_dense'])
        self.module_of = {name: module for module, names in (modules or {}).items() for name in names.split()}

    def get(self, key: str) -> type | None:
        """Return the type of a name, None if it is unknown. Raises NotInstalledError if its module is unusable."""
        scope, name = self.split_scope_key(key)
        if scope in (None, 'mlp_dense') and name in self.module_of and name not in super().module_dict:
            try:
                module = import_module(f'mlp_dense.{self.module_of[name]}')
            except Exception as error:  # a broken package may raise anything
                unknown = f'{type(error).__name__}: {error}. Repair the package that raises this error.'
                reason = explain_import(error) or unknown
                raise NotInstalledError(f'mlp_dense.{name} cannot be imported: {reason}') from error
            self.register_module(name, force=True, module=getattr(module, name))
        return super().get(key)

    @property
    def module_dict(self) -> dict:
        """Types by name; None if a type has not been imported yet."""
        return dict.fromkeys(self.module_of) | super().module_dict


MODELS = LazyRegistry(
    root.MODELS,
    {
        'backbones': ' '.join(family.__name__ for family in FAMILIES),
        'training.mmdet_fixes': 'DetDataPreprocessor InstanceTTAModel',
        'training.label_maps': 'SegDataPreProcessor WeightedCrossEntropyLoss',
        'export.detectors': 'ExportedDetector',
        'export.segmentors': 'ExportedSegmentor',
        'classification.model': 'ImageClassifier ImgDataPreprocessor',
    },
)
RUNNERS = LazyRegistry(root.RUNNERS, {'training.runner': 'DenseRunner'})
LOOPS = LazyRegistry(root.LOOPS, {'training.loops': 'EpochLoop IterLoop'})
HOOKS = LazyRegistry(
    root.HOOKS,
    {
        'training.hooks': 'BalanceHook DrawPredictionsHook FuseHook ResultsHook RunHook',
        'training.checkpoint_hook': 'CheckpointHook ResumeHook',
        'training.finite_loss_hook': 'FiniteLossHook',
        'training.console': 'ConsoleHook',
        'checks.data_check_hook': 'DataCheckHook SkippingHook',
    },
)
LOG_PROCESSORS = LazyRegistry(root.LOG_PROCESSORS, {'training.console': 'TimedLog'})
CONSTRUCTORS = LazyRegistry(root.OPTIM_WRAPPER_CONSTRUCTORS, {'training.layer_decay': 'LayerDecayConstructor'})
METRICS = LazyRegistry(
    root.METRICS,
    {
        'training.label_maps': 'DumpLabelMaps WriteLabelMaps',
        'training.mmdet_fixes': 'CocoMetric',
        'classification.model': 'Accuracy DumpClasses',
    },
)
DATASETS = LazyRegistry(
    root.DATASETS,
    {
        'training.data_order': 'SeededDataset',
        'training.mmdet_fixes': 'CocoDataset',
        'classification.data': 'ClassFolders ImageArchive ImageNet',
    },
)
TRANSFORMS = LazyRegistry(
    root.TRANSFORMS,
    {
        'training.label_maps': 'MapLabels',
        'classification.data': 'LoadImage PackClass TimmTransform',
        'datasets.bands': 'LoadMultiBandImage',
    },
)
DATA_SAMPLERS = LazyRegistry(
    root.DATA_SAMPLERS, {'training.data_order': 'SeededBatches', 'classification.data': 'RepeatedAugmentation'}
)
PARAM_SCHEDULERS = LazyRegistry(root.PARAM_SCHEDULERS, {'classification.model': 'CosineLR'})
FUNCTIONS = LazyRegistry(root.FUNCTIONS, {'training.data_order': 'leave_signals'})
for _registry in [value for value in vars(root).values() if isinstance(value, Registry)]:
    if 'mlp_dense' not in _registry.children:
        LazyRegistry(_registry)  # mmengine warns if default_scope has no registry
for _family in FAMILIES:  # bare names for ``import mlp_dense`` and custom_imports
    root.MODELS.register_module(module=_family)
mmengine_privates.add_config_source('mlp_dense', config_path)  # for ``_base_ = 'mlp_dense::...'``
