"""Files and folders, before and after writing."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from utils.errors import UserError
from utils.files import file_digest, require_writable


def test_folders_that_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects long work's results: a folder to be made is fine and is not made yet, relative or absolute."""
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path, tmp_path / "new" / "deeper", Path("new"), Path(".")):
        require_writable(folder)
    assert not list(tmp_path.iterdir())


def test_folders_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects from work in vain: a file in the way, at its end or on it, a broken link, and a folder of others."""
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "gone" / "away")
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path / "file", tmp_path / "file" / "in" / "it", Path("file/in"), tmp_path / "link" / "in"):
        with pytest.raises(UserError, match=f"written into {folder}; choose another folder with --save"):
            require_writable(folder)
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)  # root may write everywhere
    with pytest.raises(UserError, match="nothing can be written"):
        require_writable(tmp_path / "new")


def test_digest_is_that_of_the_content(tmp_path: Path) -> None:
    """Protects what is recognised by its digest: the content alone counts, beyond one block, too."""
    content = os.urandom((1 << 20) + 7)
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "b").write_bytes(content)
    assert file_digest(tmp_path / "a") == file_digest(tmp_path / "b") == hashlib.sha256(content).hexdigest()
    (tmp_path / "b").write_bytes(content[:-1])
    assert file_digest(tmp_path / "b") != file_digest(tmp_path / "a")
