"""Registries: backbones are found from every scope, broken packages and wrong arguments are explained."""

import pytest

from mlp_dense import registry
from mlp_dense.backbones import FAMILIES
from mlp_dense.errors import UserError
from mlp_dense.registry import LazyRegistry
from support.models import SMALL
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
def test_scoped_name_is_found_without_an_import():
    in_fresh_python(f"""{STUB}
import mmengine.registry, os, torch  # what all roots import
from importlib import import_module
for root in {ROOTS}:
    if os.fork():
        assert os.wait()[1] == 0, root
        continue
    MODELS = import_module(root + '.registry').MODELS
    assert not sys.modules.keys() & ({{'mlp_dense', *{ROOTS[1:]}}} - {{root}})
    for name in {NAMES}:
        model = MODELS.build(dict(type='mlp_dense.' + name, {BACKBONE}))
        assert type(model).__name__ == name and type(model).__module__.startswith('mlp_dense.')
    break
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


@pytest.mark.parametrize('registry', [value for value in vars(registry).values() if isinstance(value, LazyRegistry)])
def test_no_registry_warns_about_its_package(registry, log_lines, monkeypatch):
    """Mmengine lists the package because of mlp_dense::NAME, and would import its module `utils`."""
    monkeypatch.setattr(registry, '_imported', False)
    registry.import_from_location()
    assert not any('not installed' in line for line in log_lines)


@pytest.mark.slow
def test_bare_name_is_found_after_an_import(tmp_path):
    """The import is a statement, or `custom_imports` of a config."""
    config = tmp_path / 'config.py'
    config.write_text("custom_imports = dict(imports=['mlp_dense.operators'], allow_failed_imports=False)\n")
    in_fresh_python(f"""
import mmengine.registry, os, torch
from mmengine.config import Config
if os.fork():
    assert os.wait()[1] == 0, 'of the import'
    Config.fromfile({str(config)!r})
else:
    import mlp_dense.operators
import mmdet.registry, mmseg.registry
from mmengine.registry import DefaultScope
for scope, registry in (('mmengine', mmengine), ('mmdet', mmdet), ('mmseg', mmseg)):
    DefaultScope.get_instance(scope, scope_name=scope)
    for name in {NAMES}:
        assert type(registry.registry.MODELS.build(dict(type=name, {BACKBONE}))).__name__ == name
""")


@pytest.mark.parametrize(
    'argument, value, needed',
    [
        ('arch', 'huge', ['huge']),
        ('arch', dict(depths=(1, 1, 1, 1)), ['depths', 'dims']),
        ('arch', dict(SMALL, depth=3), ["'depth'", 'depths', 'dims', 'mlp_ratios']),
        ('arch', dict(SMALL, dims=(8, 8)), ['dims', '(8, 8)', '4 stages']),
        ('out_indices', (0, 4), ['(0, 4)', '0, 1, 2, 3']),
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
