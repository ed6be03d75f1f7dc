"""The paper's claim in numbers: where each curve has fallen or risen, and how closely it follows the mask's IoU.

The two say different things. A rank correlation asks for the order alone: any curve that only falls, or only rises,
while the mask grows to the object's outline has the correlation 1 within the object, however early it has all but
reached its end. That the entropy is near zero long before the outline shows only in where it has fallen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from utils.exploratory.measure import Curve

DONE = 0.95  # the share of its way after which a curve has fallen or risen
# Measure -> its title, and the direction in which it goes while the mask grows over the object.
MEASURES = {
    "entropy": ("entropy", -1),
    "activation": ("activation", 1),
    "background_activation": ("background activation", -1),
}
OTHERS = tuple(name for name in MEASURES if name != "entropy")
# The masks over which a rank correlation is taken.
SCOPES = {"all": "all masks", "within": "within the object"}
STATISTICS = ("median", "lower_quartile", "upper_quartile", "mean", "standard_deviation", "count", "left_out")
# The pictures of which the claim speaks come first: it is about what a classifier goes by that is right.
GROUPS = {"correct": "classified correctly", "every": "all pictures"}
FEW_MASKS = 8  # strictly within the object; with fewer, where a curve has fallen or risen is coarse
RULE = (
    "The rule, on medians: the claim holds where the entropy has fallen before the outline (100 % of the object's "
    "area) and each of the two activations comes nearer to the outline than the entropy, on either side of it, and "
    "later in most pictures; in part where one of the two does."
)


def done_at(areas: ArrayLike, values: ArrayLike, direction: int) -> float:
    """The area at which a curve has covered 95 % of its way.

    The way of a falling curve is that from its value at the empty mask down to its lowest value, the way of a rising
    one that up to its highest value; what it does on the other side of its start is none of it. Between two masks the
    curve is taken as straight; the first crossing counts.

    Args:
        areas: (m,) growing from 0, the empty mask's.
        values: (m,) at these areas.
        direction: 1 for a curve that should rise, -1 for one that should fall.

    Returns:
        The area; NaN for a curve that nowhere passes its start: it never falls or rises.
    """
    areas = np.asarray(areas, dtype=np.float64)
    rising = direction * np.asarray(values, dtype=np.float64)
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
    # Rounded, so that correlations that are equal compare as equal.
    return round(float(ranks.prod(axis=0).sum() / scale), 12) if scale > 0 else float("nan")


def summarize(curves: Sequence[Curve]) -> dict[str, dict[str, Any]]:
    """The experiment's numbers over pictures.

    Args:
        curves: one a picture, at least one.

    Returns:
        For the pictures that the network classifies `correct`ly, and for `every` picture:

        - `pictures`, their number; `own_area`, the object's share of the picture; `masks` and `masks_within`, how many
          were measured of a picture, and how many of them are neither empty nor as large as the object;
        - `done_at`: measure -> the mask's area, as a share of the object's own, by :func:`done_at`;
        - `correlation`: `all` masks or those `within` the object (up to its own) -> measure -> rank correlation with
          the mask's IoU, the signs of entropy and background activation turned, so that 1 is the best of each;
        - `short`: measure -> in which share of the pictures it had fallen or risen before the object's own area;
        - `before`: measure -> in which share of the pictures the entropy had fallen before it had fallen or risen;
        - `better` and `equal`: scope -> measure -> in which share of the pictures its correlation beats the entropy's,
          and in which it equals it.

        All spreads are of the `STATISTICS`: standard deviation with n - 1; `count` pictures have a value, `left_out`
        have none: the curve never falls or rises, or it (or the IoU) is constant and has no correlation. Such a
        picture counts against each share. None where there is no picture.
    """
    return {"correct": _summarize([curve for curve in curves if curve.is_correct]), "every": _summarize(curves)}


def _summarize(curves: Sequence[Curve]) -> dict[str, Any]:
    done = {
        name: np.array([done_at(curve.relative_areas, getattr(curve, name), sign) for curve in curves])
        for name, (_, sign) in MEASURES.items()
    }
    correlations = {
        scope: {
            name: np.array([_correlation(curve, name, sign, scope) for curve in curves])
            for name, (_, sign) in MEASURES.items()
        }
        for scope in SCOPES
    }
    return {
        "pictures": len(curves),
        "own_area": _spread(np.array([curve.own_area for curve in curves])),
        "masks": _spread(np.array([len(curve.areas) for curve in curves])),
        "masks_within": _spread(np.array([curve.ious.argmax() - 1 for curve in curves])),
        "done_at": {name: _spread(areas) for name, areas in done.items()},
        "correlation": {
            scope: {name: _spread(values) for name, values in found.items()} for scope, found in correlations.items()
        },
        "short": {name: _share(areas < 1) for name, areas in done.items()},
        "before": {name: _share(done["entropy"] < done[name]) for name in OTHERS},
        "better": {
            scope: {name: _share(found[name] > found["entropy"]) for name in OTHERS}
            for scope, found in correlations.items()
        },
        "equal": {
            scope: {name: _share(found[name] == found["entropy"]) for name in OTHERS}
            for scope, found in correlations.items()
        },
    }


def _correlation(curve: Curve, name: str, sign: int, scope: str) -> float:
    end = len(curve.ious) if scope == "all" else int(curve.ious.argmax()) + 1
    return rank_correlation(sign * getattr(curve, name)[:end], curve.ious[:end])


def _spread(values: np.ndarray) -> dict[str, float | int | None]:
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
    """The numbers of :func:`summarize` as people read them: medians, quartiles and their counts, and the shares."""
    heads = ("fallen or risen, % of the object", *(f"correlation, {title}" for title in SCOPES.values()))
    lines = [f"{'median (quartiles; n)':24}" + "".join(f"{head:>34}" for head in heads)]
    for group, title in GROUPS.items():
        found = summary[group]
        lines.append(f"{title}: {found['pictures']}")
        for name, (words, _) in MEASURES.items() if found["pictures"] else ():
            cells = [_cell(found["done_at"][name], 100, 0)]
            cells += [_cell(found["correlation"][scope][name], 1, 2) for scope in SCOPES]
            lines.append(f"  {words:22}" + "".join(f"{cell:>34}" for cell in cells))
    lines.append("fallen or risen: the mask's area at which the curve has covered 95 % of its way from the empty mask")
    lines.append("correlation: of the ranks, with the mask's IoU, signs turned so that 1 is best; it sees the order")
    lines.append("alone: any curve that only falls or only rises has 1 within the object, however early it is done")
    return "\n".join(lines)


def _cell(spread: Mapping[str, Any], factor: float, digits: int) -> str:
    if not spread["count"]:
        return "- (n 0)"
    median, low, high = (f"{factor * spread[key]:.{digits}f}" for key in STATISTICS[:3])
    return f"{median} ({low} to {high}; {spread['count']})"


def few_masks(summary: Mapping[str, Mapping[str, Any]]) -> str:
    """A warning where too few masks lie within the objects to tell where a curve has fallen or risen; else nothing."""
    within = summary["every"]["masks_within"]["median"]
    if within >= FEW_MASKS:
        return ""
    return (
        f"warning: at the median only {within:g} of the measured masks lie strictly within the object, so where a "
        "curve has fallen or risen is coarse; measure with more --masks, or with larger pictures"
    )


def verdict(summary: Mapping[str, Mapping[str, Any]]) -> str:
    """One sentence on the paper's claim, for the pictures that the network classifies correctly: that the entropy has
    fallen while the mask covers only a part of the object, whereas the activations go on to its outline.

    `RULE` says when it holds. Being nearer to the outline than an entropy that has fallen short of it, an activation
    has no upper bound of its own, but comes before twice the object's area.

    Args:
        summary: of :func:`summarize`.
    """
    found = summary["correct"]
    pictures = found["pictures"]
    if not pictures:
        return "The paper's claim cannot be judged here: no picture is classified correctly."
    done = {name: found["done_at"][name]["median"] for name in MEASURES}
    if done["entropy"] is None:
        return "The paper's claim cannot be judged here: the entropy never falls."
    is_early = done["entropy"] < 1
    follows = {name: _follows(done["entropy"], done[name], found["before"][name]) for name in OTHERS}
    words = "does not hold"
    if is_early and any(follows.values()):
        words = "holds" if all(follows.values()) else "holds in part"
    parts = [
        f"the entropy has fallen by {100 * DONE:.0f} % when the mask covers {100 * done['entropy']:.0f} % of the "
        f"object's area, and before its outline in {100 * found['short']['entropy']:.0f} % of the pictures"
    ]
    for name in OTHERS:
        title, sign = MEASURES[name]
        moved = ("falls", "fallen") if sign < 0 else ("rises", "risen")
        if done[name] is None:
            parts.append(f"the {title} never {moved[0]}")
            continue
        near = "nearer" if abs(done[name] - 1) < abs(done["entropy"] - 1) else "no nearer"
        parts.append(
            f"the {title} has {moved[1]} by as much at {100 * done[name]:.0f} %, {near} to the outline and after the "
            f"entropy in {100 * found['before'][name]:.0f} % of the pictures"
        )
    counted = "1 correctly classified picture" if pictures == 1 else f"{pictures} correctly classified pictures"
    return f"The paper's claim {words} here ({'of' if pictures == 1 else 'medians of'} {counted}): {'; '.join(parts)}."


def _follows(entropy: float, other: float | None, later: float | None) -> bool:
    return other is not None and later > 0.5 and abs(other - 1) < abs(entropy - 1)
