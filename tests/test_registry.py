"""Registries: backbones are found from every scope, broken packages and wrong arguments are explained."""

import mmdet
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mlp_dense import registry
from mlp_dense.backbones import FAMILIES
from mlp_dense.errors import UserError
from mlp_dense.registry import LazyRegistry
from support.models import SMALL, image
from support.tools import run

ROOTS = ('mmengine', 'mmdet', 'mmseg')
NAMES = [cls.__name__ for cls in FAMILIES]
BACKBONE = f'arch=dict({", ".join(f"{key}={value}" for key, value in SMALL.items())})'


STUB = """
import sys
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
sys.modules['mmcv._ext'] = stub = module_from_spec(ModuleSpec('mmcv._ext', None))
stub.__getattr__ = lambda name: object.__getattribute__(stub, name) if name.startswith('_') else print
"""


def in_fresh_python(program: str) -> None:
    run('-W', 'ignore', '-c', program)


@pytest.mark.slow
@pytest.mark.parametrize('root', ROOTS)
def test_scoped_name_is_found_without_an_import(root):
    in_fresh_python(f"""{STUB}
from {root}.registry import MODELS
assert 'mlp_dense' not in sys.modules
for name in {NAMES}:
    model = MODELS.build(dict(type='mlp_dense.' + name, {BACKBONE}))
    assert type(model).__name__ == name and type(model).__module__.startswith('mlp_dense.')
""")


@pytest.mark.slow
def test_broken_optional_packages_are_errors_of_their_types_only(tmp_path):
    for package in ('timm', 'mmseg', 'onnx', 'onnxruntime'):
        (tmp_path / f'{package}.py').write_text(f'raise OSError("{package} is broken here")')
    in_fresh_python(f"""{STUB}
sys.path.insert(0, {str(tmp_path)!r})
from mmdet.registry import MODELS
assert type(MODELS.build(dict(type='mlp_dense.HireMLP', arch='tiny'))).__name__ == 'HireMLP'
assert not sys.modules.keys() & {{'timm', 'mmseg', 'mlp_dense.export', 'mlp_dense.classification'}}
for name, package in (('ImageClassifier', 'timm'), ('ExportedSegmentor', 'mmseg')):
    try:
        MODELS.build(dict(type='mlp_dense.' + name))
        raise SystemExit(name + ' was built')
    except ImportError as error:
        expected = f'mlp_dense.{{name}} cannot be imported: OSError: {{package}} is broken here.'
        assert str(error).startswith(expected), error
        assert isinstance(error.__cause__, OSError)
""")


@pytest.mark.parametrize('registry', [value for value in vars(registry).values() if isinstance(value, LazyRegistry)])
def test_each_row_names_a_type_of_its_module(registry):
    for name in registry.module_of:
        if registry.module_of[name].startswith('classification'):
            pytest.importorskip('timm')
        assert registry.get(name).__name__ == name and registry.get(f'mlp_dense.{name}').__name__ == name


@pytest.mark.slow
@pytest.mark.parametrize('method', ['import', 'custom_imports'])
def test_bare_name_is_found_after_an_import(tmp_path, method):
    config = tmp_path / 'config.py'
    config.write_text("custom_imports = dict(imports=['mlp_dense.operators'], allow_failed_imports=False)\n")
    from_config = f'from mmengine.config import Config; Config.fromfile({str(config)!r})'
    importing = 'import mlp_dense.operators' if method == 'import' else from_config
    in_fresh_python(f"""
{importing}
import mmengine.registry, mmdet.registry, mmseg.registry
from mmengine.registry import DefaultScope
for scope, registry in (('mmengine', mmengine), ('mmdet', mmdet), ('mmseg', mmseg)):
    DefaultScope.get_instance(scope, scope_name=scope)
    for name in {NAMES}:
        assert type(registry.registry.MODELS.build(dict(type=name, {BACKBONE}))).__name__ == name
""")


