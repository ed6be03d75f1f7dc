"""`python -m utils.segmentation seeds` and `evaluate`: mean IoU, and the files that go with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.data.dataset import Dataset
from utils.data.split import Split, spread
from utils.metrics.segmentation import IGNORED, Confusion, SeedScores, seeds
from utils.results.charts import draw_chart, save_figure
from utils.segmentation.arguments import MaskSettings, SeedSettings
from utils.segmentation.figures import save_mask_sheet
from utils.segmentation.kinds import THRESHOLDS
from utils.segmentation.store import RECORD, find_mask, read_maps, read_mask, require_maps, save_mask
from utils.system.errors import UsageError, UserError
from utils.system.files import read_json, require_writable, write_json
from utils.system.progress import progress_bar

RESULTS, CURVE, SHEET = "results.json", "curve.svg", "sheet.png"


def score_seeds(dataset: Dataset, settings: SeedSettings) -> dict[str, Any]:
    """Scores the seeds that maps give; prints, and writes what was asked for.

    Returns:
        What results.json holds.

    Raises:
        UserError: whatever the user can put right.
    """
    root = settings.root or dataset.root
    split = _load_list(dataset, root, settings.of_list)
    require_maps(settings.maps, split.ids)
    title = _title_of(settings.maps)
    if settings.save is not None:
        _require_new(settings.save, (RESULTS, *(f"{image_id}.png" for image_id in split.ids)))
    truth, threshold, chosen = _with_masks(split), settings.threshold, "given"
    select_on = None if settings.select_on == settings.of_list else settings.select_on
    if select_on is not None:
        other = _load_list(dataset, root, select_on)
        require_maps(settings.maps, other.ids)
        threshold = _best_threshold(count_seeds(other, _with_masks(other), settings.maps), select_on)
        chosen = f"the best on {select_on}"
    known = THRESHOLDS if threshold is None else tuple(sorted({*THRESHOLDS, threshold}))
    scores = count_seeds(split, truth, settings.maps, known)
    if threshold is None:
        threshold, chosen = _best_threshold(scores, settings.of_list), "the best on these very pictures"
    results: dict[str, Any] = {"what": f"seeds of {title}", "list": settings.of_list, "maps": str(settings.maps)}
    results |= {"threshold": threshold, "threshold_from": chosen, "layout": split.layout}
    print(f"seeds of {title}, threshold {threshold:g}, {chosen}")
    if scores.counts.any():
        results |= scores.confusion(threshold).summary()
        results["curve"] = {"thresholds": list(scores.thresholds), "miou": scores.curve()}
        print(iou_table(results, dataset.class_names()))
    if settings.save is not None:
        for image_id in progress_bar(split.ids, "seeds"):
            maps = read_maps(settings.maps, image_id)
            save_mask(settings.save / f"{image_id}.png", seeds(maps.high_res, maps.keys, threshold))
        _save(settings.save, results, split, truth, settings.vis)
        if "curve" in results:
            curve = {
                "title": f"seeds of {title}: mean IoU against the background's threshold",
                "x_label": "threshold",
                "y_label": "percent",
                "x": results["curve"]["thresholds"],
                "series": {"mean IoU": results["curve"]["miou"]},
                "mark": threshold,
            }
            print(f"look at {save_figure(settings.save / CURVE, draw_chart(curve))}")
    return results


def count_seeds(
    split: Split, indices: Sequence[int], folder: Path, thresholds: Sequence[float] = THRESHOLDS
) -> SeedScores:
    """Counts the pixels of some pictures of a split, at all thresholds in one pass.

    Raises:
        UserError: maps or masks are damaged, or not of the same size.
    """
    scores = SeedScores(len(split.class_names), thresholds)
    for image_id, path in _masks_of(split, indices, "scores"):
        maps = read_maps(folder, image_id)
        try:
            scores.update(maps.high_res, maps.keys, read_mask(path, len(split.class_names)))
        except ValueError as error:
            raise UserError(f"{path} and {folder / image_id}.npz do not go together: {error}") from error
    return scores


def score_masks(dataset: Dataset, settings: MaskSettings) -> dict[str, Any]:
    """Scores masks of any origin; as :func:`score_seeds`."""
    split = _load_list(dataset, settings.root or dataset.root, settings.of_list)
    truth = _with_masks(split)
    if not truth:
        raise UserError(f"no picture of {settings.of_list} has a mask to compare with ({split.layout})")
    if settings.save is not None:
        _require_new(settings.save, (RESULTS, SHEET))
    names = [split.ids[index] for index in truth]
    found = {name: path for name in names if (path := find_mask(settings.masks, name)) is not None}
    missing = [name for name in names if name not in found]
    if missing:
        raise UserError(
            f"{settings.masks} has no {missing[0]}.png or .npy, as for {len(missing)} of {len(names)} pictures of the "
            "list; add them, or name another --list"
        )
    confusion, unsure = Confusion(len(split.class_names)), 0
    for image_id, path in _masks_of(split, truth, "scores"):
        predicted = read_mask(found[image_id], len(split.class_names))
        unsure += int(np.count_nonzero(predicted == IGNORED))
        try:
            confusion.update(np.where(predicted == IGNORED, 0, predicted), read_mask(path, len(split.class_names)))
        except ValueError as error:
            raise UserError(f"{found[image_id]} and {path} do not go together: {error}") from error
    results: dict[str, Any] = {"what": f"masks in {settings.masks}", "list": settings.of_list, "layout": split.layout}
    if not confusion.counts.any():
        raise UserError(f"the masks of {settings.of_list} mark no pixel that counts ({split.layout})")
    results |= {**confusion.summary(), "unsure_pixels": unsure}
    print(iou_table(results, dataset.class_names()))
    if unsure:
        print(f"{unsure} pixels of the masks are {IGNORED}, unsure, and count as background")
    if settings.save is not None:
        _save(settings.save, results, split, truth, settings.vis, settings.masks)
    return results


def _best_threshold(scores: SeedScores, name: str) -> float:
    if not scores.counts.any():
        raise UsageError(f"no picture of {name} has a mask to choose the threshold by; give --threshold")
    return scores.best_threshold()


def _require_new(folder: Path, names: Iterable[str]) -> None:
    """UsageError if files of these names are in a folder already, whoever made them; UserError if it takes none."""
    for name in names:
        if (folder / name).exists():
            raise UsageError(f"{folder / name} is there already; name a new folder with --save")
    require_writable(folder)


def iou_table(results: dict[str, Any], class_names: Sequence[str]) -> str:
    """The mean IoU and that of each class, in percent."""
    names = ("background", *class_names)
    width = max(map(len, names)) + 2
    rows = [f"{'IoU, percent':{width}}{results['images']:>7} pictures"]
    for name, value in zip(names, results["ious"], strict=True):
        rows.append(f"{name:{width}}{'-' if value is None else format(value, '.2f'):>7}")
    return "\n".join([*rows, f"{'mean':{width}}{results['miou']:7.2f}"])


def _load_list(dataset: Dataset, root: Path, name: str) -> Split:
    split = dataset.load_list(root, name)
    print(f"{dataset.name} {name}: {len(split)} pictures; {split.layout}")
    return split


def _with_masks(split: Split) -> list[int]:
    return [index for index, image_id in enumerate(split.ids) if image_id in split.masks]


def _masks_of(split: Split, indices: Sequence[int], description: str) -> Iterator[tuple[str, Path]]:
    for index in progress_bar(indices, description):
        image_id = split.ids[index]
        yield image_id, split.masks[image_id].objects[0]


def _title_of(folder: Path) -> str:
    path = folder / RECORD
    if not path.is_file():
        return f"the maps in {folder}"
    return read_json(path, "is no record of maps", "make the maps anew", lambda record: str(record["title"]))


def _save(
    folder: Path, results: dict[str, Any], split: Split, truth: Sequence[int], vis: int, masks: Path | None = None
) -> None:
    """results.json and the sheet; the masks lie in the folder itself unless given."""
    write_json(folder / RESULTS, results)
    print(f"figures saved in {folder / RESULTS}")
    shown = np.zeros(len(split), dtype=bool)
    shown[list(truth) or slice(None)] = True
    if vis:
        print(f"look at {save_mask_sheet(folder / SHEET, split, spread(shown, vis), masks or folder)}")
