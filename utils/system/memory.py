"""How the process gets its memory from the system, when Python looks for what is garbage, and how much it took."""

from __future__ import annotations

import atexit
import ctypes
import gc
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

try:
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]

# Parameters of glibc's mallopt.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEW_OBJECTS = 20_000


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


def collect_garbage_rarely() -> None:
    """Lets Python look for garbage in cycles after 20,000 new objects, not after some hundreds, nor at the end.

    PyTorch's modules are 180,000 objects, none of them garbage, which would be walked over again and again while they
    are imported and once more before the process ends: a quarter of the time from start to end where nothing else is
    done.
    """
    gc.set_threshold(_NEW_OBJECTS, *gc.get_threshold()[1:])
    atexit.register(gc.freeze)


def forget_peak_memory(device: torch.device) -> None:
    """Lets :func:`peak_memory_mib` count from now on, where the device can."""
    if device.type == "cuda":
        sys.modules["torch"].cuda.reset_peak_memory_stats(device)


def peak_memory_mib(device: torch.device) -> float | None:
    """The most memory that was in use at once, in MiB: tensors on a CUDA device, else the whole process.

    Args:
        device: this process's.

    Returns:
        The peak since the process started, on CUDA since :func:`forget_peak_memory`; None on Windows' processors.
    """
    if device.type == "cuda":
        return sys.modules["torch"].cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "linux":
        # Its getrusage counts what the process was forked from as well.
        with suppress(OSError, StopIteration):
            lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
            return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 2**10
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes on macOS, KiB elsewhere
