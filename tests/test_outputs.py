"""Outputs: files of others stay, and the earlier outputs stay until the new ones are complete."""

import errno
import json
import os
import resource
import signal
from pathlib import Path
from unittest.mock import patch

import pytest
from PIL import Image

from mlp_dense import outputs
from mlp_dense.errors import UserError
from mlp_dense.outputs import GrowingList, check_file, replacing, settle, write_listed, write_png
from support.trainings import wait


def fill(folder: Path, content: str, *names: str, keep: str | None = None) -> None:
    with replacing(folder, keep) as unfinished:
        for name in names:
            file = unfinished / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)


def contents(folder: Path) -> dict[str, str]:
    """Return the content of the visible files of a folder."""
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob('*') if file.is_file()}
    return {name: file.read_text() for name, file in sorted(files.items()) if not f'/{name}'.count('/.')}


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith('.'))


def in_fork(function) -> int:
    """Call a function in a fork of this process; return its exit status, or minus the number of its signal."""
    if pid := os.fork():
        return wait(pid)
    try:
        function()
    except UserError:
        os._exit(2)
    finally:
        os._exit(1)


def test_new_files_replace_the_old_ones(tmp_path):
    folder = tmp_path / 'new' / 'out'
    fill(folder, 'old', 'page.html', 'results/a', 'results/b', 'plots/x')
    fill(folder, 'new', 'page.html', 'results/a')
    assert contents(folder) == {'page.html': 'new', 'results/a': 'new'}
    assert not (folder / 'plots').exists() and hidden(folder) == ['.mlp_dense.json']
    fill(folder, 'page', 'page.html', keep='results')
    assert contents(folder) == {'page.html': 'page', 'results/a': 'new'}


@pytest.mark.parametrize('linked', [False, True])
@pytest.mark.parametrize('name', ['results/run.json', 'pictures/00000.jpg', 'index.html', 'notes.txt'])
def test_files_of_others_are_refused_and_stay(tmp_path, name, linked):
    """The names are those of a report; the marker of an earlier report does not own them either."""
    folder = link = tmp_path / 'mine'
    if linked:
        link = tmp_path / 'link'
        link.symlink_to(folder)
    for problem in ('no .mlp_dense.json', 'did not write'):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('precious')
        before = contents(folder)
        with pytest.raises(UserError, match=problem):
            fill(link, 'new', 'index.html')
        assert contents(folder) == before
        (folder / name).unlink()
        fill(link, 'old', 'index.html' if name != 'index.html' else 'other.html')


def test_folder_with_hidden_files_of_others_is_usable(tmp_path):
    (tmp_path / '.DS_Store').write_text('precious')
    fill(tmp_path, 'old', 'page')
    fill(tmp_path, 'new', 'page')
    assert contents(tmp_path) == {'page': 'new'} and (tmp_path / '.DS_Store').read_text() == 'precious'


def test_linked_folders_are_not_entered(tmp_path):
    folder, mine = tmp_path / 'out', tmp_path / 'mine'
    fill(folder, 'old', 'results/a')
    (folder / 'results').rename(mine)
    (folder / 'results').symlink_to(mine)
    with pytest.raises(UserError, match=r'did not write \(results\)'):
        fill(folder, 'new', 'results/b')
    (folder / 'results').unlink()
    (folder / outputs.UNFINISHED).symlink_to(mine)
    with pytest.raises(UserError, match='is a link'):
        fill(folder, 'new', 'results/b')
    assert contents(mine) == {'a': 'old'}


@pytest.mark.parametrize('text', ['', '[]', '{}', '{"files": ["a"]}', '{"written_by": "me", "files": ["a"]}', '{"writ'])
def test_marker_of_others_proves_nothing(tmp_path, text):
    (tmp_path / 'a').write_text('precious')
    (tmp_path / outputs.MARKER).write_text(text)
    with pytest.raises(UserError, match=r'no \.mlp_dense\.json of mlp_dense'):
        fill(tmp_path, 'new', 'a')
    (tmp_path / 'a').unlink()
    if text:
        with pytest.raises(UserError, match=r'contains \.mlp_dense\.json'):
            fill(tmp_path, 'new', 'a')
        assert (tmp_path / outputs.MARKER).read_text() == text


def test_marker_does_not_reach_outside_of_its_folder(tmp_path):
    folder, mine = tmp_path / 'out', tmp_path / 'mine'
    mine.write_text('precious')
    fill(folder, 'old', 'page')
    marker = folder / outputs.MARKER
    for name in ('../mine', str(mine), 'x/../../mine'):
        marker.write_text(json.dumps(dict(written_by='mlp_dense', files=['page', name])))
        fill(folder, 'new', 'page')
    assert mine.read_text() == 'precious'


