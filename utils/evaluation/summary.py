"""The figures of an evaluation as plain values, for tables, JSON and the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from utils.evaluation.kinds import MapKind
from utils.evaluation.misfits import SHOWN
from utils.evaluation.records import Evaluation
from utils.metrics import LOC_METRICS, METRICS, iou_distribution


def evaluation_record(evaluation: Evaluation, class_names: Sequence[str]) -> dict[str, Any]:
    """All figures of an evaluation as its file holds them, whether training, the demo or `BAS_inference.py` made it.

    Args:
        evaluation: of :func:`utils.evaluation.run.evaluate`.
        class_names: K names.

    Returns:
        The rules (`protocol`, the `mean` that it prints, `ten_crops`, `resize_size`, `crop_size`, `align_maps`), `map`,
        the title of the main kind of map, with its figures of :func:`summarize_map`, `maps` (title -> `kind`, `top_k`
        and figures of each kind), :func:`cautions` and `failures`.
    """
    spec = evaluation.spec
    return {
        "protocol": spec.protocol.name,
        "mean": spec.protocol.mean,
        "ten_crops": spec.ten_crops,
        "resize_size": spec.resize_size,
        "crop_size": spec.crop_size,
        "align_maps": spec.align,
        "map": spec.main.title,
        **summarize_map(evaluation, spec.main),
        "maps": {
            kind.title: {"kind": kind.kind, "top_k": kind.top_k, **summarize_map(evaluation, kind)}
            for kind in spec.thresholds
        },
        "cautions": cautions(evaluation, class_names),
        "failures": evaluation.failures,
    }


class RecordedMap(NamedTuple):
    """One kind of map in the file of an evaluation."""

    kind: str  # of `utils.evaluation.kinds.KINDS`
    top_k: int | None
    figures: Mapping[str, Any]  # of `summarize_map`; of older versions' files `scores` and perhaps `threshold` alone

    @property
    def scores(self) -> Mapping[str, Any]:
        """Of :meth:`utils.metrics.LocalizationScores.summary`."""
        return self.figures["scores"]


def recorded_maps(record: Mapping[str, Any]) -> list[RecordedMap]:
    """The kinds of maps in an evaluation's file, the main one first.

    Args:
        record: what the file holds: of :func:`evaluation_record`, or as older versions wrote it: the demo scores by
            kind, with thresholds apart and a list of other k, training those of BAS alone.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is no such record.
    """
    if "maps" in record:
        return [RecordedMap(one["kind"], one["top_k"], one) for one in record["maps"].values()]
    scores = record["scores"]
    if "boxed" in scores:
        return [RecordedMap("bas", None, {"scores": scores})]
    thresholds = record.get("thresholds", {})
    found = [RecordedMap(kind, None, {"scores": scores[kind], "threshold": thresholds.get(kind)}) for kind in scores]
    return found + [RecordedMap("bas", one["k"], one) for one in record.get("top_k", ())]


def first_of_kind(maps: Sequence[RecordedMap], kind: str) -> RecordedMap:
    """The first of a kind of map; KeyError if there is none."""
    for one in maps:
        if one.kind == kind:
            return one
    raise KeyError(kind)


def summarize_map(evaluation: Evaluation, kind: MapKind) -> dict[str, Any]:
    """All figures of one kind of map at its threshold in force.

    Args:
        evaluation: of :func:`utils.evaluation.run.evaluate`.
        kind: one that was fully scored.

    Returns:
        `threshold`, `scores` (:meth:`LocalizationScores.summary`), `errors`, `iou`, `edges`, `max_box_acc`, `pixels`;
        what the data set's boxes and masks do not allow is None.
    """
    result = evaluation.maps[kind]
    seen = evaluation.boxed & ~result.missed
    boxes, accuracy, pixels = evaluation.boxed.any(), result.max_box_acc, result.pixels
    return {
        "threshold": result.threshold,
        "scores": evaluation.scores(kind).summary(),
        "errors": evaluation.breakdown(kind) if boxes else None,
        "iou": iou_distribution(result.ious[seen, result.in_force]) if seen.any() else None,
        "edges": edges(evaluation.reached_edges(kind)),
        "max_box_acc": accuracy.summary() if accuracy is not None and boxes else None,
        "pixels": {**pixels.summary(), "iou": pixels.iou_at(result.threshold)}
        if pixels is not None and pixels.marks_objects
        else None,
    }


def edges(reached: np.ndarray) -> dict[str, float] | None:
    """How many boxes reach each edge of the crop, in percent; None where there are none.

    Args:
        reached: of :meth:`Evaluation.reached_edges`.
    """
    if not len(reached):
        return None
    return dict(zip(("left", "top", "right", "bottom"), (100 * reached.mean(axis=0)).tolist(), strict=True))


def cautions(evaluation: Evaluation, class_names: Sequence[str]) -> dict[str, Any]:
    """What may mislead about an evaluation's scores.

    Args:
        evaluation: of :func:`utils.evaluation.run.evaluate`.
        class_names: K names.

    Returns:
        `misfits`: :func:`summarize_misfits`.
        By kind of map, `count` and `percent` of the pictures with a prediction: `whole_crop_boxes`, boxes that are the
        whole crop: such a box is right wherever the object fills the picture, and tells nothing; `constant_maps`, maps
        that are the same everywhere, and so draw no other box.
        `dead_maps`: :meth:`utils.metrics.DeadMaps.summary` of the label's own foreground map, None if it was not asked.
        `absent_classes`: the names of those that no picture shows; means over classes are over the others.
    """
    boxes, constant = {}, {}
    for kind in evaluation.spec.thresholds:
        result = evaluation.maps[kind]
        predicted = int((~result.missed).sum())
        boxes[kind.title] = _share(evaluation.whole_crop_boxes(kind), predicted)
        constant[kind.title] = _share(int(result.constant.sum()), predicted)
    dead = evaluation.dead_maps()
    return {
        "misfits": summarize_misfits(evaluation),
        "whole_crop_boxes": boxes,
        "constant_maps": constant,
        "dead_maps": dead.summary(class_names) if dead is not None else None,
        "absent_classes": [class_names[label] for label in np.setdiff1d(range(len(class_names)), evaluation.labels)],
    }


def _share(count: int, whole: int) -> dict[str, Any]:
    return {"count": count, "percent": 100 * count / whole if whole else None}


def summarize_misfits(evaluation: Evaluation) -> dict[str, Any]:
    """The pictures whose boxes cannot be theirs.

    Returns:
        `count`, `percent` of the pictures with boxes, count by kind of :data:`utils.evaluation.misfits.REASONS` as
        `kinds`, and a phrase about each of the `first` ones.
    """
    misfits = evaluation.misfits
    return {
        **_share(len(misfits), evaluation.checked),
        "kinds": dict(Counter(misfit.kind for misfit in misfits)),
        "first": [misfit.text for misfit in misfits[:SHOWN]],
    }


def sweep(evaluation: Evaluation) -> list[dict[str, Any]]:
    """For every kind of map, the threshold in force and the one that is best on these very pictures.

    Returns:
        A list of `map`, `top_k`, `threshold`, `scores`, `best_threshold`, `best_scores`.
    """
    rows = []
    for kind, result in evaluation.maps.items():
        best = evaluation.best_threshold(kind)
        rows.append(
            {
                "map": kind.title,
                "top_k": kind.top_k,
                "threshold": result.threshold,
                "scores": evaluation.scores(kind).summary(),
                "best_threshold": best,
                "best_scores": evaluation.scores(kind, best).summary(),
            }
        )
    return rows


def curves(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Loc against threshold for every fully scored map, and against top-k for the generator's; where there are masks
    and no boxes, what their pixels tell.

    Returns:
        A list of `title`, `x_label`, `y_label`, `x`, `series` (name -> values in percent) and `mark`, the x in force.
    """
    spec, mean = evaluation.spec, evaluation.spec.protocol.mean
    if not evaluation.boxed.any():
        return _pixel_curves(evaluation)
    titles = {metric: METRICS[metric] for metric in LOC_METRICS}

    def against(
        x_label: str, title: str, x: Sequence[Any], means: Sequence[Mapping[str, Any]], mark: Any
    ) -> dict[str, Any]:
        series = {name: [one[metric][mean] for one in means] for metric, name in titles.items()}
        return _curve(
            f"{title}: Loc against {x_label}", x_label, f"percent ({mean.replace('_', ' ')})", x, series, mark
        )

    drawn = []
    for kind in spec.thresholds:
        result = evaluation.maps[kind]
        means = [evaluation.scores(kind, threshold).means() for threshold in result.thresholds]
        drawn.append(against("threshold", kind.title, list(result.thresholds), means, result.threshold))
    fused = sorted((kind for kind in evaluation.maps if kind.kind == "bas"), key=lambda kind: kind.top_k or 0)
    if len(fused) > 1:
        in_force = [evaluation.scores(kind).means() for kind in fused]
        best = [evaluation.scores(kind, evaluation.best_threshold(kind)).means() for kind in fused]
        drawn.append(against("top-k", "BAS", [kind.top_k for kind in fused], in_force, spec.main.top_k))
        of_best = [one["gt_known_loc"][mean] for one in best]
        drawn[-1]["series"]["GT-known Loc, best threshold on this test set"] = of_best
    return drawn


def _pixel_curves(evaluation: Evaluation) -> list[dict[str, Any]]:
    """IoU, precision and recall of pixels against threshold, for every kind of map."""
    drawn = []
    for kind in evaluation.spec.thresholds:
        result = evaluation.maps[kind]
        if result.pixels is None or not result.pixels.marks_objects:
            continue
        values = result.pixels.curves()
        below = values["threshold"] < 1
        x, *series = (values[name][below].tolist() for name in ("threshold", "iou", "precision", "recall"))
        named = dict(zip(("IoU", "precision", "recall"), series, strict=True))
        title = f"{kind.title}: pixels against threshold"
        drawn.append(_curve(title, "threshold", "percent", x, named, result.threshold))
    return drawn


def _curve(
    title: str, x_label: str, y_label: str, x: Sequence[Any], series: Mapping[str, Sequence[float]], mark: Any
) -> dict[str, Any]:
    return {"title": title, "x_label": x_label, "y_label": y_label, "x": x, "series": series, "mark": mark}
