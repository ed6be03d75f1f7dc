"""Chooses thresholds by a split's boxes, so that the test set need not be looked at."""

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
    """Each map's threshold with the highest GT-known Loc (in the protocol's mean) on a split, in steps of 0.01.

    Args:
        model: on `device`.
        split: pictures with boxes; those without are passed over.
        spec: protocol, sizes and kinds of maps.
        device: where the model is.
        batch_size, num_workers: of the loader.
        scorers: of :func:`utils.evaluation.run.evaluate`.

    Raises:
        UserError: the split has no boxes, or too many that cannot be of their pictures.
    """
    if not split.boxes:
        raise UserError(
            f"the {split.name} split has no boxes to choose a threshold by ({split.layout}); choose another with "
            "--select-on, or give --threshold"
        )
    boxed = [index for index, image_id in enumerate(split.ids) if len(split.boxes.get(image_id, ()))]
    split = take(split, boxed)
    asked = replace(spec, ten_crops=False, grid=threshold_grid(), contour_grid=(), with_masks=False, swept={})
    loader = build_loader(split, asked, batch_size, num_workers, device)
    evaluation = evaluate(model, loader, split, asked, device, f"thresholds on {split.name}", scorers=scorers)
    if evaluation.failures:
        print(failure_report(evaluation.failures))
    for line in misfit_lines(summarize_misfits(evaluation)):
        print(line)
    return {kind: evaluation.best_threshold(kind) for kind in asked.thresholds}


def with_thresholds(spec: EvaluationSpec, chosen: dict[MapKind, float]) -> EvaluationSpec:
    """The spec with other thresholds in force; swept kinds take the main one's."""
    return replace(
        spec,
        thresholds={kind: chosen[kind] for kind in spec.thresholds},
        swept=dict.fromkeys(spec.swept, chosen[spec.main]),
    )
