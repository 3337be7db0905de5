"""mlp-dense doctor names what is wrong with an environment, also if packages are broken."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mlp_dense_cli import doctor
from mlp_dense_cli.doctor import (
    DISTRIBUTIONS,
    Finding,
    check_machine,
    check_operators,
    check_requirements,
    failed_imports,
    shared_files,
)
from mlp_dense_cli.probe import probe
from support.configs import ROOT

TROUBLES = (ROOT / 'docs' / 'troubleshooting.md').read_text(encoding='utf-8')
HEADINGS = {
    re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-')
    for heading in re.findall(r'^### (.+)$', TROUBLES, re.MULTILINE)
}


def install(folder: Path, name: str, version: str, *requirements: str, metadata: str = '') -> None:
    """Write the metadata of an installed distribution."""
    info = folder / f'{name.replace("-", "_")}-{version}.dist-info'
    info.mkdir()
    needed = ''.join(f'Requires-Dist: {requirement}\n' for requirement in requirements)
    (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needed}{metadata}')


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Hide all installed packages but the standard library; return a folder on the path, to install others."""
    folder = tmp_path / 'packages'
    folder.mkdir()
    monkeypatch.setattr(sys, 'path', [str(folder), *(path for path in sys.path if 'site-packages' not in path)])
    return folder


def problems(findings) -> list[tuple[str, str]]:
    return [(finding.severity, finding.problem) for finding in findings]


def test_sections_of_all_findings_exist():
    source = Path(doctor.__file__).read_text(encoding='utf-8')
    headings = {heading for _, heading, _ in doctor.KNOWN} | set(re.findall(r"heading = '([\w-]+)'", source))
    headings |= set(re.findall(r"'([a-z0-9]+(?:-[a-z0-9]+){3,})'", source))
    assert len(headings) >= 10 and headings - HEADINGS == set()
    assert Finding('error', '', '', 'onedl').link.endswith('/docs/troubleshooting.md#onedl')


@pytest.mark.parametrize(
    ('names', 'expected'),
    [
        (['mmcv', 'mmcv-lite'], ('error', 'mmcv and mmcv-lite install the same files')),
        (['opencv-python', 'opencv-python-headless'], ('warning', 'opencv-python and opencv-python-headless install')),
        (['mmdet', 'onedl-mmdetection'], ('error', 'mmdet and onedl-mmdetection install the same files')),
    ],
)
def test_packages_with_the_same_files_are_found(packages, names, expected):
    for name in names:
        assert problems(shared_files()) == []
        install(packages, name, '1.0')
    ((severity, problem),) = problems(shared_files())
    assert severity == expected[0] and problem.startswith(expected[1])


def test_versions_that_do_not_fit_are_found(packages):
    extras = [
        'torch>=2.7', "mmengine<1,>=0.10; extra == 'mim'", "ftfy; extra == 'mim'", "timm>=1.0; extra == 'timm'",
        "pytest; extra == 'dev'",
    ]  # fmt: skip
    metadata = ''.join(f'Provides-Extra: {name}\n' for name in ('mim', 'timm', 'dev'))
    install(packages, 'mlp_dense', '1.0', *extras, metadata=metadata)
    install(packages, 'torch', '2.6.0')
    install(packages, 'mmengine', '0.10.7')
    install(packages, 'torchvision', '0.21', 'torch==2.7.0', "scipy; extra == 'scipy'", 'absent')
    state, findings = check_requirements()
    assert state == 'mim lacks ftfy, timm not installed'
    assert problems(findings) == [
        ('warning', 'mlp_dense 1.0 requires torch>=2.7, but 2.6.0 is installed'),
        ('warning', 'mlp_dense[mim] requires ftfy, but nothing is installed'),
        ('warning', 'torchvision 0.21 requires torch==2.7.0, but 2.6.0 is installed'),
    ]
    assert findings[0].remedy == "pip install 'torch>=2.7'"


def test_local_version_fits(packages):
    install(packages, 'torch', '2.7.0+cpu')
    install(packages, 'torchvision', '0.22', 'torch==2.7.0')
    assert check_requirements() == ('unknown, because mlp_dense was not installed by pip', [])


BROKEN = {
    'torch': 'import os; os._exit(9)',
    'numpy': 'print("text of a package")',
    'cv2': "raise ImportError('libGL.so.1: cannot open shared object file: No such file or directory')",
    'mmengine': 'raise SystemExit(0)',
    'mmcv': "raise RuntimeError('''first line\nsecond line''')",
    'mmdet': "raise AssertionError('MMCV==2.2.0 is used but incompatible. Please install mmcv>=2.0.0rc4, <2.2.0.')",
    'mmseg': 'import ftfy',
    'torchvision': "raise RuntimeError('operator torchvision::nms does not exist')",
    'timm': 'import torchvision',
    'onnx': 'import mmcv_stub_',
}


