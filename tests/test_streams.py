"""Protects work from its own lines: a reader who leaves, a closed stream, a full disk behind `>`, odd file names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import ROOT

CODE = """
import sys, pathlib, time
from utils.system.errors import run_command

def main():
    print("a \\udcff", flush=True)
    print("b", file=sys.stderr, flush=True)
    for number in range(3):
        time.sleep(0.1)
        print(number, flush=number % 2 == 0)
        print(number, file=sys.stderr)
    with open("kept", "w") as file:  # takes a closed stream's number unless something else has it
        file.write("work")
        print("never into a file of the command's")
sys.exit(run_command(main))
"""


def run(tmp_path: Path, shell: str, *options: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "command.py").write_text(CODE)
    command = f"PYTHONPATH={ROOT} {sys.executable} {' '.join(options)} command.py {shell}; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (tmp_path / "kept").read_text() == "work", result.stderr
    assert "Traceback" not in result.stderr and "Exception ignored" not in result.stderr
    return result


@pytest.mark.parametrize("options", [(), ("-u",)])
@pytest.mark.parametrize("shell", ["| head -n 1", "2>&1 | head -n 1", ">&-", "2>&-", ">&- 2>&-"])
def test_work_goes_on_when_nobody_listens(tmp_path: Path, shell: str, options: tuple[str, ...]) -> None:
    assert run(tmp_path, shell, *options).returncode == 0


@pytest.mark.parametrize("shell", ["> /dev/full", "2> /dev/full"])
def test_full_disk_behind_a_stream_is_told_after_the_work(tmp_path: Path, shell: str) -> None:
    result = run(tmp_path, shell)
    assert result.returncode == 1
    if shell.startswith(">"):
        assert result.stderr.splitlines()[-1].endswith("could not be written: No space left on device")
