"""The paper's claim in numbers: where each curve has fallen or risen, and how closely it follows the mask's IoU.

The two say different things. A rank correlation asks for the order alone: any curve that only falls, or only rises,
while the mask grows to the object's outline has the correlation 1 within the object, however early it has all but
reached its end. That the entropy is near zero long before the outline shows only in where it has fallen.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from utils.exploratory.measure import Curve
from utils.system.files import write_json, write_text

DONE = 0.95  # the share of its way after which a curve has fallen or risen
# Measure -> its title, and the direction in which it goes while the mask grows over the object.
MEASURES = {
    "entropy": ("entropy", -1),
    "activation": ("activation", 1),
    "background_activation": ("background activation", -1),
}
OTHERS = tuple(name for name in MEASURES if name != "entropy")
STATISTICS = ("median", "lower_quartile", "upper_quartile", "mean", "standard_deviation", "count", "left_out")
# The pictures of which the claim speaks come first: it is about what a classifier goes by that is right.
GROUPS = {"correct": "classified correctly", "every": "all pictures"}
# The table's columns: number -> its title, factor and decimals.
COLUMNS = {
    "done_at": ("fallen or risen, % of the object", 100, 0),
    "correlation_all": ("correlation, all masks", 1, 2),
    "correlation_within": ("correlation, within the object", 1, 2),
}
LEGEND = """fallen or risen: the mask's area at which the curve has covered 95 % of its way from the empty mask
correlation: of the ranks, with the mask's IoU, signs turned so that 1 is best; it sees the order
alone: any curve that only falls or only rises has 1 within the object, however early it is done"""
FEW_MASKS = 8  # strictly within the object; with fewer, where a curve has fallen or risen is coarse
RULE = (
    "The rule, on medians: the claim holds where the entropy has fallen before the outline (100 % of the object's "
    "area) and each of the two activations comes nearer to the outline than the entropy, on either side of it, and "
    "later in most pictures; in part where one of the two does."
)


def done_at(areas: ArrayLike, rising: ArrayLike) -> float:
    """The area at which a curve has covered 95 % of its way, from its value at the empty mask up to its highest value;
    what it does below its start is none of it. Between two masks the curve is straight; the first crossing counts.

    Args:
        areas: (m,) growing from 0, the empty mask's.
        rising: (m,) the curve at these areas, turned over if it should fall.

    Returns:
        The area; NaN for a curve that nowhere passes its start: it never falls or rises.
    """
    areas, rising = np.asarray(areas, dtype=np.float64), np.asarray(rising, dtype=np.float64)
    level = rising[0] + DONE * (rising.max() - rising[0])
    if level == rising[0]:
        return float("nan")
    after = int((rising >= level).argmax())
    before = after - 1
    part = (level - rising[before]) / (rising[after] - rising[before])
    return float(areas[before] + part * (areas[after] - areas[before]))


def average_ranks(values: ArrayLike) -> np.ndarray:
    """Ranks from 1; equal values share the mean of their ranks. (n,) -> (n,) float64."""
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(sizes) - (sizes - 1) / 2)[group]


def rank_correlation(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's rank correlation, (n,) and (n,), with average ranks; NaN where either is constant."""
    ranks = np.stack([average_ranks(first), average_ranks(second)])
    ranks -= ranks.mean(axis=1, keepdims=True)
    scale = np.sqrt((ranks**2).sum(axis=1).prod())
    return round(float(ranks.prod(axis=0).sum() / scale), 12) if scale > 0 else float("nan")


