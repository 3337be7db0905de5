"""Errors that users can fix: the tools print their message without a traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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


REMEDIES = {
    **dict.fromkeys(('mmengine', 'mmdet', 'mmseg'), "pip install 'mlp_dense[mim]'"),
    **dict.fromkeys(
        ('timm', 'torchvision'),
        "pip install 'mlp_dense[timm]', with the torchvision that belongs to your PyTorch",
    ),
    'mmcv': 'pip install mmcv-lite==2.1.0 to use the operators of mlp_dense, or compile mmcv with its own in 10 to 25 '
    'minutes (docs/troubleshooting.md). Never install both',
    'mmcv._ext': 'mlp-dense operators install, or import mlp_dense.operators before mmdet and mmsegmentation',
    'safetensors': 'pip install safetensors',
    'tifffile': "pip install 'mlp_dense[data]'",
    **dict.fromkeys(('onnx', 'onnxscript', 'onnxruntime'), "pip install 'mlp_dense[export]'"),
}
"""Commands that install missing packages, by the name of a module."""


@contextmanager
def explained_imports() -> Iterator[None]:
    """Raise a NotInstalledError if a package is missing inside, or torchvision does not fit PyTorch."""
    try:
        yield
    except (ModuleNotFoundError, RuntimeError) as error:
        if explanation := explain_import(error):
            raise NotInstalledError(explanation) from error
        raise


def explain_import(error: BaseException) -> str | None:
    """Return the remedy for a missing package or a torchvision of another PyTorch, None for other errors."""
    if 'operator torchvision::' in str(error):
        from torch import __version__

        problem = f'torchvision was built for another PyTorch than {__version__}'
        return f'{problem}: install both in one command, at matching versions, or pip uninstall torchvision timm.'
    name = (error.name if isinstance(error, ModuleNotFoundError) else None) or ''
    missing = next((module for module in (name, name.partition('.')[0]) if module in REMEDIES), None)
    return f'{missing} is not installed: {REMEDIES[missing]}.' if missing else None


def counted(number: int | str, noun: str) -> str:
    """Return a number and its noun: '1 image', '2 images'."""
    ending = '' if number == 1 else 'es' if noun.endswith(('tch', 'ss')) else 's'
    return f'{number} {noun}{ending}'


def some(names: list[str]) -> str:
    """Return the first three names of a list and the number of the others."""
    return ', '.join(names[:3]) + (f' and {len(names) - 3} more' if len(names) > 3 else '')


def command(name: str) -> str:
    """Return the command line that starts a tool as the running one was started, for a hint to the user."""
    started = sys.argv[0]
    tool = Path(started).parent / f'{name}.py'
    if started.endswith('.py') and tool.parent.name == 'tools' and tool.is_file():
        return f'python {tool}'
    program = started.rpartition(' ')[0] if started.startswith('python -m ') else 'mlp-dense'
    return f'{program} {name}'
