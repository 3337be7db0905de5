"""The tables of the benchmarks, for the console and for Markdown."""

from rich.table import Table

KINDS = {  # what it is, in short, its colour
    'ours': ('this package', '', '#1f5fa8'),
    'fused': ('mlp_dense.fuse(ours), for inference: BatchNorms folded into the layers next to them', '', '#6baed6'),
    'with_cp': ('ours with with_cp=True: the backward pass recomputes the blocks', '', '#6baed6'),
    'fp32': ('ours in fp32', '', '#b8d4ea'),
    'compiled': ('torch.compile(ours)', '', '#17a398'),
    'bf16': ('ours in bf16', '', '#b8d4ea'),
    'compiled bf16': ('torch.compile(ours) in bf16', '', '#8fd9cd'),
    'onnxruntime': ('ours as exported, in onnxruntime', '', '#e6842a'),
    'int8': ('the same, quantized by onnxruntime', '', '#f3c08f'),
    'openvino': ('ours as exported, in OpenVINO', '', '#7b4ea3'),
    'openvino bf16': ('the same, computed in bf16 where the CPU can', '', '#a98bc4'),
    'openvino int8': ('the quantized file in OpenVINO', '', '#d3c3e2'),
    'torchvision': ("torchvision's compiled operators", '', '#17a398'),
    'mmcv': ("mmcv's compiled operators", '', '#e6842a'),
    'published': ('the same network, weights and outputs, computed as the published code does', '', '#e6842a'),
    'peer': ('what a user would take instead', 'other backbones', '#9a9a9a'),
    'compiled peer': ('torch.compile(peer)', '', '#cfcfcf'),
    'floor': ('the matrix products (GEMMs) of ours and nothing else', 'GEMMs alone', 'black'),
}
COLUMNS = """\
ms: median ± half the interquartile range; the rows of a network are called in turn. / floor, / ours: time relative to
the GEMM floor, and to ours. GMACs: of one image, forward. MB: peak memory of tensors during a call, beyond weights and
their gradients."""
NUMBERS = {  # what stands in a column; one in which no row has anything is left out
    'ms': lambda row: f'{row["ms"]:.1f} ± {row["spread_ms"]:.1f}',
    '/ floor': lambda row: f'{row["over_floor"]:.2f}' if row['over_floor'] else '',
    '/ ours': lambda row: f'{row["over_ours"]:.2f}' if row['over_ours'] else '',
    'img/s': lambda row: f'{row["img_s"]:.2f}' if row['img_s'] else '',
    'GMACs': lambda row: f'{row["gmacs"]:.1f}' if row['gmacs'] else '',
    'MB': lambda row: f'{row["bytes"] / 1e6:.0f}' if row['bytes'] is not None else '',
}


def cases(rows: list[dict]) -> dict[str, list[dict]]:
    """The rows of each size."""
    return {case: [row for row in rows if row['case'] == case] for case in dict.fromkeys(row['case'] for row in rows)}


def add_ratios(rows: list[dict]) -> None:
    """Adds `over_floor`, `over_ours`, and for a peer `over`: its time as a multiple of that of each of ours."""
    times = {(row['case'], row['model'], row['kind']): row['ms'] for row in rows}
    for row in rows:
        for kind in ('floor', 'ours'):
            other = times.get((row['case'], row['model'], kind))
            row[f'over_{kind}'] = row['ms'] / other if other else None
        if row['kind'] == 'peer':
            ours = {m: ms for (case, m, kind), ms in times.items() if case == row['case'] and kind == 'ours'}
            row['over'] = {model: row['ms'] / ms for model, ms in ours.items()}


def columns(rows: list[dict]) -> dict[str, list[str]]:
    """What stands behind the models, by the name of the column."""
    numbers = {name: [text(row) for row in rows] for name, text in NUMBERS.items()}
    return {'row': [row['kind'] for row in rows]} | {name: texts for name, texts in numbers.items() if any(texts)}


def names(rows: list[dict]) -> list[str]:
    """The model of each row, where it is not that of the row before."""
    models = [row['model'] for row in rows]
    return [model if model != before else '' for model, before in zip(models, [None, *models], strict=False)]


def times_table(case: str, rows: list[dict]) -> Table:
    table = Table(title=case, title_justify='left', min_width=76)
    texts = {'model': names(rows)} | columns(rows)
    for column in texts:
        table.add_column(column, justify='right' if column in NUMBERS else 'left')
    for name, *cells in zip(*texts.values(), strict=True):
        if name:
            table.add_section()
        table.add_row(name, *cells)
    return table


def peers_table(rows: list[dict]) -> Table:
    """How the peers compare with every one of ours; they do not do the same work, so the MACs stand beside it."""
    models = list(dict.fromkeys(row['model'] for row in rows if row['kind'] == 'ours'))
    table = Table(title='peer / ours: time; GMACs (time above 1: ours is faster)', title_justify='left', min_width=76)
    for column in ('', 'peer', *models):
        table.add_column(column, justify='right' if column in models else 'left')
    gmacs = {(row['case'], row['model']): row['gmacs'] for row in rows}
    for row in rows:
        if row['kind'] == 'peer':
            more = {model: row['gmacs'] / gmacs[row['case'], model] for model in models}
            ratios = [f'{row["over"][model]:.2f}; {more[model]:.2f}' for model in models]
            table.add_row(row['case'], row['model'], *ratios)
    return table


def markdown(result: dict) -> str:
    """Where a result comes from, its tables and its notes, as paragraphs of Markdown."""
    parts = [provenance(result)]
    for case, rows in cases(result['rows']).items():
        texts = {case: names(rows)} | columns(rows)
        lines = [
            texts,
            ['---:' if column in NUMBERS else '---' for column in texts],
            *zip(*texts.values(), strict=True),
        ]
        header, rule, *body = [' | '.join(line) for line in lines]
        parts.append('\n'.join([f'| {header} |', f'|{rule.replace(" ", "")}|', *(f'| {line} |' for line in body)]))
    return '\n\n'.join([*parts, *result['notes']])


def provenance(result: dict) -> str:
    """The machine and the versions."""
    return ', '.join(f'{key} {value}' for key, value in result['environment'].items())
