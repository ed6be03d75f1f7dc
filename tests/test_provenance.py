"""What a run says of its versions, devices and code, and of its memory."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from utils.runs import provenance
from utils.runs.provenance import describe_code, describe_run, tf32_settings, versions
from utils.system import memory
from utils.system.memory import peak_memory_mib

NOTHING = {"commit": None, "changed": None}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One commit of one file, by git itself."""
    if shutil.which("git") is None:
        pytest.fail("this test needs git; install it")
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "train.py").write_text("print(1)\n")
    git(folder, "init", "--quiet")
    git(folder, "add", "train.py")
    git(folder, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message", "first")
    return folder


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def run_python(code: str) -> str:
    root = Path(__file__).parents[1]
    return subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True, text=True).stdout


def test_commit_and_changes(repository: Path) -> None:
    """Protects repeating a run: the commit, and whether tracked files differ; new files and data do not count."""
    commit = git(repository, "rev-parse", "HEAD")
    assert describe_code(repository) == {"commit": commit, "changed": False}
    (repository / "notes.txt").write_text("new")
    assert describe_code(repository) == {"commit": commit, "changed": False}
    (repository / "train.py").write_text("print(2)\n")
    assert describe_code(repository) == {"commit": commit, "changed": True}


def test_another_repository_around_the_code(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects truth: a copy inside another repository has no commit of its own, nor has one that GIT_DIR names."""
    copy = repository / "copy"
    copy.mkdir()
    assert describe_code(copy) == NOTHING
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))
    assert describe_code(tmp_path) == NOTHING
    link = tmp_path / "link"
    link.symlink_to(repository)
    assert describe_code(link)["commit"] is not None


def test_without_a_repository_or_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects runs from an archive: no repository, no commit yet, no folder or no git is None and no error."""
    assert describe_code(tmp_path) == describe_code(tmp_path / "missing") == NOTHING
    git(tmp_path, "init", "--quiet")
    assert describe_code(tmp_path) == NOTHING
    monkeypatch.setenv("PATH", str(tmp_path))
    assert describe_code(tmp_path) == NOTHING


def test_slow_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the start of a run: a git that hangs is left alone after its time."""
    slow = tmp_path / "git"
    slow.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(30)\n")
    slow.chmod(slow.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(provenance, "GIT_SECONDS", 0.2)
    begin = time.monotonic()
    assert describe_code(tmp_path) == NOTHING
    assert time.monotonic() - begin < 15


def test_description_of_a_run(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the run folder: versions, devices, threads, command and commit as JSON, and no more."""
    monkeypatch.setattr(sys, "argv", ["train.py", "--root", "my data"])
    monkeypatch.setattr(provenance, "process_count", lambda: 3)
    described = json.loads(json.dumps(describe_run(repository)))
    assert shlex.split(described["command"]) == ["python", "train.py", "--root", "my data"]
    assert described["git"]["commit"] == git(repository, "rev-parse", "HEAD")
    assert described["versions"] == versions() and described["processes"] == 3
    assert described["versions"]["torch"] == torch.__version__ and described["versions"]["numpy"] == np.__version__
    assert described["versions"]["opencv"] == cv2.__version__
    assert described["threads"] == torch.get_num_threads() and all(described["devices"])
    assert described["date"].endswith("+00:00")
    keys = {"date", "command", "git", "versions", "devices", "threads", "tf32", "deterministic", "processes"}
    assert set(described) == keys  # none of them is about who or where
    assert versions(torch.device("cpu")) == {**versions(), "device": "cpu"}


def test_tf32() -> None:
    """Protects what is said of precision: torch's defaults and each of its switches, in a process of its own."""
    code = (
        "import torch; from utils.runs.provenance import tf32_settings as tf32; print(*tf32().values());"
        "torch.backends.cuda.matmul.allow_tf32 = True; print(*tf32().values());"
        "torch.backends.cudnn.allow_tf32 = False; print(*tf32().values());"
        "torch.set_float32_matmul_precision('highest'); print(*tf32().values())"
    )
    lines = ["False True", "True True", "True False", "False False"]
    assert run_python(code).splitlines() == lines


def test_tf32_by_either_of_torchs_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects older and newer torch: the old names where there are no new ones, else the new ones alone."""
    matmul = SimpleNamespace(allow_tf32=True)
    backends = SimpleNamespace(cuda=SimpleNamespace(matmul=matmul), cudnn=SimpleNamespace(allow_tf32=False))
    monkeypatch.setattr(provenance, "torch", SimpleNamespace(backends=backends))
    assert tf32_settings() == {"matmul": True, "convolution": False}
    backends.cuda.matmul = SimpleNamespace(fp32_precision="ieee")  # reading its old name would raise
    backends.cudnn = SimpleNamespace(conv=SimpleNamespace(fp32_precision="tf32"))
    assert tf32_settings() == {"matmul": False, "convolution": True}


def test_peak_memory_counts_what_was_freed() -> None:
    """Protects the log's memory: the peak in MiB, tensors that are gone included, of this process alone."""
    code = (
        "import torch; from utils.system.memory import peak_memory_mib as peak; "
        "cpu = torch.device('cpu'); before = peak(cpu);"
        "torch.ones(300 * 2**18); print(before, peak(cpu))"
    )
    before, after = map(float, run_python(code).split())
    assert 50 < before < 4000 and 250 < after - before < 400


def test_peak_memory_of_other_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the unit: KiB on BSD, bytes on macOS, None on Windows."""
    usage = SimpleNamespace(ru_maxrss=3 * 2**20)
    monkeypatch.setattr(memory, "resource", SimpleNamespace(getrusage=lambda who: usage, RUSAGE_SELF=0))
    found = {}
    for platform in ("freebsd14", "darwin"):
        monkeypatch.setattr(memory.sys, "platform", platform)
        found[platform] = peak_memory_mib(torch.device("cpu"))
    assert found == {"freebsd14": 3072, "darwin": 3}
    monkeypatch.setattr(memory, "resource", None)
    assert peak_memory_mib(torch.device("cpu")) is None