def test_failure_keeps_the_old_files(tmp_path):
    fill(tmp_path / 'out', 'old', 'page', 'results/a')
    for folder, expected in ((tmp_path / 'out', ['out']), (tmp_path / 'new', ['out'])):
        with pytest.raises(ZeroDivisionError), replacing(folder) as unfinished:
            (unfinished / 'page').write_text('new')
            raise ZeroDivisionError
        assert [path.name for path in tmp_path.iterdir()] == expected
    assert contents(tmp_path / 'out') == {'page': 'old', 'results/a': 'old'}
    assert hidden(tmp_path / 'out') == ['.mlp_dense.json']


def kill_at(number: int):
    """Kill this process before its `number`-th change of a name or removal of a file."""
    left = [number]

    def counted(function):
        def call(*args, **kwargs):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    for name in ('replace', 'unlink', 'mkdir', 'rmdir'):
        patch.object(Path, name, counted(getattr(Path, name))).start()


def test_process_killed_at_any_moment_leaves_old_or_new_files(tmp_path):
    old, new = dict.fromkeys(('page', 'plots/x', 'results/a'), 'old'), dict.fromkeys(('page', 'results/b'), 'new')
    seen = []
    for moment in range(1, 40):
        folder = tmp_path / str(moment)
        fill(folder, 'old', *old)

        def replace(folder=folder, moment=moment):
            kill_at(moment)
            fill(folder, 'new', *new)
            os._exit(0)

        status = in_fork(replace)
        settle(folder)
        seen.append(contents(folder))
        assert seen[-1] in (old, new), moment
        fill(folder, 'third', 'page')
        assert contents(folder) == {'page': 'third'} and hidden(folder) == ['.mlp_dense.json']
        if status == 0:
            break
    assert status == 0 and seen.index(new) > 2 and old not in seen[seen.index(new) :]


def test_second_process_is_refused(tmp_path):
    fill(tmp_path, 'old', 'page')
    with replacing(tmp_path) as unfinished:
        (unfinished / 'page').write_text('new')
        assert in_fork(lambda: fill(tmp_path, 'other', 'page')) == 2
        with pytest.raises(UserError, match='Another process writes to'):
            fill(tmp_path, 'other', 'page')
        with replacing(tmp_path, is_main=False) as shared:  # another process of the same test
            (shared / 'part').write_text('new')
    assert contents(tmp_path) == {'page': 'new', 'part': 'new'}


def test_file_that_appears_meanwhile_stays(tmp_path):
    fill(tmp_path, 'old', 'page')
    with pytest.raises(UserError, match='plots was not written by mlp_dense; move it away'), replacing(tmp_path) as new:
        (new / 'plots').write_text('new')
        (tmp_path / 'plots').write_text('precious')
    assert contents(tmp_path) == {'page': 'old', 'plots': 'precious'}
    (tmp_path / 'plots').unlink()
    settle(tmp_path)
    assert contents(tmp_path) == {'plots': 'new'}, 'the new files are not lost'


@pytest.mark.skipif(os.geteuid() == 0, reason='root writes into read-only folders')
def test_read_only_folder_is_refused(tmp_path):
    fill(tmp_path, 'old', 'page')
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match=r'cannot be written \(Permission denied\); choose'):
        fill(tmp_path, 'new', 'page')
    tmp_path.chmod(0o700)
    assert contents(tmp_path) == {'page': 'old'}


def test_full_disk_keeps_the_old_files(tmp_path):
    fill(tmp_path, 'old', 'page')
    with pytest.raises(UserError, match=r'cannot be written \(No space left'), replacing(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert contents(tmp_path) == {'page': 'old'}


def test_single_files_of_others_are_refused(tmp_path):
    mine, own = tmp_path / 'mine.png', tmp_path / 'own.png'
    image = Image.new('RGB', (2, 2))
    image.save(mine)
    write_png(own, image)
    write_listed(tmp_path / 'own.json', '1')
    write_listed(tmp_path / 'own.json', '2')
    (tmp_path / 'mine.json').write_text('')
    (tmp_path / 'link.json').symlink_to(tmp_path / 'absent')
    for name in ('own.png', 'own.json', 'absent.png'):
        check_file(tmp_path / name)
    for name in ('mine.png', 'mine.json', 'link.json'):
        with pytest.raises(UserError, match=f'{name} exists and was not written by mlp_dense; delete it or choose'):
            check_file(tmp_path / name)
    assert (tmp_path / 'own.json').read_text() == '2'


def test_growing_list_is_valid_after_each_item(tmp_path):
    file = tmp_path / 'list.json'
    numbers = GrowingList(file, '{"numbers": [', ']}')
    assert json.loads(file.read_text()) == dict(numbers=[])
    for i in range(3):
        numbers.extend([i, i])
        numbers.extend([])
        assert json.loads(file.read_text()) == dict(numbers=[j // 2 for j in range(2 * i + 2)])
    numbers.close()


def test_growing_list_on_a_full_disk_keeps_its_items(tmp_path):
    def write():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        numbers = GrowingList(tmp_path / 'list.json')
        for i in range(3000):
            numbers.extend([i])

    assert in_fork(write) == 2
    numbers = json.loads((tmp_path / 'list.json').read_text())
    assert numbers == list(range(len(numbers))) and len(numbers) > 600
