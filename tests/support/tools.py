"""Runs the tools without a new process, which would cost seconds for its imports."""

import importlib.util
import sys
from pathlib import Path
from unittest.mock import patch

TOOLS = Path(__file__).parents[2] / 'tools'


def call(name: str, *args) -> int:
    """Runs `tools/NAME.py ARGS` as its command line would; returns the exit status."""
    with patch.object(sys, 'path', [str(TOOLS), *sys.path]), patch.object(sys, 'argv', [name, *map(str, args)]):
        spec = importlib.util.spec_from_file_location(f'tool_{name}', TOOLS / f'{name}.py')
        tool = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tool)
        try:
            tool.run_tool(tool.main)
        except SystemExit as error:
            return error.code
    return 0
