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
    """NotInstalledError: a package of OpenMMLab or timm is missing that is imported inside, or torchvision does not
    load."""
    try:
        yield
    except ModuleNotFoundError as error:
        if sentence := explain_missing(error):
            raise NotInstalledError(sentence) from error
        raise
    except RuntimeError as error:
        if sentence := explain_torchvision(error):
            raise NotInstalledError(sentence) from error
        raise


def explain_torchvision(error: BaseException) -> str | None:
    """What to do, if torchvision cannot be imported: mmengine and timm do so wherever it is installed."""
    if 'operator torchvision::' not in str(error):
        return None
    from torch import __version__

    pair = f'torchvision was built for another PyTorch than {__version__}'
    return f'{pair}: install both in one command, at matching versions, or pip uninstall torchvision timm.'


def explain_missing(error: ModuleNotFoundError) -> str | None:
    """What to install, if a package of OpenMMLab or timm is missing."""
    package = (error.name or '').partition('.')[0]
    choices = dict.fromkeys(('mmengine', 'mmdet', 'mmseg'), "pip install -e '.[mim]' in the folder of mlp_dense")
    choices['mmcv'] = (
        'pip install mmcv-lite==2.1.0, for the operators of mlp_dense; or compile mmcv with its own, in 10 to 25 '
        'minutes (docs/troubleshooting.md). Never install both'
    )
    choices['timm'] = choices['torchvision'] = (
        "pip install -e '.[timm]' in the folder of mlp_dense; it needs the torchvision that belongs to your PyTorch"
    )
    return f'{package} is not installed: {choices[package]}.' if package in choices else None


def counted(number: int | str, noun: str) -> str:
    """A number of things: 1 image, 2 images."""
    ending = '' if number == 1 else 'es' if noun.endswith(('tch', 'ss')) else 's'
    return f'{number} {noun}{ending}'


def some(names: list[str]) -> str:
    """The first three of a list, and how many more there are."""
    return ', '.join(names[:3]) + (f' and {len(names) - 3} more' if len(names) > 3 else '')