@pytest.mark.slow
def test_broken_packages_are_named_with_their_first_line(packages):
    for name, text in BROKEN.items():
        (packages / f'{name}.py').write_text(text)
    results = probe(list(DISTRIBUTIONS))
    assert 'onnxruntime' not in results and results['numpy'] == dict(error=None)
    findings = {finding.problem.split()[0]: finding for finding in failed_imports(results)}
    assert {finding.severity for finding in findings.values()} == {'error'}
    assert findings['torch'].problem.endswith('its import ends Python with exit status 9')
    assert findings['mmcv'].problem == 'mmcv cannot be imported: RuntimeError: first line'
    assert findings['mmengine'].problem.endswith('SystemExit: 0')
    assert 'timm' not in findings, 'the error is that of torchvision'
    assert findings['onnx'].remedy == 'Install the package that contains mmcv_stub_'
    expected = dict(
        mmdet='assertionerror-mmcv', mmseg='modulenotfounderror-no-module-named-ftfy', cv2='importerror-libgl',
        torchvision='runtimeerror-operator', mmcv='a-package-cannot-be-imported',
    )  # fmt: skip
    for name, heading in expected.items():
        assert findings[name].heading.startswith(heading)
    assert findings['mmdet'].remedy.startswith('pip uninstall -y mmcv')


@pytest.mark.parametrize(
    ('cuda', 'warning', 'hidden', 'expected'),
    [
        (None, '', False, 'An NVIDIA driver is installed, but this PyTorch (for CPUs only) does not use the GPU'),
        ('12.8', 'The driver is too old.', False, 'PyTorch (for CUDA 12.8) warns about the GPU: The driver is too old'),
        (None, '', True, None),
    ],
)
def test_gpu_that_is_not_used_is_found(monkeypatch, cuda, warning, hidden, expected):
    monkeypatch.setattr(doctor, 'has_nvidia_driver', lambda: True)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '' if hidden else '0')
    torch = dict(error=None, cuda=cuda, threads=1, gpus=[], warning=warning)
    assert problems(check_machine(dict(torch=torch))) == ([('warning', expected)] if expected else [])
    assert problems(check_machine(dict(torch=dict(error='broken')))) == []


def test_operators_that_need_an_action_are_found():
    facts = dict(error=None, running='PyTorch fallbacks', text='mmcv has no operators', remedy='')
    assert problems(check_operators({'mlp_dense.operators': facts})) == problems(check_operators({})) == []
    (finding,) = check_operators({'mlp_dense.operators': facts | dict(remedy='Run mlp-dense operators install')})
    assert finding == Finding('warning', facts['text'], 'Run mlp-dense operators install', finding.heading)
    assert finding.heading in HEADINGS


def test_broken_package_is_installed_again_by_the_name_of_its_distribution(packages):
    broken = dict(error='ImportError: libx.so')
    install(packages, 'opencv-python-headless', '4.10')
    (finding,) = (each for each in failed_imports(dict(cv2=broken, timm=dict(error=None))))
    assert finding.remedy == 'pip install --force-reinstall opencv-python-headless'
    results = dict({'mlp_dense.operators': broken}, timm=dict(error=None))
    assert next(failed_imports(results)).remedy == 'pip install --force-reinstall mlp_dense'


def test_more_threads_than_cores_are_found(monkeypatch):
    monkeypatch.setattr(doctor, 'has_nvidia_driver', lambda: False)
    monkeypatch.setattr(doctor, 'usable_cpus', lambda: 2)
    torch = dict(error=None, cuda=None, threads=8, gpus=[], warning='')
    (finding,) = check_machine(dict(torch=torch))
    assert finding.problem == 'PyTorch uses 8 threads on 2 cores' and finding.remedy == 'Set OMP_NUM_THREADS=2'


@pytest.mark.slow
@pytest.mark.parametrize('broken', [False, True])
def test_command_reports_the_environment(tmp_path, broken):
    if broken:
        (tmp_path / 'torch.py').write_text("raise OSError('libtorch_cpu.so: cannot open shared object file')")
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': f'{tmp_path}:{ROOT}'}
    command = [sys.executable, '-m', 'mlp_dense_cli', 'doctor', '--json']
    process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    report = json.loads(process.stdout)
    rows, findings = report['environment'], report['findings']
    assert not process.stderr
    assert {'Python', 'torch', 'mmcv', 'cv2', 'operators', 'GPU', 'CPU', 'memory', 'disk', 'extras'} <= rows.keys()
    assert process.returncode == (2 if broken else int(bool(findings)))
    assert 'error' not in {finding['severity'] for finding in findings} or broken
    assert (rows['operators'] == 'unknown') == broken
    if broken:
        (error,) = [finding for finding in findings if finding['severity'] == 'error']
        assert error['problem'].endswith('OSError: libtorch_cpu.so: cannot open shared object file')
        assert error['link'].startswith('https://')


@pytest.mark.parametrize(('severities', 'status'), [([], 0), (['warning'], 1), (['warning', 'error'], 2)])
def test_exit_status_is_that_of_the_worst_finding(monkeypatch, capsys, severities, status):
    findings = [Finding(severity, 'A problem', 'Set it', 'onedl') for severity in severities]
    findings += [Finding(severity, 'A second problem', 'pip install it', 'onedl') for severity in severities]
    monkeypatch.setattr(sys, 'argv', ['mlp-dense doctor'])
    for name, value in dict(probe={}, check_requirements=('all', findings), environment={}).items():
        monkeypatch.setattr(doctor, name, lambda *_, value=value: value)
    for name in ('failed_imports', 'shared_files', 'check_operators', 'check_machine'):
        monkeypatch.setattr(doctor, name, lambda *_: [])
    with pytest.raises(SystemExit) as end:
        doctor.main()
    printed = capsys.readouterr().out
    assert end.value.code == status and printed.count('A problem.\n  Set it.\n  https://') == len(severities)
    assert printed.count('A second problem.\n  pip install it\n  https://') == len(severities)
    assert ('Nothing is wrong.' in printed) == (not severities)
