"""Ctrl-C and a scheduler's SIGTERM: the step is finished, everything is saved, then the run ends."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.distributed as dist

from utils.runs.settings import EXIT_CODE
from utils.system.errors import UserError
from utils.system.processes import host_group, is_launched, is_main, process_count

# torchrun passes a Ctrl-C on to processes that the terminal has told already.
ECHO_SECONDS = 2.0


class Interrupted(UserError):  # noqa: N818 - what happened is no error
    """The run was asked to stop and has saved everything; `--resume` goes on."""

    exit_code = EXIT_CODE
    is_shared = True


class _AtOnce(BaseException):
    """Carries a signal past all that catches errors, to the block that it ends."""


class Interruption:
    """While it is entered, the first SIGTERM or Ctrl-C is remembered, and a second Ctrl-C ends the process at once.

    Attributes:
        requested: the signal's name, or "" so far.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested = ""
        self._since = 0.0
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}
        self._vote: dist.Work | None = None
        self._ballot = torch.zeros(1, dtype=torch.int64)
        self._saved = ""

    @property
    def reason(self) -> str:
        """Who asked."""
        return self.requested or "a signal to another process of the run"

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():  # Python lets no other one, as of a notebook's server
            self._before = {number: signal.signal(number, self._remember) for number in self._SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if kind is None and self._vote is not None:
            self._vote.wait()

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if not self.requested:
            self.requested, self._since = signal.Signals(number).name, time.monotonic()
            if self._saved:
                raise _AtOnce
            if is_main():
                _say(f"\n{self.requested}: finishing the step, then saving; Ctrl-C again ends at once without saving\n")
        elif number == signal.SIGINT and not (is_launched() and time.monotonic() - self._since < ECHO_SECONDS):
            os._exit(130)

    @contextmanager
    def at_once(self, saved: str) -> Iterator[None]:
        """A block that may be left in the middle, since all is saved: a signal raises Interrupted there.

        Args:
            saved: what is saved where, for the message.
        """
        if self.requested:
            raise Interrupted(f"stopped by {self.requested}; {saved}")
        self._saved = saved
        try:
            yield
        except _AtOnce:
            raise Interrupted(f"stopped by {self.requested}; {saved}") from None
        finally:
            self._saved = ""

    def agreed(self) -> bool:
        """Whether to stop now; to be asked by every process after every step, and all get the same answer.

        A signal reaches the processes at different steps. Each step's vote is counted a step later, when the others'
        have long arrived, so that nobody waits.
        """
        if process_count() == 1:
            return bool(self.requested)
        decided = False
        if self._vote is not None:
            self._vote.wait()
            decided = bool(self._ballot.item())
        self._ballot = torch.tensor([int(bool(self.requested))])
        self._vote = dist.all_reduce(self._ballot, group=host_group(), async_op=True)
        return decided


def _say(text: str) -> None:
    # Not print(): the signal may have come in the middle of one.
    with suppress(OSError):  # nobody listens any more, as after `| tee`
        if sys.__stderr__ is not None:
            os.write(sys.__stderr__.fileno(), text.encode())
