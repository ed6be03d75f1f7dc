"""Standard output and error that no work is lost over: their reader may leave before the work is done.

`train.py | tee log` whose tee was ended, a terminal that was closed, `>&-`: what is computed and saved is worth more
than the lines about it, so these go nowhere from then on and the command goes on.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import TextIO

GONE = (errno.EPIPE, errno.EIO, errno.ECONNRESET)  # a pipe's reader, a terminal, a socket's other end
_STREAMS = (("stdout", 1), ("stderr", 2))


def survive_closed_streams() -> None:
    """Exchanges `sys.stdout` and `sys.stderr` for streams that outlive their reader and can write every text.

    What stands there in place of a stream on a file descriptor, as in a notebook or a test, is left alone.
    """
    for name, number in _STREAMS:
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, _open_nowhere(number))
        elif type(stream) is io.TextIOWrapper and not isinstance(_raw(stream), _Outliving):
            with suppress(OSError, ValueError):  # a text stream on something else
                setattr(sys, name, _outliving(stream))


def unwritten_output() -> OSError | None:
    """Writes what is still to be written; what has kept a stream from being written, besides a reader that left."""
    for name, _ in _STREAMS:
        stream = getattr(sys, name)
        raw = _raw(stream)
        if isinstance(raw, _Outliving):
            stream.flush()
            if raw.failure is not None:
                return raw.failure
    return None


def _raw(stream: TextIO) -> object:
    return getattr(getattr(stream, "buffer", None), "raw", None)


class _Outliving(io.FileIO):
    failure: OSError | None = None

    def write(self, data: object) -> int:  # type: ignore[override]
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError as error:
            if error.errno not in GONE:
                self.failure = error
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), self.fileno())
        return memoryview(data).nbytes  # type: ignore[arg-type]


def _outliving(stream: io.TextIOWrapper) -> TextIO:
    number = stream.fileno()
    stream.flush()
    raw = _Outliving(number, "wb", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        stream.encoding,
        "backslashreplace",  # a file name that is no Unicode must not end a run
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _open_nowhere(number: int) -> TextIO:
    """For a stream that was closed before the command began, whose number the next file to be opened would get."""
    descriptor = os.open(os.devnull, os.O_WRONLY)
    if descriptor != number:
        os.dup2(descriptor, number)
        os.close(descriptor)
    return open(number, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
