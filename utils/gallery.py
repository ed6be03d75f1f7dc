"""A sheet of test pictures: each picture, then its maps with their boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from utils.data.evaluation import read_pictures
from utils.data.split import Split
from utils.data.transforms import centre_crop, denormalize
from utils.drawing import Panel, draw_sheet, save_picture
from utils.evaluation.maps import make_maps
from utils.evaluation.question import Question
from utils.evaluation.run import cut_crops, true_boxes
from utils.metrics import best_iou
from utils.models.bas import BAS

PANELS_PER_ROW = 6
BATCH = 16


def save_gallery(
    path: Path, model: BAS, split: Split, indices: Sequence[int], question: Question, device: torch.device
) -> Path:
    """Localises a few pictures of a split and saves the sheet.

    Args:
        path: the PNG to write.
        model: on `device`.
        split: pictures and true boxes.
        indices: which pictures; all must be readable.
        question: sizes, and the kinds of maps to show with their thresholds.
        device: where the model is.

    Returns:
        `path`.

    Raises:
        UserError: as :func:`make_panels`.
    """
    groups = make_panels(model, split, indices, question, device)
    per_row = max(1, PANELS_PER_ROW // (1 + len(question.thresholds)))
    rows = [sum(groups[i : i + per_row], []) for i in range(0, len(groups), per_row)]
    return save_picture(path, draw_sheet(rows))


def make_panels(
    model: BAS, split: Split, indices: Sequence[int], question: Question, device: torch.device
) -> list[list[Panel]]:
    """Localises a few pictures; arguments as for :func:`save_gallery`.

    Returns:
        For each picture the panel with its true boxes, then one for each kind of map.

    Raises:
        UserError: a picture cannot be read.
    """
    question = replace(question, ten_crops=False, grid=())
    groups = []
    for start in range(0, len(indices), BATCH):
        groups += _localize(model, split, indices[start : start + BATCH], question, device)
    return groups


@torch.no_grad()
def _localize(
    model: BAS, split: Split, indices: Sequence[int], question: Question, device: torch.device
) -> list[list[Panel]]:
    model.eval()
    batch = read_pictures(split, indices, question.resize_size)
    with torch.autocast(device.type, enabled=question.amp):
        encoding = model.encode_crops(*cut_crops(batch.images.to(device), question))
        maps = make_maps(model, encoding, tuple(question.thresholds), batch.labels.to(device))
    images = denormalize(centre_crop(batch.images, question.crop_size))
    groups = []
    for row, index in enumerate(indices):
        truth = np.empty((0, 4))
        if len(split.boxes.get(split.ids[index], ())):
            truth = true_boxes(split, index, batch.sizes[row].tolist(), question)
        panel = Panel(images[row], split.class_names[split.labels[index]], None, truth, None)
        groups.append([panel])
        for kind, threshold in question.thresholds.items():
            spatial_map = maps[kind][row, 0].float().cpu().numpy()
            score_map = question.score_map(model, kind, spatial_map)
            box = question.protocol.boxes(score_map, (threshold,))[0]
            caption = kind.title + (f"  IoU {best_iou(box, truth):.2f}" if len(truth) else "")
            groups[-1].append(replace(panel, caption=caption, spatial_map=score_map, predicted_box=box))
    return groups
