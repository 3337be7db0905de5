"""Completion of commands, options and names of configs in bash and zsh."""

import argparse
import math
import sys
from collections.abc import Iterator

from . import COMMANDS, module_of
from .arguments import light_module, tool_parser

SCRIPTS = {
    'bash': """\
_mlp_dense() {
    local IFS=$'\\n' word=${COMP_WORDS[COMP_CWORD]} found
    found=$(mlp-dense completion words "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    COMPREPLY=($(compgen -W "${found%/}" -- "$word"))
    [[ $found != */ ]] || COMPREPLY+=($(compgen -f -- "$word"))
}
complete -o filenames -F _mlp_dense mlp-dense
""",
    'zsh': """\
_mlp_dense() {
    local found="$(mlp-dense completion words "${(@)words[2,CURRENT]}" 2>/dev/null)"
    local -a candidates=(${(f)found%/})
    compadd -a candidates
    [[ $found != */ ]] || _files
}
compdef _mlp_dense mlp-dense
""",
}
FILES = '/'
"""The last candidate if the script must add the names of files."""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = tool_parser(
        'Print a script that completes commands, options, names of configs and files. For bash, put eval '
        '"$(mlp-dense completion bash)" into ~/.bashrc; for zsh, put eval "$(mlp-dense completion zsh)" into ~/.zshrc, '
        'after compinit.',
        'bash',
        'zsh',
    )
    parser.add_argument('shell', choices=SCRIPTS, metavar='SHELL', help='shell that reads the script: bash or zsh')
    return parser


def main() -> None:
    """Run the command."""
    if sys.argv[1:2] == ['words']:  # a script calls it at each completion
        print('\n'.join(candidates(sys.argv[2:])))
    else:
        print(SCRIPTS[make_parser().parse_args().shell], end='')


def candidates(words: list[str]) -> list[str]:
    """Return what can replace the last of the `words` after ``mlp-dense``, with FILES at the end if files can."""
    *words, prefix = words
    command = next((name for name in (' '.join(words[:2]), *words[:1]) if name in COMMANDS), None)
    if command:
        found = set(_arguments(module_of(command).make_parser(), words[len(command.split()) :], prefix))
    else:
        names = [name.split() for name in COMMANDS]
        found = {name[len(words)] for name in names if name[: len(words)] == words}
        found |= set() if words else {'--help', '--version'}
    return [*sorted(name for name in found - {FILES} if name.startswith(prefix)), *found & {FILES}]


def _arguments(parser: argparse.ArgumentParser, words: list[str], prefix: str) -> Iterator[str]:
    options = {name: action for action in parser._actions for name in action.option_strings}
    positionals = [action for action in parser._actions if not action.option_strings]
    option, values = None, 0
    for i, word in enumerate(words):
        if word.startswith('-'):
            option, values = options.get(word), 0
        elif option and values < _max_values(option):
            values += 1
        elif positionals:
            option, action = None, positionals[0]
            if isinstance(action, argparse._SubParsersAction):
                if word in action.choices:
                    yield from _arguments(action.choices[word], words[i + 1 :], prefix)
                return
            positionals = positionals if action.nargs == '+' else positionals[1:]
    if prefix.startswith('-'):
        yield from (name for name, action in options.items() if action.help != argparse.SUPPRESS)
    elif option and values < _max_values(option):
        yield from _values(option, prefix)
    elif positionals:
        yield from _values(positionals[0], prefix)


def _max_values(action: argparse.Action) -> float:
    return action.nargs if isinstance(action.nargs, int) else math.inf if action.nargs == '+' else 1


def _values(action: argparse.Action, prefix: str) -> Iterator[str]:
    if action.metavar == 'CONFIG':
        for name in light_module('catalog').names():
            yield name.partition('/')[2]
            if prefix:  # without a prefix, names with their task would only repeat these
                yield name
    yield from map(str, action.choices or [FILES])
