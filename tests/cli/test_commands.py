"""The command mlp-dense: help, examples, errors and hints of all commands."""

import re
import shlex
import subprocess
import sys

import pytest

import mlp_dense
from mlp_dense import catalog
from mlp_dense.errors import command
from mlp_dense_cli import COMMANDS, main, module_of
from support.configs import ROOT
from support.tools import run

PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
DOCUMENTED = sorted(
    {
        line
        for page in PAGES
        for block in re.findall(r'```(?:bash|console)\n(.*?)```', page.read_text(encoding='utf-8'), re.DOTALL)
        for line in re.findall(r'^(?:\$ )?mlp-dense (?!--)([^#\n]+)', block, re.MULTILINE)
    }
)


@pytest.fixture
def start(monkeypatch, capsys):
    """Return a function that runs `mlp-dense ARGUMENTS`; it returns the exit status, stdout and stderr."""

    def start(*arguments, program='/usr/bin/mlp-dense'):
        monkeypatch.setattr(sys, 'argv', [program, *arguments])
        try:
            main()
            status = 0
        except SystemExit as error:
            status = error.code
        return status, *capsys.readouterr()

    return start


def parse(line: str) -> None:
    """Parse the arguments of a command, whose configs must exist unless they are placeholders or files."""
    words = shlex.split(line)
    name = next(name for name in (' '.join(words[:2]), words[0]) if name in COMMANDS)
    args = module_of(name).make_parser().parse_args(words[len(name.split()) :])
    config = getattr(args, 'config', None)
    assert not config or config.isupper() or config.endswith('.py') or catalog.find(config), config


@pytest.mark.parametrize('name', COMMANDS)
def test_help_fits_on_a_screen_and_ends_with_two_correct_examples(start, monkeypatch, name):
    monkeypatch.setenv('COLUMNS', '100')
    status, text, _ = start(*name.split(), '--help')
    lines = text.splitlines()
    assert status == 0 and len(lines) <= 40 and max(map(len, lines)) <= 100
    assert lines[0].startswith(f'usage: mlp-dense {name} ') and lines[-3] == 'examples:'
    for line in lines[-2:]:
        assert line.startswith(f'  mlp-dense {name}')
        parse(line.strip().removeprefix('mlp-dense '))


@pytest.mark.parametrize('line', DOCUMENTED)
def test_documented_command_parses(line):
    parse(line)


def test_documents_show_commands():
    assert len(DOCUMENTED) > 5


@pytest.mark.slow
def test_no_command_imports_a_heavy_package_for_its_help():
    """Neither mlp_dense, which imports PyTorch: the help would take seconds."""
    program = f"""
import sys
from mlp_dense_cli import main, module_of
for name in {list(COMMANDS)}:
    module_of(name).make_parser().format_help()
sys.argv = ['mlp-dense', '--version']
main()
sys.argv = ['mlp-dense', 'configs', 'vip_mask_rcnn_coco']
main()
print(*sys.modules)
"""
    loaded = set(run('-c', program).split())
    assert 'mlp_dense_cli.train' in loaded and not loaded & {'mlp_dense', 'torch', 'mmengine', 'numpy', 'yaml'}


@pytest.mark.parametrize(
    ('typo', 'suggestion'), [('tran', 'did you mean train?'), ('qqq', 'mlp-dense --help lists the commands.')]
)
def test_unknown_command_is_an_error(start, typo, suggestion):
    assert start(typo) == (2, '', f'error: mlp-dense has no command {typo!r}; {suggestion}\n')


def test_version_and_list_of_commands(start):
    assert '\n  --version     print the version\n' in start('--help')[1]
    assert start('--version') == (0, f'mlp-dense {mlp_dense.__version__}\n', '')
    for arguments in ([], ['--help']):
        status, text, _ = start(*arguments)
        assert status == 0 and re.findall(r'^  (\w+(?: \w+)?)  ', text, re.MULTILINE) == [*COMMANDS]


@pytest.mark.parametrize(('arguments', 'expected'), [(['data'], 2), (['data', 'x'], 2), (['data', '--help'], 0)])
def test_first_word_of_two_lists_the_commands_with_it(start, arguments, expected):
    status, text, _ = start(*arguments)
    assert status == expected and '  data shapes   generate the' in text and '  train' not in text


@pytest.mark.parametrize('program', ['mlp-dense', 'python -m mlp_dense_cli'])
def test_usage_and_hints_name_the_program(start, program):
    file = '/bin/mlp-dense' if program == 'mlp-dense' else '/lib/mlp_dense_cli/__main__.py'
    status, _, text = start('test', '--nope', program=file)
    assert status == 2 and text.startswith(f'usage: {program} test ')
    assert command('export') == f'{program} export', 'sys.argv is that of the command'


@pytest.mark.parametrize(
    ('started', 'hint'),
    [
        (str(ROOT / 'tools' / 'train.py'), f'python {ROOT}/tools/test.py'),
        ('/somewhere/tools/train.py', 'mlp-dense test'),
        (str(ROOT / 'tests' / 'train.py'), 'mlp-dense test'),
        ('/home/a user/jupyter', 'mlp-dense test'),
        ('', 'mlp-dense test'),
    ],
)
def test_hint_of_other_programs_is_a_tool_next_to_it_or_the_command(monkeypatch, started, hint):
    monkeypatch.setattr(sys, 'argv', [started])
    assert command('test') == hint


@pytest.mark.slow
def test_module_and_tool_run_the_same_command():
    assert run('-m', 'mlp_dense_cli', '--version') == f'mlp-dense {mlp_dense.__version__}\n'
    helps = {
        'python -m mlp_dense_cli plot': run('-m', 'mlp_dense_cli', 'plot', '--help'),
        'python tools/plot_log.py': run('tools/plot_log.py', '--help'),
    }
    assert all(text.startswith(f'usage: {program} ') for program, text in helps.items())
    first, second = (text.partition('\n\n')[2].replace(program, '') for program, text in helps.items())
    assert first == second


@pytest.mark.slow
def test_missing_package_is_one_sentence(tmp_path):
    program = 'import sys; from mlp_dense_cli import main; sys.argv = ["mlp-dense", "--version"]; main()'
    (tmp_path / 'mlp_dense_cli').symlink_to(ROOT / 'mlp_dense_cli')
    process = subprocess.run(
        [sys.executable, '-S', '-c', program], cwd=tmp_path, env={}, capture_output=True, text=True
    )
    assert process.returncode and process.stderr.startswith('mlp_dense is not installed')
