"""The demo's ablation tables: means and spreads over seeds, of what finished runs hold."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from utils.demo.cells import CELLS, Cell
from utils.evaluation.summary import RecordedMap, first_of_kind, recorded_maps
from utils.metrics import LOC_METRICS, METRICS

MEAN = "image_mean"
# What is compared of maps that are drawn in different places.
DRAWING = ("GT-known Loc", "MaxBoxAccV2", "IoU 0.3", "IoU 0.5", "IoU 0.7", "PxAP")


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over seeds; no deviation of a single one."""

    values: Sequence[float]

    @property
    def mean(self) -> float:
        """Arithmetic mean."""
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """Standard deviation with n - 1."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def record(self) -> dict[str, float | None]:
        """Plain values for JSON."""
        return {"mean": self.mean, "standard_deviation": self.deviation}

    def __str__(self) -> str:
        return f"{self.mean:.1f}" + ("" if self.deviation is None else f" ± {self.deviation:.1f}")


# A run's maps by the alignment in which they are drawn, the recipe's own first; of each cell, by seed.
Drawn = Mapping[str, Sequence[RecordedMap]]
Finished = Mapping[Cell, Mapping[int, Drawn]]


def summarize(finished: Finished) -> list[dict[str, Any]]:
    """One row for each cell of the table of losses and each k of those that compare several, and one for each way of
    drawing of the other cells.

    Args:
        finished: the results of each run.

    Returns:
        A list of `cell`, `k` and `drawn` (None where the row is not about one), `seeds` and `figures`: title ->
        :class:`Spread` in percent, means over images. A cell's figures are `BAS <metric>` (not where no loss trains the
        generator), `CAM <metric>` and `Top-1 Cls`; those of a k `<metric>` and `threshold`; those of a way of drawing
        `<BAS or CAM> <figure>` of :data:`DRAWING`.
    """
    rows: list[dict[str, Any]] = []

    def add(cell: Cell, figures: Mapping[str, Sequence[float]], k: int | None = None, drawn: str | None = None) -> None:
        spreads = {title: Spread(values) for title, values in figures.items()}
        rows.append({"cell": cell.name, "k": k, "drawn": drawn, "seeds": [*finished[cell]], "figures": spreads})

    for cell, by_seed in finished.items():
        for how in cell.alignments:
            found = [_of_drawing(drawn[how]) for drawn in by_seed.values()]
            add(cell, {title: [one[title] for one in found] for title in found[0]}, drawn=how)
        if cell.alignments:
            continue
        own = [next(iter(drawn.values())) for drawn in by_seed.values()]
        kinds = ("bas", "cam") if cell.has_generator else ("cam",)
        scores = [{kind: first_of_kind(maps, kind).scores for kind in kinds} for maps in own]
        figures = {
            f"{kind.upper()} {METRICS[metric]}": [one[kind][metric][MEAN] for one in scores]
            for kind in kinds
            for metric in LOC_METRICS
        }
        add(cell, figures | {METRICS["top1_cls"]: [one["cam"]["top1_cls"][MEAN] for one in scores]})
        for k in cell.top_ks:
            fused = [_of_k(maps, k) for maps in own]
            figures = {METRICS[metric]: [one.scores[metric][MEAN] for one in fused] for metric in LOC_METRICS}
            add(cell, figures | {"threshold": [one.figures["threshold"] for one in fused]}, k=k)
    return rows


def _of_drawing(maps: Sequence[RecordedMap]) -> dict[str, float]:
    """The figures of :data:`DRAWING`, of BAS and of CAM."""
    figures: dict[str, float] = {}
    for kind in ("bas", "cam"):
        one = first_of_kind(maps, kind)
        v2 = one.figures["max_box_acc"]["max_box_acc_v2"]
        values = one.scores["gt_known_loc"][MEAN], v2["value"], *(at["value"] for at in v2["at_iou"])
        values = *values, one.figures["pixels"]["px_ap"]
        figures |= {f"{kind.upper()} {title}": value for title, value in zip(DRAWING, values, strict=True)}
    return figures


def markdown(rows: Sequence[Mapping[str, Any]], images: int, extra: Sequence[str] = ()) -> str:
    """The rows of :func:`summarize` as tables, with what they were measured on.

    Args:
        rows: at least one.
        images: test pictures of the demo.
        extra: options that all runs had.
    """
    titles = {cell.name: cell.title for cell in CELLS}
    most = max((row["seeds"] for row in rows), key=len)
    seeds = f"seeds {', '.join(map(str, most))}" if len(most) > 1 else f"one seed, {most[0]}"
    spread = "mean ± standard deviation (n - 1) over " if len(most) > 1 else ""
    with_options = f" with `{' '.join(extra)}`" if extra else ""
    lines = [
        f"Measured on the demo by `python -m utils.demo.ablation`: `python train.py --demo`{with_options}, {images} "
        f"test pictures, centre crop, percent of images, {spread}{seeds}. Every threshold was chosen on the training "
        "pictures and their boxes.",
    ]

    def add(words: str, head: str, columns: Sequence[str], body: Mapping[str, Mapping[str, Spread]]) -> None:
        if body:
            lines.extend(["", words, ""] if words else [""])
            lines.extend(_table(head, columns, body))

    columns = [f"{kind} {METRICS[metric]}" for kind in ("BAS", "CAM") for metric in LOC_METRICS] + [METRICS["top1_cls"]]
    of_losses = [row for row in rows if row["k"] is None and row["drawn"] is None]
    body = {titles[row["cell"]] + _fewer_seeds(row, most): row["figures"] for row in of_losses}
    add("", "losses", columns, body)
    fused = {f"{row['k']}{_fewer_seeds(row, most)}": row["figures"] for row in rows if row["k"] is not None}
    words = "The networks with all four losses, the maps of the k most probable classes averaged"
    columns = [METRICS[metric] for metric in LOC_METRICS] + ["threshold"]
    add(f"{words} (k = 1: the map of the true class):", "k", columns, fused)
    drawn = {
        f"{titles[row['cell']]} | {row['drawn']}{_fewer_seeds(row, most)}": row["figures"]
        for row in rows
        if row["drawn"] is not None
    }
    words = (
        "Padding of strided layers and pooling of the mask in training, and where the maps of that network are drawn"
    )
    columns = [f"{kind} {title}" for kind in ("BAS", "CAM") for title in DRAWING]
    add(f"{words} (MaxBoxAccV2 and, apart, at each IoU):", "trained | drawn", columns, drawn)
    return "\n".join(lines) + "\n"


def _table(head: str, columns: Sequence[str], body: Mapping[str, Mapping[str, Spread]]) -> list[str]:
    def cell(name: str, spread: Spread | None) -> str:
        if spread is None:
            return "–"
        if name != "threshold":
            return str(spread)
        return " to ".join(f"{value:.2f}" for value in sorted({min(spread.values), max(spread.values)}))

    rows = [[head, *columns], ["---"] * (1 + head.count("|")) + ["---:"] * len(columns)]
    rows += [[title, *(cell(name, figures.get(name)) for name in columns)] for title, figures in body.items()]
    return [f"| {' | '.join(row)} |" for row in rows]


def _fewer_seeds(row: Mapping[str, Any], most: Sequence[int]) -> str:
    """Whether a row has not all seeds (yet)."""
    return "" if row["seeds"] == most else f" (seeds {', '.join(map(str, row['seeds']))} alone)"


def read_results(content: Mapping[str, Any], cell: Cell) -> dict[str, list[RecordedMap]]:
    """The maps of a demo; stumbles where one of the figures of the tables is missing or no number."""
    drawn = {how: recorded_maps(one) for how, one in content.get("alignments", {}).items()}
    drawn = {content.get("align_maps", ""): recorded_maps(content), **drawn}
    for how in cell.alignments:
        if how not in drawn:
            raise ValueError(f"{how} maps are missing")
        _require_numbers({f"{how}: {name}": value for name, value in _of_drawing(drawn[how]).items()})
    if not cell.alignments:
        _require_figures(next(iter(drawn.values())), cell)
    return drawn


def _require_figures(maps: Sequence[RecordedMap], cell: Cell) -> None:
    named = {kind: first_of_kind(maps, kind) for kind in (("bas", "cam") if cell.has_generator else ("cam",))}
    fused = {f"k = {k}": _of_k(maps, k) for k in cell.top_ks}
    numbers = {
        f"{name}: {metric}": one.scores[metric][MEAN] for name, one in (named | fused).items() for metric in LOC_METRICS
    }
    numbers |= {"Top-1 Cls": named["cam"].scores["top1_cls"][MEAN], "images": named["cam"].scores["images"]}
    numbers |= {f"threshold of {name}": one.figures["threshold"] for name, one in fused.items()}
    _require_numbers(numbers)


def _require_numbers(numbers: Mapping[str, Any]) -> None:
    wrong = [name for name, n in numbers.items() if type(n) not in (int, float) or not math.isfinite(n)]
    if wrong:
        raise ValueError(f"{wrong[0]} is {numbers[wrong[0]]!r}")


def _of_k(maps: Sequence[RecordedMap], k: int) -> RecordedMap:
    """The foreground map of k classes; ValueError if there is none."""
    for one in maps:
        if one.kind == "bas" and one.top_k == k:
            return one
    raise ValueError(f"k = {k} is missing")
