"""Calls in processes of their own, forked from one that has imported everything, so that a thousand take minutes.

None of them can hang, fill the memory or the disk, read what permissions forbid, or leave a process behind.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

SECONDS = 30  # of a processor; on a busy machine they take longer, and who waits for a FIFO uses none
PATIENCE = 3  # times as many seconds on the clock
MEMORY = 4 << 30  # bytes, on top of what the forking process has mapped
FILE_BYTES = 1 << 30
UNCAUGHT = 99  # the exit code after an exception that nobody caught
_POLL_SECONDS = 0.005


class Outcome(NamedTuple):
    """How a call ended.

    Attributes:
        code: its exit code, UNCAUGHT after an exception, the negative number of the signal that ended it, or None
            where it was killed at a time limit.
        out, err: what it printed.
        seconds: how long it took.
    """

    code: int | None
    out: str
    err: str
    seconds: float


def run_isolated(
    calls: Iterable[tuple[Path, Callable[[], int]]], workers: int, seconds: int = SECONDS
) -> Iterator[tuple[int, Outcome]]:
    """Makes calls, each in a process and a process group of its own.

    Args:
        calls: an existing folder to be in, which gets the files `.out` and `.err`, and what to call there; it gives
            the exit code, or raises SystemExit.
        workers: calls at a time.
        seconds: of a processor that a call may take, and PATIENCE times as many on the clock.

    Yields:
        The number of a call, from 0, and its outcome; in the order in which they end.
    """
    waiting = enumerate(calls)
    running: dict[int, tuple[int, Path, float]] = {}
    is_exhausted = False
    while running or not is_exhausted:
        while len(running) < workers and not is_exhausted:
            following = next(waiting, None)
            if following is None:
                is_exhausted = True
                break
            number, (folder, call) = following
            running[_fork(folder, call, seconds)] = number, folder, time.monotonic()
        for process, (number, folder, begin) in list(running.items()):
            taken = time.monotonic() - begin
            ended, status = os.waitpid(process, os.WNOHANG)
            is_late = not ended and taken > PATIENCE * seconds
            if is_late:
                os.killpg(process, signal.SIGKILL)
                os.waitpid(process, 0)
            if ended or is_late:
                del running[process]
                code = None if is_late else os.waitstatus_to_exitcode(status)
                code = None if code in (-signal.SIGXCPU, -signal.SIGKILL) else code
                out, err = ((folder / name).read_text(encoding="utf-8", errors="replace") for name in (".out", ".err"))
                yield number, Outcome(code, out, err, taken)
        time.sleep(_POLL_SECONDS)


def _fork(folder: Path, call: Callable[[], int], seconds: int) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process:
        with suppress(OSError):
            os.setpgid(process, process)  # whoever is first: the group is there before it can be late
        return process
    code = UNCAUGHT
    try:
        os.setpgid(0, 0)
        os.chdir(folder)
        for number, name in ((1, ".out"), (2, ".err")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        resource.setrlimit(resource.RLIMIT_AS, (_mapped_bytes() + MEMORY,) * 2)
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + seconds,) * 2)
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES,) * 2)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        code = call()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    raise AssertionError("not reached")


def _mapped_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def obey_permissions() -> None:
    """From now on this process may read and write only what permissions allow, even as root."""
    libc = ctypes.CDLL(None)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets) == 0:
        for index in (0, 1):  # the effective ones and, which access(2) asks, the permitted ones
            sets[index] &= ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
        libc.capset(header, sets)
