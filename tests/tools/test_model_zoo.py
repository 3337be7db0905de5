"""The metafiles and the zoo page."""

from itertools import count
from pathlib import Path

import pytest
import yaml

from mlp_dense.errors import UserError
from support.configs import CLASSIFIERS, CONFIGS, ROOT, config
from support.tools import TOOLS, load


@pytest.fixture(scope='module')
def zoo():
    return load(TOOLS / 'model_zoo.py')


def test_metafiles_hold_every_config_once(zoo):
    models = zoo.read_metafiles()
    assert all((ROOT / model['Config']).is_file() for model in models)
    assert all(model['Name'] == Path(model['Config']).stem for model in models)
    listed = [model['Config'].removeprefix('configs/').removesuffix('.py') for model in models]
    assert len(listed) == len(set(listed))
    for short in {f'{path.parent.name}/{path.stem}' for path in CONFIGS + CLASSIFIERS} - set(listed):
        text = Path(config(short)).read_text().splitlines()
        assert len(text) == 2 and text[1].startswith('_base_ = '), f'{short} is in no metafile'


def test_metafiles_have_the_openmmlab_form():
    for name in yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']:
        file = yaml.safe_load((ROOT / name).read_text())
        (collection,) = file['Collections']
        assert {'Name', 'Metadata', 'Paper', 'README', 'Code'} <= set(collection)
        assert collection['Paper'].keys() == {'URL', 'Title'}
        assert (ROOT / collection['Code']['URL']).is_file() and (ROOT / collection['README']).is_file()
        for model in file['Models']:
            assert model['In Collection'] == collection['Name']
            published = model['Metadata'].get('Published')
            assert bool(model.get('Results')) <= bool(published and published['Confirmed']), 'a result to be doubted'
            for result in model.get('Results', []):
                assert result['Dataset'] == model['Metadata']['Training Data']
                assert all(isinstance(value, float) for value in result['Metrics'].values())


@pytest.mark.slow
def test_page_is_reproduced(zoo, monkeypatch):
    """Every fifth model and all with a footnote are counted, which takes long; the tool itself counts all."""
    page = (ROOT / 'docs' / 'model_zoo.md').read_text(encoding='utf-8')
    counted, number = zoo.row, count()

    def row(model: dict, size: tuple[int, int], notes: list[str]) -> str:
        (written,) = (line for line in page.splitlines() if line.startswith(f'| [{model["Name"]}]('))
        return counted(model, size, notes) if next(number) % 5 == 0 or '[^' in written else written

    monkeypatch.setattr(zoo, 'row', row)
    assert '\n'.join(zoo.page_lines()) + '\n' == page


def test_published_size_that_differs_is_explained(zoo):
    model = next(model for model in zoo.read_metafiles() if model['Name'] == 'as_mlp_tiny_mask_rcnn_1x_coco')
    model['Metadata']['Published']['GMACs'] = 300
    with pytest.raises(UserError, match='explain it as Note'):
        zoo.row(model, (800, 1280), [])
    model['Metadata']['Published']['Note'] = 'counted with more proposals'
    notes = []
    assert '[^1]' in zoo.row(model, (800, 1280), notes) and notes[0].endswith('counted with more proposals')
