"""`BAS_inference.py` on a labelled test set: one pass, then tables, curves, files."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from utils.data.listing import places_of
from utils.data.mask_levels import OBJECT
from utils.data.masks import understand_masks
from utils.data.split import Split, spread
from utils.data.transforms import as_image
from utils.evaluation.gallery import save_gallery
from utils.evaluation.kinds import MapKind
from utils.evaluation.map_files import are_scored, begin_maps, count_maps, save_map
from utils.evaluation.protocols import PAPER_PROTOCOLS
from utils.evaluation.records import Evaluation, MapResult, Observation
from utils.evaluation.run import build_loader, evaluate
from utils.evaluation.selection import choose_thresholds, with_thresholds
from utils.evaluation.spec import EvaluationSpec, build_spec, threshold_grid
from utils.evaluation.summary import curves, evaluation_record, sweep
from utils.inference.arguments import EvaluationSettings
from utils.inference.loading import Loaded, require_same_classes
from utils.inference.placing import place_maps
from utils.localization.boxes import crop_boxes_to_image
from utils.metrics import MISSED
from utils.metrics.pixels import reaches
from utils.models.recipe import STRETCHED, Published, PublishedPixels, marked
from utils.results.charts import save_charts
from utils.results.report import ImageRecord, Report
from utils.results.report.thumbnails import draw_thumbnail, encode_jpeg
from utils.results.tables import (
    caution_lines,
    comparison_table,
    failure_report,
    further_lines,
    pixel_lines,
    score_table,
    sweep_table,
)
from utils.runs.provenance import tf32_settings, versions
from utils.runs.recorded import EVALUATION_SETTINGS
from utils.system.errors import UsageError, UserError
from utils.system.files import file_digest, require_writable, write_json
from utils.system.processes import is_main, wait_for_all

# Of --sweep; 80 and 200 are CUB's recipes. Between the thresholds of other k than the one in force.
TOP_KS = (1, 2, 5, 10, 20, 50, 80, 100, 200)
SWEPT_STEP = 0.05


def run(loaded: Loaded, settings: EvaluationSettings, given: Mapping[str, Any]) -> None:
    """Evaluates on the test split, prints the figures and writes what was asked for.

    The processes of a run share the pictures; the first one alone has the figures and the files.

    Args:
        loaded: the network, its settings and the data set.
        settings: what was asked.
        given: settings of the recipe that were given.

    Raises:
        UserError: whatever the user can correct.
    """
    dataset = loaded.dataset
    root = settings.root or dataset.root
    split = dataset.load_split(root, "test")
    require_same_classes(loaded, split)
    is_whole = not dataset.is_own and len(dataset.class_names()) == len(split.class_names)
    if settings.classes or is_whole:  # any other data set names its classes itself
        split = replace(split, class_names=loaded.class_names)
    name = dataset.shown
    print(f"{name} test: {len(split)} pictures, {len(split.class_names)} classes; {split.layout}")
    if not split.boxes and not split.masks:
        raise UserError(f"the test split has neither boxes nor masks ({split.layout}); there is nothing to score")
    if not split.boxes:
        loaded = replace(loaded, protocol=loaded.protocol.for_masks())
        if settings.top_ks:
            raise UsageError(f"--top-ks compares boxes and the test split has none ({split.layout}); leave it out")
    spec = build_test_spec(loaded, settings, given, split)
    rules = {
        "map": spec.main.title,
        "protocol": spec.protocol.name,
        "resize_size": spec.resize_size,
        "crop_size": spec.crop_size,
        "align_maps": spec.align,
    }
    spec = place_maps(loaded, spec, settings.root, settings.batch_size, settings.num_workers)
    if settings.map_files:
        spec = replace(spec, are_scored=are_scored(settings.map_files, rules))
        print(f"maps in {settings.map_files} for {count_maps(settings.map_files, split.ids)} of {len(split)} pictures")
    if settings.save_maps:
        require_writable(settings.save_maps, "--save-maps")
        if is_main():
            network = {name: getattr(loaded.recipe, name) for name in marked("of_heads")}
            begin_maps(settings.save_maps, {**rules, **network, "sha256": file_digest(loaded.checkpoint.path)})
        wait_for_all()  # nobody saves a map before it is known that none of another kind is there
    if split.masks:
        print(f"masks: {understand_masks(split.masks.values(), spec.protocol.any_level)}")

    with ExitStack() as stack:
        report = None
        if settings.save and is_main():
            report = stack.enter_context(Report(settings.save, split.class_names, f"{loaded.model.arch} on {name}"))
        spec, selected = select_thresholds(loaded, spec, settings, split)
        print(_settings_line(loaded, spec))
        begin = time.perf_counter()
        loader = build_loader(split, spec, settings.batch_size, settings.num_workers, loaded.device)
        observe = partial(_observe, split, settings) if settings.save or settings.save_maps else None
        receive = None if report is None else lambda described: report.add(*described)
        evaluation = evaluate(
            loaded.model, loader, split, spec, loaded.device, observe=observe, receive=receive, scorers=settings.scorers
        )
        if not is_main():
            return
        seconds = time.perf_counter() - begin
        published = find_published(loaded, spec, bool(split.boxes))
        results = collect(loaded, evaluation, split, settings, given, seconds, published, spec.main in selected)
        print_results(evaluation, results, published)
        if report is not None:
            print(f"look at {report.finish(results)}")
    if settings.save_maps:
        print(f"maps of {spec.main.title} saved in {settings.save_maps}")
    if settings.json:
        print(f"figures saved in {write_json(settings.json, results)}")
    if settings.sweep and not settings.save:
        for path in save_charts(loaded.checkpoint.path.parent, f"{loaded.model.arch}_sweep", results["curves"]):
            print(f"look at {path}")
    readable = ~evaluation.failed
    readable[list(evaluation.failure_of)] = False  # a mask that cannot be read
    if settings.vis and readable.any():
        path = (settings.save or loaded.checkpoint.path.parent) / f"{loaded.model.arch}_test.png"
        indices = spread(readable, settings.vis)
        print(f"look at {save_gallery(path, loaded.model, split, indices, spec, loaded.device)}")
    if np.logical_and.reduce([result.missed for result in evaluation.maps.values()]).all():
        raise UserError(f"none of the {len(split)} pictures has a prediction, as listed above; check the files")


def build_test_spec(
    loaded: Loaded, settings: EvaluationSettings, given: Mapping[str, Any], split: Split
) -> EvaluationSpec:
    """What the arguments ask of the test set, as far as its boxes and masks can answer."""
    sweeps_boxes = settings.sweep and bool(split.boxes)
    spec = build_spec(
        loaded.recipe,
        loaded.protocol,
        settings.kinds,
        settings.tencrop,
        given.get("threshold"),
        given.get("top_k"),
        grid=threshold_grid() if sweeps_boxes else (),
        contour_grid=threshold_grid(settings.max_box_acc_step) if split.boxes else (),
        with_masks=bool(split.masks),
        amp=loaded.amp,
        map_folder=settings.map_files,
        ignore_misfits=settings.ignore_misfits,
    )
    if not (sweeps_boxes and "bas" in settings.kinds):
        return spec
    (main,) = (kind for kind in spec.thresholds if kind.kind == "bas")
    top_ks = sorted({min(k, loaded.model.num_classes) for k in settings.top_ks or TOP_KS} - {main.top_k})
    bas = spec.thresholds[main]
    swept = {MapKind("bas", k): bas for k in top_ks}
    return replace(spec, swept=swept, swept_grid=threshold_grid(SWEPT_STEP))


def select_thresholds(
    loaded: Loaded, spec: EvaluationSpec, settings: EvaluationSettings, test: Split
) -> tuple[EvaluationSpec, set[MapKind]]:
    """The spec with each map's threshold at its best on `--select-on`, which must share no picture with the test split,
    and the maps of which one was chosen; none where that is not given."""
    if settings.select_on is None:
        return spec, set()
    root = settings.root or loaded.dataset.root
    split = loaded.dataset.load_split(root, settings.select_on)
    require_same_classes(loaded, split)
    follow = settings.select_on == "val"  # asks for every file; of ImageNet's training pictures that would take minutes
    if not set(places_of(split.paths, follow)).isdisjoint(places_of(test.paths, follow)):
        raise UsageError(
            f"--select-on {settings.select_on} would choose on the test pictures themselves ({split.layout}); choose "
            "train, or keep val and test apart"
        )
    twice = set(split.ids) & set(test.ids)
    if settings.map_files and twice:
        raise UsageError(
            f"--select-on {settings.select_on}: {min(twice)} is a picture there and in the test set, and both would be "
            f"scored by the same file of {settings.map_files}; give other names, or choose without --map-files"
        )
    reading = settings.batch_size, settings.num_workers, settings.scorers
    chosen = choose_thresholds(loaded.model, split, spec, loaded.device, *reading)
    listed = ", ".join(f"{kind.title} {threshold:g}" for kind, threshold in chosen.items())
    best = "GT-known Loc" if split.boxes else "pixel IoU"
    if chosen:
        count = len((split.boxes or split.masks).keys() & set(split.ids))
        print(f"thresholds with the highest {best} on the {count} pictures of {settings.select_on}: {listed}")
    return with_thresholds(spec, chosen), set(chosen)


def find_published(loaded: Loaded, spec: EvaluationSpec, has_boxes: bool) -> Published | PublishedPixels | None:
    """A paper's figures, where they are about the same: its model, the whole data set, BAS, its protocol."""
    dataset, paper = loaded.dataset, loaded.recipe.name
    is_whole = loaded.model.num_classes == dataset.num_classes and not dataset.is_own
    rules = PAPER_PROTOCOLS[paper]
    is_comparable = spec.main.kind == "bas" and spec.protocol is (rules if has_boxes else rules.for_masks())
    return dataset.published(loaded.model.arch, paper) if is_whole and is_comparable else None


