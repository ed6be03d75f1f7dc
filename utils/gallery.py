"""A sheet of test pictures: the picture, the BAS map and the CAM of the same network, each with its box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from utils.boxes import iou
from utils.data.datasets import EvaluationBatch, EvaluationImages, collate_evaluation
from utils.data.split import Split
from utils.data.transforms import centre_crop, denormalize
from utils.engine import localize_batch, predict_boxes, true_boxes
from utils.figures import Panel, draw_sheet, save_picture
from utils.models.bas import BAS
from utils.models.recipe import Recipe

PICTURES_PER_ROW = 2


@torch.no_grad()
def save_gallery(
    path: Path,
    model: BAS,
    split: Split,
    indices: Sequence[int],
    recipe: Recipe,
    device: torch.device,
    cam_threshold: float,
) -> Path:
    """Localises a few pictures of a split and saves the sheet.

    Args:
        path: the PNG to write.
        model: on `device`.
        split: pictures and true boxes.
        indices: which pictures; all must be readable.
        recipe: sizes, top-k and the threshold of the BAS map.
        device: where the model is.
        cam_threshold: the threshold of the class activation map.

    Returns:
        `path`.
    """
    model.eval()
    pictures = EvaluationImages(split, recipe.resize_size)
    batch: EvaluationBatch = collate_evaluation([pictures[index] for index in indices])
    result = localize_batch(model, batch, recipe, device, ten_crops=False)
    thresholds = {"bas": (recipe.threshold,), "cam": (cam_threshold,)}
    boxes = {kind: found[0] for kind, found in predict_boxes(result, thresholds, recipe.crop_size).items()}
    maps = {"bas": result.foreground_map, "cam": result.class_map}
    maps = {kind: values.squeeze(1).float().cpu().numpy() for kind, values in maps.items()}
    images = denormalize(centre_crop(batch.images, recipe.crop_size))
    triples = []
    for row, index in enumerate(indices):
        truth = true_boxes(split, index, batch.sizes[row].tolist(), recipe)
        panel = Panel(images[row], split.class_names[split.labels[index]][:26], None, truth, None)
        triple = [panel]
        for kind in ("bas", "cam"):
            overlap = float(np.max(iou(boxes[kind][row], truth)))
            caption = f"{kind.upper()}  IoU {overlap:.2f}"
            triple.append(replace(panel, caption=caption, spatial_map=maps[kind][row], predicted_box=boxes[kind][row]))
        triples.append(triple)
    rows = [sum(triples[i : i + PICTURES_PER_ROW], []) for i in range(0, len(triples), PICTURES_PER_ROW)]
    return save_picture(path, draw_sheet(rows))
