"""Files are written under a temporary name and renamed, so that a crash or a full disk never leaves half a file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from utils.errors import UserError


def write_atomically(path: str | Path, write: Callable[[Path], object], durable: bool = False) -> Path:
    """Lets `write` fill a temporary file beside `path`, then renames it to `path`.

    Args:
        path: the file to make; its folder is created, an older file of that name is replaced as a whole.
        write: receives the temporary path (same suffix as `path`) and writes the content there.
        durable: whether the content is on the disk, not only on its way there, before it takes the place of an older
            file, and the renaming before this returns: then a power cut leaves one or the other.

    Returns:
        `path`.

    Raises:
        UserError: the file cannot be written (no permission, disk full); an older `path` is left as it was.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        if durable:
            _flush_to_disk(temporary)
        os.replace(temporary, path)
        if durable:
            _flush_to_disk(path.parent)
    except (OSError, RuntimeError) as error:
        # torch.save reports a full disk as a RuntimeError.
        raise UserError(f"cannot write {path}: {error}; free some space or choose another folder") from error
    finally:
        with suppress(OSError):  # where it could not be made, it need not go
            temporary.unlink(missing_ok=True)
    return path


def _flush_to_disk(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows neither opens folders nor needs it
        return
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: str | Path, text: str, durable: bool = False) -> Path:
    """Writes UTF-8 text by write-then-rename; see :func:`write_atomically`."""
    return write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"), durable)


def require_writable(folder: Path) -> None:
    """Finds out before long work whether its results can be written; makes nothing.

    Args:
        folder: that of `--save`; it need not exist yet.

    Raises:
        UserError: it cannot be made, or nothing can be written there.
    """
    nearest = next(one for one in (folder, *folder.absolute().parents) if os.path.lexists(one))
    if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
        raise UserError(f"nothing can be written into {folder}; choose another folder with --save")


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal; OSError if it cannot be read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
