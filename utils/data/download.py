"""Fetches a data set's archive, checks it and unpacks it; what is half done never looks complete."""

from __future__ import annotations

import gzip
import http.client
import os
import tarfile
import tempfile
import urllib.error
import zlib
from pathlib import Path

from torchvision.datasets.utils import calculate_md5, download_url

from utils.system.errors import UserError
from utils.system.files import write_atomically


def download_dataset(folder: Path, url: str, md5: str, page: str) -> None:
    """Fetches an archive to `<folder>.tgz`, checks it and unpacks its top folder of that name to `folder`.

    An archive that lies there already, fetched by hand or before a killed unpacking, is checked and used. Archive and
    folder appear under their names only when complete; the archive is kept.

    Args:
        folder: the folder to make, e.g. data/CUB_200_2011.
        url: where the archive is fetched from.
        md5: its published checksum.
        page: the owners' web page, for the messages.

    Raises:
        UserError: the folder exists, the network fails, the archive is not the published one or would write elsewhere,
            or the disk is full.
    """
    if folder.exists():
        raise UserError(f"{folder} exists but is not the complete data set; remove or rename it, then try again")
    archive = folder.with_name(f"{folder.name}.tgz")
    if not archive.exists():
        write_atomically(archive, lambda temporary: _fetch(temporary, url, md5, page))
    else:
        found = calculate_md5(archive)
        if found != md5:
            raise UserError(
                f"{archive} is not the published archive (md5 {found} instead of {md5}), perhaps cut short; delete it "
                f"or replace it with the one from {page}"
            )
    _unpack(archive, folder)


def _fetch(temporary: Path, url: str, md5: str, page: str) -> None:
    temporary.unlink(missing_ok=True)  # torchvision takes whatever lies there for the archive
    try:
        download_url(url, temporary.parent, temporary.name)
    # Too many redirections are a RecursionError; a full disk is another OSError, which write_atomically puts in words.
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, RecursionError) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"cannot download {url}: {reason}; try again later or fetch the file by hand from {page}"
        ) from error
    found = calculate_md5(temporary)
    if found != md5:
        raise UserError(
            f"what {url} sent is not the published archive (md5 {found} instead of {md5}), perhaps cut short; try "
            f"again or fetch the file by hand from {page}"
        )


def _unpack(archive: Path, folder: Path) -> None:
    if not hasattr(tarfile, "data_filter"):
        raise UserError(
            "this Python cannot unpack an archive safely; update it (3.10.12, 3.11.4 or newer), or unpack "
            f"{archive} to {folder} by hand"
        )
    try:
        # Beside the target, so that the rename stays on one disk.
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
            with open(archive, "rb") as file:
                is_compressed = file.read(2) == b"\x1f\x8b"
            with tarfile.open(archive, "r:gz" if is_compressed else "r:") as tar:
                tar.extractall(temporary, filter="data")  # nothing outside, and nothing but files, folders and links
            unpacked = Path(temporary, folder.name)
            if not unpacked.is_dir() or unpacked.is_symlink():
                raise UserError(f"{archive} holds no folder {folder.name}; delete it or replace it with the right one")
            os.rename(unpacked, folder)
    except tarfile.FilterError as error:
        raise UserError(
            f"{archive} is no archive of pictures: its {error.tarinfo.name!r} would be more than a file within it "
            f"({type(error).__name__}); delete it or replace it with the right one"
        ) from error
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, ValueError, LookupError) as error:
        raise UserError(f"{archive} is damaged ({error}); delete it or replace it with an intact one") from error
    except OSError as error:
        raise UserError(
            f"cannot unpack {archive} to {folder}: {error}; free some space or choose another --root"
        ) from error
