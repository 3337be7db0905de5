"""Files that are complete or absent, even after a killed process, a full disk or a power failure."""

import os
import re
import zipfile
from contextlib import suppress
from pathlib import Path

from ..errors import CheckpointError, UserError

BETWEEN = 'resume.pth'  # saved between the regular checkpoints: after a signal, or after some minutes
TEMPLATES = ('epoch_{}.pth', 'iter_{}.pth')  # names that mmengine gives to checkpoints
UNFINISHED = re.compile(r'\..+\.\d+\.unfinished')


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write a file under another name, flush it to the disk, check it and rename it, or raise a UserError."""
    unfinished = path.with_name(f'.{path.name}.{os.getpid()}.unfinished')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open('wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if unfinished.stat().st_size != len(data):
            raise OSError(f'only {unfinished.stat().st_size} of {len(data)} bytes arrived')
        if path.suffix == '.pth' and not zipfile.is_zipfile(unfinished):
            raise OSError('the written file cannot be read back')
        unfinished.replace(path)
        if os.name == 'posix':  # flush the name to the disk
            handle = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
    except OSError as error:
        problem = f'{path} cannot be written ({error.strerror or error})'
        raise UserError(f'{problem}; free space or choose another folder. An existing file is unchanged.') from error
    finally:
        with suppress(OSError):
            unfinished.unlink()


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder."""
    for path in folder.iterdir():
        if UNFINISHED.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def damage(path: Path) -> str:
    """Return why a checkpoint in PyTorch's zip format is incomplete or damaged; an empty string if it is intact."""
    if not path.stat().st_size:
        return 'it is empty'
    try:
        with zipfile.ZipFile(path) as file:
            broken = file.testzip()
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        return f'it is incomplete ({error})'
    return f'the checksum of {broken} in it is wrong' if broken else ''


def step_in(name: str, template: str) -> int | None:
    """Return the epoch or iteration in a file name, or None if it does not follow a `filename_tmpl` of mmengine."""
    pattern = r'(\d+)'.join(map(re.escape, re.split(r'\{[^}]*\}', template, maxsplit=1)))
    match = re.fullmatch(pattern, name)
    return int(match[1]) if match and match.groups() else None


def newest_checkpoint(work_dir: Path, template: str | None = None) -> tuple[Path | None, list[str]]:
    """Return the checkpoint of a work dir to resume from, and the name and defect of each that was skipped.

    It is the one that was written last, else the intact one with the greatest number, or None without checkpoints.
    If none is intact, a CheckpointError is raised. `template` is the `filename_tmpl` of the training.
    """
    pointer, paths = work_dir / 'last_checkpoint', checkpoints_in(work_dir, template)
    if pointer.is_file() and (last := pointer.read_text(encoding='utf-8', errors='replace').strip()):
        local = work_dir / Path(last).name  # the work dir may have been moved
        paths = [path for path in (local, Path(last)) if path.is_file()][:1] + [path for path in paths if path != local]
    skipped: list[str] = []
    for path in paths:
        if not (reason := damage(path)):
            return path, skipped
        skipped.append(f'{path.name}: {reason}')
    if skipped:
        raise CheckpointError(
            f'No checkpoint in {work_dir} is complete ({"; ".join(skipped)}); '
            'choose another one with --resume FILE, or start a new training run with another --work-dir.'
        )
    return None, []


def checkpoints_in(folder: Path, template: str | None = None) -> list[Path]:
    """Return the checkpoints of a training run in a folder, the one with the greatest number first."""
    steps = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        for name_template in (*TEMPLATES, template or TEMPLATES[0]):
            if (step := step_in(path.name, name_template)) is not None:
                steps[path] = step
        if path.name == BETWEEN:
            steps[path] = -1
    return sorted(steps, key=lambda path: (steps[path], path.name), reverse=True)
