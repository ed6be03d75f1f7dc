"""The benchmark of several processes: commands that their programs take, shares of the cores, medians and a ratio."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests import benchmark_processes
from tests.documents import parse, parser_of


def test_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """Protects `python -m tests.benchmark_processes` without the minutes that it takes: what would be run is parsed by
    its own program, and answered with a rate that grows with the processes."""
    asked = []

    def run(words: list[str], cwd: Path, env: dict[str, str], **_: object) -> subprocess.CompletedProcess[str]:
        (place,) = (index for index, word in enumerate(words) if word.endswith(".py"))
        count = 2 if "torch.distributed.run" in words[:place] else 1
        assert int(env["OMP_NUM_THREADS"]) == max(1, (os.cpu_count() or 1) // count)
        assert (cwd / words[place]).is_file()
        program = "train.py" if words[place] == "train.py" else "CUB/BAS_inference.py"
        options = parse(parser_of(program), words[place + 1 :])
        asked.append((program, count))
        if program == "train.py":
            folder = Path(options.save_path) / "mobilenet"
            folder.mkdir(parents=True)
            (folder / "log.jsonl").write_text(f'{{"images_per_second": 1}}\n{{"images_per_second": {10 * count}}}\n')
        else:
            Path(options.json).write_text(json.dumps({"scores": {"images": 60}, "seconds": 60 / count**2}))
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(benchmark_processes.subprocess, "run", run)
    monkeypatch.setattr("sys.argv", ["x", *["--arch", "mobilenet", "--size", "32", "--images", "4", "--repeats", "2"]])
    benchmark_processes.main()
    assert asked == 2 * [(program, count) for count in (1, 2) for program in ("train.py", "CUB/BAS_inference.py")]
    printed = capsys.readouterr().out
    assert "mobilenet, training: 10.00 pictures/s by one process, 20.00 by 2: 2.00 times" in printed
    assert "mobilenet, evaluation: 1.00 pictures/s by one process, 4.00 by 2: 4.00 times" in printed


def test_one_process_is_compared_with_more(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr("sys.argv", ["x", "--processes", "1"])
    with pytest.raises(SystemExit) as stop:
        benchmark_processes.main()
    assert stop.value.code == 2 and "give 2 or more" in capsys.readouterr().err
