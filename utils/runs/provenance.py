"""What a run was made with: versions, devices, code, command. Nothing tells who made it or on which machine."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL
import torch

from utils.system.processes import process_count

GIT_SECONDS = 5.0  # what a slow file system may cost the start of a run


def describe_run(root: Path) -> dict[str, Any]:
    """All that settings and data do not tell, and that is needed to repeat a run.

    Args:
        root: folder of the code.

    Returns:
        Plain values: `date` (UTC), `command`, `git` (:func:`describe_code`), `versions`, `devices` (names of the CUDA
        devices, else the processor's), `threads` of each process, `tf32` (:func:`tf32_settings`), `deterministic`,
        `processes`.
    """
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(["python", *sys.argv]),
        "git": describe_code(root),
        "versions": versions(),
        "devices": _device_names(),
        "threads": torch.get_num_threads(),
        "tf32": tf32_settings(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "processes": process_count(),
    }


def versions(device: torch.device | None = None) -> dict[str, str | int | None]:
    """Versions of what computes, None for CUDA and cuDNN where torch was built without; and `device`, if given."""
    found = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": _torchvision_version(),
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "opencv": cv2.__version__,  # type: ignore[attr-defined]  # not in OpenCV 4.8's stubs
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None,
        "platform": platform.platform(),
    }
    return found if device is None else {**found, "device": str(device)}


def _torchvision_version() -> str | None:
    """Without importing it, which takes a second and which two of the backbones do without."""
    try:
        return metadata.version("torchvision")
    except metadata.PackageNotFoundError:
        return None


def tf32_settings() -> dict[str, bool]:
    """Whether `matmul` and `convolution` of float32 may round to TF32 on CUDA devices that have it."""
    # torch >= 2.9 has names of its own for it, and refuses to read the old ones once a new one was set.
    parts = {"matmul": torch.backends.cuda.matmul, "convolution": getattr(torch.backends.cudnn, "conv", None)}
    precisions = {name: getattr(part, "fp32_precision", None) for name, part in parts.items()}
    if None not in precisions.values():
        return {name: precision == "tf32" for name, precision in precisions.items()}
    return {"matmul": torch.backends.cuda.matmul.allow_tf32, "convolution": torch.backends.cudnn.allow_tf32}


def describe_code(root: Path) -> dict[str, Any]:
    """The state of the code by git.

    Args:
        root: the repository's top folder.

    Returns:
        `commit` (None without git, or where `root` is no repository of its own) and `changed`, whether tracked files
        differ from it (None where unknown).
    """
    # Resolved, because git resolves links: a copy inside another repository has nothing to do with that one's commit.
    answer = _ask_git(root, "rev-parse", "--show-toplevel", "HEAD")
    top, commit = answer.splitlines() if answer is not None else ("", "")
    if not commit or Path(top).resolve() != root.resolve():
        return {"commit": None, "changed": None}
    status = _ask_git(root, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "changed": None if status is None else bool(status)}


def _ask_git(root: Path, *arguments: str) -> str | None:
    """Git's answer; None if there is none, for whatever reason, in time."""
    # Of a commit that starts a run from a hook, git would have set GIT_DIR and ask about another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        finished = subprocess.run(
            ["git", "-C", str(root), *arguments],
            env={**environment, "GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return finished.stdout if finished.returncode == 0 else None


def _device_names() -> list[str]:
    if torch.cuda.is_available():
        return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    models = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return [next(models, "") or platform.processor() or platform.machine()]
