"""`BAS_inference.py` on a labelled test set: one pass, then tables, curves, files."""

from __future__ import annotations

import argparse
import json
import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np

from utils.boxes import crop_boxes_to_image
from utils.charts import save_charts
from utils.data import any_folder
from utils.data.masks import understand_masks
from utils.data.split import Split, spread
from utils.data.transforms import denormalize
from utils.distributed import is_main
from utils.errors import UsageError, UserError
from utils.evaluation.map_files import are_scored, count_maps, describe_maps, save_map
from utils.evaluation.maps import FILES, MapKind
from utils.evaluation.question import Question, build_question, threshold_grid
from utils.evaluation.records import Evaluation, Observation
from utils.evaluation.run import build_loader, evaluate
from utils.evaluation.selection import choose_thresholds, with_thresholds
from utils.evaluation.summary import cautions, curves, summarize_map, sweep
from utils.files import require_writable, write_text
from utils.gallery import save_gallery
from utils.inference.arguments import DEFAULT_BATCH_SIZE
from utils.inference.loading import DatasetFolder, Loaded
from utils.inference.settings import EVALUATION_SETTINGS, require_same_classes
from utils.models.recipe import Published
from utils.report import ImageRecord, Report
from utils.report.thumbnails import draw_thumbnail, encode_jpeg
from utils.reporting import (
    caution_lines,
    comparison_table,
    failure_report,
    further_lines,
    score_table,
    sweep_table,
)
from utils.training.provenance import versions

# Of --sweep; 80 and 200 are CUB's recipes. Between the thresholds of other k than the one in force.
TOP_KS = (1, 2, 5, 10, 20, 50, 80, 100, 200)
SWEPT_STEP = 0.05


def run(folder: DatasetFolder, loaded: Loaded, args: argparse.Namespace) -> None:
    """Evaluates on the test split, prints the figures and writes what was asked for.

    The processes of a run share the pictures; the first one alone has the figures and the files.

    Args:
        folder: recipes, published figures and the reader of the data set.
        loaded: the network and its settings.
        args: of :func:`utils.inference.arguments.parse_arguments`.

    Raises:
        UserError: whatever the user can mend.
    """
    split = load_split(folder, args, "test")
    require_same_classes(loaded.checkpoint, split)
    is_whole = not args.dataset_dir and len(folder.loader.class_names()) == len(split.class_names)
    if args.classes or is_whole:  # any other data set names its classes itself
        split = replace(split, class_names=loaded.class_names)
    name = args.dataset_dir or folder.name
    print(f"{name} test: {len(split)} pictures, {len(split.class_names)} classes; {split.layout}")
    if not split.boxes and not split.masks:
        raise UserError(f"the test split has neither boxes nor masks ({split.layout}); there is nothing to score")
    if args.sweep and not split.boxes:
        raise UsageError(f"--sweep compares boxes and the test split has none ({split.layout}); leave it out")
    question = build_test_question(loaded, args, bool(split.masks))
    rules = {
        "map": question.main.title,
        "protocol": question.protocol.name,
        "resize_size": question.resize_size,
        "crop_size": question.crop_size,
        "align_maps": question.align,
    }
    if args.map_files:
        question = replace(question, are_scored=are_scored(args.map_files, rules))
        print(f"maps in {args.map_files} for {count_maps(args.map_files, split.ids)} of {len(split)} pictures")
    if args.save_maps:
        require_writable(args.save_maps, "--save-maps")
        if is_main():
            describe_maps(args.save_maps, {**rules, "checkpoint": str(loaded.checkpoint.path)})
    if split.masks:
        print(f"masks: {understand_masks(split.masks.values())}")

    with ExitStack() as stack:
        report = None
        if args.save and is_main():
            share, title = question.crop_size / question.resize_size, f"{args.arch} on {name}"
            report = stack.enter_context(Report(args.save, split.class_names, title, map_share=share))
        if args.select_on:
            question = select_thresholds(folder, loaded, question, args)
        print(_settings_line(loaded, question))
        begin = time.perf_counter()
        loader = build_loader(split, question, args.batch_size or DEFAULT_BATCH_SIZE, args.num_workers, loaded.device)
        observe = partial(_observe, split, args) if args.save or args.save_maps else None
        receive = None if report is None else lambda described: report.add_drawn(*described)
        evaluation = evaluate(loaded.model, loader, split, question, loaded.device, observe=observe, receive=receive)
        if not is_main():
            return
        seconds = time.perf_counter() - begin
        published = find_published(folder, loaded, question, args)
        results = collect(folder, loaded, evaluation, split, args, seconds, published)
        print_results(evaluation, results, published)
        if report is not None:
            print(f"look at {report.finish(results)}")
    if args.save_maps:
        print(f"maps of {question.main.title} saved in {args.save_maps}")
    if args.json:
        print(f"figures saved in {write_text(args.json, json.dumps(results, indent=2) + chr(10))}")
    if args.sweep and not args.save:
        for path in save_charts(loaded.checkpoint.path.parent, f"{args.arch}_sweep", results["curves"]):
            print(f"look at {path}")
    if args.vis and not evaluation.failed.all():
        path = (args.save or loaded.checkpoint.path.parent) / f"{args.arch}_test.png"
        indices = spread(~evaluation.failed, args.vis)
        print(f"look at {save_gallery(path, loaded.model, split, indices, question, loaded.device)}")


