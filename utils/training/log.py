"""The log of a run: a line an epoch on the screen, `log.jsonl`, `curves.png`, TensorBoard where it is installed.

An epoch's entry has the same keys whatever the data set: `epoch` (from 1), the means of the losses that were computed
(`cls`, `frg`, `bas`, `area`, `total`), `accuracy` (Top-1 Cls of the training pictures, percent), `lr`, `seconds`,
`images_per_second`, `data_wait` (share of the time spent waiting for pictures), `memory_mib` (peak of the process, or
of the epoch on its CUDA device), `steps`, `replaced_pictures`, `dead_maps` where the generator was trained
(:meth:`utils.metrics.DeadMaps.summary`) and, if the epoch was evaluated, `test`
(:meth:`utils.metrics.LocalizationScores.summary`, with `pixels` where there are masks and no boxes) and `cautions`
(:func:`utils.evaluation.summary.cautions`).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.system.errors import reason_of
from utils.system.files import read_json_lines, write_text
from utils.training.curves import save_curves

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

DRAWING_SHARE, USUAL_DRAWING = 0.1, 1.0  # of the time; seconds, until one was measured
LONG_SHARE, LONG_SECONDS = 0.1, 10.0  # of an epoch's waiting; both must be exceeded to be told
LOG_FILE, CURVES_FILE, TENSORBOARD_FOLDER = "log.jsonl", "curves.png", "tensorboard"


def epoch_line(epoch: int, epochs: int, figures: Mapping[str, Any]) -> str:
    """The one line of an epoch that stays on the screen.

    Args:
        epoch: counted from 0.
        epochs: of the whole run.
        figures: an epoch's entry; what it lacks is left out.
    """
    parts = [f"{name} {figures[name]:.4f}" for name in ("cls", "frg", "bas", "area") if name in figures]
    parts += [f"accuracy {figures['accuracy']:.2f}", f"lr {figures['lr']:g}"]
    parts.append(f"{figures['images_per_second']:.1f} img/s")
    if figures.get("data_wait") is not None:
        parts.append(f"waiting {100 * figures['data_wait']:.0f} %")
    if figures.get("memory_mib") is not None:
        parts.append(f"{figures['memory_mib']:.0f} MiB")
    if figures.get("replaced_pictures"):
        parts.append(f"{figures['replaced_pictures']} pictures replaced")
    return f"epoch {epoch + 1:3d}/{epochs}  " + "  ".join(parts)


def waiting_line(figures: Mapping[str, Any], num_workers: int) -> str:
    """Advice after an epoch that waited long for pictures; "" after any other.

    The start of the processes that read them, a few seconds of a run's first epoch, is no reason for it.

    Args:
        figures: an epoch's entry.
        num_workers: processes that read pictures.
    """
    if figures["data_wait"] <= LONG_SHARE or figures["data_wait"] * figures["seconds"] <= LONG_SECONDS:
        return ""
    return (
        f"{100 * figures['data_wait']:.0f} % of the epoch went into waiting for pictures: give more than "
        f"--num_workers {num_workers}, if there are cores for them, or put the data on a faster disk"
    )


class RunLog:
    """`log.jsonl`, one JSON object an epoch, and beside it the same figures as curves and for TensorBoard.

    Resuming cuts off what came after the epoch it starts from, in all three. The curves and TensorBoard are views: if
    one cannot be written, this is said once and the run goes on. Drawing takes at most a tenth of a run's time: where
    epochs are short, the curves lag behind by some, until :meth:`close`.

    Args:
        path: of `log.jsonl`.
        finished_epochs: 0 for a new run, which replaces an older log.

    Raises:
        UserError: the run is resumed and its log is damaged.
    """

    def __init__(self, path: Path, finished_epochs: int) -> None:
        self.path = path
        self.entries: list[dict[str, Any]] = []
        self._epoch = finished_epochs
        self._told: set[str] = set()
        self._writer: SummaryWriter | None = None
        self._drawn, self._drawing = time.monotonic(), USUAL_DRAWING  # when, and how many seconds it takes
        self._is_drawn = True
        self._tensorboard_from: int | None = finished_epochs + 1
        if finished_epochs and path.is_file():
            hint = "move it away to resume without it"
            entries = read_json_lines(path, "is no log of a run", hint, _entry)
            self.entries = [entry for entry in entries if entry["epoch"] <= finished_epochs]

    def add(self, entry: Mapping[str, Any]) -> None:
        """Appends an epoch's figures; the file is replaced as a whole, so it never ends in half a line."""
        self.entries.append(dict(entry))
        self._epoch = entry["epoch"]
        self._write(entry)

    def amend(self, **more: Any) -> None:
        """Adds to the last epoch's figures; starts its entry where the log was moved away."""
        if not self.entries or self.entries[-1]["epoch"] != self._epoch:
            self.entries.append({"epoch": self._epoch})
        self.entries[-1].update(more)
        self._write(more)

    def _write(self, new: Mapping[str, Any]) -> None:
        write_text(self.path, "".join(json.dumps(entry) + "\n" for entry in self.entries))
        self._is_drawn = False
        if time.monotonic() - self._drawn >= self._drawing / DRAWING_SHARE:
            self._draw()
        self._show(TENSORBOARD_FOLDER, lambda: self._write_scalars(new))

    def close(self) -> None:
        """Draws what is not drawn yet."""
        if not self._is_drawn:
            self._draw()

    def _draw(self) -> None:
        begin = time.monotonic()
        self._show(CURVES_FILE, lambda: save_curves(self.path.with_name(CURVES_FILE), self.entries))
        self._drawn, self._is_drawn = time.monotonic(), True
        self._drawing = self._drawn - begin

    def _show(self, name: str, show: Callable[[], object]) -> None:
        try:
            show()
        except Exception as error:  # whatever it is, days of training do not end for a view of their figures
            if name not in self._told:
                message = reason_of(error)
                print(f"{self.path.with_name(name)} is not kept up to date: {message}", file=sys.stderr)
            self._told.add(name)

    def _write_scalars(self, new: Mapping[str, Any]) -> None:
        if self._tensorboard_from is not None:
            first, self._tensorboard_from = self._tensorboard_from, None
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:  # it is not installed
                return
            # It forgets this epoch and later ones of the files that are there.
            self._writer = SummaryWriter(log_dir=str(self.path.with_name(TENSORBOARD_FOLDER)), purge_step=first)
        if self._writer is not None:
            for name, value in scalars(new):
                self._writer.add_scalar(name, value, self._epoch)
            self._writer.flush()


def _entry(content: Mapping[str, Any]) -> dict[str, Any]:
    if type(content["epoch"]) is not int:
        raise ValueError(f"an epoch is {content['epoch']!r}")
    for name, value in content.items():
        if not isinstance(value, int | float | Mapping | None):
            raise ValueError(f"{name} is {value!r}")
    return dict(content)


def scalars(entry: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of an entry except `epoch`, nested ones under names such as `test/gt_known_loc/image_mean`."""
    for key, value in entry.items():
        if isinstance(value, Mapping):
            yield from scalars(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and f"{prefix}{key}" != "epoch":
            yield f"{prefix}{key}", value
