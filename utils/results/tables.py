"""Figures as people read them: tables and the list of failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from utils.metrics import LOC_METRICS, METRICS, PIXEL_METRICS
from utils.models.recipe import Published, PublishedPixels


def score_table(summary: Mapping[str, Any], published: Published | None = None) -> str:
    """The five figures in percent, as the authors' mean over classes and as the mean over images; without boxes, those
    of the classifier alone.

    Args:
        summary: of :meth:`utils.metrics.LocalizationScores.summary`.
        published: the paper's figures, shown beside where given.

    Returns:
        A table, one line a figure.
    """
    paper = asdict(published) if published else {}
    lines = [f"{'':14}{'class mean':>12}{'image mean':>12}" + (f"{'published':>12}" if paper else "")]
    shown = [metric for metric in METRICS if summary["boxed"] or metric not in LOC_METRICS]
    for metric in shown:
        figures = summary[metric]
        line = f"{METRICS[metric]:14}{_cell(figures['class_mean'], 12)}{_cell(figures['image_mean'], 12)}"
        lines.append(line + (f"{paper[metric]:12.2f}" if metric in paper else ""))
    return "\n".join(lines)


def comparison_table(figures: Mapping[str, Mapping[str, Any]], mean: str = "image_mean") -> str:
    """Figures of several methods in percent, one line a method: Loc where there are boxes, PxAP and the IoU of pixels
    at the threshold in force where there are masks.

    Args:
        figures: title -> of :func:`utils.evaluation.summary.summarize_map`; `scores` is enough.
        mean: `image_mean` or `class_mean`.

    Returns:
        The table.
    """
    columns = [(METRICS[metric], "scores", metric) for metric in LOC_METRICS]
    if not any(one["scores"]["boxed"] for one in figures.values()):
        columns = []
    if any(one.get("pixels") for one in figures.values()):
        columns += [(title, "pixels", key) for key, title in PIXEL_METRICS.items()]
    width = max(len(title) for title in figures) + 2
    lines = [f"{_of_what(columns, mean):{width}}" + "".join(f"{head:>{_width(head)}}" for head, *_ in columns)]
    for title, one in figures.items():
        values = [(one.get(group) or {}).get(key) for _, group, key in columns]
        cells = [value[mean] if isinstance(value, Mapping) else value for value in values]
        cell_texts = (_cell(value, _width(head)) for value, (head, *_) in zip(cells, columns, strict=True))
        lines.append(f"{title:{width}}" + "".join(cell_texts))
    return "\n".join(lines)


def _of_what(columns: Sequence[tuple[str, str, str]], mean: str) -> str:
    """What a table's figures are; those of pixels are of all pictures together, whatever the mean over pictures."""
    groups, words = {group for _, group, _ in columns}, mean.replace("_", " ")
    return "percent" if groups == {"pixels"} else f"Loc: {words}" if "pixels" in groups else words


def _width(head: str) -> int:
    return max(14, len(head) + 2)


def pixel_lines(figures: Mapping[str, Any], published: PublishedPixels | None = None) -> list[str]:
    """PxAP and the IoU of pixels, as far as masks allow them.

    Args:
        figures: of :func:`utils.evaluation.summary.summarize_map`.
        published: the paper's figures, shown beside where given.

    Returns:
        Lines to print.
    """
    pixels = figures["pixels"]
    if not pixels:
        return []
    paper = asdict(published) if published else {}
    told = {
        "px_ap": f"over {pixels['images']} masks",
        "iou": f"at threshold {figures['threshold']:g}",
        "peak_iou": f"at threshold {pixels['peak_iou_threshold']:g}, the best on this test set",
    }
    lines = []
    for key, title in PIXEL_METRICS.items():
        beside = f", published {paper[key]:.2f}" if key in paper else ""
        lines.append(f"{title:14}{pixels[key]:12.2f}   {told[key]}{beside}")
    return lines


def further_lines(figures: Mapping[str, Any]) -> list[str]:
    """MaxBoxAcc and the error types, as far as boxes allow them.

    Args:
        figures: of :func:`utils.evaluation.summary.summarize_map`.

    Returns:
        Lines to print.
    """
    lines = []
    if figures["max_box_acc"]:
        accuracy, v2 = figures["max_box_acc"]["max_box_acc"], figures["max_box_acc"]["max_box_acc_v2"]
        each = ", ".join(f"IoU {one['iou']:g}: {one['value']:.2f} at {one['threshold']:g}" for one in v2["at_iou"])
        lines.append(f"MaxBoxAcc     {accuracy['value']:12.2f}   at threshold {accuracy['threshold']:g}")
        lines.append(f"MaxBoxAccV2   {v2['value']:12.2f}   {each}")
        lines.append("              (MaxBoxAcc takes, by its definition, the best thresholds on this test set)")
    if figures["errors"]:
        types = {name: one for name, one in figures["errors"].items() if name != "images" and one["count"]}
        lines.append("errors        " + ", ".join(f"{name} {one['percent']:.1f} %" for name, one in types.items()))
    return lines


