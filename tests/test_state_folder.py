"""Protects the saved states: the newest intact one is found whatever happened to the others, and old ones go."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from utils.runs.state_folder import INDEX, StateFolder, damage_of_file
from utils.system.errors import UserError
from utils.system.files import file_digest, sweep


def save(states: StateFolder, epoch: int, step: int = 0, text: str = "") -> Path:
    return states.save(epoch, step, lambda file: file.write_text(text or f"state {epoch} {step}"))


def names(states: StateFolder) -> list[str]:
    return sorted(path.name for path in states.path.iterdir())


def test_newest_is_found_and_old_ones_go(tmp_path: Path) -> None:
    """Protects --keep: so many of the newest, in the order of the run and not of the clock."""
    states = StateFolder(tmp_path, keep=2)
    assert states.newest_intact() is None
    paths = [save(states, epoch, step) for epoch, step in ((0, 7), (1, 0), (1, 100), (2, 0))]
    os.utime(paths[-1], (0, 0))
    assert states.newest_intact() == paths[-1]
    assert names(states) == ["epoch_0001_step_00000100.pth.tar", "epoch_0002.pth.tar", INDEX]
    only = StateFolder(tmp_path, keep=1)
    save(only, 3)
    assert names(only) == ["epoch_0003.pth.tar", INDEX]


def test_the_best_is_never_pruned(tmp_path: Path) -> None:
    """Protects the best epoch: it outlives newer ones until a better one comes; equal is not better."""
    states = StateFolder(tmp_path, keep=1)
    for epoch, score in ((1, 50.0), (2, 70.0), (3, 70.0), (4, None), (5, 60.0)):
        save(states, epoch)
        if score is not None:
            states.note_score(epoch, score)
    assert names(states) == ["epoch_0002.pth.tar", "epoch_0005.pth.tar", INDEX]
    save(states, 6)
    states.note_score(6, 71.0)
    assert names(states) == ["epoch_0006.pth.tar", INDEX]
    save(states, 7)
    assert names(states) == ["epoch_0006.pth.tar", "epoch_0007.pth.tar", INDEX]


@pytest.mark.parametrize("damage", ["cut short", "one bit", "longer", "gone", "a folder"])
def test_a_damaged_state_is_told_and_the_one_before_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture, damage: str
) -> None:
    """Protects resuming: length and checksum recognise every damage; nothing intact means None."""
    states = StateFolder(tmp_path)
    first, second = save(states, 1), save(states, 2)
    for path, before in ((second, first), (first, None)):
        content = path.read_bytes()
        if damage == "cut short":
            path.write_bytes(content[:-1])
        elif damage == "one bit":
            path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        elif damage == "longer":
            path.write_bytes(content + b" ")
        else:
            path.unlink()
            if damage == "a folder":
                path.mkdir()
        assert states.newest_intact() == before
        printed = capsys.readouterr().out
        assert f"{path} is damaged (" in printed and printed.count("is damaged") == (1 if before else 2)


def test_going_on_from_an_earlier_state_drops_the_later_ones(tmp_path: Path) -> None:
    """Protects --resume FILE: what came after it belongs to another past and must not be taken for the newest."""
    states = StateFolder(tmp_path, keep=5)
    for epoch in (1, 2, 3, 4):
        save(states, epoch)
    path = save(states, 2, 30)
    assert [entry.place for entry in states.entries()] == [(1, 0), (2, 0), (2, 30)]
    assert states.newest_intact() == path and "epoch_0004.pth.tar" not in names(states)
    again = save(states, 2, 30, "another text")
    assert states.newest_intact() == again and again.read_text().startswith("another text\n")


def test_a_failed_save_leaves_everything(tmp_path: Path) -> None:
    """Protects against a full disk: the older states stay, and no half file."""
    states = StateFolder(tmp_path)
    first = save(states, 1)
    before = names(states)

    def fail(file: Path) -> None:
        file.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"cannot write .*epoch_0002.pth.tar.*No space left"):
        states.save(2, 0, fail)
    assert names(states) == before and states.newest_intact() == first


def test_what_a_killed_process_left(tmp_path: Path) -> None:
    """Protects the disk and the work: half-written files go, a whole state that the index does not name is used."""
    states = StateFolder(tmp_path, keep=1)
    save(states, 1)
    (states.path / ".epoch_0002.pth.4711.tmp.tar").write_text("half, of an older version")
    (states.path / f".epoch_0002.pth.{'a' * 16}.tmp.tar").write_text("half")
    (states.path / ".mine.tmp.txt").write_text("not ours")
    other = StateFolder(tmp_path / "other")
    os.replace(save(other, 2), states.path / "epoch_0002.pth.tar")
    sweep(states.path)
    assert names(states) == [".mine.tmp.txt", "epoch_0001.pth.tar", "epoch_0002.pth.tar", INDEX]
    assert states.newest_intact().name == "epoch_0002.pth.tar"
    save(states, 2, 5)
    assert names(states) == [".mine.tmp.txt", "epoch_0002_step_00000005.pth.tar", INDEX]


LOST_INDEX = [
    None,
    "",
    "{",
    "[]",
    "{}",
    "[5]",
    '[{"file": "x"}]',
    "[" * 100000,
    '[{"file": "../a", "epoch": 1, "step": 0}]',
]


@pytest.mark.parametrize("text", LOST_INDEX)
def test_states_are_a_run_whatever_the_index_says(tmp_path: Path, text: str | None, capsys) -> None:
    """Protects days of training: without an index, states are found, checked one by one, used, and never deleted."""
    states = StateFolder(tmp_path, keep=1)
    first, best = save(states, 1), save(states, 2)
    states.note_score(2, 80.0)
    first = save(StateFolder(tmp_path, keep=5), 1, 7)  # a past that was given up took 2 away
    best, newest = save(StateFolder(tmp_path, keep=5), 2), save(StateFolder(tmp_path, keep=5), 3)
    if text is None:
        (states.path / INDEX).unlink()
    else:
        (states.path / INDEX).write_text(text)
    (states.path / "epoch_0004.pth.tar").write_text("cut short")
    (states.path / "notes.txt").write_text("mine")
    assert states.newest_intact() == newest
    assert "epoch_0004.pth.tar is damaged (it is cut short" in capsys.readouterr().out
    for epoch in (5, 6, 7):
        save(states, epoch)
    kept = [first.name, best.name, newest.name, "epoch_0004.pth.tar", "epoch_0007.pth.tar"]
    assert set(kept) <= set(names(states)) and "epoch_0006.pth.tar" not in names(states)
    again = save(states, 2, 5)  # gives up 3, 4 and 7: the spared ones stay under another name, out of the way
    assert states.newest_intact() == again
    assert {"epoch_0003.pth.tar.given_up", "epoch_0004.pth.tar.given_up"} <= set(names(states))


def test_a_state_is_checked_by_whatever_way_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects `cd states; train.py --resume epoch_0001.pth.tar`, a link, a state that was moved elsewhere."""
    states = StateFolder(tmp_path / "run")
    path = save(states, 1)
    (tmp_path / "link").symlink_to(path)
    moved = tmp_path / "moved.pth.tar"
    moved.write_bytes(path.read_bytes())
    monkeypatch.chdir(states.path)
    ways = (Path(path.name), tmp_path / "run" / ".." / "run" / "states" / path.name, tmp_path / "link", moved)
    assert [damage_of_file(way) for way in ways] == ["", "", "", ""]
    for file in (path, moved):
        content = file.read_bytes()
        file.write_bytes(b"S" + content[1:])
    assert [damage_of_file(way) for way in ways] == ["its checksum is wrong"] * 4


