"""What an evaluation finds: a result for each kind of map, the scores made of them, parts to be merged."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from utils.evaluation.kinds import MapKind
from utils.evaluation.misfits import Misfit, settle
from utils.evaluation.protocols import Protocol
from utils.evaluation.spec import EvaluationSpec
from utils.localization.boxes import best_ious
from utils.localization.sweep import best_contour_ious, contour_boxes
from utils.metrics import (
    MISSED,
    DeadMaps,
    LocalizationScores,
    MaxBoxAcc,
    PixelScores,
    error_breakdown,
    error_type,
    extremes_by_class,
    find_dead_maps,
    pixel_iou,
)

if TYPE_CHECKING:  # processes that score need no PyTorch, whose import takes longer than all else that they load
    from torch import Tensor

    from utils.data.split import Split


class Truth(NamedTuple):
    """What is known of one picture when its maps are scored."""

    true_boxes: np.ndarray | None  # (n, 4) xyxy in crop pixels
    mask: np.ndarray | None  # (S, S) uint8: 1 object, 0 background, 255 ignored
    is_right_class: bool


class MapResult:
    """What one kind of map gave on a split of N pictures.

    Attributes:
        threshold: in force.
        thresholds: all T that were scored, ascending; `threshold` is one of them.
        in_force: the column of `threshold`.
        ious: (N, T) the best IoU with a true box; 0 where there is no prediction or no true box.
        boxes: (N, 4) int64 xyxy in crop pixels at the threshold in force; zeros where there is no prediction.
        missed: (N,) whether a picture gave no such map: unreadable, an output that is not finite, or no file of it.
        constant: (N,) whether a picture's map is the same everywhere, so that it draws no box of its own.
        pixel_ious: (N,) of pictures with masks and no boxes, the IoU of mask and map at the threshold in force; NaN
            elsewhere.
        errors: (N,) error types at the threshold in force, "" for pictures without true boxes.
        max_box_acc: counts, or None where it was not asked for.
        pixels: counts, or None where there are no masks.
    """

    _ROWS = ("ious", "boxes", "missed", "constant", "pixel_ious", "errors")

    def __init__(
        self,
        count: int,
        threshold: float,
        protocol: Protocol,
        grid: Sequence[float],
        contour_grid: Sequence[float],
        has_masks: bool,
    ) -> None:
        self.threshold = threshold
        self.thresholds = tuple(sorted({threshold, *grid}))
        self.in_force = self.thresholds.index(threshold)
        self.ious = np.zeros((count, len(self.thresholds)))
        self.boxes = np.zeros((count, 4), dtype=np.int64)
        self.missed = np.zeros(count, dtype=bool)
        self.constant = np.zeros(count, dtype=bool)
        self.pixel_ious = np.full(count, np.nan)
        self.errors = np.full(count, "", dtype=object)
        self.max_box_acc = MaxBoxAcc(contour_grid) if contour_grid else None
        self.pixels = PixelScores() if has_masks else None
        self._protocol = protocol
        # Contours serve MaxBoxAcc and, in one protocol, the boxes as well: found once for both.
        of_boxes = self.thresholds if protocol.draws_contours else ()
        self._contour_thresholds = sorted({*of_boxes, *contour_grid})
        self._columns_of_boxes = np.searchsorted(self._contour_thresholds, of_boxes)
        self._columns_of_accuracy = np.searchsorted(self._contour_thresholds, contour_grid)

    def add(self, index: int, score_map: np.ndarray, truth: Truth) -> None:
        """Scores one map, of :meth:`EvaluationSpec.score_map`."""
        self.constant[index] = not score_map.any()
        contours = contour_boxes(score_map, self._contour_thresholds) if self._contour_thresholds else None
        if contours is not None and self._protocol.draws_contours:
            boxes = contours.largest[self._columns_of_boxes]
        else:
            boxes = self._protocol.boxes(score_map, self.thresholds)
        self.boxes[index] = boxes[self.in_force]
        if truth.true_boxes is not None:
            self.ious[index] = best_ious(boxes, truth.true_boxes)
            self.errors[index] = error_type(truth.is_right_class, boxes[self.in_force], truth.true_boxes)
            if contours is not None and self.max_box_acc is not None:
                largest, best = best_contour_ious(contours, truth.true_boxes)
                columns = self._columns_of_accuracy
                self.max_box_acc.update(largest[None, columns], best[None, columns])
        if self.pixels is not None and truth.mask is not None:
            self.pixels.update(score_map, truth.mask)
            if truth.true_boxes is None and (iou := pixel_iou(score_map, self.threshold, truth.mask)) is not None:
                self.pixel_ious[index] = iou

    def miss(self, index: int, has_boxes: bool, mask: np.ndarray | None) -> None:
        """Counts a picture without such a map."""
        self.missed[index] = True
        if self.pixels is not None and mask is not None:
            self.pixels.update_missed(mask)
        if has_boxes:
            self.errors[index] = MISSED
            if self.max_box_acc is not None:
                self.max_box_acc.update_missed(1)

    def part(self, indices: np.ndarray) -> MapResult:
        """The result of these pictures, the only ones that were counted; the counts are shared."""
        part = copy(self)
        for name in self._ROWS:
            setattr(part, name, getattr(self, name)[indices])
        return part

    def merge(self, indices: np.ndarray, part: MapResult) -> None:
        """Adds the rows and counts of other pictures of the split."""
        for name in self._ROWS:
            getattr(self, name)[indices] = getattr(part, name)
        if self.max_box_acc is not None and part.max_box_acc is not None:
            self.max_box_acc.merge(part.max_box_acc)
        if self.pixels is not None and part.pixels is not None:
            self.pixels.merge(part.pixels)


class Observation(NamedTuple):
    """What an observer of :func:`evaluate` is given of each picture, as it comes."""

    index: int  # type: ignore[assignment]  # in the split; tuple's method goes unused
    picture: Tensor | None  # (3, R, R) uint8, None where unreadable
    main_map: np.ndarray | None  # (S, S) in [0, 1], None where missed
    mask: np.ndarray | None  # (S, S) of a picture with a mask and no boxes, as in `Truth`
    failure: str  # a sentence, "" where fine
    seconds: float  # the picture's share of its batch's time


_SCORED = ("top5", "probabilities", "sizes", "failed", "extremes")  # what scoring fills in of an evaluation


@dataclass
class Evaluation:
    """The records of one pass, picture by picture; figures follow from them without the model.

    N pictures, K classes. A picture that could not be read, or whose class scores are not finite, is a miss for every
    kind of map; one of whose maps one kind is not finite is a miss for that kind.

    Attributes:
        spec: what was asked.
        num_classes: K.
        labels: (N,) ground truth.
        top5: (N, min(5, K)) predicted classes, best first.
        probabilities: of `top5`.
        sizes: (N, 2) (width, height) of the original pictures, 0 where unreadable.
        boxed: (N,) whether a picture has true boxes; those without count in the classification figures alone.
        failed: (N,) whether a picture is a miss for every kind of map.
        extremes: (N, 2) the highest and lowest value of the label's own foreground map; NaN where there is none.
        failure_of: position in the split -> sentence about a miss, or about a mask that could not be used.
        misfit_of: position in the split -> what was found of boxes that are not of their picture; see `misfits`.
        maps: kind -> result.
    """

    spec: EvaluationSpec
    num_classes: int
    labels: np.ndarray
    top5: np.ndarray
    probabilities: np.ndarray
    sizes: np.ndarray
    boxed: np.ndarray
    failed: np.ndarray
    extremes: np.ndarray
    failure_of: dict[int, str] = field(default_factory=dict)
    misfit_of: dict[int, Misfit] = field(default_factory=dict)
    maps: dict[MapKind, MapResult] = field(default_factory=dict)

    @property
    def failures(self) -> list[str]:
        """The sentences of `failure_of` in the split's order."""
        return [self.failure_of[index] for index in sorted(self.failure_of)]

    @property
    def misfits(self) -> list[Misfit]:
        """The pictures whose boxes cannot be theirs, in the split's order."""
        return settle(self.misfit_of)

    @property
    def checked(self) -> int:
        """How many pictures with boxes could be read so far, so that both were compared."""
        return int((self.boxed & self.sizes.all(axis=1)).sum())

    def scores(self, kind: MapKind | None = None, threshold: float | None = None) -> LocalizationScores:
        """Counts hits and misses of one kind of map (the main one) at one of its thresholds (the one in force)."""
        result = self.maps[kind or self.spec.main]
        column = result.in_force if threshold is None else result.thresholds.index(threshold)
        scores = LocalizationScores(self.num_classes, strict=self.spec.protocol.strict)
        found = ~self.failed & self.boxed  # where a map alone is missing, the class was predicted, and the IoU is 0
        scores.update(self.labels[found], self.top5[found], result.ious[found, column])
        unboxed = ~self.failed & ~self.boxed
        scores.update_unboxed(self.labels[unboxed], self.top5[unboxed])
        scores.update_missed(self.labels[self.failed & self.boxed])
        scores.update_missed(self.labels[self.failed & ~self.boxed], boxed=False)
        scores.missed += np.bincount(self.labels[result.missed & ~self.failed], minlength=self.num_classes)
        return scores

    def best_threshold(self, kind: MapKind) -> float:
        """The threshold with the highest GT-known Loc in the protocol's mean (the lowest of several)."""
        return self.maps[kind].thresholds[int(self.found_by_threshold(kind).argmax())]

    def found_by_threshold(self, kind: MapKind) -> np.ndarray:
        """(T,) what GT-known Loc in the protocol's mean is at each threshold, up to a factor."""
        result = self.maps[kind]
        seen = self.boxed & ~result.missed
        right = np.zeros((self.num_classes, len(result.thresholds)))
        np.add.at(right, self.labels[seen], self.spec.protocol.is_right(result.ious[seen]))
        if self.spec.protocol.mean == "class_mean":
            right /= np.bincount(self.labels[self.boxed], minlength=self.num_classes).clip(min=1)[:, None]
        return right.sum(axis=0)

    def breakdown(self, kind: MapKind) -> dict[str, Any]:
        """The error types at the threshold in force, see :func:`utils.metrics.error_breakdown`."""
        return error_breakdown([error for error in self.maps[kind].errors if error])

    def dead_maps(self) -> DeadMaps | None:
        """The classes whose own foreground map is dead on all of these pictures; None without maps of the generator."""
        if np.isnan(self.extremes).all():
            return None
        return find_dead_maps(extremes_by_class(self.labels, self.extremes, self.num_classes))

    def whole_crop_boxes(self, kind: MapKind) -> int:
        """How many boxes of one kind of map, at the threshold in force, are the whole crop."""
        return int(self.reached_edges(kind).all(axis=1).sum())

    def reached_edges(self, kind: MapKind) -> np.ndarray:
        """(n, 4) whether the boxes of one kind of map, at the threshold in force, reach the crop's left, upper, right
        and lower edge; of the pictures that have such a map."""
        result = self.maps[kind]
        boxes = result.boxes[~result.missed]
        last = self.spec.crop_size - int(self.spec.protocol.draws_contours)
        return np.concatenate([boxes[:, :2] <= 0, boxes[:, 2:] >= last], axis=1)

    def part(self, indices: np.ndarray) -> Evaluation:
        """The evaluation of these pictures, the only ones that were scored so far, to be merged elsewhere: failures and
        misfits stay under their positions in the whole split."""
        rows = {name: getattr(self, name)[indices] for name in ("labels", "boxed", *_SCORED)}
        return replace(self, **rows, maps={kind: result.part(indices) for kind, result in self.maps.items()})

    def merge(self, indices: np.ndarray, part: Evaluation) -> None:
        """Adds the records of other pictures of the split, scored by another process for the same spec."""
        for name in _SCORED:
            getattr(self, name)[indices] = getattr(part, name)
        self.failure_of |= part.failure_of
        self.misfit_of |= part.misfit_of
        for kind, result in self.maps.items():
            result.merge(indices, part.maps[kind])


