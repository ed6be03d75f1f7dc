"""Figures as people read them: tables, the list of failures, the line of an epoch, the log of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.files import write_text
from utils.metrics import METRICS
from utils.models.recipe import Published

TITLES = {
    "top1_loc": "Top-1 Loc",
    "top5_loc": "Top-5 Loc",
    "gt_known_loc": "GT-known Loc",
    "top1_cls": "Top-1 Cls",
    "top5_cls": "Top-5 Cls",
}


def score_table(summary: Mapping[str, Any], published: Published | None = None) -> str:
    """The five figures in percent, as the authors' mean over classes and as the mean over images.

    Args:
        summary: of :meth:`utils.metrics.LocalizationScores.summary`.
        published: the paper's figures, shown beside where given.

    Returns:
        A table, one line a figure.
    """
    paper = asdict(published) if published else {}
    lines = [f"{'':14}{'class mean':>12}{'image mean':>12}" + (f"{'published':>12}" if paper else "")]
    for metric in METRICS:
        figures = summary[metric]
        line = f"{TITLES[metric]:14}{figures['class_mean']:12.2f}{figures['image_mean']:12.2f}"
        lines.append(line + (f"{paper[metric]:12.2f}" if metric in paper else ""))
    return "\n".join(lines)


def comparison_table(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """Localization figures of several methods, means over images in percent, one line a method.

    Args:
        summaries: title -> of :meth:`utils.metrics.LocalizationScores.summary`.

    Returns:
        The table.
    """
    metrics = ("top1_loc", "top5_loc", "gt_known_loc")
    width = max(len(title) for title in summaries) + 2
    lines = [" " * width + "".join(f"{TITLES[metric]:>14}" for metric in metrics)]
    for title, summary in summaries.items():
        lines.append(f"{title:{width}}" + "".join(f"{summary[metric]['image_mean']:14.2f}" for metric in metrics))
    return "\n".join(lines)


def failure_report(failures: Sequence[str], most: int = 10) -> str:
    """How many pictures count as misses, and the first of them."""
    counted = "1 picture gives no prediction and counts as a miss"
    if len(failures) > 1:
        counted = f"{len(failures)} pictures give no prediction and count as misses"
    lines = [f"{counted}:"]
    lines += [f"  {failure}" for failure in failures[:most]]
    if len(failures) > most:
        lines.append(f"  and {len(failures) - most} more")
    return "\n".join(lines)


def epoch_line(epoch: int, epochs: int, figures: Mapping[str, float]) -> str:
    """The one line of an epoch that stays on the screen."""
    losses = "  ".join(f"{name} {figures[name]:.4f}" for name in ("cls", "frg", "bas", "area") if name in figures)
    rate = f"lr {figures['lr']:g}  {figures['images_per_second']:.1f} img/s"
    return f"epoch {epoch + 1:3d}/{epochs}  {losses}  accuracy {figures['accuracy']:.2f}  {rate}"


class RunLog:
    """`log.jsonl`: one JSON object an epoch; resuming cuts off what came after the epoch it starts from."""

    def __init__(self, path: Path, finished_epochs: int) -> None:
        self.path = path
        self.entries: list[dict[str, Any]] = []
        if finished_epochs and path.is_file():
            try:
                lines = path.read_text(encoding="utf-8").splitlines()
                self.entries = [entry for line in lines if (entry := json.loads(line))["epoch"] <= finished_epochs]
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{path} is no log of a run ({error}); move it away to resume without it") from error

    def add(self, entry: Mapping[str, Any]) -> None:
        """Appends an epoch's figures; the file is replaced as a whole, so it never ends in half a line."""
        self.entries.append(dict(entry))
        self._write()

    def amend(self, **more: Any) -> None:
        """Adds to the last epoch's figures."""
        self.entries[-1].update(more)
        self._write()

    def _write(self) -> None:
        write_text(self.path, "".join(json.dumps(entry) + "\n" for entry in self.entries))
