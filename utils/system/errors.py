"""Errors that a person reads: one sentence, no traceback, a defined exit code."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable

from utils.system.memory import collect_garbage_rarely, reuse_freed_memory
from utils.system.streams import survive_closed_streams, unwritten_output


class UserError(Exception):
    """Something failed that the user can correct; the message names the file or option and the hint (exit code 1)."""

    exit_code = 1
    is_shared = False  # whether all processes of a run meet it alike: then the first one tells it


class UsageError(UserError):
    """The command was called with options that cannot work (exit code 2, as argparse's own errors)."""

    exit_code = 2


# A CPU's allocators have no error class of their own; nor have a GPU's libraries, which ask for memory by themselves.
_OUT_OF_MEMORY = re.compile(r"can't allocate memory|not enough memory|out of memory|std::bad_alloc|ALLOC_FAILED")


# The modules of what torch.compile raises, for want of a compiler, say, or of support for a device.
_COMPILER = ("torch._dynamo", "torch._inductor")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of the machine, or of a device, is not enough."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's; it need not be there
        return True
    return isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) is not None


def reason_of(error: BaseException) -> str:
    """What an error says, in one line; its name where it says nothing."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def run_command(main: Callable[[], None]) -> int:
    """Runs a command line's `main` and turns the failures that a user can correct into one sentence.

    Args:
        main: the command, without arguments.

    Returns:
        The process's exit code: 0, 1 for a failure, 2 for wrong usage, 130 after Ctrl-C.
    """
    reuse_freed_memory()
    collect_garbage_rarely()
    survive_closed_streams()
    code = _run(main)
    lost = unwritten_output()
    if lost is not None:
        _tell(f"error: part of what was to be printed could not be written: {lost.strerror}")
    return code or int(lost is not None)


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
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            _tell("error: out of memory; lower --batch_size or --crop_size, or leave the largest of --scales out")
        elif type(error).__module__.startswith(_COMPILER):
            reason = reason_of(error).partition(" Set TORCH")[0]  # its hints are for its own developers
            reason = reason if len(reason) <= 200 else f"{reason[:200]} ..."
            _tell(f"error: PyTorch could not compile the training step ({reason}); leave --compile out")
        else:
            raise
        return 1
    except KeyboardInterrupt:
        _tell("interrupted")
        return 130
    return 0


def _tell(sentence: str) -> None:
    print(sentence, file=sys.stderr)
