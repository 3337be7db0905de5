"""Errors that users can fix: the tools print their message without a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class UserError(ValueError):
    """An invalid config, argument or file. The message contains the remedy."""


class ArgumentError(UserError, TypeError):
    """An unknown argument of a constructor."""


class CheckpointError(UserError):
    """A checkpoint that is unreadable or does not fit the model."""


class UnreadableError(UserError):
    """An image or a label map that cannot be decoded."""


class NotInstalledError(UserError, ImportError):
    """A missing package."""


@contextmanager
def explained_imports() -> Iterator[None]:
    """Raise a NotInstalledError if a package is missing inside, or torchvision does not fit PyTorch."""
    try:
        yield
    except (ModuleNotFoundError, RuntimeError) as error:
        is_missing = isinstance(error, ModuleNotFoundError)
        if explanation := explain_missing(error) if is_missing else explain_torchvision(error):
            raise NotInstalledError(explanation) from error
        raise


def explain_torchvision(error: BaseException) -> str | None:
    """Return the remedy for a torchvision that is installed but cannot be imported, None for other errors."""
    if 'operator torchvision::' not in str(error):
        return None
    from torch import __version__

    problem = f'torchvision was built for another PyTorch than {__version__}'
    return f'{problem}: install both in one command, at matching versions, or pip uninstall torchvision timm.'


def explain_missing(error: Any) -> str | None:
    """Return the command that installs a missing package of an extra, None for other packages."""
    package = (error.name or '').partition('.')[0]
    remedies = dict.fromkeys(('mmengine', 'mmdet', 'mmseg'), "pip install -e '.[mim]' in the folder of mlp_dense")
    remedies['mmcv'] = (
        'pip install mmcv-lite==2.1.0 to use the operators of mlp_dense, or compile mmcv with its own in 10 to 25 '
        'minutes (docs/troubleshooting.md). Never install both'
    )
    remedies['timm'] = remedies['torchvision'] = (
        "pip install -e '.[timm]' in the folder of mlp_dense, with the torchvision that belongs to your PyTorch"
    )
    export = "pip install -e '.[export]' in the folder of mlp_dense"
    remedies |= dict.fromkeys(('onnx', 'onnxscript', 'onnxruntime'), export)
    return f'{package} is not installed: {remedies[package]}.' if package in remedies else None


def counted(number: int | str, noun: str) -> str:
    """Return a number and its noun: '1 image', '2 images'."""
    ending = '' if number == 1 else 'es' if noun.endswith(('tch', 'ss')) else 's'
    return f'{number} {noun}{ending}'


def some(names: list[str]) -> str:
    """Return the first three names of a list and the number of the others."""
    return ', '.join(names[:3]) + (f' and {len(names) - 3} more' if len(names) > 3 else '')
