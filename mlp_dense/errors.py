"""Errors that the user can fix: the tools print them as a sentence, without a traceback."""


class UserError(ValueError):
    """Something given to this package (a config, an argument, a file) is wrong; the message says what to do."""


class ArgumentError(UserError, TypeError):
    """A constructor got an argument that it does not know."""


class CheckpointError(UserError):
    """A checkpoint cannot be read, or does not fit the model."""


class UnreadableError(UserError):
    """An image or a label map cannot be decoded."""


def some(names: list[str]) -> str:
    """The first three of a list, and how many more there are."""
    return ', '.join(names[:3]) + (f' and {len(names) - 3} more' if len(names) > 3 else '')
