"""The floors of docs/architecture.md: no import goes up, none goes round, and importing costs little."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import mlp_dense
from support.configs import ROOT
from support.tools import run

PACKAGE = ROOT / 'mlp_dense'
FLOORS = (  # from bottom to top
    ('errors', 'mmengine_privates', 'catalog'),
    ('checkpoints', 'datasets', 'operators', 'kernels'),
    ('outputs',),
    ('visualization', 'backbones', 'formats', 'tasks'),
    ('registry', 'timm', 'torchvision'),
    ('config', 'reports'),
    ('checks',),
    ('training',),
    ('classification',),
    ('inference',),
    ('export',),
)
FILES = [file for file in sorted(PACKAGE.rglob('*.py')) if '.mim' not in file.parts and file.name != '__main__.py']


def imports(file: Path) -> Iterator[Path]:
    """Yield the files of this package that a file imports, also inside functions."""
    package = ('mlp_dense', *file.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
        names = [each.name for each in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            module = '.'.join([*base, *filter(None, [node.module])])
            names = [f'{module}.{name}' if file_of(f'{module}.{name}') else module for name in names]
        yield from filter(None, map(file_of, names))


def file_of(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split('.'))
    found = [each for each in (path.with_suffix('.py'), path / '__init__.py') if each.is_file()]
    return found[0] if module.startswith('mlp_dense') and found else None


GRAPH = {file: set(imports(file)) - {file} for file in FILES}


def room(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix('.py')


def test_the_graph_is_the_packages():
    imported = {file.relative_to(PACKAGE).as_posix() for file in GRAPH[PACKAGE / 'config' / 'validation.py']}
    checkpoints = {'checkpoints/files.py', 'checkpoints/reading.py'}
    assert imported == {
        'config/config_file.py',
        'config/unread.py',
        'errors.py',
        'mmengine_privates.py',
        'tasks.py',
        *checkpoints,
    }


def test_no_import_goes_up():
    floor_of = {name: i for i, rooms in enumerate(FLOORS) for name in rooms}
    assert {room(file) for file in FILES} == {*floor_of, '__init__'}
    for file, others in GRAPH.items():
        for other in others if room(file) != '__init__' else ():  # the package's door
            down = floor_of[room(other)] < floor_of[room(file)]
            assert down or room(other) == room(file), f'{file} imports {other}'


def test_no_circle_of_files_or_rooms():
    rooms = {name: set() for name in map(room, FILES)}
    for file, others in GRAPH.items():
        rooms[room(file)] |= {room(other) for other in others} - {room(file)}
    for graph in (GRAPH, rooms):
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            pytest.fail(f'imports go round: {error.args[1]}')


def test_names_are_found_on_first_use():
    assert {'HireMLP', 'fuse', 'load_model', 'read_checkpoint'} <= set(mlp_dense.__all__)
    for name in mlp_dense.__all__:
        assert getattr(mlp_dense, name).__name__ == name
    with pytest.raises(AttributeError, match="'mlp_dense' has no attribute 'HireMPL'"):
        mlp_dense.HireMPL  # noqa: B018


@pytest.mark.slow
def test_importing_the_package_is_light():
    """OpenCV too: without a display's libraries its import fails, and the backbones alone do not need it."""
    heavy = {'torch._dynamo', 'cv2', 'mmcv', 'mmdet', 'mmseg', 'mmengine.runner', 'matplotlib', 'PIL', 'timm'}
    loaded = run('-W', 'ignore', '-c', 'import mlp_dense.tasks, sys; print(*sys.modules)').split()
    assert 'mlp_dense.tasks' in loaded and not heavy & set(loaded)


@pytest.mark.slow
def test_backbones_need_pytorch_alone():
    run(
        '-W',
        'ignore',
        '-c',
        """
import sys
sys.modules.update(dict.fromkeys(('mmengine', 'mmcv', 'mmdet', 'mmseg', 'cv2', 'matplotlib')))  # cannot be imported
import torch
from mlp_dense.backbones import FAMILIES
for family in FAMILIES:
    family(dict(depths=(1,), dims=(16,)), out_indices=(0,))(torch.ones(1, 3, 9, 9))
""",
    )
