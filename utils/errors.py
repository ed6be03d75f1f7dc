"""Errors that a person reads: one sentence, no traceback, a defined exit code."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress

import torch

from utils.memory import reuse_freed_memory


class UserError(Exception):
    """Something failed that the user can mend; the message names the file or option and the mend (exit code 1)."""

    exit_code = 1
    is_shared = False  # whether all processes of a run meet it alike: then the first one tells it


class UsageError(UserError):
    """The command was called with options that cannot work (exit code 2, as argparse's own errors)."""

    exit_code = 2


def run_command(main: Callable[[], None]) -> int:
    """Runs a command line's `main` and turns the failures that a user can mend into one sentence.

    Args:
        main: the command, without arguments.

    Returns:
        The process's exit code: 0, 1 for a failure, 2 for wrong usage, 130 after Ctrl-C.
    """
    reuse_freed_memory()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file name that is no Unicode must not end a run
            stream.reconfigure(errors="backslashreplace")
    try:
        return _run(main)
    finally:
        _give_up_closed_streams()


def _run(main: Callable[[], None]) -> int:
    try:
        main()
    except UserError as error:
        number = os.environ.get("RANK", "0")
        if number == "0" or not error.is_shared:
            _tell(f"error{'' if number == '0' else f' in process {number}'}: {error}")
        return error.exit_code
    except OSError as error:
        # Disk full, no permission, vanished files: the system's own words name the file.
        _tell(f"error: {error.strerror or error}{f': {error.filename}' if error.filename else ''}")
        return 1
    except (MemoryError, torch.OutOfMemoryError):
        _tell("error: out of memory; lower --batch_size or --crop_size")
        return 1
    except KeyboardInterrupt:
        _tell("interrupted")
        return 130
    return 0


def _tell(sentence: str) -> None:
    with suppress(OSError):  # nobody listens any more; the exit code still tells
        print(sentence, file=sys.stderr)


def _give_up_closed_streams() -> None:
    """Keeps Python from ending with a code of its own, because what nobody listens to cannot be flushed."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
