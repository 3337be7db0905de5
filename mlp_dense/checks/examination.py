"""Examination of the data of a config or in a folder: all findings, and the sizes of objects."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from ..config.config_file import enter_scope, evaluators, read_config
from ..config.scaling import scale_of
from ..config.validation import building
from ..datasets.layout import leaves
from ..errors import UserError, counted
from .band_agreement import band_count
from .coco_data import amounts_of
from .data_check import inspect
from .data_config import check_built, check_data
from .data_files import system_folders
from .explained_data import explained_data
from .findings import Finding, exit_status, merged, stop, table, to_json
from .folder_data import Named, datasets_in, scope_of
from .object_sizes import histogram, scaled_sides, strides_of, vanishing


@dataclass
class Examination:
    """Result of :func:`examine`."""

    source: str  # the config or the folder
    findings: list[Finding] = field(default_factory=list)
    images: dict[str, int] = field(default_factory=dict)  # number of images by split
    found: str = ''  # sentence on the format of a folder
    classes: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)  # by split, unit and name
    sizes: dict[str, dict[str, int]] = field(default_factory=dict)  # number of objects by split and range of pixels
    scale: tuple[int, int] | None = None  # size of the images to which the sizes of objects refer

    @property
    def status(self) -> int:
        """Exit status: 2 if there is an error, 1 if there is a warning, else 0."""
        return exit_status(self.findings)

    def text(self) -> str:
        """Return the findings and the sizes of objects as text."""
        lines = [f'{self.source}: {", ".join(f"{count} {name} images" for name, count in self.images.items())}']
        lines += [self.found] if self.found else []
        for name, units in self.classes.items():
            for unit, amounts in units.items():
                total, share = max(1, sum(amounts.values())), unit == 'pixels'
                texts = (f'{each} {n / total:.2%}' if share else f'{each} {n:,}' for each, n in amounts.items())
                lines.append(f'{name}: {counted(len(amounts), "class")}, {unit}: {", ".join(texts)}')
        lines += [table(self.findings) or 'No problem was found.']
        scale = f'images resized to {self.scale[0]}x{self.scale[1]}' if self.scale else 'images at original size'
        for name, counts in self.sizes.items():
            total = max(sum(counts.values()), 1)
            lines += [f'Objects of the {name} data by square root of area, binned at the strides; {scale}:']
            lines += [f'{label:>12} {count:>8} {"#" * round(40 * count / total)}' for label, count in counts.items()]
        return '\n'.join(lines)

    def json(self) -> str:
        """Return everything as JSON."""
        data = dict(source=self.source, found=self.found, images=self.images, classes=self.classes)
        return to_json(self.findings, **data, object_sizes=self.sizes, image_scale=self.scale)


def examine(
    target: Path,
    options: Sequence[str] = (),
    data_root: Path | None = None,
    everything: bool = True,
    colors: Path | None = None,
    format: str | None = None,
) -> Examination:
    """Examine the data of a config, with changes of it by `options` and `data_root`, or in a folder.

    `colors` is a file with the colours of the classes in the label maps of a folder. All images and labels are decoded,
    unless `everything` is False. Raises UserError if the config cannot be read, or if an option does not apply to it or
    to the folder.
    """
    if target.is_dir() and (options or data_root):
        raise UserError(f'{target} is a folder; omit --data-root and --cfg-options, which change configs.')
    if (colors or format) and not target.is_dir():
        raise UserError(f'{target} is a config; omit --colors and --format, which describe a folder.')
    cfg = Config() if target.is_dir() else read_config(target, options, data_root)
    result = Examination(str(target), scale=scale_of(cfg))
    strides = strides_of(cfg)
    with TemporaryDirectory() as converted:
        if target.is_dir():
            found = _in_folder(target, Path(converted), colors, format, result)
            init_default_scope(scope_of(found[0][1]) if found else 'mmdet')
        else:
            enter_scope(cfg)
            found = _in_config(cfg, result.findings)
        data: list[tuple[str, Any]] = []
        for name, config in found:
            try:
                with building(cfg), explained_data(dict(dataset=config)):
                    dataset = DATASETS.build(config)
                check_built(dataset)
                data.append((name, dataset))
            except UserError as error:
                result.findings.append(stop(name, str(error)))
        metrics = {name: {str(metric.get('type')) for metric in evaluators(cfg, name)} for name in ('val', 'test')}
        foreign = [name for name, types in metrics.items() if types & {'CocoMetric', 'mmdet.CocoMetric'}]
        findings, contents = inspect(data, everything, foreign, bands=band_count(cfg) if cfg.get('model') else None)
    for (name, dataset), content in zip(data, contents, strict=True):
        result.images[name] = result.images.get(name, 0) + len(dataset)
        unit, amounts = amounts_of(dataset, content)
        if amounts:
            total = result.classes.setdefault(name, {}).setdefault(unit, {})
            total |= {label: total.get(label, 0) + amount for label, amount in amounts.items()}
        if content.sizes:
            sides = scaled_sides(content.sizes, result.scale)
            counts = histogram(sides, strides)
            before = result.sizes.setdefault(name, dict.fromkeys(counts, 0))
            result.sizes[name] = {label: before[label] + count for label, count in counts.items()}
            findings += vanishing(name, sides, strides)
    result.findings = merged([*result.findings, *findings])
    return result


def _in_folder(root: Path, converted: Path, colors: Path | None, format: str | None, result: Examination) -> Named:
    """Return the data sets in a folder, and add its format and the findings about it to the result."""
    ignored = system_folders(root)
    result.findings += [Finding('note', 'all', 'system folders are ignored', 1, (path,)) for path in ignored]
    try:
        found, result.found, notes = datasets_in(root, converted, colors, format)
    except UserError as error:
        result.findings.append(stop('all', str(error)))
        return []
    for note in notes:
        is_lost = note.startswith('Not read: ') and ' without an image ' in note
        remedy = 'add the images or correct the names, or remove the labels' if is_lost else ''
        result.findings.append(Finding('warning' if is_lost else 'note', 'all', note.rstrip('.'), remedy=remedy))
    return found


def _in_config(cfg: Config, findings: list[Finding]) -> Named:
    """Return the different data sets of a config, and append the errors of missing files and other classes."""
    found: Named = []
    for name in ('train', 'val', 'test'):
        try:
            check_data(cfg, name)
        except UserError as error:
            findings.append(stop(name, str(error)))
            continue
        loader = cfg.get(f'{name}_dataloader')
        for dataset in leaves(loader.dataset) if loader else ():
            if all(dataset != other for _, other in found):
                found.append((name, dataset))
    return found
