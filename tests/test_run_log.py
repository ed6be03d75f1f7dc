"""A run's log: the epochs' line, log.jsonl, curves.png and TensorBoard."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from utils.system.errors import UserError
from utils.training import log as run_log
from utils.training.curves import draw_curves
from utils.training.log import RunLog, epoch_line, scalars, waiting_line

SCORES = {"gt_known_loc": {"class_mean": 70.0, "image_mean": 71.0}, "top1_loc": {"class_mean": 1.0, "image_mean": None}}


def entry(epoch: int, **more: object) -> dict:
    """As the training makes it."""
    losses = {"cls": 2.0 / epoch, "frg": 1.5, "bas": 0.5, "area": 0.25, "total": 3.0}
    rates = {"accuracy": 50.0 + epoch, "lr": 0.001, "seconds": 2.0, "images_per_second": 64.25, "data_wait": 0.125}
    return {"epoch": epoch, **losses, **rates, "memory_mib": 812.4, "steps": 9, "replaced_pictures": 0, **more}


def read(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


class StandInWriter:
    """Of torch.utils.tensorboard: keeps what it is told, for all runs together."""

    told: list[tuple] = []

    def __init__(self, log_dir: str, purge_step: int) -> None:
        self.told.append(("open", Path(log_dir).name, purge_step))

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.told.append((name, value, step))

    def flush(self) -> None:
        self.told.append(("flush",))


@pytest.fixture(autouse=True)
def tensorboard(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """What TensorBoard's stand-in is told."""
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = StandInWriter
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(StandInWriter, "told", [])
    return StandInWriter.told


@pytest.fixture
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves the time to draw them."""
    monkeypatch.setattr(run_log, "save_curves", lambda path, entries: path)


@pytest.mark.usefixtures("no_curves")
def test_resuming_cuts_off_what_came_later(tmp_path: Path) -> None:
    """Protects a resumed run's log: epochs to the one it starts from stay, later ones go, a new run starts anew."""
    log = RunLog(tmp_path / "log.jsonl", 0)
    for epoch in (1, 2, 3):
        log.add(entry(epoch))
    log.amend(test=SCORES)
    assert read(tmp_path) == [entry(1), entry(2), entry(3, test=SCORES)]
    log = RunLog(tmp_path / "log.jsonl", 2)
    assert len(read(tmp_path)) == 3  # nothing is lost before there is something to write
    log.add(entry(3, cls=9.0))
    assert read(tmp_path) == [entry(1), entry(2), entry(3, cls=9.0)]
    RunLog(tmp_path / "log.jsonl", 0).add(entry(1))
    assert read(tmp_path) == [entry(1)]


def test_amending_without_the_old_log(tmp_path: Path) -> None:
    """Protects a run whose log was moved away: the evaluation after its last epoch is kept under that epoch."""
    RunLog(tmp_path / "log.jsonl", 7).amend(test=SCORES)
    assert read(tmp_path) == [{"epoch": 7, "test": SCORES}]


@pytest.mark.parametrize(
    "content", [b'{"epoch": 1, "cls": "low"}\n', b'{"epoch": 1}\n{"epo', b'{"loss": 1}\n', b"[1]\n", b"\xff\xfe"]
)
def test_damaged_log(tmp_path: Path, content: bytes) -> None:
    """Protects resuming: a damaged log is named with the hint, and stays as it is."""
    path = tmp_path / "log.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"log\.jsonl is no log of a run .*; move it away"):
        RunLog(path, 1)
    assert path.read_bytes() == content


def test_line_of_an_epoch() -> None:
    """Protects the screen: losses, accuracy, rate, speed, waiting and memory, each where it was computed."""
    line = epoch_line(1, 10, entry(2, replaced_pictures=3))
    assert line == (
        "epoch   2/10  cls 1.0000  frg 1.5000  bas 0.5000  area 0.2500  accuracy 52.00  lr 0.001  64.2 img/s  "
        "waiting 12 %  812 MiB  3 pictures replaced"
    )
    warm_up = {"cls": 1.0, "accuracy": 50.0, "lr": 0.1, "images_per_second": 3.0, "data_wait": 0.0, "memory_mib": None}
    assert epoch_line(0, 10, warm_up) == "epoch   1/10  cls 1.0000  accuracy 50.00  lr 0.1  3.0 img/s  waiting 0 %"


@pytest.mark.parametrize(
    ("data_wait", "seconds", "is_told"),
    [(0.25, 400.0, True), (0.1, 400.0, False), (0.5, 19.0, False), (0.0, 0.0, False)],
)
def test_a_long_wait_for_pictures_is_told(data_wait: float, seconds: float, is_told: bool) -> None:
    """Protects a GPU's time: more than a tenth of an epoch is told, the start of a small run's workers is not."""
    line = waiting_line({"data_wait": data_wait, "seconds": seconds}, 4)
    assert bool(line) == is_told
    assert not is_told or ("25 %" in line and "--num_workers 4" in line)