def blank_evaluation(split: Split, spec: EvaluationSpec, num_classes: int) -> Evaluation:
    """The records of a split before anything is scored."""
    count, columns = len(split), min(5, num_classes)
    return Evaluation(
        spec=spec,
        num_classes=num_classes,
        labels=split.labels,
        top5=np.zeros((count, columns), dtype=np.int64),
        probabilities=np.zeros((count, columns)),
        sizes=np.zeros((count, 2), dtype=np.int64),
        boxed=np.array([len(split.boxes.get(image_id, ())) > 0 for image_id in split.ids]),
        failed=np.zeros(count, dtype=bool),
        extremes=np.full((count, 2), np.nan),
        maps=blank_results(count, spec, has_masks(split, spec)),
    )


def has_masks(split: Split, spec: EvaluationSpec) -> bool:
    """Whether maps are scored by masks."""
    return spec.with_masks and bool(split.masks)


def blank_results(count: int, spec: EvaluationSpec, has_masks: bool) -> dict[MapKind, MapResult]:
    """The results of `count` pictures before anything is scored, of each kind of map that a spec asks for."""
    grids = spec.grid, spec.contour_grid
    maps = {
        kind: MapResult(count, threshold, spec.protocol, *grids, has_masks)
        for kind, threshold in spec.thresholds.items()
    }
    for kind, threshold in spec.swept.items():
        maps[kind] = MapResult(count, threshold, spec.protocol, spec.swept_grid, (), False)
    return maps
