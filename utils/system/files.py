"""Files are written under a temporary name and renamed, so that a crash or a full disk never leaves half a file.

What is no regular file (a device, a FIFO, this process's own output) cannot be replaced and is written into; a link
stays, and what it leads to is replaced.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO, TypeVar

from utils.system.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = ".running"
SMALLEST_FREE = 1 << 16  # bytes; with less a disk is full, whatever the library that writes calls it
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]+\.tmp(\..*)?")
_SEAL = re.compile(rb"\nsha256 ([0-9a-f]{64})\n")
_SEAL_BYTES = 73
_T = TypeVar("_T")


def write_atomically(path: str | Path, write: Callable[[Path], object], durable: bool = False) -> Path:
    """Lets `write` fill a temporary file beside `path`, then renames it to `path`.

    Args:
        path: the file to make; its folder is created, an older file of that name is replaced as a whole and hands on
            its mode. Links are followed; a device or a FIFO is written into.
        write: receives the temporary path (same suffix as `path`) and writes the content there.
        durable: whether the content is on the disk, not only on its way there, before it takes the place of an older
            file, and the renaming before this returns: then a power cut leaves one or the other.

    Returns:
        `path`.

    Raises:
        UserError: the file cannot be written (no permission, disk full); an older `path` is left as it was.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise UserError(f"cannot write {path}: it is a folder; name a file")
        before = os.stat(path) if path.exists() else None
        if before is not None and (not stat.S_ISREG(before.st_mode) or _own_stream(before) is not None):
            _write_into(path, before, write)
        else:
            _replace(Path(os.path.realpath(path)), before, write, durable)
    except (OSError, RuntimeError) as error:
        raise UserError(f"cannot write {path}: {_reason(path, error)}") from error
    return path


def _replace(path: Path, before: os.stat_result | None, write: Callable[[Path], object], durable: bool) -> None:
    if before is not None and not os.access(path, os.W_OK):  # though its folder would let it be replaced
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    # Nobody can know the name beforehand and put a link in its place.
    stem = os.fsencode(path.stem)[:100].decode(errors="ignore")  # the whole name may be as long as names can be
    temporary = path.with_name(f".{stem}.{secrets.token_hex(8)}.tmp{path.suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        write(temporary)
        if before is not None:
            os.chmod(temporary, stat.S_IMODE(before.st_mode))
        if durable:
            _flush_to_disk(temporary)
        os.replace(temporary, path)
        if durable:
            _flush_to_disk(path.parent)
    finally:
        with suppress(OSError):  # where it could not be made, it need not go
            temporary.unlink(missing_ok=True)


def _own_stream(status: os.stat_result) -> int | None:
    """The standard stream that writes into a file already, and would go on writing into the replaced one."""
    for number in (1, 2):
        with suppress(OSError):
            if os.path.samestat(os.fstat(number), status):
                return number
    return None


def _write_into(path: Path, status: os.stat_result, write: Callable[[Path], object]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        content = Path(folder) / f"content{path.suffix}"
        write(content)
        number = _own_stream(status)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # in the order of the lines
        # Without waiting for somebody who reads from a FIFO: there may be nobody.
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK) if number is None else os.dup(number)
        if number is None:
            os.set_blocking(descriptor, True)
        with content.open("rb") as source, os.fdopen(descriptor, "wb") as target:
            shutil.copyfileobj(source, target)


def _reason(path: Path, error: Exception) -> str:
    # torch.save reports a full disk as a RuntimeError of its own words.
    folder = next((one for one in path.absolute().parents if one.is_dir()), Path("/"))
    if isinstance(error, RuntimeError) and shutil.disk_usage(folder).free < SMALLEST_FREE:
        return "No space left on device; free some space or choose another folder"
    if getattr(error, "errno", None) == errno.ENXIO:
        return "nobody reads from it; start the reader first, or name a file"
    return f"{getattr(error, 'strerror', None) or error}; free some space or choose another folder"


def _flush_to_disk(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows neither opens folders nor needs it
        return
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: str | Path, text: str, durable: bool = False) -> Path:
    """Writes UTF-8 text by write-then-rename; see :func:`write_atomically`.

    A file name in it that is no Unicode is written with escapes.
    """
    content = text.encode("utf-8", "backslashreplace")
    return write_atomically(path, lambda temporary: temporary.write_bytes(content), durable)


def write_json(path: str | Path, value: object, durable: bool = False) -> Path:
    """Writes plain values as indented JSON by :func:`write_text`."""
    return write_text(path, json.dumps(value, indent=2) + "\n", durable)


def read_json(path: Path, fault: str, hint: str, interpret: Callable[[Any], _T] = lambda content: content) -> _T:
    """Reads a JSON file and what it means; whatever is wrong with either is one sentence.

    Args:
        path: a file in UTF-8.
        fault: what is to be said if it is not what it should be, as in "is no settings file of a run".
        hint: what to do then.
        interpret: makes of the content what is wanted, and may stumble over a content that is malformed: over missing
            keys, values of another type, or with a ValueError of its own.

    Returns:
        What `interpret` gives.

    Raises:
        UserError: the file is missing, no regular file, unreadable, no JSON, holds a number that no double can hold,
            or `interpret` stumbled.
    """
    return _interpret(path, fault, hint, lambda text: interpret(_parse_json(text)))


def read_json_lines(path: Path, fault: str, hint: str, interpret: Callable[[Any], _T]) -> list[_T]:
    """As :func:`read_json`, of a file with a JSON text on each line; gives what `interpret` makes of each."""
    return _interpret(path, fault, hint, lambda text: [interpret(_parse_json(line)) for line in text.splitlines()])


def _interpret(path: Path, fault: str, hint: str, interpret: Callable[[str], _T]) -> _T:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError("it is a folder or a device")  # a FIFO would keep its reader waiting
        return interpret(path.read_text(encoding="utf-8-sig"))
    # Python's own parser ends in a RecursionError where lists are nested a thousandfold.
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        if isinstance(error, KeyError):
            reason = f"{error} is missing"
        elif isinstance(error, RecursionError):
            reason = "it is nested too deeply"
        raise UserError(f"{path} {fault} ({_shortened(reason, 200)}); {hint}") from error


def _parse_json(text: str) -> Any:
    return json.loads(text, parse_float=_finite, parse_int=_integer, parse_constant=_finite)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"it holds the number {_shortened(text)}")
    return number


