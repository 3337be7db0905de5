"""Record of what is needed to reproduce a training: a file in its folder, and the id of the run in its checkpoints."""

import json
import shlex
import subprocess
import sys
import uuid
from contextlib import suppress
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.utils.dl_utils import collect_env

from .. import operators
from ..registry import HOOKS

OPENMMLAB = (
    *('mmengine', 'mmcv', 'mmcv-lite', 'mmdet', 'mmsegmentation'),
    *('onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection', 'onedl-mmsegmentation'),
)


@HOOKS.register_module()
class RunHook(Hook):
    """Writes ``run.json`` next to the log of a training, and its id as ``meta['run_id']`` into every checkpoint."""

    priority = 'VERY_HIGH'  # before any hook saves a checkpoint

    def before_train(self, runner: Any) -> None:
        self.run_id = f'{runner.timestamp}-{uuid.uuid4().hex[:8]}'
        if is_main_process():
            record = dict(
                run_id=self.run_id,
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
                config=runner.cfg.to_dict(),
            )
            text = json.dumps(record, indent=2, default=str)
            Path(runner.log_dir, 'run.json').write_text(f'{text}\n', encoding='utf-8')

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        checkpoint['meta']['run_id'] = self.run_id


def versions(*more: str) -> dict[str, str]:
    """Return the versions of this package, PyTorch, OpenMMLab and `more` packages, if they are installed."""
    numbers = {}
    for package in ('torch', 'torchvision', 'numpy', *OPENMMLAB, *more, 'mlp_dense'):
        with suppress(PackageNotFoundError):
            numbers[package] = version(package)
    return numbers


def git_state(file: Path) -> dict[str, Any] | None:
    """Return the revision of a file and whether its working copy is clean, or None if git does not track the file."""

    def git(*command: str) -> str:
        return subprocess.check_output(
            ['git', '-C', file.parent, *command], text=True, stderr=subprocess.DEVNULL
        ).strip()

    try:
        git('ls-files', '--error-unmatch', file.name)
        return dict(revision=git('rev-parse', 'HEAD'), clean=not git('status', '--porcelain'))
    except (OSError, subprocess.CalledProcessError):
        return None
