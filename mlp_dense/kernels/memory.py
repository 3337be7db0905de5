"""Memory that PyTorch frees on a CPU."""

import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def keep_freed_memory() -> bool:
    """Let glibc keep the memory that this process frees; return False if another C library or the environment decides.

    Otherwise the kernel clears every page of each new large feature map (docs/performance.md).
    """
    chosen = any(name.startswith('MALLOC_') for name in os.environ) or 'malloc' in os.environ.get('GLIBC_TUNABLES', '')
    if chosen or platform.libc_ver()[0] != 'glibc':
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # -1: never trim; allocations below 2 GiB come from the kept memory.
    return bool(mallopt(M_TRIM_THRESHOLD, -1) and mallopt(M_MMAP_THRESHOLD, 2**31 - 1))
