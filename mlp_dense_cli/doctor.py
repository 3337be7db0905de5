"""Diagnosis of the environment.

Packages are imported in separate processes, so a broken one does not stop the command.
"""

import argparse
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .arguments import light_module, tool_parser
from .probe import probe

PAGE = 'https://github.com/mlp-dense/mlp_dense/blob/main/docs/troubleshooting.md'
DISTRIBUTIONS = {  # packages by the module that they install
    'torch': ['torch'],
    'torchvision': ['torchvision'],
    'numpy': ['numpy'],
    'cv2': [f'opencv-{kind}' for kind in ('python', 'python-headless', 'contrib-python', 'contrib-python-headless')],
    'mmengine': ['mmengine', 'mmengine-lite', 'onedl-mmengine'],
    'mmcv': ['mmcv', 'mmcv-lite', 'onedl-mmcv'],
    'mmdet': ['mmdet', 'onedl-mmdetection'],
    'mmseg': ['mmsegmentation', 'onedl-mmsegmentation'],
    'timm': ['timm'],
    'onnx': ['onnx'],
    'onnxruntime': ['onnxruntime', 'onnxruntime-gpu'],
}
IMPORTED = ('numpy', 'torch', 'torchvision', 'cv2', 'mmengine', 'mlp_dense', 'mlp_dense.operators')
DEVELOPMENT = ('dev', 'docs', 'timm-tests')  # extras that no command needs
KNOWN = (  # beginning of an error, heading of its section in docs/troubleshooting.md, remedy
    (r'AssertionError: MMCV==', 'assertionerror-mmcv220-is-used-but-incompatible-please-install-mmcv200rc4-220',
     'pip uninstall -y mmcv, then pip install mmcv-lite==2.1.0'),
    (r".*No module named '(ftfy|regex)'", 'modulenotfounderror-no-module-named-ftfy-or-regex',
     'pip install ftfy regex'),
    (r".*No module named 'pkg_resources", 'modulenotfounderror-no-module-named-pkg_resources',
     "pip install 'setuptools<82'"),
    (r'RuntimeError: operator torchvision::', 'runtimeerror-operator-torchvisionnms-does-not-exist',
     'Install torch and torchvision in one command, or pip uninstall torchvision timm'),
    (r'ImportError: libGL', 'importerror-libglso1-cannot-open-shared-object-file',
     'apt-get install libgl1 libglib2.0-0, or replace opencv-python by opencv-python-headless'),
)  # fmt: skip


@dataclass
class Finding:
    """A problem of the environment: an error if a package cannot be used, else a warning."""

    severity: str
    problem: str
    remedy: str
    heading: str  # anchor of its section in docs/troubleshooting.md

    @property
    def link(self) -> str:
        return f'{PAGE}#{self.heading}'


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = tool_parser(
        'Print the installed packages and the machine, and what is wrong with them. The exit status is 0 without a '
        'finding, 1 with warnings and 2 with errors.',
        '',
        '--json',
    )
    parser.add_argument('--json', action='store_true', help='print an object with environment and findings')
    return parser


def main() -> None:
    """Run the command."""
    args = make_parser().parse_args()
    results = probe([*IMPORTED, *(name for name in DISTRIBUTIONS if name not in IMPORTED)])
    extras, findings = check_requirements()
    findings += [*failed_imports(results), *shared_files(), *check_operators(results), *check_machine(results)]
    rows = environment(results) | dict(extras=extras)
    if args.json:
        listed = [asdict(finding) | dict(link=finding.link) for finding in findings]
        print(json.dumps(dict(environment=rows, findings=listed), indent=2))
    else:
        print('\n'.join(f'{name:<14}{text}' for name, text in rows.items()))
        for finding in findings:
            end = '.' if finding.remedy[0].isupper() else ''  # none after a command
            print(f'\n{finding.severity}: {finding.problem}.\n  {finding.remedy}{end}\n  {finding.link}')
        print('' if findings else '\nNothing is wrong.')
    severities = {finding.severity for finding in findings}
    sys.exit(2 if 'error' in severities else int(bool(severities)))


