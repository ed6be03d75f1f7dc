"""Ctrl-C and SIGTERM in the processes that work for another one; what a run does about them itself is training's."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker


def ignore_signals(worker: int = 0) -> None:
    """Lets a worker process end with what it works for alone (as a loader's `worker_init_fn`)."""
    # Ctrl-C, and often a scheduler's SIGTERM, reach every process at once; training finishes its step before it stops,
    # and needs its workers for it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@contextmanager
def no_signals() -> Iterator[None]:
    """A block in which processes are started that Ctrl-C and SIGTERM do not reach, while they import either."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    # It is started before the first process, and lets the signals through again when it has been.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
