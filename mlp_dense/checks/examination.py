"""Examination of the data of a config or in a folder: all findings, and the sizes of objects."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS, init_default_scope

from ..config.config_file import enter_scope, evaluators, read_config
from ..config.validation import building
from ..datasets.layout import leaves
from ..errors import UserError
from .band_agreement import band_count
from .data_check import inspect
from .data_config import check_built, check_data
from .explained_data import explained_data
from .findings import STOPS, Finding, exit_status, merged, table, to_json
from .folder_data import datasets_in, scope_of
from .image_files import system_folders
from .object_sizes import STRIDES, histogram, scale_of, scaled_sides, strides_of, vanishing


@dataclass
class Examination:
    """Result of :func:`examine`."""

    source: str  # the config or the folder
    findings: list[Finding] = field(default_factory=list)
    images: dict[str, int] = field(default_factory=dict)  # number of images by split
    sizes: dict[str, dict[str, int]] = field(default_factory=dict)  # number of objects by split and range of pixels
    scale: tuple[int, int] | None = None  # size of the images to which the sizes of objects refer

    @property
    def status(self) -> int:
        """Exit status: 2 if there is an error, 1 if there is a warning, else 0."""
        return exit_status(self.findings)

    def text(self) -> str:
        """Return the findings and the sizes of objects as text."""
        lines = [f'{self.source}: {", ".join(f"{count} {name} images" for name, count in self.images.items())}']
        lines += [table(self.findings) or 'No problem was found.']
        scale = f'images resized to {self.scale[0]}x{self.scale[1]}' if self.scale else 'images at original size'
        for name, counts in self.sizes.items():
            total = max(sum(counts.values()), 1)
            lines += [f'Objects of the {name} data by square root of area, binned at the strides; {scale}:']
            lines += [f'{label:>12} {count:>8} {"#" * round(40 * count / total)}' for label, count in counts.items()]
        return '\n'.join(lines)

    def json(self) -> str:
        """Return everything as JSON."""
        return to_json(
            self.findings, source=self.source, images=self.images, object_sizes=self.sizes, image_scale=self.scale
        )


def examine(
    target: Path,
    options: Sequence[str] = (),
    data_root: Path | None = None,
    everything: bool = True,
    colors: Path | None = None,
) -> Examination:
    """Examine the data of a config, with changes of it by `options` and `data_root`, or in a folder.

    `colors` is a file with the colours of the classes in the label maps of a folder. All images and labels are decoded,
    unless `everything` is False. Raises UserError if the config cannot be read, or if an option does not apply to it or
    to the folder.
    """
    if target.is_dir() and (options or data_root):
        raise UserError(f'{target} is a folder; omit --data-root and --cfg-options, which change configs.')
    if colors and not target.is_dir():
        raise UserError(f'{target} is a config; omit --colors, which names the classes of a folder of label maps.')
    with TemporaryDirectory() as converted:
        return _examine(target, options, data_root, everything, Path(converted), colors)


def _examine(
    target: Path,
    options: Sequence[str],
    data_root: Path | None,
    everything: bool,
    converted: Path,
    colors: Path | None,
) -> Examination:
    result, strides = Examination(str(target)), list(STRIDES)
    found: list[tuple[str, ConfigDict]] = []
    if target.is_dir():
        result.findings += [
            Finding('note', 'all', 'system folders are ignored', 1, (folder,)) for folder in system_folders(target)
        ]
        try:
            found, notes = datasets_in(target, converted, colors)
            result.findings += [Finding('note', 'all', note.rstrip('.')) for note in notes]
        except UserError as error:
            result.findings.append(Finding('error', 'all', STOPS, 1, (str(error),)))
        init_default_scope(scope_of(found[0][1]) if found else 'mmdet')
        cfg = Config(dict())
    else:
        cfg = read_config(target, options, data_root)
        enter_scope(cfg)
        result.scale, strides = scale_of(cfg), strides_of(cfg)
        for name in ('train', 'val', 'test'):
            try:
                check_data(cfg, name)
            except UserError as error:
                result.findings.append(Finding('error', name, STOPS, 1, (str(error),)))
                continue
            loader = cfg.get(f'{name}_dataloader')
            configs = list(leaves(loader.dataset)) if loader else []
            found += [(name, dataset) for dataset in configs if all(dataset != other for _, other in found)]
    data = []
    for name, dataset in found:
        try:
            data.append((name, _built(cfg, dataset)))
        except UserError as error:
            result.findings.append(Finding('error', name, STOPS, 1, (str(error),)))
    foreign = [name for name in ('val', 'test') if any(_is_of_mmdet(metric) for metric in evaluators(cfg, name))]
    findings, contents = inspect(data, everything, foreign, bands=band_count(cfg) if cfg.get('model') else None)
    for (name, dataset), content in zip(data, contents, strict=True):
        result.images[name] = result.images.get(name, 0) + len(dataset)
        if content.sizes:
            sides = scaled_sides(content.sizes, result.scale)
            counts = histogram(sides, strides)
            before = result.sizes.setdefault(name, dict.fromkeys(counts, 0))
            result.sizes[name] = {label: before[label] + count for label, count in counts.items()}
            findings += vanishing(name, sides, strides)
    result.findings = merged([*result.findings, *findings])
    return result


def _is_of_mmdet(metric: Any) -> bool:
    return str(metric.get('type')) in ('CocoMetric', 'mmdet.CocoMetric')


def _built(cfg: Config, config: ConfigDict) -> Any:
    """Return a built data set whose errors name files."""
    with building(cfg), explained_data(dict(dataset=config)):
        dataset = DATASETS.build(config)
    check_built(dataset)
    return dataset
