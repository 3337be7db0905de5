"""Checkpoints from URLs: only https, complete downloads, and the hash in the name."""

import functools
import hashlib
import http.server
import pathlib
import threading
from pathlib import Path

import pytest
import torch

import mlp_dense
from mlp_dense.checkpoints import files
from mlp_dense.checkpoints.reading import read_checkpoint
from mlp_dense.errors import CheckpointError
from support.checkpoints import assert_computes, pretrained
from support.models import official


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Yield the URL of a server of the files in tmp_path, and a function that stops it."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    monkeypatch.setenv('no_proxy', '*')
    monkeypatch.setenv('MLP_DENSE_ALLOW_HTTP', '1')
    handler = functools.partial(Handler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(('localhost', 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=0.01), daemon=True).start()
        yield f'http://localhost:{server.server_port}', server.shutdown
        server.shutdown()


def test_only_https_is_allowed(served, monkeypatch):
    monkeypatch.delenv('MLP_DENSE_ALLOW_HTTP')
    for url in (f'{served[0]}/w.pth', 'ftp://host/w.pth', 's3://host/w.pth'):
        with pytest.raises(CheckpointError, match=r'is not fetched over (http|ftp|s3), since others'):
            read_checkpoint(url)


def test_hash_in_the_name_is_checked(save, served):
    data = Path(save(official(mlp_dense.HireMLP), 'w.pth')).read_bytes()
    digest = hashlib.sha256(data).hexdigest()[:8]
    for name in (f'hire-{digest}.pth', 'hire-20240131.pth', 'hire-00000000.pth'):
        (Path(save({}, 'w.pth')).parent / name).write_bytes(data)
    correct, dated = (read_checkpoint(f'{served[0]}/hire-{name}.pth') for name in (digest, '20240131'))
    assert correct.keys() == dated.keys()
    with pytest.raises(CheckpointError, match='has another SHA-256 than its name, it begins with'):
        read_checkpoint(f'{served[0]}/hire-00000000.pth')
    assert not [file for file in Path(torch.hub.get_dir()).rglob('*') if '00000000' in file.name]


def test_redirects_and_incomplete_downloads_are_checked(served, tmp_path, monkeypatch):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(302 if 'moved' in self.path else 200)
            self.send_header(*(('Location', new) if 'moved' in self.path else ('Content-Length', '99')))
            self.end_headers()
            self.wfile.write(b'begun')

        def log_message(self, *args):
            pass

    torch.save(dict(value=1), tmp_path / 'w.pth')
    new = f'{served[0]}/w.pth'
    with http.server.ThreadingHTTPServer(('localhost', 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=0.01), daemon=True).start()
        url = f'http://localhost:{server.server_port}'
        assert read_checkpoint(f'{url}/moved.pth') == dict(value=1)
        with pytest.raises(CheckpointError, match=r'short\.pth cannot be downloaded \(the connection was lost\)'):
            read_checkpoint(f'{url}/short.pth')
        check = files._check_url
        # Simulate https for the first URL.
        monkeypatch.setattr(files, '_check_url', lambda url: check(url) if 'w.pth' in url else None)
        monkeypatch.delenv('MLP_DENSE_ALLOW_HTTP')
        with pytest.raises(CheckpointError, match=r'w\.pth is not fetched over http'):
            read_checkpoint(f'{url}/moved.pth?again')
        server.shutdown()
    assert len(list((tmp_path / 'hub' / 'checkpoints').iterdir())) == 1


def test_download_is_kept(save, served):
    url, stop = served
    weights = official(mlp_dense.HireMLP)
    save(dict(model=weights))
    assert_computes(pretrained(mlp_dense.HireMLP, f'{url}/weights.pth'), weights)
    with pytest.raises(CheckpointError, match=r'absent\.pth cannot be downloaded'):
        read_checkpoint(f'{url}/absent.pth')
    stop()
    assert_computes(pretrained(mlp_dense.HireMLP, f'{url}/weights.pth'), weights)


def test_urls_with_the_same_name_have_separate_downloads(served, tmp_path):
    url, _ = served
    for folder in ('a', 'b'):
        (tmp_path / folder).mkdir()
        torch.save(dict(value=folder), tmp_path / folder / 'weights.pth')
        assert read_checkpoint(f'{url}/{folder}/weights.pth?download=1') == dict(value=folder)
    downloads = sorted((tmp_path / 'hub' / 'checkpoints').iterdir())
    assert len(downloads) == 2 and all(path.name.endswith('-weights.pth') for path in downloads)


def test_error_for_a_downloaded_page_names_the_file_to_delete(served, tmp_path):
    (tmp_path / 'page.pth').write_text('<html>log in</html>')
    with pytest.raises(CheckpointError, match=r'delete /.*-page\.pth to download it again'):
        read_checkpoint(f'{served[0]}/page.pth')


def test_file_url_is_read_again_after_a_change(save, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    for value in (1.0, 2.0):
        path = pathlib.Path(save(dict(value=torch.tensor(value))))
        assert read_checkpoint(path.as_uri())['value'] == value