def installed(name: str) -> str | None:
    """Return the version of a distribution, None if it is not installed."""
    with suppress(PackageNotFoundError):
        return distribution(name).version
    return None


def environment(results: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return the rows about packages and the machine."""
    rows = {'Python': f'{platform.python_version()}, {sys.executable}'}
    for module, names in DISTRIBUTIONS.items():
        versions = [f'{name} {version}' for name in names if (version := installed(name))]
        unknown = 'of an unknown version' if module in results else 'not installed'
        rows[module] = ', '.join(versions) or unknown
    rows['mlp_dense'] = f'{installed("mlp_dense") or "not installed by pip"}, {module_folder("mlp_dense")}'
    operators = results.get('mlp_dense.operators', {})
    rows['operators'] = f'{operators["running"]}; {operators["text"]}' if 'running' in operators else 'unknown'
    rows['setuptools'] = installed('setuptools') or 'not installed'
    if not find_spec('pkg_resources'):
        rows['setuptools'] += ', without pkg_resources (mlp_dense.operators replaces it)'
    torch = results.get('torch', {})
    rows['GPU'] = '; '.join(torch.get('gpus', [])) or 'not used'
    rows['CPU'] = f'{usable_cpus()} of {os.cpu_count()} cores, {torch.get("threads", "unknown")} threads of PyTorch'
    rows['memory'] = memory()
    rows['disk'] = f'{shutil.disk_usage(".").free / 2**30:.1f} GiB free in {Path.cwd()}'
    return rows


def module_folder(name: str) -> Path | None:
    """Return the folder of a package without importing it."""
    spec = find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def usable_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def memory() -> str:
    """Return the size of the memory and the part that is available."""
    with suppress(OSError):
        text = Path('/proc/meminfo').read_text(encoding='ascii')
        sizes = {name: int(size) / 2**20 for name, size in re.findall(r'(\w+): +(\d+) kB', text)}
        return f'{sizes["MemAvailable"]:.1f} of {sizes["MemTotal"]:.1f} GiB available'
    return 'unknown'


def check_requirements() -> tuple[str, list[Finding]]:
    """Return the state of the extras of setup.py, and the versions that do not fit.

    The requirements of an extra are checked if its first package is installed.
    """
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return 'unknown, because packaging is not installed', []
    packages = {name for names in DISTRIBUTIONS.values() for name in names}
    states: dict[str, str] = {}
    findings: dict[str, Finding] = {}
    for package in filter(installed, ['mlp_dense', *sorted(packages)]):
        owner = distribution(package)
        requirements = [Requirement(text) for text in owner.requires or []]
        extras = owner.metadata.get_all('Provides-Extra', []) if package == 'mlp_dense' else []
        for extra in ['', *(extra for extra in extras if extra not in DEVELOPMENT)]:
            chosen = [each for each in requirements if bool(extra) == ('extra ==' in str(each.marker))]
            chosen = [each for each in chosen if not each.marker or each.marker.evaluate({'extra': extra})]
            absent = [each.name for each in chosen if not installed(each.name)]
            if extra:
                unused = not chosen or chosen[0].name in absent
                states[extra] = 'not installed' if unused else f'lacks {", ".join(absent)}' if absent else 'complete'
                if unused:
                    continue
            for each in chosen:
                version = installed(each.name)
                if package == 'mlp_dense' or (version and each.name in packages):
                    if version and each.specifier.contains(version, prereleases=True):
                        continue
                    needed = f'{each.name}{each.specifier}'
                    owner_name = f'mlp_dense[{extra}]' if extra else f'{package} {owner.version}'
                    problem = f'{owner_name} requires {needed}, but {version or "nothing"} is installed'
                    heading = 'a-package-has-a-version-that-does-not-fit'
                    findings.setdefault(needed, Finding('warning', problem, f"pip install '{needed}'", heading))
    text = ', '.join(f'{extra} {state}' for extra, state in states.items())
    return text or 'unknown, because mlp_dense was not installed by pip', list(findings.values())


def failed_imports(results: dict[str, dict[str, Any]]) -> Iterator[Finding]:
    """Yield the packages that cannot be imported."""
    remedies = light_module('errors').REMEDIES
    reported = set()
    for module, result in results.items():
        error = result['error']
        if not error or error in reported:  # a package that imports a broken one has the same error
            continue
        reported.add(error)
        names = DISTRIBUTIONS.get(module, [module.partition('.')[0]])
        name = next(filter(installed, names), names[0])
        heading, remedy = 'a-package-cannot-be-imported', f'pip install --force-reinstall {name}'
        if absent := re.search(r"No module named '(\w+)", error):
            remedy = remedies.get(absent[1], f'Install the package that contains {absent[1]}')
        for pattern, known_heading, known_remedy in KNOWN:
            if re.match(pattern, error):
                heading, remedy = known_heading, known_remedy
        yield Finding('error', f'{module} cannot be imported: {error.rstrip(".")}', remedy, heading)
    if not {'mmdet', 'mmseg', 'timm'} & results.keys():
        problem = 'Neither mmdet, mmsegmentation nor timm is installed, so only the backbones can be used'
        yield Finding('warning', problem, remedies['mmdet'], 'a-package-cannot-be-imported')


def shared_files() -> Iterator[Finding]:
    """Yield the packages that overwrite the files of each other."""
    for module, names in DISTRIBUTIONS.items():
        present = [name for name in names if installed(name)]
        if len(present) > 1:
            problem = f'{" and ".join(present)} install the same files, so {module} may be a mixture of them'
            remedy = f'pip uninstall -y {" ".join(present)}, then install one of them'
            heading = (
                'onedl' if any(name.startswith('onedl') for name in present) else 'two-packages-have-the-same-files'
            )
            yield Finding('warning' if module == 'cv2' else 'error', problem, remedy, heading)


def check_operators(results: dict[str, dict[str, Any]]) -> Iterator[Finding]:
    """Yield what is wrong with the operators that mmcv imports in a new process."""
    operators = results.get('mlp_dense.operators', {})
    if remedy := operators.get('remedy'):
        heading = 'modulenotfounderror-no-module-named-mmcv_ext'
        yield Finding('warning', operators['text'], remedy, heading)


def check_machine(results: dict[str, dict[str, Any]]) -> Iterator[Finding]:
    """Yield what slows PyTorch down: a GPU that it does not use, more threads than cores."""
    torch = results.get('torch', {})
    if torch.get('error', True):
        return
    hidden = os.environ.get('CUDA_VISIBLE_DEVICES') in ('', '-1')
    heading = 'a-gpu-is-not-used'
    if torch['warning'] or (has_nvidia_driver() and not torch['gpus'] and not hidden):
        build = f'for CUDA {torch["cuda"]}' if torch['cuda'] else 'for CPUs only'
        problem = f'An NVIDIA driver is installed, but this PyTorch ({build}) does not use the GPU'
        problem = f'PyTorch ({build}) warns about the GPU: {torch["warning"]}' if torch['warning'] else problem
        yield Finding('warning', problem.rstrip('.'), 'Install the PyTorch of the CUDA version of your driver', heading)
    if torch['threads'] > usable_cpus():
        problem = f'PyTorch uses {torch["threads"]} threads on {usable_cpus()} cores'
        heading = 'no-error-but-the-cpu-trains-many-times-slower-than-before'
        yield Finding('warning', problem, f'Set OMP_NUM_THREADS={usable_cpus()}', heading)


def has_nvidia_driver() -> bool:
    """Whether an NVIDIA driver is installed."""
    return Path('/proc/driver/nvidia/version').exists() or shutil.which('nvidia-smi') is not None
