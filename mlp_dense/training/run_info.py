"""What explains a training later: a file in its folder, and the id of the run in its checkpoints."""

import hashlib
import json
import shlex
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.utils.dl_utils import collect_env

from .. import operators
from ..checkpoints.files import sha256_of
from ..config.reading import leaves

OPENMMLAB = ('mmengine', 'mmcv', 'mmcv-lite', 'mmdet', 'mmsegmentation')
ONEDL = ('onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection', 'onedl-mmsegmentation')


class RunHook(Hook):
    """Writes ``run.json`` beside the log of a training, and its id as ``meta['run_id']`` into every checkpoint.

    A resumed training has an id of its own, and names that of the checkpoint it goes on from as its parent.
    """

    priority = 'VERY_HIGH'  # before anything of the training is saved

    def __init__(self) -> None:
        self.run_id, self.parent = '', None

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        if runner._resume and isinstance(meta := checkpoint.get('meta'), dict):
            self.parent = found if isinstance(found := meta.get('run_id'), str) else None

    def before_train(self, runner: Any) -> None:
        self.run_id = f'{runner.timestamp}-{uuid.uuid4().hex[:8]}'
        if is_main_process():
            content = dict(run_id=self.run_id, parent=self.parent, **explanation(runner))
            text = json.dumps(content, indent=2, default=str)
            Path(runner.log_dir, 'run.json').write_text(f'{text}\n', encoding='utf-8')

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        checkpoint['meta']['run_id'] = self.run_id


def explanation(runner: Any) -> dict[str, Any]:
    """What a training depends on, as JSON takes it."""
    files = {str(path): path for loader in loaders(runner) for path in annotations(loader.dataset)}
    return dict(
        started=datetime.now().astimezone().isoformat(timespec='seconds'),
        command=shlex.join(sys.argv),
        folder=str(Path.cwd()),
        processes=runner.world_size,
        seed=runner.seed,
        deterministic=runner.deterministic,
        git=git_state(Path(__file__)),
        versions=versions(),
        operators=operators.running(),
        environment=collect_env(),
        sha256={name: fingerprint(path) for name, path in files.items()},
        config=runner.cfg.to_dict(),
    )


def versions(*others: str) -> dict[str, str]:
    """Of the packages that are installed of those that matter, and of some others."""
    packages = ('torch', 'torchvision', 'numpy', *OPENMMLAB, *ONEDL, *others, 'mlp_dense')
    return {name: found for name in packages if (found := _version(name))}


def loaders(runner: Any) -> list[Any]:
    return [runner.train_dataloader, *([runner.val_dataloader] if runner.val_loop else [])]


def annotations(dataset: Any) -> Iterator[Path]:
    """The files, or folders of label maps, that built data sets have their labels from."""
    for each in leaves(dataset):
        named = [getattr(each, 'ann_file', None), (getattr(each, 'data_prefix', None) or {}).get('seg_map_path')]
        yield from (Path(name) for name in named if name and Path(name).exists())


def fingerprint(path: Path) -> str:
    """The SHA-256 of a file; of a folder, that of the names and sizes of the files below it."""
    if path.is_file():
        return sha256_of(path)
    files = sorted(
        (each.relative_to(path).as_posix(), each.stat().st_size) for each in path.rglob('*') if each.is_file()
    )
    return 'names and sizes: ' + hashlib.sha256(json.dumps(files).encode()).hexdigest()


def git_state(file: Path) -> dict[str, Any] | None:
    """The revision that a file is of, and whether its working copy is unchanged; None if git does not know the file."""

    def git(*command: str) -> str:
        done = subprocess.run(['git', '-C', file.parent, *command], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        git('ls-files', '--error-unmatch', file.name)
        return dict(revision=git('rev-parse', 'HEAD'), clean=not git('status', '--porcelain'))
    except (OSError, subprocess.CalledProcessError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