def _integer(text: str) -> int:
    if len(text) > 300:
        raise ValueError(f"it holds the number {_shortened(text)}")
    return int(text)


def _shortened(text: str, most: int = 24) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


def sweep(folder: Path) -> None:
    """Removes what killed writers left half-written in a folder; only to be called where nobody else writes."""
    for path in folder.glob(".*.tmp*"):
        if _TEMPORARY.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            with suppress(OSError):
                path.unlink()


@contextmanager
def alone_in(folder: Path, what: str) -> Iterator[None]:
    """A block in which no other process is in the same block; ends with the process, however it ends.

    Args:
        folder: is created.
        what: goes on in the block, for the message.

    Raises:
        UserError: another process is in it, or the folder cannot be written.
    """
    if fcntl is None:
        yield
        return
    path = folder / LOCK_FILE
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _locked(path)
    except BlockingIOError as error:
        owner = "another process"
        with suppress(OSError):  # it may have just ended
            owner = path.read_text(encoding="utf-8", errors="replace").strip() or owner
        raise UserError(
            f"{what} is under way in {folder} ({owner}); wait for its end, or choose another folder"
        ) from error
    except OSError as error:
        raise UserError(f"cannot write {path}: {_reason(path, error)}") from error
    with file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {os.uname().nodename}\n")
        file.flush()
        try:
            yield
        finally:
            with suppress(OSError):
                path.unlink()  # while it is locked
                for one in made:  # what was refused leaves nothing behind
                    one.rmdir()


def _locked(path: Path) -> TextIO:
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+", encoding="utf-8")
        try:
            # A record lock: processes that read pictures do not inherit it, and outlive a killed run by seconds.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except PermissionError as error:  # what some systems call it
            raise BlockingIOError from error
        except BlockingIOError:
            raise
        except OSError:
            return file  # a file system without locks
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # its owner has just taken it away


def require_writable(folder: Path, option: str = "--save") -> None:
    """Finds out before long work whether its results can be written; makes nothing.

    Args:
        folder: where results belong; it need not exist yet.
        option: that names it.

    Raises:
        UserError: it cannot be made, or nothing can be written there.
    """
    nearest = next(one for one in (folder, *folder.absolute().parents) if os.path.lexists(one))
    if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
        raise UserError(f"nothing can be written into {folder}; choose another folder with {option}")


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal; OSError if it cannot be read or is no regular file."""
    _require_regular(path)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _require_regular(path: Path) -> None:
    """OSError for a FIFO, which would keep its reader waiting, and for a device, which may never end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is a folder, a FIFO or a device and no file", str(path))


def seal(path: Path) -> None:
    """Appends the SHA-256 of a file's content to it, for :func:`is_sealed`; a zip file stays readable as one."""
    digest = file_digest(path)
    with path.open("ab") as file:
        file.write(f"\nsha256 {digest}\n".encode())


def is_sealed(path: Path) -> bool | None:
    """Whether a file is as it was when :func:`seal` sealed it; None if it carries no seal. OSError if unreadable."""
    _require_regular(path)
    digest, rest = hashlib.sha256(), path.stat().st_size - _SEAL_BYTES
    with path.open("rb") as file:
        while rest > 0 and (block := file.read(min(1 << 20, rest))):
            digest.update(block)
            rest -= len(block)
        found = _SEAL.fullmatch(file.read())
    return None if found is None else found[1].decode() == digest.hexdigest()