def summarize(curves: Sequence[Curve]) -> dict[str, dict[str, Any]]:
    """The experiment's numbers over pictures.

    Args:
        curves: one a picture, at least one.

    Returns:
        For the pictures that the network classifies `correct`ly, and for `every` picture:

        - `pictures`, their number;
        - `sizes`: `own_area`, the object's share of the picture; `masks` and `masks_within`, how many were measured of
          a picture, and how many of them are neither empty nor as large as the object;
        - `done_at`: measure -> the mask's area, as a share of the object's own, by :func:`done_at`;
        - `correlation_all`, of all masks, and `correlation_within`, of those up to the object's own: measure -> rank
          correlation with the mask's IoU, the signs of entropy and background activation turned, so that 1 is best;
        - `short`: measure -> in which share of the pictures it had fallen or risen before the object's own area;
        - `before`: measure -> in which share of the pictures the entropy had fallen before it had fallen or risen.

        All spreads are of the `STATISTICS`: standard deviation with n - 1; `count` pictures have a value, `left_out`
        have none: the curve never falls or rises, or it (or the IoU) is constant and has no correlation. Such a
        picture counts against each share. None where there is no picture.
    """
    return {"correct": _summarize([curve for curve in curves if curve.is_correct]), "every": _summarize(curves)}


def _summarize(curves: Sequence[Curve]) -> dict[str, Any]:
    def of_each(number: Callable[[Curve, np.ndarray], float]) -> dict[str, np.ndarray]:
        """Measure -> (n,) a number of each picture, from its curve turned so that it should rise."""
        turned = {name: [sign * getattr(curve, name) for curve in curves] for name, (_, sign) in MEASURES.items()}
        return {name: np.array(list(map(number, curves, values))) for name, values in turned.items()}

    def within(curve: Curve, values: np.ndarray) -> float:
        end = curve.ious.argmax() + 1
        return rank_correlation(values[:end], curve.ious[:end])

    done = of_each(lambda curve, values: done_at(curve.relative_areas, values))
    spreads: dict[str, Mapping[str, ArrayLike]] = {
        "sizes": {
            "own_area": [curve.own_area for curve in curves],
            "masks": [len(curve.areas) for curve in curves],
            "masks_within": [curve.ious.argmax() - 1 for curve in curves],
        },
        "done_at": done,
        "correlation_all": of_each(lambda curve, values: rank_correlation(values, curve.ious)),
        "correlation_within": of_each(within),
    }
    return {
        "pictures": len(curves),
        **{number: {name: _spread(values) for name, values in found.items()} for number, found in spreads.items()},
        "short": {name: _share(areas < 1) for name, areas in done.items()},
        "before": {name: _share(done["entropy"] < done[name]) for name in OTHERS},
    }


def _spread(values: ArrayLike) -> dict[str, float | int | None]:
    values = np.asarray(values, dtype=np.float64)
    known = values[~np.isnan(values)]
    count = len(known)
    quartiles = np.quantile(known, (0.5, 0.25, 0.75)).tolist() if count else (None,) * 3
    mean = float(known.mean()) if count else None
    deviation = float(known.std(ddof=1)) if count > 1 else None
    return dict(zip(STATISTICS, (*quartiles, mean, deviation, count, len(values) - count), strict=True))


def _share(holds: np.ndarray) -> float | None:
    """The share of the pictures in which it holds; what is compared with NaN does not."""
    return float(holds.mean()) if len(holds) else None


def table(summary: Mapping[str, Mapping[str, Any]]) -> str:
    """The numbers of :func:`summarize` as people read them: medians, quartiles and their counts, and a warning where
    too few masks lie within the objects to tell where a curve has fallen or risen."""
    lines = [f"{'median (quartiles; n)':24}" + "".join(f"{title:>34}" for title, *_ in COLUMNS.values())]
    for group, words in GROUPS.items():
        found = summary[group]
        lines.append(f"{words}: {found['pictures']}")
        for name, (title, _) in MEASURES.items() if found["pictures"] else ():
            cells = [_cell(found[number][name], *style) for number, (_, *style) in COLUMNS.items()]
            lines.append(f"  {title:22}" + "".join(f"{cell:>34}" for cell in cells))
    within = summary["every"]["sizes"]["masks_within"]["median"]
    warning = (
        f"warning: at the median only {within:g} of the measured masks lie strictly within the object, so where a "
        "curve has fallen or risen is coarse; measure with more --masks, or with larger pictures"
    )
    return "\n".join([*lines, LEGEND, *([warning] if within < FEW_MASKS else [])])


