"""Files that are whole or not there: what a killed process, a full disk or a lost machine leaves behind can be read."""

import os
import re
import zipfile
from contextlib import suppress
from pathlib import Path

from ..errors import CheckpointError, UserError

BETWEEN = 'resume.pth'  # saved between the regular checkpoints: when asked to stop, or after some minutes
NAMES = re.compile(rf'(epoch|iter)_\d+\.pth|{re.escape(BETWEEN)}')
UNFINISHED = re.compile(r'\..+\.\d+\.unfinished')


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Writes a file under another name, has the disk keep it, reads its size and its zip directory back, and only then
    gives it its name. UserError: it cannot be written; nothing is left behind, and a file of that name stays as it is.
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
            raise OSError('what was written cannot be read back')
        unfinished.replace(path)
        _keep_name(path.parent)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f'{path} cannot be written ({reason}); what was there before is unchanged.') from error
    finally:
        with suppress(OSError):
            unfinished.unlink()


def _keep_name(folder: Path) -> None:
    """Has the disk keep the names in a folder, where the system can."""
    if os.name == 'posix':
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_unfinished(folder: Path) -> None:
    """Removes what killed processes left of :func:`write_whole` in a folder."""
    for path in folder.iterdir():
        if UNFINISHED.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def damage(path: Path) -> str:
    """Why a checkpoint of PyTorch's zip format is not whole; empty if it is: every checksum in it is compared."""
    if not path.stat().st_size:
        return 'it is empty'
    try:
        with zipfile.ZipFile(path) as file:
            broken = file.testzip()
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        return f'it is incomplete ({error})'
    return f'the checksum of {broken} in it is wrong' if broken else ''


def newest_checkpoint(work_dir: Path) -> tuple[Path | None, list[str]]:
    """The checkpoint of a work dir to go on from: the one that was written last, else that of most iterations; None if
    there is none. And of each that was passed over, its name and why. CheckpointError: there are some, but none is
    whole."""
    pointer, paths = work_dir / 'last_checkpoint', checkpoints_in(work_dir)
    if pointer.is_file() and (named := pointer.read_text(encoding='utf-8', errors='replace').strip()):
        here = work_dir / Path(named).name  # the work dir may have been moved
        paths = [path for path in (here, Path(named)) if path.is_file()][:1] + [path for path in paths if path != here]
    skipped = []
    for path in paths:
        if not (reason := damage(path)):
            return path, skipped
        skipped.append(f'{path.name}: {reason}')
    if skipped:
        raise CheckpointError(
            f'No checkpoint in {work_dir} is whole ({"; ".join(skipped)}); '
            'name another one with --resume FILE, or start anew with another --work-dir.'
        )
    return None, []


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints of a training in a folder, the one with the greatest number first."""

    def number(path: Path) -> int:
        return int(''.join(filter(str.isdigit, path.stem)) or -1)

    return sorted((path for path in folder.glob('*.pth') if NAMES.fullmatch(path.name)), key=number, reverse=True)
