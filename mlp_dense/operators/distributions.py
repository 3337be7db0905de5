"""Fallback for ``pkg_resources``: what mmengine 0.10 needs when a config names another package (``mmdet::...``)."""

from importlib.metadata import PackageNotFoundError as DistributionNotFound
from importlib.metadata import distribution
from typing import Any

__all__ = ['DistributionNotFound', 'get_distribution']


class Distribution:
    """An installed package: `location` is the folder that contains it. If missing, a DistributionNotFound is raised."""

    def __init__(self, name: str):
        self._distribution = distribution(name)
        self.location = str(self._distribution.locate_file(''))

    def has_metadata(self, file: str) -> bool:
        return self._distribution.read_text(file) is not None

    def get_metadata(self, file: str) -> str:
        return self._distribution.read_text(file) or ''


get_distribution = Distribution


def __getattr__(name: str) -> Any:
    if name.startswith('__'):
        raise AttributeError(name)
    problem = f'pkg_resources.{name} is needed, but this setuptools has no pkg_resources'
    raise ModuleNotFoundError(f"{problem}: pip install 'setuptools<82'.", name='pkg_resources')