def _cell(spread: Mapping[str, Any], factor: float, digits: int) -> str:
    if not spread["count"]:
        return "- (n 0)"
    median, low, high = (f"{factor * spread[key]:.{digits}f}" for key in STATISTICS[:3])
    return f"{median} ({low} to {high}; {spread['count']})"


def verdict(summary: Mapping[str, Mapping[str, Any]]) -> str:
    """One sentence on the paper's claim, for the pictures that the network classifies correctly: that the entropy has
    fallen while the mask covers only a part of the object, whereas the activations go on to its outline.

    `RULE` says when it holds. Being nearer to the outline than an entropy that has fallen short of it, an activation
    has no upper bound of its own, but comes before twice the object's area.

    Args:
        summary: of :func:`summarize`.
    """
    found = summary["correct"]
    if not found["pictures"]:
        return "The paper's claim cannot be judged here: no picture is classified correctly."
    done = {name: found["done_at"][name]["median"] for name in MEASURES}
    if done["entropy"] is None:
        return "The paper's claim cannot be judged here: the entropy never falls."
    gap = 1 - done["entropy"]
    follow = [done[name] is not None and found["before"][name] > 0.5 and abs(done[name] - 1) < gap for name in OTHERS]
    words = "holds" if all(follow) else "holds in part" if any(follow) else "does not hold"
    places = {name: "nowhere" if area is None else f"at {100 * area:.0f} %" for name, area in done.items()}
    others = ", ".join(
        f"the {MEASURES[name][0]} {places[name]} (later in {100 * found['before'][name]:.0f} % of the pictures)"
        for name in OTHERS
    )
    return (
        f"The paper's claim {words} here (medians, correctly classified pictures: {found['pictures']}): the entropy "
        f"has covered {100 * DONE:.0f} % of its way {places['entropy']} of the object's area (before the outline in "
        f"{100 * found['short']['entropy']:.0f} % of the pictures), {others}."
    )


def write_curves(path: Path, curves: Sequence[Curve]) -> Path:
    """Writes `curves.csv`.

    Its columns: the picture's id and class; whether the network classifies the whole picture correctly (0 or 1); the
    mask's area as a share of the picture and of the object's own; its IoU with the object; the cross-entropy, the true
    class's logit, and that of the background. The rows of a picture follow one another from the empty to the full mask.

    Raises:
        UserError: the file cannot be written.
    """
    rows: list[Sequence[Any]] = [("id", "class", "correct", "area", "area_of_object", "iou", *MEASURES)]
    for curve in curves:
        columns = curve.areas, curve.relative_areas, curve.ious, *(getattr(curve, name) for name in MEASURES)
        first = (curve.image_id, curve.class_name, int(curve.is_correct))
        rows += [(*first, *(f"{value:.7g}" for value in row)) for row in zip(*columns, strict=True)]
    return _write_table(path, rows)


def write_summary(folder: Path, summary: Mapping[str, Mapping[str, Any]], **more: Any) -> list[Path]:
    """Writes `summary.json` and, for spreadsheets, `summary.csv`.

    Args:
        folder: where to.
        summary: of :func:`summarize`.
        more: plain values for the JSON file alone.

    Raises:
        UserError: a file cannot be written.
    """
    rows: list[Sequence[Any]] = [("pictures", "number", "measure", *STATISTICS)]
    for group, found in summary.items():
        for number, measures in found.items():
            for name, value in measures.items() if isinstance(measures, Mapping) else ():
                spread = value if isinstance(value, Mapping) else {"mean": value}  # a share of pictures is one, too
                rows.append((group, number, name, *(spread.get(statistic) for statistic in STATISTICS)))
    return [write_json(folder / "summary.json", {**summary, **more}), _write_table(folder / "summary.csv", rows)]


def _write_table(path: Path, rows: Sequence[Sequence[Any]]) -> Path:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return write_text(path, text.getvalue())
