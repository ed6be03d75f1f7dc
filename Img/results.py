"""The sheet of test pictures: CAM beside BAS, each map with the predicted and the true box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from utils.charts import DARK_INK as INK
from utils.charts import new_page, save_figure
from utils.data.class_names import short_name
from utils.data.split import Split, spread
from utils.drawing import PREDICTED_COLOUR, TRUE_COLOUR, Panel, overlay_map
from utils.evaluation.maps import TITLES
from utils.evaluation.question import Question, build_question
from utils.gallery import make_panels
from utils.inference.loading import Loaded
from utils.metrics import best_iou

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = ("cam", "bas")
PICTURES, PER_ROW = 8, 2
# Pixels at which a README shows the sheet; a group is a picture with its maps.
WIDTH, TOP, GAP, GROUP_GAP, CAPTION = 880, 34, 5, 22, 26
SIDE = (WIDTH - 2 * GAP - (PER_ROW - 1) * GROUP_GAP - PER_ROW * len(KINDS) * GAP) // (PER_ROW * (1 + len(KINDS)))
SHARPNESS = 1.5  # dots to a pixel; a finer file is large, and the pictures are no sharper
TYPE, LONGEST_NAME = 11, 19
LIMIT = 0.5  # the IoU above or from which a box is right


def draw_results(
    path: Path, loaded: Loaded, split: Split, thresholds: Mapping[str, float] | None = None, pictures: int = PICTURES
) -> Path:
    """Localises a few test pictures by CAM and by BAS and draws them side by side.

    Which pictures is settled before anything is localised, so hits and misses are shown as they come: see
    :func:`choose_pictures`. Maps are from the centre crop: CAM's is that of the labelled class (GT-known), BAS's is so
    where k = 1, and else the mean of those of the k classes with the highest logits.

    Args:
        path: the picture to write, 880 pixels wide in a README.
        loaded: the network and its settings.
        split: test pictures, best with boxes.
        thresholds: `bas` and `cam` -> threshold; the recipe's and the literature's where missing.
        pictures: at most so many.

    Returns:
        `path`.

    Raises:
        UserError: matplotlib is missing, a picture cannot be read, or the file cannot be written.
    """
    question = build_question(loaded.recipe, loaded.protocol, KINDS, ten_crops=False)
    given = thresholds or {}
    in_force = {kind: given.get(kind.kind, threshold) for kind, threshold in question.thresholds.items()}
    question = replace(question, thresholds=in_force)
    groups = make_panels(loaded.model, split, choose_pictures(split, pictures), question, loaded.device)
    return save_figure(path, build_results_figure(groups, question), SHARPNESS)


def choose_pictures(split: Split, count: int) -> list[int]:
    """One picture of each of at most `count` classes that lie evenly over the list of classes: the middle one of the
    class's pictures with boxes, or of all if none has any."""
    boxed = np.array([len(split.boxes.get(image_id, ())) > 0 for image_id in split.ids])
    candidates = np.flatnonzero(boxed if boxed.any() else ~boxed)
    labels = split.labels[candidates]
    classes = np.unique(labels)
    chosen = [candidates[labels == classes[place]] for place in spread(np.ones(len(classes)), count)]
    return [int(members[len(members) // 2]) for members in chosen]


def build_results_figure(groups: Sequence[Sequence[Panel]], question: Question) -> Figure:
    """The sheet, not saved yet.

    Args:
        groups: the panels of each picture: itself, CAM, BAS.
        question: what was asked: the rule by which a box is right, and k.

    Raises:
        UserError: matplotlib is missing.
    """
    rows = -(-len(groups) // PER_ROW)
    height = TOP + rows * (SIDE + CAPTION)
    figure = new_page(WIDTH, height)
    axes = figure.add_axes((0, 0, 1, 1))
    group_width = (1 + len(KINDS)) * (SIDE + GAP) - GAP + GROUP_GAP
    for number, group in enumerate(groups):
        row, column = divmod(number, PER_ROW)
        for place, panel in enumerate(group):
            left, top = GAP + column * group_width + place * (SIDE + GAP), TOP + row * (SIDE + CAPTION)
            _draw_panel(axes, panel, left, top)
            words = _class_name(panel) if place == 0 else TITLES[KINDS[place - 1]] + _describe_hit(panel, question)
            axes.text(left, top + SIDE + 10, words, fontsize=TYPE, color=INK, va="center_baseline", parse_math=False)
    _draw_key(axes, question)
    axes.set(xlim=(0, WIDTH), ylim=(height, 0), aspect="auto")
    axes.axis("off")
    return figure


def _draw_panel(axes: Axes, panel: Panel, left: float, top: float) -> None:
    """A picture or map with its boxes."""
    dots = round(SHARPNESS * SIDE)
    image = cv2.resize(panel.image, (dots, dots), interpolation=cv2.INTER_LINEAR)
    if panel.spatial_map is not None:
        image = overlay_map(image, panel.spatial_map)
    axes.imshow(image, extent=(left, left + SIDE, top + SIDE, top), interpolation="none")
    scale = SIDE / len(panel.image)
    boxes = [(box, False) for box in panel.true_boxes]
    boxes += [] if panel.predicted_box is None else [(panel.predicted_box, True)]
    for box, is_predicted in boxes:
        # Inside the picture, so that a line along its edge is seen whole.
        x0, y0, x1, y1 = (np.asarray(box, dtype=float) * scale).clip(1.5, SIDE - 1.5) + [left, top, left, top]
        if x1 > x0 and y1 > y0:
            _draw_line(axes, [x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], is_predicted)


def _class_name(panel: Panel) -> str:
    """The class alone: CUB's folders number it, as in 001.Black_footed_Albatross."""
    name = short_name(panel.caption)
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _describe_hit(panel: Panel, question: Question) -> str:
    """The IoU and whether it is right; with more decimals than two where it would be rounded to the limit."""
    if not len(panel.true_boxes):
        return ""
    iou, is_right = best_iou(panel.predicted_box, panel.true_boxes), question.protocol.is_right
    digits = next((digits for digits in (2, 3, 4) if iou == LIMIT or round(iou, digits) != LIMIT), 5)
    return f"  IoU {iou:.{digits}f}  {'✓' if is_right(iou) else '✗'}"


def _draw_line(axes: Axes, x: Sequence[float], y: Sequence[float], is_predicted: bool) -> None:
    """A box's line on a dark one, dashed if predicted: told apart on any picture and without colours."""
    colour = np.array(PREDICTED_COLOUR if is_predicted else TRUE_COLOUR) / 255
    axes.plot(x, y, color=INK, linewidth=4, solid_joinstyle="miter")
    axes.plot(x, y, color=colour, linewidth=2, linestyle=(0, (3, 1.5)) if is_predicted else "solid")


def _draw_key(axes: Axes, question: Question) -> None:
    """What lines, marks and colours mean."""
    y = 14
    for x, words, is_predicted in ((GAP, "true box", False), (110, "predicted box", True)):
        _draw_line(axes, [x + 2, x + 28], [y, y], is_predicted)
        axes.text(x + 35, y, words, fontsize=TYPE, color=INK, va="center_baseline")
    rule = "above 0.5" if question.protocol.strict else "0.5 or more"
    (k,) = (kind.top_k for kind in question.thresholds if kind.kind == "bas")
    words = {258: f"✓ ✗  IoU {rule} or not", 439: "map  low", 572: "high", 622: f"CAM of the true class;  BAS, k = {k}"}
    for x, text in words.items():
        axes.text(x, y, text, fontsize=TYPE, color=INK, va="center_baseline")
    scale = overlay_map(np.full((1, 160, 3), 128, dtype=np.uint8), np.linspace(0, 1, 160)[None])
    axes.imshow(scale, extent=(496, 566, y + 6, y - 6), interpolation="none")
