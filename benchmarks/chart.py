"""The bar chart of a benchmark."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from tables import KINDS, cases


def draw(rows: list[dict], title: str, file: str) -> None:
    """Bars of milliseconds, one panel below the other; a black line across the bars of a model is its GEMM floor."""
    panels = cases(rows)
    models = len({row['model'] for row in rows})
    figure = Figure(figsize=(max(11, 2 * models), 1.2 + 4 * len(panels)), layout='constrained')
    for ax, (case, own) in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels.items(), strict=True):
        draw_panel(ax, own)
        ax.set_title(case, fontsize=13)
    kinds = [kind for kind in KINDS if any(row['kind'] == kind for row in rows)]
    keys = [
        Line2D([], [], color='black', linewidth=2) if kind == 'floor' else Patch(color=KINDS[kind][2]) for kind in kinds
    ]
    figure.suptitle(title, fontsize=14)
    labels = [f'{kind} ({KINDS[kind][1]})' if KINDS[kind][1] else kind for kind in kinds]
    figure.legend(
        keys, labels, loc='outside lower center', ncols=len(kinds) if len(kinds) < 6 else 4, fontsize=12, frameon=False
    )
    figure.savefig(file, dpi=100)


def draw_panel(ax: Axes, rows: list[dict]) -> None:
    left, ticks, labels = 0.0, [], []
    for model in dict.fromkeys(row['model'] for row in rows):
        own = [row for row in rows if row['model'] == model]
        bars = [row for row in own if row['kind'] != 'floor']
        for i, row in enumerate(bars):
            ax.bar(
                left + i,
                row['ms'],
                0.9,
                color=KINDS[row['kind']][2],
                yerr=row['spread_ms'],
                ecolor='dimgray',
                capsize=3,
            )
            ax.annotate(
                f'{row["ms"]:#.3g}' if row['ms'] < 100 else f'{row["ms"]:.0f}',
                (left + i, row['ms'] + row['spread_ms']),
                (0, 3),
                textcoords='offset points',
                ha='center',
                fontsize=11,
            )
        for row in own:
            if row['kind'] == 'floor':
                ax.hlines(row['ms'], left - 0.5, left + len(bars) - 0.5, color='black', linewidth=2)
        ticks.append(left + (len(bars) - 1) / 2)
        labels.append(f'{model}\n{own[0]["gmacs"]:.1f} GMACs')
        left += len(bars) + 0.7
    ax.set_xticks(ticks, labels, fontsize=11)
    ax.tick_params(axis='x', length=0)
    ax.set_ylabel('ms', fontsize=12)
    ax.margins(x=0.02, y=0.12)
    ax.grid(axis='y', alpha=0.3)
    ax.set_axisbelow(True)
    ax.spines[['top', 'right']].set_visible(False)
