"""The suite for GPUs itself: what a CPU can run of it passes, what cannot be run is said, what fails is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import gpu
from tests.commands import ROOT


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> object:
    monkeypatch.setattr(sys, "argv", ["tests.gpu", "--device", "cpu", "--quick", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        gpu.main()
    return end.value.code


def test_what_a_cpu_can_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    """Protects the suite from rotting where there is no GPU: its checks run, pass, and leave their table."""
    checks = [title for title in gpu.CHECKS if title not in ("repeated and resumed", "several processes", "training")]
    assert run(monkeypatch, "--only", *checks, "--json", tmp_path / "table.json") == 0
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert {row["check"] for row in rows} == set(checks)
    assert sum(row["passed"] is True for row in rows) >= 10
    not_run = [row["check"] for row in rows if "needs CUDA" in row["figure"]]
    assert not_run == [
        "no wait in a step",
        "pinned batches",
        "the command resumed",
        "the demo",
        "memory",
        "training, compiled",
    ]
    assert "FAILED" not in capsys.readouterr().out


def test_on_a_gpu() -> None:
    """Protects what only the device can tell, where there is one."""
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    if "TESTS_GPUS" in os.environ:  # see conftest.py
        environment["CUDA_VISIBLE_DEVICES"] = os.environ["TESTS_GPUS"]
    command = [sys.executable, "-m", "tests.gpu", "--device", "cuda", "--quick"]
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if "--device cuda is not available on this machine" in finished.stderr:
        pytest.skip("needs CUDA")
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_what_fails_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    """Protects from a suite that cannot fail: a bound that is missed, an error, what came before it and comes after."""

    def broken(_):
        yield gpu.Finding("before")
        raise RuntimeError("CUDA error:\nunspecified")

    checks = {"low": lambda _: iter([gpu.Finding("too low", False)]), "broken": broken}
    last = {"last": (lambda _: iter([gpu.Finding("a figure")]), False)}
    monkeypatch.setattr(gpu, "CHECKS", {name: (check, False) for name, check in checks.items()} | last)
    assert run(monkeypatch, "--json", tmp_path / "table.json") == 1
    figures = [row["figure"] for row in json.loads((tmp_path / "table.json").read_text())["rows"]]
    assert figures == ["too low", "before", "RuntimeError: CUDA error: unspecified", "a figure"]
    out = capsys.readouterr().out
    assert "FAILED too low" in out and "FAILED RuntimeError: CUDA error: unspecified" in out and "a figure" in out
