"""Files and folders, before and after writing."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import ROOT
from utils.system.errors import UserError
from utils.system.files import alone_in, file_digest, is_sealed, require_writable, seal, write_atomically, write_text


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


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_not_read(tmp_path: Path, make: Callable[[Path], object]) -> None:
    """Protects from a FIFO in a state's place, which hung, and from a device, which took all memory."""
    make(tmp_path / "state")
    for read in (is_sealed, file_digest):
        with pytest.raises(OSError, match="it is a folder, a FIFO or a device and no file"):
            read(tmp_path / "state")


def test_what_is_no_file_is_written_into(tmp_path: Path) -> None:
    """Protects devices and FIFOs, as root, too: the text arrives, the thing stays what it is."""
    device, fifo = tmp_path / "null", tmp_path / "fifo"
    try:
        os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        device.symlink_to("/dev/null")
    os.mkfifo(fifo)
    with pytest.raises(UserError, match="nobody reads from it"):
        write_text(fifo, "text")
    heard: list[str] = []
    listener = threading.Thread(target=lambda: heard.append(fifo.read_text()))
    listener.start()
    wait_until(lambda: _can_write(fifo))
    listener.join(10)
    write_text(device, "text")
    write_atomically(device, lambda file: file.write_bytes(b"1"), durable=True)
    assert heard == ["text"]
    assert stat.S_ISFIFO(fifo.stat().st_mode) and stat.S_ISCHR(device.stat().st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fifo", "null"]


def _can_write(fifo: Path) -> bool:
    try:
        write_text(fifo, "text")
    except UserError:
        return False
    return True


def wait_until(sight: Callable[[], bool]) -> None:
    for _ in range(1000):
        if sight():
            return
        time.sleep(0.01)
    raise AssertionError("it never came")


def test_links_and_modes_stay(tmp_path: Path) -> None:
    """Protects what a user has set up: a link stays a link, a mode a mode; new files have the umask's."""
    target, link, dangling = tmp_path / "deep" / "target", tmp_path / "link", tmp_path / "dangling"
    target.parent.mkdir()
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to("deep/target")
    dangling.symlink_to(tmp_path / "new")
    write_text(link, "new")
    write_text(dangling, "made")
    assert link.is_symlink() and target.read_text() == "new" and stat.S_IMODE(target.stat().st_mode) == 0o640
    assert dangling.is_symlink() and (tmp_path / "new").read_text() == "made"
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode
    with pytest.raises(UserError, match="it is a folder; name a file"):
        write_text(tmp_path / "deep", "text")


def test_a_file_that_may_not_be_written_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects what its owner has locked, though the folder would let it be replaced."""
    (tmp_path / "locked").write_text("old")
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)  # root may write everywhere
    with pytest.raises(UserError, match="cannot write .*locked: Permission denied; "):
        write_text(tmp_path / "locked", "new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"locked": "old"}


@pytest.mark.parametrize("output", ["/dev/stdout", "log", "/dev/stderr"])
def test_a_command_can_write_into_its_own_output(tmp_path: Path, output: str) -> None:
    """Protects `--json /dev/stdout > log` and `--json log > log`: lines and file in their order, nothing lost."""
    code = "from utils.system.files import write_text\nimport sys\n"
    code += f"print('before', file={'sys.stderr' if 'err' in output else 'sys.stdout'})\n"
    code += f"write_text({output!r}, 'text\\n')\nprint('after')"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with open(tmp_path / "log", "w") as log:
        subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, stdout=log, stderr=log, check=True, timeout=60
        )
    assert (tmp_path / "log").read_text() == "before\ntext\nafter\n"


def test_nobody_can_plant_a_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects other files: were the name known and a link planted, nothing is written through it."""
    (tmp_path / "precious").write_text("precious")
    monkeypatch.setattr("utils.system.files.secrets.token_hex", lambda count: "0" * 2 * count)
    (tmp_path / f".file.{'0' * 16}.tmp.txt").symlink_to(tmp_path / "precious")
    with pytest.raises(UserError, match="cannot write .*file.txt: File exists"):
        write_text(tmp_path / "file.txt", "text")
    assert (tmp_path / "precious").read_text() == "precious"


def test_full_disk_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the reader from torch's words for a full disk; a RuntimeError of another cause keeps its own."""

    def fail(file: Path) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:603] . unexpected pos 704 vs 598")

    with pytest.raises(UserError, match="unexpected pos"):
        write_atomically(tmp_path / "file", fail)
    monkeypatch.setattr("utils.system.files.shutil.disk_usage", lambda folder: shutil._ntuple_diskusage(9, 9, 0))
    with pytest.raises(UserError, match="file: No space left on device; free some space"):
        write_atomically(tmp_path / "file", fail)
    assert not list(tmp_path.iterdir())


def test_alone(tmp_path: Path) -> None:
    """Protects a run from a second start in its folder; a process that was killed holds nothing."""
    code = "import sys, time\nfrom pathlib import Path\nfrom utils.system.files import alone_in\n"
    code += f"with alone_in(Path({str(tmp_path / 'run')!r}), 'a run'):\n    print(1, flush=True)\n    time.sleep(60)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"1\n"
    with (
        pytest.raises(
            UserError, match=rf"a run is under way in .*run \(process {process.pid} on .*\); wait for its end"
        ),
        alone_in(tmp_path / "run", "a run"),
    ):
        pass
    process.kill()
    process.wait()
    with alone_in(tmp_path / "run", "a run"), alone_in(tmp_path / "other", "a run"):
        pass


def test_seal(tmp_path: Path) -> None:
    """Protects from files that changed: every one of its bytes counts, the seal's own as well."""
    path = tmp_path / "file"
    path.write_bytes(b"some content")
    assert is_sealed(path) is None
    seal(path)
    content = path.read_bytes()
    assert is_sealed(path) is True
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert not is_sealed(path), place
    for cut in (content[:-1], content[1:], content[-73:-1], b""):
        path.write_bytes(cut)
        assert not is_sealed(path)


def test_the_longest_names(tmp_path: Path) -> None:
    """Protects maps of pictures with long names: what the file system takes can be written."""
    for name in ("x" * 251 + ".npy", "ä" * 125 + ".npy"):
        assert write_text(tmp_path / name, "all of it").read_text() == "all of it"
    assert len(list(tmp_path.iterdir())) == 2
