"""Checks of the documents: their links and paths exist, and the configs that they show build."""

import inspect
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, VISBACKENDS, init_default_scope

from mlp_dense.checks.data_config import dataset_meta
from mlp_dense.config.config_file import walk
from mlp_dense.config.validation import check_backends
from mlp_dense.errors import NotInstalledError
from support.configs import DETECTION, ROOT

PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md')), ROOT / 'CONTRIBUTING.md', ROOT / 'CHANGELOG.md']
CONFIGS = [
    match
    for page in PAGES
    for match in re.findall(
        r' *```python\n *# (configs/\S+\.py)\n(.*?)```', page.read_text(encoding='utf-8'), re.DOTALL
    )
]


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_and_paths_exist(page):
    text = page.read_text(encoding='utf-8')
    links = {link.partition('#') for link in re.findall(r'\]\((?!http)([^)\s]+)\)', text)}
    for path, _, anchor in links:
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f'{page.name} links to {path}'
        if anchor:
            headings = re.findall(r'^#+ (.+)$', target.read_text(encoding='utf-8'), re.MULTILINE)
            assert anchor in {re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-') for heading in headings}
    paths = set(re.findall(r'(?<![\w/.])(?:configs|tools|tests|docs|mlp_dense\w*)/[\w/.-]+\.(?:py|md|png|yml)', text))
    assert not [name for name in paths if not (ROOT / name).exists() and 'mine' not in name]


def test_every_page_is_linked_from_the_readme():
    text = PAGES[0].read_text(encoding='utf-8')
    assert all(f'{page.relative_to(ROOT)}' in text for page in PAGES[1:])


@pytest.mark.parametrize(('name', 'body'), CONFIGS, ids=lambda text: Path(text).parent.name if '\n' not in text else '')
def test_config_for_own_data_builds(name, body, tmp_path):
    body = body.replace("'./", f"'{(ROOT / name).parent}/")
    path = tmp_path / 'mine.py'
    path.write_text('\n'.join(line.removeprefix('   ') for line in body.splitlines()))
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        MODELS.build(cfg.model)
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        assert len(dataset_meta(dataset)['classes']) == 2 and dataset.data_root == 'data/mine/'
        assert not any(transform.get('reduce_zero_label') for transform in dataset.pipeline)
    assert cfg.default_scope == 'mmdet' or "'reduce_zero_label': True" not in str(cfg.tta_pipeline)
    assert {value for _, _, key, value in walk(cfg.model) if key == 'num_classes'} == {2}


def test_documents_show_three_configs_and_three_trackers():
    assert len(CONFIGS) == 3 and len(TRACKERS) == 3
    assert len({Path(name).stem for name, _ in CONFIGS}) == 3, 'their work directories differ'


TRACKERS = re.findall(r'^visualizer = .+$', (ROOT / 'docs' / 'training.md').read_text(encoding='utf-8'), re.MULTILINE)


@pytest.mark.parametrize('line', TRACKERS, ids=lambda line: re.findall(r'(\w+)VisBackend', line)[1])
def test_tracker_of_the_documents_builds(line, tmp_path):
    path = tmp_path / 'tracked.py'
    path.write_text(f"_base_ = '{DETECTION}'\n{line}\n")
    cfg = Config.fromfile(path)
    assert cfg.visualizer.type == 'DetLocalVisualizer', 'inherited'
    local, tracker = cfg.visualizer.vis_backends
    assert local == dict(type='LocalVisBackend')
    arguments = {key: value for key, value in tracker.items() if key != 'type'}
    backend = VISBACKENDS.get(tracker.type)
    inspect.signature(backend).bind(save_dir=str(tmp_path), **arguments)
    for name, value in arguments.items():
        assert getattr(backend(save_dir=str(tmp_path), **arguments), f'_{name}') == value
    name = tracker.type.removesuffix('VisBackend')
    if not find_spec(package := name.lower()):
        with pytest.raises(NotInstalledError, match=f'{package} is not installed: pip install {package}.'):
            check_backends(cfg)


HEADS = re.findall(
    r'^\| `(mm\w+::\S+\.py)` \| (`model = .+`|the same) \|$', (ROOT / 'docs' / 'heads.md').read_text(), re.MULTILINE
)


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')  # configs of mmdet and mmsegmentation warn about their own defaults
def test_heads_of_the_table_accept_the_backbone(tmp_path):
    assert len(HEADS) == 18
    file, line = tmp_path / 'head.py', ''
    for base, text in HEADS:
        line = line if text == 'the same' else text.strip('`')
        file.write_text(
            f"_base_ = '{base}'\n"
            "backbone = dict(_delete_=True, type='mlp_dense.HireMLP', arch='small')\n"
            'three = dict(**backbone, out_indices=(1, 2, 3))\naux = dict(auxiliary_head=dict(in_channels=320))\n'
            f'{line}\n'
        )
        cfg = Config.fromfile(file)
        init_default_scope(base[:5])
        with torch.device('meta'):
            model = MODELS.build(cfg.model).eval()
            feature_maps = model.extract_feat(torch.zeros(1, 3, 512, 512))
            if base.startswith('mmseg') and 'mask2former' not in base:
                assert model.decode_head(feature_maps).shape[:2] == (1, 150), base
        assert len(feature_maps) >= 3, base
