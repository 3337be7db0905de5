"""Memory that a process frees stays with it."""

import subprocess
import sys

import pytest

PAGE_FAULTS = """
import resource, sys, torch
from mlp_dense.kernels.memory import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == 'keep' else None
for round in range(10):
    if round == 5:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24).sum()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(*args: str, **env: str) -> tuple[str, int]:
    output = subprocess.run(
        [sys.executable, '-c', PAGE_FAULTS, *args], env=env, capture_output=True, text=True, check=True
    ).stdout.split()
    return output[0], int(output[1])


def test_large_maps_are_not_cleared_again():
    kept, faults_with = page_faults('keep')
    if kept == 'False':
        pytest.skip('this C library is not glibc')
    _, faults_without = page_faults('do not')
    assert 2 * faults_with < faults_without


@pytest.mark.parametrize(
    'env', [dict(MALLOC_TRIM_THRESHOLD_='100000'), dict(GLIBC_TUNABLES='glibc.malloc.trim_threshold=100000')], ids=str
)
def test_environment_configuration_is_kept(env):
    assert page_faults('keep', **env)[0] == 'False'
