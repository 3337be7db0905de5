"""Missing and repeated files are found without opening them."""

from types import SimpleNamespace

import pytest

from mlp_dense.checks.coco_data import Contents
from mlp_dense.checks.data_files import file_findings, missing_files

DATASET = SimpleNamespace(data_prefix={}, ann_file='')


def test_missing_files_are_found_by_listing_folders(tmp_path):
    (tmp_path / 'a.jpg').write_text('')
    files = [str(tmp_path / name) for name in ('a.jpg', 'b.jpg', 'folder/c.jpg', 'a.jpg/000000')]
    assert missing_files([*files, 'https://host/x.jpg']) == files[1:3]


@pytest.mark.parametrize(
    ('name', 'remedy'),
    [
        ('A.PNG', 'rename them: the folder has a.jpg'),
        ('b.jpg', 'add the files, or correct the names and the folder'),
        ('..\\upload\\a.jpg', 'write file_name with / instead of \\'),
        ('folder/a.jpg', 'create '),
    ],
)
def test_remedy_of_missing_files(tmp_path, name, remedy):
    (tmp_path / 'a.jpg').write_text('')
    contents = Contents([str(tmp_path / name), str(tmp_path / 'a.jpg')])
    for limit, severity in ((0.4, 'error'), (0.5, 'warning')):
        (finding,) = file_findings('train', DATASET, contents, limit)
        assert finding.severity == severity and finding.remedy.startswith(remedy)
    (finding,) = file_findings('val', DATASET, contents, 0.5)
    assert finding.severity == 'error'


def test_images_in_several_records_are_listed(tmp_path):
    (tmp_path / 'a.jpg').write_text('')
    (finding,) = file_findings('train', DATASET, Contents([str(tmp_path / 'a.jpg')] * 2), 0)
    assert finding.problem == 'images are listed several times' and finding.count == 1
