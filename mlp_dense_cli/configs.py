"""List of the configs of this package, by name."""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from .arguments import light_module, tool_parser

TASKS = ('detection', 'segmentation', 'classification')
FAMILIES = {
    'hire_mlp': 'hire', 'as_mlp': 'as', 'cycle_mlp': 'cycle', 'wave_mlp': 'wave', 'mlp_mixer': 'mixer', 'vip': 'vip',
    'sparse_mlp': 'sparse',
}  # fmt: skip
"""Family by the beginning of the names of its configs."""
NAME = re.compile(
    rf'({"|".join(FAMILIES)})(?:_(.+?))??'
    r'(?:_(cascade_mask_rcnn|mask_rcnn|retinanet|upernet|semantic_fpn))?(?:_\dx)?'
    r'_(coco|ade20k|camvid|shapes|bands|imagenet|tiny_imagenet_50)(?:-.+)?'
)
COLUMNS = ('name', 'family', 'head', 'data', 'schedule', 'params', 'published')


def make_parser() -> argparse.ArgumentParser:
    parser = tool_parser(
        'List the configs of this package with the values that their authors published; "?" marks values that are not '
        'confirmed in their source. Other commands accept the names. With CONFIG, print the path of its file.',
        '--task detection --family cycle',
        'hire_mlp_mask_rcnn_coco',
    )
    parser.add_argument('config', nargs='?', metavar='CONFIG', help='name of a config, to print its path')
    parser.add_argument('--task', choices=TASKS, metavar='TASK', help=f'only {", ".join(TASKS[:2])} or {TASKS[2]}')
    names = list(FAMILIES.values())
    text = f'only one family: {", ".join(names[:-1])} or {names[-1]}'
    parser.add_argument('--family', choices=names, metavar='NAME', help=text)
    parser.add_argument('--json', action='store_true', help='print a list of objects instead, with the paths')
    return parser


def main() -> None:
    parser = make_parser()
    args = parser.parse_args()
    catalog = light_module('catalog')
    if args.config:
        if not (file := catalog.find(args.config)):
            close = catalog.similar(args.config)
            parser.error(f'no config is named {args.config!r}{f"; did you mean {close}?" if close else "."}')
        print(file)
        return
    published = read_metafiles(catalog.folder())
    entries = [entry(catalog.folder(), name, published) for name in catalog.names()]
    chosen = [each for each in entries if args.task in (None, each['task']) and args.family in (None, each['family'])]
    if args.json:
        print(json.dumps(chosen, indent=2))
        return
    rows = [dict(zip(COLUMNS, COLUMNS, strict=True)), *map(row, chosen)]
    widths = {column: max(len(cells[column]) for cells in rows) for column in COLUMNS}
    lines = ['  '.join(cells[column].ljust(widths[column]) for column in COLUMNS).rstrip() for cells in rows]
    print('\n'.join(lines))


def entry(folder: Path, name: str, published: dict[str, dict]) -> dict:
    """Return the properties of a config from its name, its ``_base_`` files and its metafile."""
    file = folder / f'{name}.py'
    task, _, stem = name.partition('/')
    family, variant, head, data = match.groups() if (match := NAME.fullmatch(stem)) else (None,) * 4
    bases = list(base_files(file))
    schedules = [base.stem.rpartition('_')[2] for base in bases if base.parent.name == 'schedules']
    code = re.sub('#.*', '', file.read_text(encoding='utf-8')).split()
    same_as = bases[0].stem if len(code) == 3 and bases[0].parent == file.parent else None  # `_base_ = './NAME.py'`
    return dict(
        name=stem, task=task, family=FAMILIES.get(family or ''), variant=variant, head=head, data=data,
        schedule=schedules[0] if schedules else None, same_as=same_as, path=str(file),
        published=published.get(same_as or stem, {}),
    )  # fmt: skip


def base_files(file: Path) -> Iterator[Path]:
    """Yield the files that a config inherits from, directly or not."""
    for path in re.findall(r"'(\.\.?/\S+\.py)'", file.read_text(encoding='utf-8')):
        yield (base := (file.parent / path).resolve())
        yield from base_files(base)


def row(entry: dict) -> dict[str, str]:
    """Return the cells of a config in the table."""
    published = entry['published']
    mark = '' if published.get('confirmed') else '?'
    values = ', '.join(f'{key} {value}{mark}' for key, value in published.get('metrics', {}).items())
    params = f'{published["params_m"]} M{mark}' if published.get('params_m') else ''
    texts = {column: entry.get(column) or '' for column in COLUMNS}
    return texts | dict(params=params, published=f'same as {entry["same_as"]}' if entry['same_as'] else values)


def read_metafiles(folder: Path) -> dict[str, dict]:
    """Return the published values of the metafiles, by the name of the config."""
    try:
        import yaml
    except ImportError:  # mmengine and timm require it
        print('Published values are omitted: PyYAML is not installed.', file=sys.stderr)
        return {}
    values = {}
    for file in sorted(folder.glob('metafiles/*.yml')):
        for model in yaml.safe_load(file.read_text(encoding='utf-8'))['Models']:
            source = model['Metadata'].get('Published', {})
            metrics = dict(source.get('Metrics', {}))
            for result in model.get('Results', []):
                metrics |= result['Metrics']
            values[Path(model['Config']).stem] = dict(
                metrics=metrics, confirmed=source.get('Confirmed', False), source=source.get('Source'),
                params_m=source.get('Parameters (M)'), gmacs=source.get('GMACs'),
                weights=model['Metadata'].get('ImageNet Weights'),
            )  # fmt: skip
    return values