def _settings_line(loaded: Loaded, spec: EvaluationSpec) -> str:
    thresholds = ", ".join(f"{kind.title} threshold {value:g}" for kind, value in spec.thresholds.items())
    crops = "ten crops" if spec.ten_crops else "one crop"
    size = f"{spec.resize_size} px, crop {spec.crop_size}"
    size += "" if spec.align == STRETCHED else f", {spec.align} maps"
    relu = f"final ReLU {'on' if loaded.recipe.final_relu else 'off'}, recipe {loaded.recipe.name}"
    relu += f", generator at {loaded.recipe.tap}" if loaded.recipe.tap else ""
    where = f"{loaded.device}{' in float16' if spec.amp else ''}"
    return f"settings: {thresholds}; {size}, {crops}; {relu}; {where}\nprotocol: {spec.protocol.title}"


def collect(
    loaded: Loaded,
    evaluation: Evaluation,
    split: Split,
    settings: EvaluationSettings,
    given: Mapping[str, Any],
    seconds: float,
    published: Published | PublishedPixels | None,
    is_selected: bool,
) -> dict[str, Any]:
    """All figures with what made them, as JSON holds them; `is_selected`: the threshold is that of `--select-on`."""
    spec = evaluation.spec
    in_force = {name: getattr(loaded.recipe, name) for name in EVALUATION_SETTINGS}
    main = spec.main
    in_force |= {
        "threshold": spec.thresholds[main],
        "top_k": main.top_k,
        "resize_size": spec.resize_size,
        "crop_size": spec.crop_size,
    }
    source = "settings" if main.kind == "bas" else "default"
    if "threshold" in given:
        source = "flag"
    elif is_selected:
        source = f"{settings.select_on} split"
    return {
        "dataset": loaded.dataset.shown,
        "arch": loaded.model.arch,
        "checkpoint": str(loaded.checkpoint.path),
        "batch_size": settings.batch_size,
        "amp": spec.amp,
        "max_box_acc_step": settings.max_box_acc_step,
        "settings": in_force,
        "threshold_from": source,
        **evaluation_record(evaluation, split.class_names),
        "sweep": sweep(evaluation) if spec.grid else None,
        "curves": curves(evaluation) if settings.sweep else [],
        "published": asdict(published) if published else None,
        "seconds": seconds,
        "tf32": tf32_settings(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "versions": versions(loaded.device),
    }


def print_results(
    evaluation: Evaluation, results: dict[str, Any], published: Published | PublishedPixels | None
) -> None:
    """The tables."""
    spec, count = evaluation.spec, len(evaluation.labels)
    has_boxes = bool(evaluation.boxed.any())
    of_boxes = score_table(results["scores"], published if isinstance(published, Published) else None)
    of_pixels = pixel_lines(results, published if isinstance(published, PublishedPixels) else None)
    lines = [of_boxes, *further_lines(results), *of_pixels] if has_boxes else [*of_pixels, of_boxes]
    print("\n".join([*lines, *caution_lines(results["cautions"])]))
    if spec.with_masks and results["pixels"] is None:
        print("no PxAP: no mask that could be read marks an object inside the crop")
    if len(spec.thresholds) > 1:
        rows = {
            f"{kind.title} (threshold {value:g})": results["maps"][kind.title]
            for kind, value in spec.thresholds.items()
        }
        print(f"\n{comparison_table(rows, spec.protocol.mean)}")
    if results["sweep"]:
        print(f"\n{sweep_table(results['sweep'], spec.protocol.mean)}")
    print(f"{count} pictures in {results['seconds']:.1f} s, {count / results['seconds']:.1f} a second")
    if evaluation.failures:
        missed = np.logical_or.reduce([result.missed for result in evaluation.maps.values()]).sum()
        print(failure_report(evaluation.failures, masks=len(evaluation.failures) - int(missed)))


def _observe(
    split: Split, settings: EvaluationSettings, evaluation: Evaluation, seen: Observation
) -> tuple[ImageRecord, bytes | None] | None:
    if settings.save_maps and seen.main_map is not None:
        save_map(settings.save_maps, split.ids[seen.index], seen.main_map)
    return describe(split, evaluation, seen) if settings.save else None


def describe(split: Split, evaluation: Evaluation, seen: Observation) -> tuple[ImageRecord, bytes | None]:
    """A picture's row of images.csv, with its thumbnail for the page; None where it is unreadable."""
    spec, index = evaluation.spec, seen.index
    result = evaluation.maps[spec.main]
    image_id, size = split.ids[index], tuple(evaluation.sizes[index].tolist())
    failed = bool(result.missed[index])
    box: tuple[float, ...] | None = None
    if not failed:
        drawn = crop_boxes_to_image(result.boxes[index], size, spec.resize_size, spec.crop_size)
        box = tuple(drawn.clip(0, [*size, *size]).tolist())
    record = ImageRecord(
        id=image_id,
        label=int(split.labels[index]),
        top5=() if evaluation.failed[index] else tuple(evaluation.top5[index].tolist()),
        probabilities=() if evaluation.failed[index] else tuple(evaluation.probabilities[index].tolist()),
        box=box,
        true_boxes=tuple(tuple(box) for box in np.asarray(split.boxes.get(image_id, ())).tolist()),
        size=size,
        iou=None if failed else _iou_of(evaluation, result, index),
        error=MISSED if failed else result.errors[index],
        seconds=seen.seconds,
        failure=seen.failure,
    )
    if seen.picture is None:
        return record, None
    share, outlines = spec.crop_size / spec.resize_size, None
    if seen.mask is not None and seen.main_map is not None:
        outlines = seen.mask == OBJECT, reaches(seen.main_map, result.threshold)
    drawn = draw_thumbnail(record, as_image(seen.picture), seen.main_map, share, outlines=outlines)
    return record, encode_jpeg(drawn)


def _iou_of(evaluation: Evaluation, result: MapResult, index: int) -> float | None:
    """Of the picture's box, or of its map's pixels where it has a mask alone."""
    if evaluation.boxed[index]:
        return float(result.ious[index, result.in_force])
    return None if np.isnan(result.pixel_ious[index]) else float(result.pixel_ious[index])
