"""Protects every reader of the project's JSON files: whatever lies there in their place is one sentence, or is passed
over where the file only saves work."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

import train
from Img.measured import read_measured
from utils.demo.ablation import Run
from utils.demo.cells import CELLS
from utils.demo.compose import RECORD, _is_composed
from utils.models.recipe import Recipe
from utils.runs.finished import find_run
from utils.runs.recorded import SETTINGS_FILE, change_settings, recorded_settings
from utils.system.errors import UserError
from utils.system.files import read_json, read_json_lines
from utils.training.log import RunLog

RECIPE = Recipe(dataset="CUB", arch="mobilenet", num_classes=3, frg_weight=0.5, area_weight=1.5, ratio_compare="ge")
BAD = {
    "empty": b"",
    "cut short": b'{"recipe": {"arch": ',
    "no Unicode": b"\xff\xfe{}",
    "nested too deeply": b"[" * 100_000,
    "an integer of hundreds of digits": b'{"epoch": 1' + b"0" * 400 + b"}",
    "an integer of thousands of digits": b'{"epoch": 1' + b"0" * 5000 + b"}",
    "a number that is too large": b'{"epoch": 1e400}',
    "infinite": b'{"epoch": -Infinity}',
    "a list": b'[{"epoch": 1}]',
    "a number": b"3",
    "null": b"null",
    "wrong types": b'{"epoch": "1", "weights": 3, "recipe": [], "scores": "many", "class_names": "abc"}',
}


def loaded(folder: Path) -> object:
    checkpoint = SimpleNamespace(path=folder / "x.pth.tar", is_ijcv=False, num_classes=3, settings=None)
    return recorded_settings(checkpoint)


def ablated(folder: Path, name: str) -> object:
    run = Run(CELLS[3], 0, folder)
    return run.is_finished() if name == "options.json" else run.results()


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "an evaluation's settings": (SETTINGS_FILE, loaded),
    "a finished run": (SETTINGS_FILE, lambda folder: find_run(folder, train.DATASETS)),
    "a change of settings": (SETTINGS_FILE, lambda folder: change_settings(folder / "x.pth.tar", sha256="")),
    "a log": ("log.jsonl", lambda folder: RunLog(folder / "log.jsonl", 3)),
    "a demo's figures": ("results.json", read_measured),
    "an evaluation's figures": ("evaluation.json", read_measured),
    "a grid's results": ("results.json", lambda folder: ablated(folder, "results.json")),
    "a grid's options": ("options.json", lambda folder: ablated(folder, "options.json")),
}
# What these readers take as it is: another run's options, settings with one more entry, a log of no epoch.
FINE = {("a grid's options", "a list"), ("a grid's options", "a number"), ("a grid's options", "null")}
FINE |= {("a grid's options", "wrong types"), ("a change of settings", "wrong types"), ("a log", "empty")}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("content", BAD)
def test_bad_content_is_one_sentence(tmp_path: Path, reader: str, content: str) -> None:
    """Protects from tracebacks: the file is named with what to do, and stays as it was."""
    name, read = READERS[reader]
    path = tmp_path / name
    path.write_bytes(BAD[content])
    if (reader, content) in FINE:
        return
    with pytest.raises(UserError) as caught:
        read(tmp_path)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path} ") and "; " in sentence and "\n" not in sentence and len(sentence) < 500
    assert path.read_bytes() == BAD[content]


@pytest.mark.parametrize(
    ("results", "words"),
    [
        ({"scores": {"bas": 5}}, r"'cam' is missing"),
        ({"scores": {"bas": {}, "cam": {}}, "top_k": []}, r"k = 1 is missing"),
        ({"scores": {"bas": {}, "cam": {}}, "top_k": 5}, "int"),
        ({"scores": {"bas": {}, "cam": {}}, "top_k": [{"k": k, "scores": {}} for k in (1, 2, 4, 8, 12)]}, "'top1_loc'"),
    ],
)
def test_results_of_a_grid_are_whole(tmp_path: Path, results: dict, words: str) -> None:
    """Protects the grid's table: a result that lacks a figure is named before anything is computed of the others."""
    (tmp_path / "results.json").write_text(json.dumps(results))
    with pytest.raises(UserError, match=rf"results\.json holds no results of this run \(.*{words}.*\); delete it"):
        ablated(tmp_path, "results.json")


@pytest.mark.parametrize("content", BAD)
def test_what_only_saves_work_is_passed_over(tmp_path: Path, content: str) -> None:
    """Protects from stopping for nothing: the demo composes anew."""
    (tmp_path / RECORD).write_bytes(BAD[content])
    assert not _is_composed(tmp_path, {"size": 1})


@pytest.mark.parametrize(
    ("make", "reason"), [(Path.mkdir, "a folder"), (os.mkfifo, "a device"), (None, "No such file")]
)
def test_what_is_no_file(tmp_path: Path, make: Callable[[Path], None] | None, reason: str) -> None:
    """Protects from waiting for ever: a FIFO, a folder and nothing at all are told at once."""
    path = tmp_path / "x.json"
    if make is not None:
        make(path)
    for read in (read_json, read_json_lines):
        with pytest.raises(UserError, match=rf"x\.json is no list \(.*{reason}.*\); move it"):
            read(path, "is no list", "move it", list)


def test_good_content_is_as_it_was_written(tmp_path: Path) -> None:
    """Protects the values: numbers of any size in use, NaN, other alphabets, a byte order mark."""
    path, content = tmp_path / "x.json", {"seed": 2**63 - 1, "lr": 1e-300, "name": "Grünspecht 啄木鸟", "none": None}
    for prefix in ("", "\ufeff"):
        path.write_text(f"{prefix}{json.dumps(content)}", encoding="utf-8")
        assert read_json(path, "is wrong", "correct it") == content
    path.write_text('{"a": NaN}\n{"a": -0.5}\n')
    first, second = read_json_lines(path, "is wrong", "correct it", lambda content: content["a"])
    assert first != first and second == -0.5
