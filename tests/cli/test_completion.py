"""Completion of commands, options, names of configs and files in real shells."""

import os
import shutil
import subprocess
import sys

import pytest

from mlp_dense import catalog
from mlp_dense_cli.completion import SCRIPTS, candidates
from support.configs import ROOT

PROGRAM = f"""#!{sys.executable}
import sys
sys.path.insert(0, {str(ROOT)!r})
sys.argv[0] = 'mlp-dense'
from mlp_dense_cli import main
main()
"""
BASH = """
eval "$(mlp-dense completion bash)"
complete -p mlp-dense
for line in "$@"; do
    COMP_WORDS=(${line% }); [[ $line != *' ' ]] || COMP_WORDS+=('')
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _mlp_dense
    echo "${COMPREPLY[*]}"
done
"""
ZSH = """
compdef() { print "$@" }
compadd() { print "${(P)2[*]}" }
_files() { print files }
eval "$(mlp-dense completion zsh)"
for line in "$@"; do
    words=("${(@s: :)line}"); CURRENT=$#words
    _mlp_dense
done
"""
NAMES = 'vip_m7_imagenet vip_m7_mask_rcnn_1x_coco'


@pytest.mark.parametrize(
    ('line', 'expected'),
    [
        (['tr'], ['train']),
        (['--v'], ['--version']),
        (['train', '--check'], ['--check-data']),
        (['train', '--local'], []),  # hidden
        (['train', 'vip_m7'], [*NAMES.split(), '/']),
        (['train', '--dry-run', 'vip_m7'], [*NAMES.split(), '/']),
        (['train', '--seed', '1', '--cfg-options', 'a=1', '--amp', 'vip_m7'], [*NAMES.split(), '/']),
        (['train', 'detection/vip_m7'], ['detection/vip_m7_mask_rcnn_1x_coco', '/']),
        (['train', '--work-dir', 'vip'], ['/']),
        (['train', '--img-scale', '64', '6'], ['/']),
        (['train', 'vip_m7_imagenet', 'vip'], []),
        (['train', '--launcher', ''], ['mpi', 'none', 'pytorch', 'slurm']),
        (['test', 'x', 'vip'], ['/']),
        (['report', 'a', 'b', ''], ['/']),
        (['predict', 'x', 'vip_m7'], [*NAMES.split(), '/']),
        (['checkpoint', ''], ['inspect', 'publish']),
        (['checkpoint', 'inspect', '--c'], ['--config']),
        (['checkpoint', 'inspect', 'x', '--config', 'vip_m7'], [*NAMES.split(), '/']),
        (['operators', ''], ['install', 'remove', 'status']),
        (['da'], ['data']),
        (['data', ''], ['check', 'convert', 'shapes', 'stats']),
        (['data', 'shapes', '--cl'], ['--classify']),
        (['nothing', 'x'], []),
    ],
)
def test_candidates(line, expected):
    assert candidates(line) == expected


def test_all_configs_are_offered_once():
    short = sorted(name.partition('/')[2] for name in catalog.names())
    assert candidates(['train', '']) == [*short, '/']


def run(shell: str, script: str, folder, *lines: str) -> list[str]:
    """Run a script of a shell in a folder with mlp-dense on the PATH; return the lines that it prints."""
    if not shutil.which(shell):
        pytest.skip(f'{shell} is not installed')
    program = folder / 'bin' / 'mlp-dense'
    program.parent.mkdir()
    program.write_text(PROGRAM)
    program.chmod(0o755)
    environment = {**os.environ, 'PATH': f'{program.parent}:{os.environ["PATH"]}'}
    options = {'bash': ['--norc'], 'zsh': ['-f']}[shell]
    command = [shell, *options, '-c', script, shell, *lines]
    process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert process.returncode == 0 and not process.stderr, process.stderr
    return process.stdout.splitlines()


@pytest.mark.slow
def test_bash_completes(tmp_path):
    (tmp_path / 'vip mine.py').touch()
    lines = ['mlp-dense tr', 'mlp-dense train vip_m7', 'mlp-dense train vip', 'mlp-dense checkpoint ']
    registered, *replies = run('bash', BASH, tmp_path, *lines)
    assert registered == 'complete -o filenames -F _mlp_dense mlp-dense'
    assert replies[:2] == ['train', NAMES] and replies[3] == 'inspect publish'
    assert replies[2].startswith('vip_l7_imagenet ') and replies[2].endswith(' vip mine.py')


@pytest.mark.slow
def test_zsh_completes(tmp_path):
    replies = run('zsh', ZSH, tmp_path, 'mlp-dense tr', 'mlp-dense train vip_m7', 'mlp-dense checkpoint ')
    assert replies == ['_mlp_dense mlp-dense', 'train', NAMES, 'files', 'inspect publish']


def test_scripts_of_both_shells_call_the_command():
    assert set(SCRIPTS) == {'bash', 'zsh'} and all('mlp-dense completion words' in text for text in SCRIPTS.values())
