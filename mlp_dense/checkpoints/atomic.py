"""Atomic writing of files, and the newest complete checkpoint of a training.

A killed process, a full disk or a crash leaves either the previous file or the complete new one.
"""

import os
import re
import zipfile
from contextlib import suppress
from pathlib import Path

from ..errors import CheckpointError, UserError

BETWEEN = 'resume.pth'  # saved between the regular checkpoints, at a stop signal or after some minutes
NAMES = re.compile(rf'(epoch|iter)_\d+\.pth|{re.escape(BETWEEN)}')
UNFINISHED = re.compile(r'\..+\.\d+\.unfinished')


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write a file atomically: under a temporary name, checked and flushed to the disk, then renamed.

    Raises:
        UserError: The file cannot be written. An existing file of that name is unchanged.
    """
    unfinished = path.with_name(f'.{path.name}.{os.getpid()}.unfinished')
    try:
        with unfinished.open('wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if unfinished.stat().st_size != len(data):
            raise OSError(f'only {unfinished.stat().st_size} of {len(data)} bytes arrived')
        if path.suffix == '.pth' and not zipfile.is_zipfile(unfinished):
            raise OSError('the written file cannot be read back')
        unfinished.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f'{path} cannot be written ({reason}); its previous version is unchanged.') from error
    finally:
        with suppress(OSError):
            unfinished.unlink()


def _flush_folder(folder: Path) -> None:
    """Flush the names of a folder's files to the disk, if the operating system supports it."""
    if os.name == 'posix':
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder."""
    for path in folder.iterdir():
        if UNFINISHED.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def damage(path: Path) -> str:
    """Return why a checkpoint of PyTorch's zip format is damaged, empty if all of its checksums are correct."""
    if not path.stat().st_size:
        return 'it is empty'
    try:
        with zipfile.ZipFile(path) as file:
            broken = file.testzip()
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        return f'it is incomplete ({error})'
    return f'the checksum of {broken} in it is wrong' if broken else ''


def newest_checkpoint(work_dir: Path) -> tuple[Path | None, list[str]]:
    """Return the newest complete checkpoint of a work dir, and the name and damage of each newer one.

    This is the last one that was written, otherwise the one with the most iterations, or None if there are no
    checkpoints.

    Raises:
        CheckpointError: All checkpoints are damaged.
    """
    pointer, paths = work_dir / 'last_checkpoint', checkpoints_in(work_dir)
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
            f'All checkpoints in {work_dir} are damaged ({"; ".join(skipped)}). '
            'Choose another one with --resume FILE, or start a new training with another --work-dir.'
        )
    return None, []


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the checkpoints of a training in a folder by descending number."""

    def number(path: Path) -> int:
        return int(''.join(filter(str.isdigit, path.stem)) or -1)

    return sorted((path for path in folder.glob('*.pth') if NAMES.fullmatch(path.name)), key=number, reverse=True)
