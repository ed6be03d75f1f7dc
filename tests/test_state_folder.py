"""Protects the saved states: the newest intact one is found whatever happened to the others, and old ones go."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from utils.errors import UserError
from utils.training.checkpoints import INDEX, StateFolder


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
    assert states.newest_intact() == again and again.read_text() == "another text"


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


def test_what_a_killed_process_left_is_cleaned_away(tmp_path: Path) -> None:
    """Protects the disk: half-written files, and states that the index never came to name, go with the next save."""
    states = StateFolder(tmp_path)
    save(states, 1)
    (states.path / ".epoch_0002.pth.4711.tmp.tar").write_text("half")
    (states.path / "epoch_0002.pth.tar").write_text("whole, but not in the index")
    assert states.newest_intact().name == "epoch_0001.pth.tar"
    save(states, 1, 5)
    assert names(states) == ["epoch_0001.pth.tar", "epoch_0001_step_00000005.pth.tar", INDEX]


@pytest.mark.parametrize("text", ["{", "[5]", '[{"file": "x"}]'])
def test_a_damaged_index(tmp_path: Path, text: str) -> None:
    """Protects the user: one sentence that names the index and the mend."""
    states = StateFolder(tmp_path)
    save(states, 1)
    assert json.loads((states.path / INDEX).read_text())[0]["bytes"] == len("state 1 0")
    (states.path / INDEX).write_text(text)
    with pytest.raises(UserError, match=r"index.json cannot be read .* --resume FILE"):
        states.newest_intact()