@pytest.mark.parametrize('name', NAMES)
def test_backbone_in_mmdets_own_retinanet(tmp_path, name):
    from mmdet.structures import DetDataSample
    from mmdet.utils import register_all_modules
    from mmengine.structures import InstanceData

    base = f'{next(iter(mmdet.__path__))}/.mim/configs/retinanet/retinanet_r50_fpn_1x_coco.py'
    child = tmp_path / 'retinanet.py'
    child.write_text(f"""
_base_ = {base!r}
model = dict(
    backbone=dict(_delete_=True, type='mlp_dense.{name}', {BACKBONE}, out_indices=(1, 2, 3)),
    neck=dict(in_channels={list(SMALL['dims'][1:])}, start_level=0, out_channels=16),
    bbox_head=dict(num_classes=3, in_channels=16, feat_channels=16, stacked_convs=1))
""")
    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope('mmdet'):
        detector = MODELS.build(Config.fromfile(child).model)
    assert type(detector.backbone).__name__ == name

    sample = DetDataSample(
        metainfo=dict(**dict.fromkeys(('img_shape', 'pad_shape', 'ori_shape'), (96, 80)), scale_factor=(1.0, 1.0)),
        gt_instances=InstanceData(bboxes=torch.tensor([[8.0, 8.0, 60.0, 70.0]]), labels=torch.tensor([1])),
    )
    losses = detector.train()(image(2, 3, 96, 80), [sample, sample.clone()], mode='loss')
    total = sum(sum(loss) for loss in losses.values())
    assert set(losses) == {'loss_cls', 'loss_bbox'} and total.isfinite() and total > 0
    total.backward()
    assert [n for n, p in detector.named_parameters() if p.requires_grad and p.grad is None] == []
    with torch.no_grad():
        assert len(detector.eval()(image(1, 3, 96, 80), [sample], mode='predict')) == 1


@pytest.mark.parametrize('build', [lambda cls, **kw: cls(**kw), lambda cls, **kw: MODELS.build(dict(type=cls, **kw))])
def test_unknown_argument_lists_allowed_arguments(family, build):
    with pytest.raises(TypeError) as error:
        build(family, arch=SMALL, drop_path=0.1)
    assert isinstance(error.value, UserError)
    needed = (family.__name__, 'drop_path', 'drop_path_rate', 'out_indices', 'arch')
    assert [word for word in needed if word not in str(error.value)] == []


@pytest.mark.parametrize(
    'argument, value, needed',
    [
        ('arch', 'huge', ['huge']),
        ('arch', dict(depths=(1, 1, 1, 1)), ['depths', 'dims']),
        ('arch', dict(SMALL, depth=3), ["'depth'", 'depths', 'dims', 'mlp_ratios']),
        ('arch', dict(SMALL, dims=(8, 8)), ['dims', '(8, 8)', '4 stages']),
        ('out_indices', (0, 4), ['(0, 4)', '0, 1, 2, 3']),
        ('out_indices', (-1,), ['(-1,)', '0, 1, 2, 3']),
        ('out_indices', (2, 1), ['(2, 1)', 'ascending']),
        ('out_indices', (1, 1), ['(1, 1)', 'ascending']),
        ('out_indices', (), ['0, 1, 2, 3']),
        ('norm_cfg', dict(type='IN'), ['IN', 'norm']),
        ('drop_path_rate', 1.0, ['1.0']),
        ('drop_path_rate', -0.1, ['-0.1']),
        ('frozen_stages', 5, ['5', '-1 to 4']),
        ('frozen_stages', -2, ['-2', '-1 to 4']),
        ('out_indices', 3, ['3', '0, 1, 2, 3']),
        ('out_indices', ('0', 1), ['0, 1, 2, 3']),
        ('arch', 50, ['50', 'dict']),
    ],
)
def test_invalid_value_lists_allowed_values(family, argument, value, needed):
    if value == 'huge':
        needed = ['huge', *family.archs]
    if argument == 'norm_cfg':
        needed = ['IN', *family.norms_allowed]
    with pytest.raises(UserError) as error:
        family(**{'arch': SMALL, argument: value})
    assert [word for word in [family.__name__, argument, *needed] if word not in str(error.value)] == []
