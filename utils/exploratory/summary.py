"""The paper's claim as figures: where each curve has done its work, and how closely it follows the mask's IoU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from utils.exploratory.measure import Curve

DONE = 0.95  # the share of a curve's range after which it counts as done
# Measure -> its title, and the direction in which it goes while the mask grows over the object.
MEASURES = {
    "entropy": ("entropy", -1),
    "activation": ("activation", 1),
    "background_activation": ("background activation", -1),
}
# The masks over which a rank correlation is taken.
SCOPES = {"all": "all masks", "within": "within the object"}
STATISTICS = ("median", "mean", "standard_deviation", "count", "constant")


def done_at(areas: ArrayLike, values: ArrayLike, direction: int) -> float:
    """The area at which a curve has covered 95 % of its range, from where it starts to fall or rise.

    A falling curve is done where it first comes down to its lowest value plus 5 % of its range, a rising one where it
    first reaches its highest value less 5 %; the range is that between its lowest and its highest value. Between two
    masks the curve is taken as straight. A curve that starts there is done at its first area.

    Args:
        areas: (m,) growing.
        values: (m,) at these areas.
        direction: 1 for a curve that should rise, -1 for one that should fall.

    Returns:
        The area; NaN for a constant curve, which has no range.
    """
    areas = np.asarray(areas, dtype=np.float64)
    rising = direction * np.asarray(values, dtype=np.float64)
    lowest, highest = rising.min(), rising.max()
    if lowest == highest:
        return float("nan")
    level = lowest + DONE * (highest - lowest)
    after = int((rising >= level).argmax())
    if after == 0:
        return float(areas[0])
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


def summarize(curves: Sequence[Curve]) -> dict[str, Any]:
    """The experiment's figures over pictures.

    Args:
        curves: one a picture, at least one.

    Returns:
        - `pictures`, `correct` (of which the network classifies), `masks` (mean number a picture), and `own_area`,
          the object's share of the picture;
        - `done_at`: measure -> the mask's area, as a share of the object's own, by :func:`done_at`;
        - `correlation`: `all` masks or those `within` the object -> measure -> rank correlation with the mask's IoU,
          the signs of entropy and background activation turned, so that 1 is the best of each;
        - `before`: measure -> in which share of the pictures the entropy was done at a smaller area than it;
        - `better` and `equal`: scope -> measure -> in which share of the pictures its correlation beats the entropy's,
          and in which it equals it.

        All spreads are `median`, `mean`, `standard_deviation` (n - 1), `count`, and `constant`: how many pictures were
        left out because the measure (or the IoU) does not change. None where nothing is left.
    """
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
    others = [name for name in MEASURES if name != "entropy"]
    return {
        "pictures": len(curves),
        "correct": sum(curve.is_correct for curve in curves),
        "masks": float(np.mean([len(curve.areas) for curve in curves])),
        "own_area": _spread(np.array([curve.own_area for curve in curves])),
        "done_at": {name: _spread(areas) for name, areas in done.items()},
        "correlation": {
            scope: {name: _spread(values) for name, values in found.items()} for scope, found in correlations.items()
        },
        "before": {name: _share(np.less, done["entropy"], done[name]) for name in others},
        "better": {
            scope: {name: _share(np.greater, found[name], found["entropy"]) for name in others}
            for scope, found in correlations.items()
        },
        "equal": {
            scope: {name: _share(np.equal, found[name], found["entropy"]) for name in others}
            for scope, found in correlations.items()
        },
    }


def _correlation(curve: Curve, name: str, sign: int, scope: str) -> float:
    end = len(curve.ious) if scope == "all" else int(curve.ious.argmax()) + 1
    return rank_correlation(sign * getattr(curve, name)[:end], curve.ious[:end])


def _spread(values: np.ndarray) -> dict[str, float | int | None]:
    known = values[~np.isnan(values)]
    count = len(known)
    return {
        "median": float(np.median(known)) if count else None,
        "mean": float(known.mean()) if count else None,
        "standard_deviation": float(known.std(ddof=1)) if count > 1 else None,
        "count": count,
        "constant": len(values) - count,
    }


def _share(compare: np.ufunc, first: np.ndarray, second: np.ndarray) -> float | None:
    """The share of the pictures in which both are known where the comparison holds."""
    known = ~(np.isnan(first) | np.isnan(second))
    return float(compare(first[known], second[known]).mean()) if known.any() else None


def table(summary: Mapping[str, Any]) -> str:
    """The figures of :func:`summarize` as people read them: medians, with means and standard deviations."""
    heads = ("done at, % of the object", *(f"correlation, {title}" for title in SCOPES.values()))
    lines = [f"{'median (mean ± s.d.)':24}" + "".join(f"{head:>31}" for head in heads)]
    for name, (title, _) in MEASURES.items():
        cells = [_cell(summary["done_at"][name], 100, 0)]
        cells += [_cell(summary["correlation"][scope][name], 1, 2) for scope in SCOPES]
        lines.append(f"{title:24}" + "".join(f"{cell:>31}" for cell in cells))
    lines.append(
        "(correlation: of the ranks, with the mask's IoU; 1 is best, the signs of the falling ones are turned)"
    )
    return "\n".join(lines)


def _cell(spread: Mapping[str, Any], factor: float, digits: int) -> str:
    median, mean, deviation = (
        "-" if spread[key] is None else f"{factor * spread[key]:.{digits}f}" for key in STATISTICS[:3]
    )
    left_out = f", {spread['constant']} constant" if spread["constant"] else ""
    return f"{median} ({mean} ± {deviation}{left_out})"


def verdict(summary: Mapping[str, Any]) -> str:
    """One sentence on the paper's claim: that the entropy is done while the mask covers only a part of the object,
    whereas activation and background activation go on to its outline.

    An activation is taken to go on to the outline where it is done after the entropy in most pictures, and at the
    median nearer to the object's own area than the entropy. The claim holds where the entropy is done before the
    outline at the median and both activations go on to it; in part where one of them does.

    Args:
        summary: of :func:`summarize`.
    """
    done = {name: summary["done_at"][name]["median"] for name in MEASURES}
    if done["entropy"] is None:
        return "The paper's claim cannot be judged here: the entropy is constant in every picture."
    follows = {name: _follows(done["entropy"], done[name], share) for name, share in summary["before"].items()}
    is_early = done["entropy"] < 1
    words = "does not hold"
    if is_early and any(follows.values()):
        words = "holds" if all(follows.values()) else "holds in part"
    amount, area = f"{100 * DONE:.0f} % of its range", f"{100 * done['entropy']:.0f} % of the object's area"
    parts = [
        f"the entropy has fallen by {amount} when the mask covers {area}, {'short of' if is_early else 'not before'} "
        "its outline"
    ]
    for name, share in summary["before"].items():
        title, sign = MEASURES[name]
        if done[name] is None or share is None:
            parts.append(f"the {title} is constant in every picture")
            continue
        moved = "risen" if sign > 0 else "fallen"
        near = "nearer" if abs(done[name] - 1) < abs(done["entropy"] - 1) else "no nearer"
        parts.append(
            f"the {title} has {moved} so far at {100 * done[name]:.0f} %, {near} to the outline and after the entropy "
            f"in {100 * share:.0f} % of the pictures"
        )
    pictures = summary["pictures"]
    counted = "of 1 picture" if pictures == 1 else f"medians of {pictures} pictures"
    return f"The paper's claim {words} here ({counted}): {'; '.join(parts)}."


def _follows(entropy: float, other: float | None, later: float | None) -> bool:
    return other is not None and later is not None and later > 0.5 and abs(other - 1) < abs(entropy - 1)
