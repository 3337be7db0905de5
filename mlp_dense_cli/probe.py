"""Imports of packages in a process of their own, for ``mlp-dense doctor``: a broken package may end its process."""

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

START = 'import json, sys; sys.path[:] = json.loads(sys.argv[1]); from mlp_dense_cli.probe import main; main()'
STARTED = 'started'
TIMEOUT = 300  # seconds; a first import from a slow disk may take a minute


def probe(modules: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return for each installed module its ``error``, None if it can be imported, and facts about it."""
    results: dict[str, dict[str, Any]] = {}
    while missing := [name for name in modules if name not in results]:
        command = [sys.executable, '-c', START, json.dumps(sys.path), *missing]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            printed, _ = process.communicate(timeout=TIMEOUT)
            end = f'its import ends Python with exit status {process.returncode}'
        except subprocess.TimeoutExpired:
            process.kill()
            printed, _ = process.communicate()
            end = f'its import takes more than {TIMEOUT} s'
        lines = [json.loads(line) for line in printed.splitlines()]
        if not lines:  # no package starts in this environment
            return results | {name: dict(error=end) for name in missing}
        results |= {line.pop('module'): line for line in lines}
        results |= {name: dict(error=end) for name in missing if results.get(name) == dict(error=STARTED)}
    return {name: result for name, result in results.items() if result}


def main() -> None:
    """Import the modules that the command line names, and print a line of JSON before and after each."""
    out = os.fdopen(os.dup(1), 'w', encoding='utf-8')
    os.dup2(2, 1)  # what packages print is not the result
    warnings.simplefilter('ignore')
    for name in sys.argv[2:]:
        for result in _results(name):
            print(json.dumps(dict(module=name, **result)), file=out, flush=True)


def _results(name: str) -> Iterator[dict[str, Any]]:
    yield dict(error=STARTED)  # what remains if the import ends the process
    try:
        if find_spec(name) is None:
            yield {}
            return
        module = import_module(name)
        facts = FACTS[name](module) if name in FACTS else {}
    except BaseException as error:  # also SystemExit of a broken package
        lines = str(error).strip().splitlines()
        yield dict(error=f'{type(error).__name__}: {lines[0] if lines else ""}')
    else:
        yield dict(error=None, **facts)


def _torch(torch: Any) -> dict[str, Any]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        devices = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
        gpus = [torch.cuda.get_device_properties(i) for i in devices]
        names = [f'{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB' for gpu in gpus]
    text = ' '.join(str(caught[0].message).split()) if caught else ''
    return dict(cuda=torch.version.cuda, threads=torch.get_num_threads(), gpus=names, warning=text)


def _operators(operators: Any) -> dict[str, Any]:
    from mlp_dense.operators import mmcv_file

    status = mmcv_file.status(mmcv_file.mmcv_folder())
    return dict(running=operators.running(), text=status.text, remedy=status.remedy)


FACTS = {'torch': _torch, 'mlp_dense.operators': _operators}
