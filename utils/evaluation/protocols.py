"""Evaluation protocols: how a paper's code turns pictures, maps and boxes into right and wrong, one class each.

- `authors`: the BAS authors' CVPR code, the default;
- `ijcv`: their IJCV code for boxes, `count_pxap` that for masks;
- `wsolevaluation`: Choe et al., Evaluating Weakly Supervised Object Localization Methods Right (CVPR 2020), and the
  rules in which MaxBoxAcc, MaxBoxAccV2 and PxAP are usually reported.

A protocol knows no model: it says what square of the picture is looked at, how a map is normalised, which box a
threshold draws, where the true boxes lie, and which IoU counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike

from utils.localization.boxes import scale_boxes_to_crop
from utils.localization.maps import normalize_map, place_map, upsample_map
from utils.localization.sweep import component_boxes, contour_boxes
from utils.models.taps import Grid, Placement
from utils.system.errors import UsageError


class Protocol:
    """The BAS authors' CVPR code: centre crop, IoU strictly above 0.5, mean over classes (paper section 4.1).

    Attributes:
        name: as in `--protocol`.
        title: name and rules, for people.
        strict: whether a box is right where its IoU exceeds 0.5, or where it reaches it.
        mean: the headline figure, `class_mean` or `image_mean`.
        draws_contours: whether boxes are drawn around contours, whose right and lower sides lie in their last pixels,
            or around components, where they lie behind them.
        ten_crops: whether class scores come from ten crops unless the user says otherwise.
        any_level: whether a pixel is object wherever a mask is not black, and not where its levels say so.
        top_k: classes whose maps BAS's map is the mean of, unless the user says otherwise; None: as the recipe says.
    """

    name = "authors"
    title = "authors: the CVPR code, centre crop, IoU > 0.5, mean over classes"
    strict = True
    mean = "class_mean"
    draws_contours = False
    ten_crops = True
    any_level = False
    top_k: int | None = None

    def for_masks(self) -> Protocol:
        """The rules for a data set that has masks and no boxes; mostly the same."""
        return self

    def sizes(self, resize_size: int, crop_size: int) -> tuple[int, int]:
        """What the picture is resized to and what is cropped from it, given the settings' two sizes."""
        return resize_size, crop_size

    def score_map(self, spatial_map: ArrayLike, size: int, place: Grid | Placement | None = None) -> np.ndarray:
        """The map that thresholds are laid on.

        Args:
            spatial_map: (h, w) of any range.
            size: side of the square crop in pixels.
            place: where the map's cells look; None stretches the map over the crop, as all three codes do.

        Returns:
            (size, size) in [0, 1], float32 (float64 where the protocol's code computes so); zeros where the map is
            constant.
        """
        return self.upsample(normalize_map(spatial_map), size, place)

    def upsample(self, spatial_map: ArrayLike, size: int, place: Grid | Placement | None) -> np.ndarray:
        """(h, w) -> (size, size)."""
        return upsample_map(spatial_map, size) if place is None else place_map(spatial_map, size, *place)

    def boxes(self, score_map: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
        """The predicted box at each threshold: (S, S) in [0, 1] -> (T, 4) xyxy in crop pixels."""
        return component_boxes(score_map, thresholds)

    def true_boxes(self, boxes: ArrayLike, image_size: Sequence[int], resize_size: int, crop_size: int) -> np.ndarray:
        """True boxes in crop pixels.

        Args:
            boxes: (n, 4) xyxy in original pixels.
            image_size: (width, height) of the original picture.
            resize_size, crop_size: of :meth:`sizes`.

        Returns:
            (n, 4) float64 xyxy in crop pixels.
        """
        return scale_boxes_to_crop(boxes, image_size, resize_size, crop_size)

    def is_right(self, ious: ArrayLike, threshold: float = 0.5) -> np.ndarray:
        """Whether each IoU makes its box right."""
        ious = np.asarray(ious)
        return ious > threshold if self.strict else ious >= threshold


class IJCVProtocol(Protocol):
    """The authors' IJCV code: true boxes in whole pixels, right and bottom up to S - 1, an IoU of 0.5 is enough,
    mean over images."""

    name = "ijcv"
    title = (
        "ijcv: the authors' IJCV code, centre crop, true boxes in whole pixels, IoU >= 0.5, mean over images; for "
        "masks without boxes count_pxap"
    )
    strict = False
    mean = "image_mean"

    def score_map(self, spatial_map: ArrayLike, size: int, place: Grid | Placement | None = None) -> np.ndarray:
        return self.upsample(normalize_map(spatial_map, epsilon=1e-5), size, place)

    def true_boxes(self, boxes: ArrayLike, image_size: Sequence[int], resize_size: int, crop_size: int) -> np.ndarray:
        scaled = np.trunc(super().true_boxes(boxes, image_size, resize_size, crop_size))
        scaled[:, 2:] = np.minimum(scaled[:, 2:], crop_size - 1)
        return scaled

    def for_masks(self) -> Protocol:
        return PROTOCOLS["count_pxap"]


class CountPxAPProtocol(IJCVProtocol):
    """The authors' IJCV code for masks (count_pxap.py): the whole picture, and every annotator's pixels are object."""

    name = "count_pxap"
    title = (
        "count_pxap: the authors' IJCV code for masks, the whole picture, object wherever a mask is not black, the "
        "true class's map alone"
    )
    ten_crops = False
    any_level = True
    top_k = 1

    def sizes(self, resize_size: int, crop_size: int) -> tuple[int, int]:
        return crop_size, crop_size


class WsolEvaluationProtocol(Protocol):
    """wsolevaluation's code: the whole picture, the map resized before it is normalised, boxes of contours."""

    name = "wsolevaluation"
    title = "wsolevaluation: that code, the whole picture, contours, IoU >= 0.5, mean over images"
    strict = False
    any_level = True
    mean = "image_mean"
    draws_contours = True
    ten_crops = False

    def sizes(self, resize_size: int, crop_size: int) -> tuple[int, int]:
        return crop_size, crop_size

    def score_map(self, spatial_map: ArrayLike, size: int, place: Grid | Placement | None = None) -> np.ndarray:
        if not normalize_map(spatial_map).any():  # a constant map's rounding errors would be stretched to 0 ... 1
            return np.zeros((size, size))
        return normalize_map(self.upsample(spatial_map, size, place))

    def upsample(self, spatial_map: ArrayLike, size: int, place: Grid | Placement | None) -> np.ndarray:
        return (
            upsample_map(spatial_map, size, cv2.INTER_CUBIC, np.float64)
            if place is None
            else super().upsample(spatial_map, size, place)
        )

    def boxes(self, score_map: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
        return contour_boxes(score_map, thresholds).largest

    def true_boxes(self, boxes: ArrayLike, image_size: Sequence[int], resize_size: int, crop_size: int) -> np.ndarray:
        # Not clipped: boxes that reach past the picture's edge keep their size there.
        # Multiplied before it is divided, as there: whole numbers come out whole.
        return np.trunc(np.asarray(boxes, dtype=np.float64) * crop_size / np.array([*image_size, *image_size]))


_ALL = (Protocol(), IJCVProtocol(), CountPxAPProtocol(), WsolEvaluationProtocol())
PROTOCOLS = {protocol.name: protocol for protocol in _ALL}


# In which the papers' figures were measured.
PAPER_PROTOCOLS = {"cvpr": PROTOCOLS["authors"], "ijcv": PROTOCOLS["ijcv"]}


def find_protocol(name: str) -> Protocol:
    """The protocol called `name`; UsageError naming the choices if there is none."""
    try:
        return PROTOCOLS[name]
    except KeyError:
        raise UsageError(f"no protocol is called {name!r}; choose one of {', '.join(PROTOCOLS)}") from None
