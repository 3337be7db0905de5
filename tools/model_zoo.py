"""Write docs/model_zoo.md: published results of the metafiles and measured sizes of every config."""

import argparse
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

from mlp_dense_cli.arguments import check_out_file, run_tool, tool_parser

ROOT = Path(__file__).parents[1]
HEAD = """# Model zoo

```bash
python tools/train.py CONFIG
python tools/test.py CONFIG CHECKPOINT
```

* **params** (M) and **GMACs** are measured here for one image of the size above the table, with 1000 proposals and 100
  masks. As in mmdet and mmsegmentation, params include auxiliary heads and GMACs do not.
* **published** are the values of the authors for this model. *Confirmed* values were read in the named source.
  *Unconfirmed* values were quoted without access to the source: do not cite them. None of these models was trained
  here.

The abstracts confirm the best results without the name of the variant. They are 51.7 box AP, 44.8 mask AP and 49.9 mIoU
for Hire-MLP, and 45.1 mIoU on ADE20K for CycleMLP.

[Training](training.md#start-from-imagenet-weights) lists the official ImageNet weights. `python tools/model_zoo.py`
writes this page from the configs and `configs/metafiles/`."""
TABLES = (  # title, what the names of the configs contain, height and width of the image
    ('Mask R-CNN on COCO', r'(?<!cascade)_mask_rcnn_\dx_coco', (800, 1280)),
    ('Cascade Mask R-CNN on COCO', r'cascade_mask_rcnn_\dx_coco', (800, 1280)),
    ('RetinaNet on COCO', r'retinanet', (800, 1280)),
    ('UperNet on ADE20K', r'upernet_ade20k-', (512, 2048)),
    ('Semantic FPN on ADE20K', r'semantic_fpn_ade20k-', (512, 2048)),
    ('CamVid', r'camvid', (360, 480)),
    ('Small models on the generated data', r'_(mask_rcnn|upernet)_(shapes|bands)', (128, 128)),
)
COLUMNS = '| config | backbone params | GMACs | model params | GMACs | published params / GMACs | results | source |'
TOLERANCE = 0.02


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = tool_parser(__doc__)
    text = 'page to write; an existing file is replaced (default: docs/model_zoo.md)'
    parser.add_argument('--out', type=Path, default=ROOT / 'docs/model_zoo.md', metavar='FILE.md', help=text)
    return parser.parse_args()


def main() -> None:
    """Run the tool."""
    args = parse_args()
    check_out_file(args.out, '.md')
    from mmengine.logging import MMLogger

    from mlp_dense import operators
    from mlp_dense.errors import UserError

    if args.out.exists() and not args.out.read_text(encoding='utf-8', errors='replace').startswith(HEAD):
        raise UserError(f'--out {args.out}: this file is not a page of the model zoo; choose another name.')

    operators.install()  # before the configs import mmdet and mmsegmentation
    warnings.filterwarnings('ignore', module='mmseg')
    MMLogger.get_current_instance().setLevel(logging.ERROR)
    args.out.write_text('\n'.join(page_lines()) + '\n', encoding='utf-8')
    print(f'{args.out} is written.')


def page_lines() -> Iterator[str]:
    """Yield the lines of the page."""
    from rich.progress import track

    models = {Path(model['Config']).stem: model for model in read_metafiles()}
    yield HEAD
    rows = [(title, size, name) for title, pattern, size in TABLES for name in models if re.search(pattern, name)]
    notes: list[str] = []
    last = None
    for title, size, name in track(rows, 'counting'):
        if title != last:
            yield from ('', f'## {title}', '', f'At {size[1]}x{size[0]}.', '', COLUMNS, '|---' * 8 + '|')
            last = title
        yield row(models[name], size, notes)
    if notes:
        yield from ('', *notes)
    yield from ('', '## Short names', '')
    for path in sorted(ROOT.glob('configs/*/*.py')):
        if path.stem not in models and path.parent.name != '_base_':
            base = re.search(r"_base_ = '\./(.+)\.py'", path.read_text(encoding='utf-8'))
            yield f'* `{path.stem}` is `{base[1]}`'


def read_metafiles() -> list[dict]:
    """Return the models of model-index.yml, in its order."""
    import yaml

    index = yaml.safe_load((ROOT / 'model-index.yml').read_text(encoding='utf-8'))
    files = [yaml.safe_load((ROOT / name).read_text(encoding='utf-8')) for name in index['Import']]
    return [model for file in files for model in file['Models']]


def row(model: dict, size: tuple[int, int], notes: list[str]) -> str:
    """Return one line of a table; append a footnote to `notes` if a measured count differs from the published one.

    Raises:
        UserError: a count differs and the metafile has no Note.
    """
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    from mlp_dense.errors import UserError
    from mlp_dense.reports.complexity import complexity

    cfg = Config.fromfile(ROOT / model['Config'])
    init_default_scope(cfg.default_scope)
    counts = complexity(cfg.model, *size)
    measured = [counts.backbone_params / 1e6, counts.backbone_macs / 1e9, counts.params / 1e6, counts.macs / 1e9]
    published = model['Metadata'].get('Published', {})
    mark = ''
    sizes = [published.get(key) for key in ('Parameters (M)', 'GMACs')]
    if any(size and abs(count / size - 1) > TOLERANCE for count, size in zip(measured[2:], sizes, strict=True)):
        if 'Note' not in published:
            raise UserError(
                f'{model["Name"]}: {measured[2:]} here, {sizes} published; set a Note that explains it in its metafile.'
            )
        mark = f' [^{len(notes) + 1}]'
        notes.append(f'[^{len(notes) + 1}]: {model["Name"]}: {published["Note"]}')
    metrics = [published.get('Metrics', {}), *(result['Metrics'] for result in model.get('Results', []))]
    results = ', '.join(f'{key} {value}' for values in metrics for key, value in values.items())
    source = f'{published["Source"]} ({"confirmed" if published["Confirmed"] else "unconfirmed"})' if published else ''
    published_sizes = ' / '.join(map(str, sizes)) if all(sizes) else ''
    name = f'[{model["Name"]}](../{model["Config"]})'
    counts_text = ' | '.join(f'{value:.1f}' for value in measured)
    return f'| {name} | {counts_text} | {published_sizes}{mark} | {results} | {source} |'


if __name__ == '__main__':
    run_tool(main)
