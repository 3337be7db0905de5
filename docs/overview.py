"""Figure of the README: the pyramid, the block, and the positions that each family mixes."""

from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Polygon

INK, GREY = '#22303c', '#7b8894'
STAGES = ('#9ecae1', '#6baed6', '#3182bd', '#08519c')
COLORS = ('#1b9e77', '#d95f02', '#7570b3', '#e7298a', '#66a61e', '#e6ab02', '#a6761d')


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw an arrow between two points."""
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle='-|>', mutation_scale=9, color=INK, lw=1.1, zorder=1))


def box(axes: Axes, x: float, y: float, width: float, height: float, text: str, color: str) -> None:
    """Draw a rounded box with a text in its middle; (x, y) is its lower left corner."""
    style = 'round,pad=0,rounding_size=0.08'
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=style, fc=color, ec=INK, lw=0.9, zorder=2))
    axes.text(x + width / 2, y + height / 2, text, ha='center', va='center', fontsize=7.7, color=INK, zorder=3)


def draw_pyramid(axes: Axes) -> None:
    """Draw an image, the four stages with their strides, and the heads above them."""
    axes.add_patch(Polygon([(0.1, 0.25), (0.75, 0.75), (0.75, 3.05), (0.1, 2.55)], fc='#fff3d6', ec=INK, lw=0.9))
    axes.text(0.42, 0.05, 'image\n(B, 3, H, W)', ha='center', va='top', fontsize=8, color=INK)
    for stage, color in enumerate(STAGES):
        x, half, width = 1.45 + 1.35 * stage, 1.05 / 1.42**stage, 0.35 + 0.12 * stage
        slant = 0.32 * half
        front = [(x, 1.65 - half), (x + slant, 1.65 - half + slant), (x + slant, 1.65 + half), (x, 1.65 + half - slant)]
        axes.add_patch(Polygon(front, fc=color, ec=INK, lw=0.9, zorder=3))
        top = [front[3], front[2], (x + slant + width, 1.65 + half), (x + width, 1.65 + half - slant)]
        side = [front[1], front[2], (x + slant + width, 1.65 + half), (x + slant + width, 1.65 - half + slant)]
        axes.add_patch(Polygon(side, fc=color, ec=INK, lw=0.9, alpha=0.55, zorder=2))
        axes.add_patch(Polygon(top, fc=color, ec=INK, lw=0.9, alpha=0.8, zorder=2))
        axes.text(
            x + 0.35, 0.35, f'stage {stage + 1}\nstride {4 * 2**stage}', ha='center', va='top', fontsize=8, color=INK
        )
        arrow(axes, (x + 0.3, 1.65 + half + 0.03), (x + 0.3, 3.35))
        arrow(axes, (x - 0.55 if stage else 0.82, 1.65), (x - 0.05, 1.65))
    box(axes, 1.2, 3.38, 5.5, 0.48, 'neck and head of mmdet or mmseg, for example FPN + Mask R-CNN', 'white')


def draw_block(axes: Axes) -> None:
    """Draw the residual block that every family shares."""
    axes.text(
        9.3, 3.62, 'each stage: blocks of two residual branches', ha='center', va='center', fontsize=8.5, color=INK
    )
    for x, name, color in ((7.5, 'token mixing\n(the family)', '#fdd0a2'), (9.7, 'MLP over\nthe channels', '#c7e9c0')):
        box(axes, x, 1.35, 0.5, 0.6, 'norm', 'white')
        box(axes, x + 0.65, 1.25, 0.95, 0.8, name, color)
        axes.add_patch(Circle((x + 1.84, 1.65), 0.1, fc='white', ec=INK, lw=0.9, zorder=3))
        axes.text(x + 1.84, 1.645, '+', ha='center', va='center', fontsize=9, color=INK, zorder=4)
        for start, end in ((-0.35, 0.0), (0.5, 0.65), (1.6, 1.74)):
            arrow(axes, (x + start, 1.65), (x + end, 1.65))
        axes.plot([x - 0.18, x - 0.18, x + 1.84], [1.65, 2.5, 2.5], color=INK, lw=1.1, zorder=1)
        arrow(axes, (x + 1.84, 2.5), (x + 1.84, 1.75))
    arrow(axes, (11.64, 1.65), (11.98, 1.65))
    axes.text(9.3, 0.6, '(B, H, W, C)  →  (B, H, W, C)', ha='center', va='top', fontsize=8, color=INK)


def positions(family: str) -> dict[tuple[int, int], str]:
    """Return the offsets (row, column) that one output position reads, with a colour per group of channels."""
    first, last = {'Hire-MLP': (-1, 2), 'AS-MLP': (-2, 2), 'CycleMLP': (-1, 1), 'Wave-MLP': (-3, 3)}.get(
        family, (-4, 4)
    )
    lines = {offset: i for i in range(first, last + 1) for offset in ((i, 0), (0, i))}
    if family in ('Hire-MLP', 'ViP'):
        return {offset: STAGES[1 if offset[0] else 2] for offset in lines}
    if family == 'Wave-MLP':
        return {offset: matplotlib.colors.to_hex(plt.cm.twilight(0.5 + i / 7)) for offset, i in lines.items()}
    if family in ('AS-MLP', 'CycleMLP'):
        return {offset: COLORS[i - first] for offset, i in lines.items()}
    window = [(row, column) for row in range(-4, 5) for column in range(-4, 5)]
    experts = np.random.default_rng(1).integers(0, 4, len(window))
    return {cell: STAGES[1] if family == 'MLP-Mixer' else COLORS[k] for cell, k in zip(window, experts, strict=True)}


def draw_mixing(axes: Axes) -> None:
    """Draw a grid of positions for each family."""
    notes = {
        'Hire-MLP': 'regions of rows\nand of columns',
        'AS-MLP': 'shifts along\nboth axes',
        'CycleMLP': 'steps that depend\non the channel',
        'Wave-MLP': 'waves: amplitude\nand phase',
        'MLP-Mixer': 'all positions\nof a window',
        'ViP': 'rows and columns\nof a window',
        'Sparse-MLP': 'all positions,\nby experts',
    }
    cell = 0.115
    for number, (family, note) in enumerate(notes.items()):
        left, bottom = 0.15 + 1.75 * number, -2.0
        colors = positions(family)
        for row in range(-4, 5):
            for column in range(-4, 5):
                x, y = left + (column + 4) * cell, bottom + (row + 4) * cell
                color = colors.get((row, column), '#eef1f4')
                axes.add_patch(plt.Rectangle((x, y), cell, cell, fc=color, ec='white', lw=0.6))
        x, y = left + 4 * cell, bottom + 4 * cell
        axes.add_patch(plt.Rectangle((x, y), cell, cell, fc='none', ec=INK, lw=1.6, zorder=5))
        middle = left + 4.5 * cell
        axes.text(middle, bottom + 9 * cell + 0.1, family, ha='center', fontsize=8.5, weight='bold', color=INK)
        axes.text(middle, bottom - 0.08, note, ha='center', va='top', fontsize=7.5, color=GREY)
    axes.text(3.3, -0.42, 'made for any image size', ha='center', fontsize=8, color=GREY, style='italic')
    axes.text(
        9.5, -0.42, 'made for 224x224, extended here by windows', ha='center', fontsize=8, color=GREY, style='italic'
    )
    axes.plot([0.15, 6.45], [-0.5, -0.5], color=GREY, lw=0.8)
    axes.plot([7.15, 11.9], [-0.5, -0.5], color=GREY, lw=0.8)


def main() -> None:
    """Write overview.png next to this script."""
    figure, axes = plt.subplots(figsize=(12.1, 6.6))
    axes.set(xlim=(0, 12.1), ylim=(-2.55, 4.0), aspect='equal')
    axes.axis('off')
    draw_pyramid(axes)
    draw_block(axes)
    draw_mixing(axes)
    figure.savefig(Path(__file__).with_suffix('.png'), dpi=130, bbox_inches='tight', pad_inches=0.05, facecolor='white')


if __name__ == '__main__':
    main()
