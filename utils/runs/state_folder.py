"""The states that a run keeps on disk: each carries its checksum, the newest intact one is found, old ones go.

    <run>/states/epoch_0003.pth.tar               after three finished epochs
    <run>/states/epoch_0003_step_00000120.pth.tar and 120 steps of the fourth
    <run>/states/index.json                       what the run knows of them: the scores of evaluations

What lies in the folder is the run, whatever the index says: a state that it does not know is taken in, and without a
readable index none of those that lie there is ever deleted.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from utils.runs.settings import STATES
from utils.system.errors import UserError
from utils.system.files import file_digest, is_sealed, read_json, seal, write_atomically, write_json

INDEX = "index.json"
GIVEN_UP = ".given_up"  # added to the name of a state of a past that was given up, where it may not be deleted
UNSEALED = "it is cut short, or from before states carried their checksum"
_NAME = re.compile(r"epoch_(\d{4,})(?:_step_(\d{8,}))?\.pth\.tar")


@dataclass(frozen=True)
class Entry:
    """One saved state.

    Attributes:
        file: its name in the folder.
        epoch: finished epochs.
        step: finished steps of the next one.
        bytes, sha256: of runs from before states carried their checksum; 0 and "".
        gt_known_loc: on the test set, where that was evaluated after the epoch.
        is_spared: whether it is never deleted, since nobody knows what it is worth.
    """

    file: str
    epoch: int
    step: int
    bytes: int = 0
    sha256: str = ""
    gt_known_loc: float | None = None
    is_spared: bool = False

    @property
    def place(self) -> tuple[int, int]:
        """How far the run had come."""
        return self.epoch, self.step


class StateFolder:
    """A run's saved states.

    Args:
        run: the run's folder.
        keep: how many of the newest are kept; the one with the best GT-known Loc is kept besides.
    """

    def __init__(self, run: Path, keep: int = 2) -> None:
        self.path = run / STATES
        self._keep = keep

    def path_of(self, epoch: int, step: int) -> Path:
        """The file of a state, whether it is there or not."""
        return self.path / (f"epoch_{epoch:04}" + (f"_step_{step:08}" if step else "") + ".pth.tar")

    def entries(self) -> list[Entry]:
        """What there is, oldest first: the files in the folder, with what the index knows of them, and what it names
        besides."""
        known = self._read_index()
        named = known or {}
        for path in self.path.glob("epoch_*.pth.tar"):
            match = _NAME.fullmatch(path.name)
            if match and path.name not in named:
                epoch, step = int(match[1]), int(match[2] or 0)
                named[path.name] = Entry(path.name, epoch, step, is_spared=known is None)
        return sorted(named.values(), key=lambda entry: entry.place)

    def _read_index(self) -> dict[str, Entry] | None:
        """By file name; None if there is no index, none that can be read, or one that knows nothing."""
        try:
            entries = read_json(self.path / INDEX, "is no index", "", lambda rows: [_entry(row) for row in rows])
        except UserError:
            return None  # the states themselves tell what they are
        return {entry.file: entry for entry in entries} or None

    def newest_intact(self) -> Path | None:
        """The newest state whose checksum is right; says which newer ones are damaged."""
        for entry in reversed(self.entries()):
            damage = self.damage(entry)
            if not damage:
                return self.path / entry.file
            print(f"{self.path / entry.file} is damaged ({damage}); taking the one before")
        return None

    def damage(self, entry: Entry) -> str:
        """What is wrong with a state's file, "" if nothing."""
        path = self.path / entry.file
        try:
            intact = is_sealed(path)
            if intact is None and entry.sha256:
                size = path.stat().st_size
                if size != entry.bytes:
                    return f"{size} bytes instead of {entry.bytes}"
                intact = file_digest(path) == entry.sha256
        except FileNotFoundError:
            return "it is not there"
        except OSError as error:
            return error.strerror or str(error)
        if intact is None:
            return UNSEALED
        return "" if intact else "its checksum is wrong"

    def save(self, epoch: int, step: int, write: Callable[[Path], object]) -> Path:
        """Adds a state and lets old ones go; those from beyond it belong to a past that was given up.

        Args:
            epoch: finished epochs.
            step: finished steps of the next one.
            write: fills the file.

        Returns:
            The file.

        Raises:
            UserError: it cannot be written; the older states are as they were.
        """
        entries = self.entries()

        def write_and_seal(file: Path) -> None:
            write(file)
            seal(file)

        path = self.path_of(epoch, step)
        given_up = [self.path / entry.file for entry in entries if entry.place >= (epoch, step) and entry.is_spared]
        if path in given_up:  # a second name for what the new file will replace, or its only one
            kept = path.with_name(path.name + GIVEN_UP)
            try:
                kept.hardlink_to(path)
            except OSError:  # there are no links here, or the name is taken
                with suppress(OSError):
                    path.replace(kept)
        write_atomically(path, write_and_seal, durable=True)
        for old in given_up:
            if old != path:
                with suppress(OSError):
                    old.replace(old.with_name(old.name + GIVEN_UP))
        before = [entry for entry in entries if entry.place < (epoch, step)]
        beyond = [entry for entry in entries if entry.place > (epoch, step)]
        self._settle([*before, Entry(path.name, epoch, step)], beyond)
        return path

    def clear(self) -> None:
        """Lets all states go, for a run that begins anew."""
        entries = self.entries()
        if entries:
            self._settle([], entries)

    def note_score(self, epoch: int, gt_known_loc: float | None) -> None:
        """Remembers what the evaluation after an epoch gave."""
        entries = self.entries()
        self._settle(
            [replace(entry, gt_known_loc=gt_known_loc) if entry.place == (epoch, 0) else entry for entry in entries]
        )

    def _settle(self, entries: list[Entry], beyond: list[Entry] | None = None) -> None:
        scored = [entry for entry in entries if entry.gt_known_loc is not None]
        best = max(scored, key=lambda entry: entry.gt_known_loc or 0.0, default=None)
        kept = [entry for entry in entries if entry in entries[-self._keep :] or entry is best or entry.is_spared]
        # Out of the index before it is deleted would make it a state to be taken in; so it goes first.
        for entry in (*(beyond or ()), *entries):
            if entry not in kept:
                with suppress(OSError):
                    (self.path / entry.file).unlink()
        rows = [asdict(entry) for entry in kept]
        write_json(self.path / INDEX, rows, durable=True)


def _entry(row: Any) -> Entry:
    known = {field.name for field in fields(Entry)}
    entry = Entry(**{name: value for name, value in row.items() if name in known})
    match = _NAME.fullmatch(entry.file)
    if not match or entry.place != (int(match[1]), int(match[2] or 0)):
        raise ValueError(f"{entry.file} is no state's name")
    if not (entry.gt_known_loc is None or isinstance(entry.gt_known_loc, int | float)):
        raise ValueError(f"{entry.gt_known_loc} is no score")
    return entry


def damage_of_file(path: Path) -> str:
    """What is wrong with a state by whatever path it is named, as :meth:`StateFolder.damage`; "" if none is known."""
    path = path.resolve()
    states = StateFolder(path.parent.parent)
    entry = next((entry for entry in states.entries() if states.path / entry.file == path), None)
    if entry is None and path.is_file():  # moved elsewhere
        return "its checksum is wrong" if is_sealed(path) is False else ""
    damage = states.damage(entry) if entry else ""
    return "" if damage == UNSEALED else damage
