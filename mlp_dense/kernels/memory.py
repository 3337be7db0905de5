"""Memory that PyTorch frees on a CPU."""

import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def keep_freed_memory() -> bool:
    """Has glibc keep what this process frees, as PyTorch does on a GPU: otherwise it returns large feature maps to the
    system after use, and of each new one the kernel clears every page again (docs/performance.md).

    Returns:
        False, and nothing is changed, with another C library, or where the environment says how memory is kept.
    """
    chosen = any(name.startswith('MALLOC_') for name in os.environ) or 'malloc' in os.environ.get('GLIBC_TUNABLES', '')
    if chosen or platform.libc_ver()[0] != 'glibc':
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # -1: never; and anything below 2 GiB comes from what is kept.
    return bool(mallopt(M_TRIM_THRESHOLD, -1) and mallopt(M_MMAP_THRESHOLD, 2**31 - 1))