def test_curves_show_the_figures() -> None:
    """Protects curves.png: a panel for whatever was computed, each value at its epoch, the rate on a log scale."""
    entries = [entry(1), entry(2, test=SCORES), entry(3, lr=0.0001), entry(4, test=SCORES)]
    del entries[0]["bas"]
    entries[2]["dead_maps"] = {"count": 2, "classes": 3, "empty": ["ant"], "full": ["bee"]}
    panels = {axes.get_title(loc="left"): axes for axes in draw_curves(entries).axes}
    lines = {
        (title, line.get_label()): list(zip(*line.get_data(), strict=True))
        for title, axes in panels.items()
        for line in axes.get_lines()
    }
    test, waiting = "test pictures (mean over images), %", "time spent waiting for pictures, %"
    keys = {"L_cls": "cls", "L_frg": "frg", "L_bas": "bas", "L_ac": "area", "Top-1 Cls in training, %": "accuracy"}
    keys |= {"learning rate": "lr", "pictures a second": "images_per_second"}
    dead = "classes with dead maps"
    assert set(panels) == {*keys, test, waiting, dead}
    assert [value for value in lines[dead, "dead maps"] if value[1] is not None] == [(3, 2)]
    for title, key in keys.items():
        assert lines[title, title] == [(one["epoch"], one[key]) for one in entries if key in one]
    assert lines[waiting, waiting] == [(epoch, 12.5) for epoch in (1, 2, 3, 4)]
    assert lines[test, "GT-known Loc"] == [(2, 71.0), (4, 71.0)]
    assert (test, "Top-1 Loc") not in lines  # the data set has no boxes
    assert panels["learning rate"].get_yscale() == "log"
    assert {axes.get_xlim() for axes in panels.values()} == {panels["L_cls"].get_xlim()}


def test_short_epochs_are_drawn_seldom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects small runs' time: at most a tenth of it goes into drawing, and the end is always drawn."""
    now, drawn = [0.0], []

    def draw(_, entries):
        now[0] += 0.8
        drawn.append(len(entries))

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(run_log, "save_curves", draw)
    log = RunLog(tmp_path / "log.jsonl", 0)
    for epoch in range(1, 31):
        now[0] += 1.5
        log.add(entry(epoch))
    assert drawn == [7, 13, 19, 25]  # after 10 seconds, then each 8 of them
    log.close()
    log.close()
    assert drawn[4:] == [30]


def test_curves_are_redrawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects curves.png: a readable picture after each epoch that takes its time, another one after a change at the
    end, however soon it ends, no files beside."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    log, seen = RunLog(tmp_path / "log.jsonl", 0), set()
    for change in (lambda: log.add(entry(1)), lambda: log.add(entry(2)), lambda: log.amend(test=SCORES)):
        now[0] += 60
        change()
        with Image.open(tmp_path / "curves.png") as picture:
            pixels = np.asarray(picture.convert("RGB"))
        assert pixels.shape[1] == 990 and pixels[0, 0].tolist() == [255, 255, 255]
        assert (pixels == [0, 0x72, 0xB2]).all(axis=2).sum() > 100  # the first line's colour
        seen.add(pixels.tobytes())
    assert len(seen) == 3
    drawn = (tmp_path / "curves.png").stat().st_mtime_ns
    log.close()
    assert (tmp_path / "curves.png").stat().st_mtime_ns == drawn  # it was up to date
    assert {file.name for file in tmp_path.iterdir()} == {"log.jsonl", "curves.png"}


def test_views_do_not_end_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tensorboard: list[tuple]
) -> None:
    """Protects days of training: what breaks the curves or TensorBoard is said once, and the log goes on."""

    def fail(*_: object) -> None:
        raise RuntimeError("out of\ncolours")

    monkeypatch.setattr(run_log, "save_curves", fail)
    monkeypatch.setattr(StandInWriter, "flush", fail)
    log = RunLog(tmp_path / "log.jsonl", 0)
    for epoch in (1, 2, 3):
        log.add(entry(epoch))
    log.close()
    assert [one["epoch"] for one in read(tmp_path)] == [1, 2, 3]
    words = "is not kept up to date: out of colours"
    said = capsys.readouterr().err.splitlines()
    assert said == [f"{tmp_path / 'tensorboard'} {words}", f"{tmp_path / 'curves.png'} {words}"]


@pytest.mark.usefixtures("no_curves")
def test_tensorboard_gets_the_same_names(tmp_path: Path, tensorboard: list[tuple]) -> None:
    """Protects TensorBoard: each figure once at its epoch, nested names with slashes, flushed; later steps purged."""
    log = RunLog(tmp_path / "log.jsonl", 0)
    log.add(entry(1))
    log.add(entry(2))
    log.amend(test=SCORES)
    figures = [(name, value, epoch) for epoch in (1, 2) for name, value in entry(epoch).items() if name != "epoch"]
    nested = [("test/gt_known_loc/class_mean", 70.0, 2), ("test/gt_known_loc/image_mean", 71.0, 2)]
    nested.append(("test/top1_loc/class_mean", 1.0, 2))  # the missing mean is left out
    half = len(figures) // 2
    expected = [("open", "tensorboard", 1), *figures[:half], ("flush",), *figures[half:], ("flush",)]
    assert tensorboard == [*expected, *nested, ("flush",)]
    tensorboard.clear()
    RunLog(tmp_path / "log.jsonl", 1).add(entry(2))
    assert tensorboard == [("open", "tensorboard", 2), *figures[half:], ("flush",)]


def test_without_tensorboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tensorboard: list[tuple]
) -> None:
    """Protects a plain installation: without TensorBoard there is no folder and no word about it."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    RunLog(tmp_path / "log.jsonl", 0).add(entry(1))
    assert not (tmp_path / "tensorboard").exists() and tensorboard == []
    assert capsys.readouterr() == ("", "")


def test_scalars_are_numbers() -> None:
    """Protects TensorBoard's names: numbers alone, at any depth, the test's own `epoch` not taken for the step."""
    found = dict(scalars({"epoch": 3, "a": 1, "b": None, "c": "text", "d": {"epoch": 2, "e": {"f": math.pi}}}))
    assert found == {"a": 1, "d/epoch": 2, "d/e/f": math.pi}
