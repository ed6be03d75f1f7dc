"""The states that a run keeps on disk: each with length and checksum, the newest intact one is found, old ones go.

    <run>/states/index.json                       what there is
    <run>/states/epoch_0003.pth.tar               after three finished epochs
    <run>/states/epoch_0003_step_00000120.pth.tar and 120 steps of the fourth

A state is on the disk before the index names it, and out of the index before it is deleted.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from utils.errors import UserError
from utils.files import file_digest, write_atomically, write_text

FOLDER = "states"
INDEX = "index.json"
DEFAULT_KEEP = 2


@dataclass(frozen=True)
class Entry:
    """One saved state."""

    file: str
    epoch: int  # finished ones
    step: int  # finished ones of the next epoch
    bytes: int
    sha256: str
    gt_known_loc: float | None = None  # on the test set, where that was evaluated after the epoch

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

    def __init__(self, run: Path, keep: int = DEFAULT_KEEP) -> None:
        self.path = run / FOLDER
        self._keep = keep

    def path_of(self, epoch: int, step: int) -> Path:
        """The file of a state, whether it is there or not."""
        return self.path / (f"epoch_{epoch:04}" + (f"_step_{step:08}" if step else "") + ".pth.tar")

    def entries(self) -> list[Entry]:
        """What there is, oldest first.

        Raises:
            UserError: the index is damaged.
        """
        index = self.path / INDEX
        try:
            rows = json.loads(index.read_text(encoding="utf-8"))
            return sorted((Entry(**row) for row in rows), key=lambda entry: entry.place)
        except FileNotFoundError:
            return []
        except (ValueError, TypeError, OSError) as error:
            raise UserError(
                f"{index} cannot be read ({error}); move it away and give the newest state beside it as --resume FILE"
            ) from error

    def newest_intact(self) -> Path | None:
        """The newest state whose length and checksum are right; says which newer ones are damaged."""
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
            size = path.stat().st_size
            if size != entry.bytes:
                return f"{size} bytes instead of {entry.bytes}"
            return "" if file_digest(path) == entry.sha256 else "its checksum is wrong"
        except FileNotFoundError:
            return "it is not there"
        except OSError as error:
            return error.strerror or str(error)

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
        before = [entry for entry in self.entries() if entry.place < (epoch, step)]
        path = write_atomically(self.path_of(epoch, step), write, durable=True)
        entry = Entry(path.name, epoch, step, path.stat().st_size, file_digest(path))
        self._settle([*before, entry])
        return path

    def clear(self) -> None:
        """Lets all states go, for a run that begins anew."""
        if self.entries():
            self._settle([])

    def note_score(self, epoch: int, gt_known_loc: float | None) -> None:
        """Remembers what the evaluation after an epoch gave."""
        entries = self.entries()
        self._settle(
            [replace(entry, gt_known_loc=gt_known_loc) if entry.place == (epoch, 0) else entry for entry in entries]
        )

    def _settle(self, entries: list[Entry]) -> None:
        scored = [entry for entry in entries if entry.gt_known_loc is not None]
        best = max(scored, key=lambda entry: entry.gt_known_loc, default=None)
        kept = [entry for entry in entries if entry in entries[-self._keep :] or entry is best]
        rows = [asdict(entry) for entry in kept]
        write_text(self.path / INDEX, json.dumps(rows, indent=2) + "\n", durable=True)
        names = {entry.file for entry in kept}
        for path in (
            *self.path.glob("epoch_*.pth.tar"),
            *self.path.glob(".*.tmp*"),
        ):  # half-written ones of killed runs
            if path.name not in names:
                with suppress(OSError):
                    path.unlink()