def load_split(folder: DatasetFolder, args: argparse.Namespace, name: str) -> Split:
    """A split of the data set, or of `--dataset-dir`."""
    if args.dataset_dir:
        return any_folder.load_split(args.dataset_dir, name)
    return folder.loader.load_split(args.root or folder.path / "data", name)


def build_test_question(loaded: Loaded, args: argparse.Namespace, has_masks: bool) -> Question:
    """What the arguments ask of the test set."""
    kinds = args.compare or [args.map]
    if args.map_files and FILES not in kinds:
        kinds = [*kinds, FILES]
    question = build_question(
        loaded.recipe,
        loaded.protocol,
        kinds,
        args.tencrop,
        args.threshold,
        grid=threshold_grid() if args.sweep else (),
        contour_grid=threshold_grid(args.max_box_acc_step),
        with_masks=has_masks,
        amp=args.amp,
        map_folder=args.map_files,
        ignore_misfits=args.ignore_misfits,
    )
    if not (args.sweep and "bas" in kinds):
        return question
    (main,) = (kind for kind in question.thresholds if kind.kind == "bas")
    top_ks = sorted({min(k, loaded.model.num_classes) for k in args.top_ks or TOP_KS} - {main.top_k})
    bas = question.thresholds[main]
    swept = {MapKind("bas", k): bas for k in top_ks}
    return replace(question, swept=swept, swept_grid=threshold_grid(SWEPT_STEP))


def select_thresholds(folder: DatasetFolder, loaded: Loaded, question: Question, args: argparse.Namespace) -> Question:
    """The question with each map's threshold at its best on `--select-on`."""
    split = load_split(folder, args, args.select_on)
    require_same_classes(loaded.checkpoint, split)
    if set(split.paths) & set(load_split(folder, args, "test").paths):
        raise UsageError(
            f"--select-on {args.select_on} would choose on the test pictures themselves ({split.layout}); choose "
            "train, or keep val and test apart"
        )
    batch_size = args.batch_size or DEFAULT_BATCH_SIZE
    chosen = choose_thresholds(loaded.model, split, question, loaded.device, batch_size, args.num_workers)
    listed = ", ".join(f"{kind.title} {threshold:g}" for kind, threshold in chosen.items())
    print(f"thresholds with the highest GT-known Loc on the {len(split)} pictures of {args.select_on}: {listed}")
    return with_thresholds(question, chosen)


def find_published(
    folder: DatasetFolder, loaded: Loaded, question: Question, args: argparse.Namespace
) -> Published | None:
    """The CVPR paper's figures, where they are about the same: its model, the whole data set, BAS, its protocol."""
    is_whole = loaded.model.num_classes == folder.models.recipe(args.arch).num_classes and not args.dataset_dir
    is_comparable = question.main.kind == "bas" and loaded.protocol.name == "authors" and loaded.recipe.name == "cvpr"
    return folder.models.published(args.arch) if is_whole and is_comparable else None


def _settings_line(loaded: Loaded, question: Question) -> str:
    thresholds = ", ".join(f"{kind.title} threshold {value:g}" for kind, value in question.thresholds.items())
    crops = "ten crops" if question.ten_crops else "one crop"
    size = f"{question.resize_size} px, crop {question.crop_size}" + (", aligned maps" if question.align else "")
    relu = f"final ReLU {'on' if loaded.recipe.final_relu else 'off'}, recipe {loaded.recipe.name}"
    relu += f", generator at {loaded.recipe.tap}" if loaded.recipe.tap else ""
    return f"settings: {thresholds}; {size}, {crops}; {relu}; {loaded.device}\nprotocol: {loaded.protocol.title}"