def test_states_of_older_runs(tmp_path: Path) -> None:
    """Protects runs from before states carried their checksum: the index has it."""
    states = StateFolder(tmp_path)
    states.path.mkdir()
    path = states.path / "epoch_0001.pth.tar"
    path.write_text("state")
    digest = "5f96fa7f6bd1c1d1c7fe2ae8bc9fa5d9cb5d6dda0bbd5de3d9e1e9d9a64a3f5e"
    row = {"file": path.name, "epoch": 1, "step": 0, "bytes": 5, "sha256": file_digest(path), "gt_known_loc": 3.0}
    (states.path / INDEX).write_text(json.dumps([row]))
    assert states.newest_intact() == path
    for wrong in ({"bytes": 6}, {"sha256": digest}):
        (states.path / INDEX).write_text(json.dumps([{**row, **wrong}]))
        assert states.newest_intact() is None
    (states.path / INDEX).unlink()
    assert states.newest_intact() is None  # nothing tells whether it is whole
    assert damage_of_file(path) == ""  # but who names it gets it


@pytest.mark.parametrize("place", [(1, 0), (2, 0)])
def test_a_failed_save_leaves_states_of_a_lost_index(tmp_path: Path, place: tuple[int, int]) -> None:
    """Protects against a full disk after an index was lost: the states that were found go on being states."""
    states = StateFolder(tmp_path)
    for epoch in (2, 3):
        save(states, epoch)
    (states.path / INDEX).unlink()

    def fail(file: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="No space left"):
        states.save(*place, fail)
    newest = states.newest_intact()
    assert newest is not None and newest.name == "epoch_0003.pth.tar"
    save(states, *place)
    assert states.newest_intact() == states.path_of(*place)
    assert {"epoch_0002.pth.tar.given_up", "epoch_0003.pth.tar.given_up"} <= set(names(states))
