"""Errors that the user can fix: the tools print them as a sentence, without a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """Something given to this package (a config, an argument, a file) is wrong; the message says what to do."""


class ArgumentError(UserError, TypeError):
    """A constructor got an argument that it does not know."""


class CheckpointError(UserError):
    """A checkpoint cannot be read, or does not fit the model."""


class UnreadableError(UserError):
    """An image or a label map cannot be decoded."""


class NotInstalledError(UserError, ImportError):
    """A package is missing."""


@contextmanager
def explained_imports() -> Iterator[None]:
    """NotInstalledError: a package of OpenMMLab is missing that is imported inside."""
    try:
        yield
    except ModuleNotFoundError as error:
        if sentence := explain_missing(error):
            raise NotInstalledError(sentence) from error
        raise


def explain_missing(error: ModuleNotFoundError) -> str | None:
    """What to install, if a package of OpenMMLab is missing."""
    package = (error.name or '').partition('.')[0]
    choices = dict.fromkeys(('mmengine', 'mmdet', 'mmseg'), "pip install -e '.[mim]' in the folder of mlp_dense")
    choices['mmcv'] = (
        'pip install mmcv-lite==2.1.0, for the operators of mlp_dense; or compile mmcv with its own, in 10 to 25 '
        'minutes (docs/troubleshooting.md). Never install both'
    )
    return f'{package} is not installed: {choices[package]}.' if package in choices else None


def some(names: list[str]) -> str:
    """The first three of a list, and how many more there are."""
    return ', '.join(names[:3]) + (f' and {len(names) - 3} more' if len(names) > 3 else '')