def collect(
    folder: DatasetFolder,
    loaded: Loaded,
    evaluation: Evaluation,
    split: Split,
    args: argparse.Namespace,
    seconds: float,
    published: Published | None,
) -> dict[str, Any]:
    """All figures with what made them, as JSON holds them."""
    question = evaluation.question
    settings = {name: getattr(loaded.recipe, name) for name in EVALUATION_SETTINGS}
    main = question.main
    settings |= {
        "threshold": question.thresholds[main],
        "top_k": main.top_k,
        "resize_size": question.resize_size,
        "crop_size": question.crop_size,
    }
    source = "settings" if main.kind == "bas" else "default"
    if args.threshold is not None:
        source = "flag"
    elif args.select_on:
        source = f"{args.select_on} split"
    return {
        "dataset": str(args.dataset_dir or folder.name),
        "arch": args.arch,
        "checkpoint": str(loaded.checkpoint.path),
        "protocol": loaded.protocol.name,
        "mean": loaded.protocol.mean,
        "ten_crops": question.ten_crops,
        "batch_size": args.batch_size or DEFAULT_BATCH_SIZE,
        "amp": question.amp,
        "max_box_acc_step": args.max_box_acc_step,
        "settings": settings,
        "map": main.title,
        "threshold_from": source,
        **summarize_map(evaluation, main),
        "maps": {kind.title: summarize_map(evaluation, kind) for kind in question.thresholds},
        "sweep": sweep(evaluation) if question.grid else None,
        "curves": curves(evaluation) if question.grid else [],
        "published": asdict(published) if published else None,
        "cautions": cautions(evaluation, split.class_names),
        "failures": evaluation.failures,
        "seconds": seconds,
        "versions": versions(loaded.device),
    }


def print_results(evaluation: Evaluation, results: dict[str, Any], published: Published | None) -> None:
    """The tables."""
    question, count = evaluation.question, len(evaluation.labels)
    print(score_table(results["scores"], published))
    print("\n".join([*further_lines(results), *caution_lines(results["cautions"])]))
    if question.with_masks and results["pixels"] is None:
        print("no PxAP: no mask that could be read marks an object inside the crop")
    if len(question.thresholds) > 1:
        rows = {
            f"{kind.title} (threshold {value:g})": results["maps"][kind.title]["scores"]
            for kind, value in question.thresholds.items()
        }
        print(f"\n{comparison_table(rows, question.protocol.mean)}")
    if results["sweep"]:
        print(f"\n{sweep_table(results['sweep'], question.protocol.mean)}")
    print(f"{count} pictures in {results['seconds']:.1f} s, {count / results['seconds']:.1f} a second")
    if evaluation.failures:
        missed = np.logical_or.reduce([result.missed for result in evaluation.maps.values()]).sum()
        print(failure_report(evaluation.failures, masks=len(evaluation.failures) - int(missed)))


def _observe(
    split: Split, args: argparse.Namespace, evaluation: Evaluation, seen: Observation
) -> tuple[ImageRecord, bytes | None] | None:
    if args.save_maps and seen.main_map is not None:
        save_map(args.save_maps, split.ids[seen.index], seen.main_map)
    return describe(split, evaluation, seen) if args.save else None


def describe(split: Split, evaluation: Evaluation, seen: Observation) -> tuple[ImageRecord, bytes | None]:
    """A picture's row of images.csv, with its thumbnail for the page; None where it is unreadable."""
    question, index = evaluation.question, seen.index
    result = evaluation.maps[question.main]
    image_id, size = split.ids[index], tuple(evaluation.sizes[index].tolist())
    failed = bool(result.missed[index])
    box = None
    if not failed:
        box = crop_boxes_to_image(result.boxes[index], size, question.resize_size, question.crop_size)
        box = tuple(box.clip(0, [*size, *size]).tolist())
    record = ImageRecord(
        id=image_id,
        label=int(split.labels[index]),
        top5=() if failed else tuple(evaluation.top5[index].tolist()),
        probabilities=() if failed else tuple(evaluation.probabilities[index].tolist()),
        box=box,
        true_boxes=tuple(tuple(box) for box in np.asarray(split.boxes.get(image_id, ())).tolist()),
        size=size,
        iou=float(result.ious[index, result.in_force]) if evaluation.boxed[index] and not failed else None,
        error=result.errors[index],
        seconds=seen.seconds,
        failure=seen.failure,
    )
    if seen.picture is None:
        return record, None
    share = question.crop_size / question.resize_size
    return record, encode_jpeg(draw_thumbnail(record, denormalize(seen.picture), seen.main_map, share))