def dead_map_line(dead: Mapping[str, Any]) -> str:
    """One line of advice on classes whose foreground maps are dead.

    Args:
        dead: of :meth:`utils.metrics.DeadMaps.summary`, with a count.
    """
    named = [f"{kind}: {some_names(dead[kind])}" for kind in ("empty", "full") if dead[kind]]
    return (
        f"dead maps: {dead['count']} of {dead['classes']} classes ({'; '.join(named)}); such a map learns no more "
        "and says nothing of the place: train anew with a lower --generator_rate or more --warmup_epochs"
    )


def misfit_lines(misfits: Mapping[str, Any]) -> list[str]:
    """The pictures whose boxes cannot be theirs, if there are any; their scores mean nothing.

    Args:
        misfits: of :func:`utils.evaluation.summary.summarize_misfits`.
    """
    count, first = misfits["count"], misfits["first"]
    more = f"; and {count - len(first)} more" if count > len(first) else ""
    verb = "may not" if set(misfits["kinds"]) == {"turned"} else "cannot"
    told = f"boxes that {verb} be their picture's: {count} ({misfits['percent'] or 0:.1f} %): {'; '.join(first)}{more}"
    return [told] if count else []


def caution_lines(cautions: Mapping[str, Any]) -> list[str]:
    """What may mislead about scores, as far as there is anything.

    Args:
        cautions: of :func:`utils.evaluation.summary.cautions`.
    """
    lines = misfit_lines(cautions["misfits"]) if "misfits" in cautions else []
    for name, title in (("whole_crop_boxes", "boxes that are the whole crop"), ("constant_maps", "constant maps")):
        found = {kind: one for kind, one in cautions.get(name, {}).items() if one["count"]}
        listed = ", ".join(f"{kind} {one['count']} ({one['percent']:.1f} %)" for kind, one in found.items())
        lines += [f"{title}: {listed}"] if found else []
    if absent := cautions.get("absent_classes"):
        lines.append(f"classes without a picture, over which no mean is taken: {len(absent)}, {some_names(absent)}")
    dead = cautions["dead_maps"]
    return lines + ([dead_map_line(dead)] if dead is not None and dead["count"] else [])


def some_names(names: Sequence[str], most: int = 5) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def sweep_table(rows: Sequence[Mapping[str, Any]], mean: str) -> str:
    """Localization at the threshold in force and at the best one of these very pictures, one line a kind of map.

    Args:
        rows: of :func:`utils.evaluation.summary.sweep`.
        mean: `image_mean` or `class_mean`.

    Returns:
        The table, which says what was chosen on the test set.
    """
    width = max(len(row["map"]) for row in rows) + 2
    heads = f"{'':{width}}{'in force':>10}{'Top-1 Loc':>11}{'GT-known':>10}  | {'chosen on this test set':>24}"
    lines = [heads + f"{'Top-1 Loc':>11}{'GT-known':>10}"]
    for row in rows:
        cells = [f"{row['map']:{width}}"]
        for threshold, scores, room in (("threshold", "scores", 10), ("best_threshold", "best_scores", 24)):
            figures = row[scores]
            loc = _cell(figures["top1_loc"][mean], 11) + _cell(figures["gt_known_loc"][mean], 10)
            cells.append(f"{row[threshold]:{room}g}{loc}")
        lines.append("  | ".join([cells[0] + cells[1], cells[2]]))
    return "\n".join(lines)


def _cell(value: float | None, width: int) -> str:
    return f"{'-' if value is None else format(value, '.2f'):>{width}}"


def failure_report(failures: Sequence[str], masks: int = 0, most: int = 10) -> str:
    """How many pictures count as misses, how many masks are left out, and the first of them.

    Args:
        failures: a sentence each.
        masks: how many of them are about masks.
        most: sentences to show.

    Returns:
        Lines to print.
    """
    missed, counted = len(failures) - masks, []
    if missed:
        what = "1 picture gives no prediction and counts as a miss"
        counted.append(what if missed == 1 else f"{missed} pictures give no prediction and count as misses")
    if masks:
        counted.append("1 mask is left out" if masks == 1 else f"{masks} masks are left out")
    lines = [f"{'; '.join(counted)}:"]
    lines += [f"  {failure}" for failure in failures[:most]]
    if len(failures) > most:
        lines.append(f"  and {len(failures) - most} more")
    return "\n".join(lines)
