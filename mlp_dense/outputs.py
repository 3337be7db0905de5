"""Outputs: only files that this project wrote are replaced, and only when their successors are complete.

A folder of outputs contains ``.mlp_dense.json``, the marker, which lists the files that this project wrote there. Files
that the marker does not list are never changed, whatever their names are.
"""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from .checkpoints.atomic import write_whole
from .errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

MARKER = '.mlp_dense.json'
SOFTWARE = 'mlp_dense'  # the value of `written_by` in a marker, and of `Software` in the text of a PNG
FULL = errno.ENOSPC, errno.EDQUOT, errno.EFBIG
UNFINISHED, COMPLETE = '.mlp_dense-unfinished', '.mlp_dense-complete'  # folders inside of a folder of outputs


@contextmanager
def replacing(folder: Path, keep: str | None = None, is_main: bool = True) -> Iterator[Path]:
    """Yield an empty folder, whose files replace those in `folder` if the code inside succeeds.

    If it fails, or the process is killed at any moment, the files of `folder` stay complete.

    Args:
        folder: new or empty folder, or one that an earlier call filled.
        keep: name of a sub-folder whose files stay.
        is_main: False in the other processes of a distributed run, which only write into the yielded folder.

    Raises:
        UserError: `folder` contains other files or cannot be written, or another process writes to it.
    """
    unfinished = folder / UNFINISHED
    check_folder(folder)
    if not is_main:
        yield unfinished
        return
    make_folder(folder)
    with _explained(folder, *FULL), _locked(folder):
        try:
            with _explained(folder):
                _finish(folder)
                shutil.rmtree(unfinished, ignore_errors=True)  # of a killed process
                unfinished.mkdir(exist_ok=True)  # another process of a distributed run can be first
                if unfinished.is_symlink():
                    raise FileExistsError(errno.EEXIST, f'{UNFINISHED} in it is a link')
            yield unfinished
            kept = [name for name in _listed(folder) or () if name.partition('/')[0] == keep]
            with _explained(folder):
                (unfinished / MARKER).write_text(_content([*_files(unfinished), *kept]), encoding='utf-8')
                unfinished.replace(folder / COMPLETE)  # from here on `_finish` completes the replacement
                _finish(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
            if not {*_files(folder)} - {MARKER}:  # the folder was new, and the code inside failed
                with suppress(OSError):
                    (folder / MARKER).unlink()
                    folder.rmdir()


def settle(folder: Path) -> None:
    """Complete the replacement of a killed process, if there is one, before files of `folder` are read."""
    if (folder / COMPLETE / MARKER).is_file():
        with _explained(folder), _locked(folder):
            _finish(folder)


def check_folder(folder: Path) -> None:
    """Raise UserError if a folder contains files that this project did not write; hidden ones stay and do not count."""
    visible = sorted(name for name in _files(folder) if not f'/{name}'.count('/.'))
    marker, listed = folder / MARKER, _listed(folder)
    if listed is None and (visible or (marker.exists() and marker.stat().st_size)):
        problem = f'{folder} contains {(*visible, MARKER)[0]}, but no {MARKER} of mlp_dense (from 0.3 on) that lists it'
        raise UserError(f'{problem}; choose a new or empty folder, or delete this one first.')
    known = {*(listed or ()), *(_listed(folder / COMPLETE) or ())}
    if others := [name for name in visible if name not in known]:
        problem = f'{folder} contains files that mlp_dense did not write ({others[0]})'
        raise UserError(f'{problem}; move them away, or choose an empty folder.')


def check_file(file: Path) -> None:
    """Raise UserError if a file exists that is neither a PNG of this project nor listed in the marker of its folder."""
    if os.path.lexists(file) and file.name not in (_listed(file.parent) or ()) and not _is_own_png(file):
        raise UserError(f'{file} exists and was not written by mlp_dense; delete it or choose another name.')


def write_png(file: Path, image: Image.Image) -> None:
    """Write an image as a PNG that :func:`check_file` recognises, or raise UserError."""
    text = PngInfo()
    text.add_text('Software', SOFTWARE)
    image.save(buffer := BytesIO(), 'PNG', optimize=True, pnginfo=text)
    write_whole(file, buffer.getvalue())


def write_listed(file: Path, content: str) -> None:
    """Write a file, which :func:`check_file` has accepted, and list it in the marker of its folder."""
    folder = file.parent
    with _explained(folder), _locked(folder, wait=True):
        write_whole(folder / MARKER, _content([*(_listed(folder) or ()), file.name]).encode())
        write_whole(file, content.encode())


class GrowingList:
    """File with a list in JSON, which is valid after every call, whatever ends the process.

    Args:
        file: file to write.
        start: text before the first item.
        end: text after the last item.
    """

    def __init__(self, file: Path, start: str = '[', end: str = ']'):
        self.path, self.end, self.separator = file, f'\n{end}\n'.encode(), b'\n'
        with _explained(file):
            self.file = file.open('wb', buffering=0)
        self._write(0, start.encode())

    def extend(self, items: Iterable[Any]) -> None:
        """Append items. Raises UserError if they cannot be written; the file then keeps the earlier items."""
        if text := b',\n'.join(json.dumps(item).encode() for item in items):
            self._write(self.position, self.separator + text)
            self.separator = b',\n'

    def close(self) -> None:
        self.file.close()

    def _write(self, position: int, text: bytes) -> None:
        """Replace the end of the list by more text and the end, in one call of the system."""
        self.file.seek(position)
        try:
            if self.file.write(text + self.end) < len(text + self.end):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            with suppress(OSError):  # the blocks of the earlier end exist
                self.file.seek(position)
                self.file.write(self.end)
                self.file.truncate()
            raise UserError(f'{self.path} cannot be written ({error.strerror}); free space.') from error
        self.position = position + len(text)


def make_folder(folder: Path) -> None:
    """Make a folder and test that it is writable. Raises UserError if it is not."""
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()


def _finish(folder: Path) -> None:
    """Move the files of a complete replacement to their places; a killed call is repeated."""
    complete = folder / COMPLETE
    new, old = _listed(complete), set(_listed(folder) or ())
    if new is not None:
        moved = [name for name in new if (complete / name).exists()]  # the others are kept, or were moved before
        for name in moved:
            if name not in old and os.path.lexists(folder / name):  # new since the first check
                raise UserError(f'{folder / name} was not written by mlp_dense; move it away and repeat the command.')
        for name in moved:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (complete / name).replace(folder / name)
        stale = [folder / name for name in old.difference(new)]
        for path in stale:
            path.unlink(missing_ok=True)
        parents = {parent for path in stale for parent in path.parents if folder in parent.parents}
        for parent in sorted(parents, reverse=True):  # sub-folders first
            with suppress(OSError):  # not empty
                parent.rmdir()
        (complete / MARKER).replace(folder / MARKER)
    shutil.rmtree(complete, ignore_errors=True)


def _files(folder: Path) -> Iterator[str]:
    """Yield the relative paths of the files in a folder and its sub-folders; a link to a folder is a file."""
    for root, folders, files in os.walk(folder):
        links = [name for name in folders if Path(root, name).is_symlink()]
        yield from (Path(root, name).relative_to(folder).as_posix() for name in (*files, *links))


def _listed(folder: Path) -> list[str] | None:
    """Return the files that the marker of a folder lists, None without a marker of this project."""
    with suppress(OSError, ValueError, AttributeError, LookupError, TypeError):
        content = json.loads((folder / MARKER).read_text(encoding='utf-8'))
        if content.get('written_by') == SOFTWARE:
            # a folder from elsewhere must not name files outside of it
            root = Path(os.path.abspath(folder))
            return [name for name in content['files'] if root in Path(os.path.abspath(folder / name)).parents]
    return None


def _content(names: Collection[str]) -> str:
    return json.dumps(dict(written_by=SOFTWARE, files=sorted({*names} - {MARKER})), indent=1) + '\n'


def _is_own_png(file: Path) -> bool:
    with suppress(OSError, Image.DecompressionBombError), Image.open(file) as image:
        return image.info.get('Software') == SOFTWARE
    return False


@contextmanager
def _locked(folder: Path, wait: bool = False) -> Iterator[None]:
    """Lock a folder by its marker, and write the marker if it is new; wait for the lock, or raise UserError."""
    with (folder / MARKER).open('a', encoding='utf-8') as marker:
        if fcntl:  # the kernel releases the lock of a killed process
            try:
                fcntl.flock(marker, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError as error:
                problem = f'Another process writes to {folder}'
                raise UserError(f'{problem}; wait for it, or choose another folder.') from error
            except OSError:  # a file system without locks
                pass
        if not marker.tell():
            marker.write(_content(()))
            marker.flush()
        if not fcntl:
            marker.close()  # Windows does not replace open files
        yield


@contextmanager
def _explained(folder: Path, *numbers: int) -> Iterator[None]:
    """Raise UserError for an OSError, or only for those with some numbers."""
    try:
        yield
    except OSError as error:
        if numbers and error.errno not in numbers:
            raise
        raise UserError(f'{folder} cannot be written ({error.strerror}); choose another folder.') from error
