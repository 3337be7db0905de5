"""What stands in for ``pkg_resources``, which setuptools has no more from version 82 on: what mmengine 0.10 asks of it
where a config names another package (``mmdet::...``)."""

from importlib.metadata import PackageNotFoundError as DistributionNotFound
from importlib.metadata import distribution
from typing import Any

__all__ = ['DistributionNotFound', 'get_distribution']


class Distribution:
    """An installed package: `location`, the folder that it is in, and its files of metadata."""

    def __init__(self, name: str):
        self._found = distribution(name)
        self.location = str(self._found.locate_file(''))

    def has_metadata(self, file: str) -> bool:
        return self._found.read_text(file) is not None

    def get_metadata(self, file: str) -> str:
        return self._found.read_text(file) or ''


def get_distribution(name: str) -> Distribution:
    """An installed package by its name. DistributionNotFound: there is none."""
    return Distribution(name)


def __getattr__(name: str) -> Any:
    if name.startswith('__'):
        raise AttributeError(name)
    raise ModuleNotFoundError(
        f"pkg_resources.{name} is needed, and setuptools has no pkg_resources: pip install 'setuptools<82'.",
        name='pkg_resources',
    )
