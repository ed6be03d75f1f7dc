"""How the process gets its memory from the system."""

from __future__ import annotations

import ctypes

# Parameters of glibc's mallopt.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def reuse_freed_memory() -> None:
    """Lets the C library keep what tensors free instead of returning it to the system at once.

    A network on the CPU allocates the same large activations at every step. Freshly mapped, each of their pages costs a
    fault and is zeroed first: a tenth to a fifth of the time (`tests/benchmark.py --fresh_memory` shows it). The peak
    stays the same. Where the C library is not glibc, nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
