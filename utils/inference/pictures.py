"""`BAS_inference.py --images`: class, probability, box and map for pictures of one's own."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from utils.data.listing import find_pictures, passed_over_phrase
from utils.data.transforms import as_image
from utils.inference.arguments import EvaluationSettings
from utils.inference.loading import Loaded
from utils.inference.localizer import Finding, build_localizer
from utils.results.report import ImageRecord, Report
from utils.results.report.thumbnails import draw_thumbnail, encode_jpeg
from utils.system.errors import UserError
from utils.system.files import write_json

LONGEST_SIDE = 320  # of the saved pictures, in pixels


def run(loaded: Loaded, settings: EvaluationSettings, given: Mapping[str, Any]) -> None:
    """Localises the pictures of `--images`, prints a line each and saves what was asked for.

    Args:
        loaded: the network and its settings.
        settings: what was asked.
        given: settings of the recipe that were given.

    Raises:
        UserError: whatever the user can correct; that no picture could be read.
    """
    passed_over: Counter[str] = Counter()
    paths = find_pictures(settings.images, passed_over)
    if passed_over:
        print(f"{len(paths)} pictures of --images{passed_over_phrase(passed_over)}", flush=True)
    localizer = build_localizer(loaded, settings.kinds[0], settings.tencrop, **given)
    spec = localizer.spec
    records, failures = [], 0
    with ExitStack() as stack:
        report = None
        if settings.save:
            title = f"{loaded.model.arch} on {len(paths)} pictures"
            report = stack.enter_context(Report(settings.save, loaded.class_names, title))
        begin = time.perf_counter()
        for path, found in localizer.localize_files(paths, settings.batch_size, settings.num_workers):
            if isinstance(found, str):
                failures += 1
                print(found, flush=True)
                records.append({"path": str(path), "error": found})
            else:
                print(_line(path, found), flush=True)
                records.append({"path": str(path), **found.record()})
            if report is not None:
                now = time.perf_counter()
                report.add(*_describe(path, found, spec.crop_size / spec.resize_size, now - begin))
                begin = now
        in_force = {"map": spec.main.title, "threshold": spec.thresholds[spec.main]}
        results = {"checkpoint": str(loaded.checkpoint.path), "settings": in_force, "pictures": records}
        if report is not None:
            print(f"look at {report.finish(results)}")
    if settings.json:
        print(f"boxes saved in {write_json(settings.json, results)}")
    if failures == len(paths):
        raise UserError(f"none of the {len(paths)} pictures of --images could be read; see the lines above")


def _line(path: Path, found: Finding) -> str:
    box = " ".join(f"{value:.0f}" for value in found.box)
    return f"{path}: {found.name} {100 * found.probability:.1f} %, box {box} of {found.size[0]}x{found.size[1]}"


def _describe(path: Path, found: Finding | str, share: float, seconds: float) -> tuple[ImageRecord, bytes | None]:
    """A picture's row of images.csv, with its thumbnail for the page; None where it is unreadable."""
    if isinstance(found, str):
        return ImageRecord(str(path), error="missed", seconds=seconds, failure=found), None
    record = ImageRecord(
        id=str(path),
        top5=found.classes,
        probabilities=found.probabilities,
        box=tuple(found.box.tolist()),
        size=found.size,
        seconds=seconds,
    )
    thumbnail = draw_thumbnail(record, as_image(found.seen), found.score_map, share, LONGEST_SIDE)
    return record, encode_jpeg(thumbnail)
