"""Chooses thresholds by a split's boxes, or masks, so that the test set need not be looked at."""

from __future__ import annotations

from dataclasses import replace

import torch

from utils.data.split import Split, take
from utils.evaluation.kinds import MapKind
from utils.evaluation.run import build_loader, evaluate
from utils.evaluation.spec import EvaluationSpec, threshold_grid
from utils.evaluation.summary import summarize_misfits
from utils.models.bas import BAS
from utils.results.tables import failure_report, misfit_lines
from utils.system.errors import UserError


def choose_thresholds(
    model: BAS,
    split: Split,
    spec: EvaluationSpec,
    device: torch.device,
    batch_size: int,
    num_workers: int,
    scorers: int = 0,
) -> dict[MapKind, float]:
    """Each map's threshold with the highest GT-known Loc (in the protocol's mean) on a split, in steps of 0.01; on one
    that has masks alone, that with the highest IoU of pixels, in steps of 0.001. Kinds of maps of which no threshold
    finds a box are left out, and said.

    Args:
        model: on `device`.
        split: pictures with boxes or masks; those without are passed over.
        spec: protocol, sizes and kinds of maps.
        device: where the model is.
        batch_size, num_workers: of the loader.
        scorers: of :func:`utils.evaluation.run.evaluate`.

    Raises:
        UserError: the split has neither boxes nor masks, or too many boxes that cannot be of their pictures.
    """
    if not split.boxes and not split.masks:
        raise UserError(
            f"the {split.name} split has neither boxes nor masks to choose a threshold by ({split.layout}); choose "
            "another with --select-on, or give --threshold"
        )
    by_boxes = bool(split.boxes)
    known = split.boxes if by_boxes else split.masks
    split = take(split, [index for index, image_id in enumerate(split.ids) if len(known.get(image_id, ()))])
    grid = threshold_grid() if by_boxes else ()
    asked = replace(spec, ten_crops=False, grid=grid, contour_grid=(), with_masks=not by_boxes, swept={})
    loader = build_loader(split, asked, batch_size, num_workers, device)
    evaluation = evaluate(model, loader, split, asked, device, f"thresholds on {split.name}", scorers=scorers)
    if evaluation.failures:
        print(failure_report(evaluation.failures))
    for line in misfit_lines(summarize_misfits(evaluation)):
        print(line)
    chosen = {}
    for kind, in_force in asked.thresholds.items():
        pixels = evaluation.maps[kind].pixels
        if by_boxes and evaluation.found_by_threshold(kind).any():
            chosen[kind] = evaluation.best_threshold(kind)
        elif by_boxes:
            print(f"no threshold of {kind.title} finds a box on the {split.name} split; {in_force:g} stays")
        elif pixels is None or not pixels.marks_objects:
            raise UserError(f"no mask of the {split.name} split that could be read marks an object; give --threshold")
        else:
            chosen[kind] = pixels.best_threshold()
    return chosen


def with_thresholds(spec: EvaluationSpec, chosen: dict[MapKind, float]) -> EvaluationSpec:
    """The spec with other thresholds in force, where one was chosen; swept kinds take the main one's."""
    thresholds = {kind: chosen.get(kind, known) for kind, known in spec.thresholds.items()}
    return replace(spec, thresholds=thresholds, swept=dict.fromkeys(spec.swept, thresholds[spec.main]))
