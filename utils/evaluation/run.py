"""One pass of a network over a split, and every figure that follows from it (paper sections 3.4 and 4.1)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from utils.data.datasets import EvaluationBatch, build_evaluation_loader
from utils.data.split import Split, take
from utils.data.transforms import CENTRE_CROP, centre_crop, ten_crop
from utils.distributed import gather_everywhere, process_count, rank
from utils.evaluation.maps import MapKind, make_maps
from utils.evaluation.protocols import Protocol
from utils.evaluation.question import Question
from utils.evaluation.sharding import count_rounds, gather_round, own_pictures
from utils.metrics import MISSED, ErrorBreakdown, LocalizationScores, MaxBoxAcc, PixelScores, best_ious, error_type
from utils.models.bas import BAS
from utils.progress import progress_bar
from utils.sweep import best_contour_ious, contour_boxes


class Picture(NamedTuple):
    """What is known of one picture when its maps are scored."""

    true_boxes: np.ndarray | None  # (n, 4) xyxy in crop pixels
    mask: np.ndarray | None  # (S, S) uint8: 1 object, 0 background, 255 ignored
    is_right_class: bool


class MapPart(NamedTuple):
    """What a :class:`MapResult` holds of the n pictures that one process scored."""

    ious: np.ndarray  # (n, T)
    boxes: np.ndarray  # (n, 4)
    missed: np.ndarray  # (n,)
    errors: list[str]
    max_box_acc: MaxBoxAcc | None
    pixels: PixelScores | None


class MapResult:
    """What one kind of map gave on a split of N pictures.

    Attributes:
        threshold: in force.
        thresholds: all T that were scored, ascending; `threshold` is one of them.
        in_force: the column of `threshold`.
        ious: (N, T) the best IoU with a true box; 0 where there is no prediction or no true box.
        boxes: (N, 4) int64 xyxy in crop pixels at the threshold in force; zeros where there is no prediction.
        missed: (N,) whether a picture gave no such map: unreadable, or an output that is not finite.
        errors: N error types at the threshold in force, "" for pictures without true boxes.
        max_box_acc: counts, or None where it was not asked for.
        pixels: counts, or None where there are no masks.
    """

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
        self.errors = [""] * count
        self.max_box_acc = MaxBoxAcc(contour_grid) if contour_grid else None
        self.pixels = PixelScores() if has_masks else None
        self._protocol = protocol
        # Contours serve MaxBoxAcc and, in one protocol, the boxes as well: found once for both.
        of_boxes = self.thresholds if protocol.draws_contours else ()
        self._contour_thresholds = sorted({*of_boxes, *contour_grid})
        self._columns_of_boxes = np.searchsorted(self._contour_thresholds, of_boxes)
        self._columns_of_accuracy = np.searchsorted(self._contour_thresholds, contour_grid)

    def add(self, index: int, score_map: np.ndarray, picture: Picture) -> None:
        """Scores one map, of :meth:`Question.score_map`."""
        contours = contour_boxes(score_map, self._contour_thresholds) if self._contour_thresholds else None
        if self._protocol.draws_contours:
            boxes = contours.largest[self._columns_of_boxes]
        else:
            boxes = self._protocol.boxes(score_map, self.thresholds)
        self.boxes[index] = boxes[self.in_force]
        if picture.true_boxes is not None:
            self.ious[index] = best_ious(boxes, picture.true_boxes)
            self.errors[index] = error_type(picture.is_right_class, boxes[self.in_force], picture.true_boxes)
            if self.max_box_acc is not None:
                largest, best = best_contour_ious(contours, picture.true_boxes)
                columns = self._columns_of_accuracy
                self.max_box_acc.update(largest[None, columns], best[None, columns])
        if self.pixels is not None and picture.mask is not None:
            self.pixels.update(score_map, picture.mask)

    def miss(self, index: int, has_boxes: bool) -> None:
        """Counts a picture without such a map."""
        self.missed[index] = True
        if has_boxes:
            self.errors[index] = MISSED
            if self.max_box_acc is not None:
                self.max_box_acc.update_missed(1)

    def part(self, indices: np.ndarray) -> MapPart:
        """The rows of these pictures, the only ones that were counted."""
        errors = [self.errors[index] for index in indices]
        rows = self.ious[indices], self.boxes[indices], self.missed[indices]
        return MapPart(*rows, errors, self.max_box_acc, self.pixels)

    def merge(self, indices: np.ndarray, part: MapPart) -> None:
        """Adds the rows and counts of other pictures of the split."""
        self.ious[indices], self.boxes[indices], self.missed[indices] = part.ious, part.boxes, part.missed
        for index, error in zip(indices, part.errors, strict=True):
            self.errors[index] = error
        if self.max_box_acc is not None:
            self.max_box_acc.merge(part.max_box_acc)
        if self.pixels is not None:
            self.pixels.merge(part.pixels)


class EvaluationPart(NamedTuple):
    """What an :class:`Evaluation` holds of the n pictures that one process scored."""

    indices: np.ndarray  # (n,) positions in the split
    top5: np.ndarray  # (n, min(5, K))
    probabilities: np.ndarray  # (n, min(5, K))
    sizes: np.ndarray  # (n, 2)
    failed: np.ndarray  # (n,)
    failure_of: dict[int, str]
    maps: list[MapPart]  # in the order of the evaluation's


class Observation(NamedTuple):
    """What an observer of :func:`evaluate` is given of each picture, as it comes."""

    index: int  # in the split
    picture: Tensor | None  # (3, R, R) normalised, None where unreadable
    main_map: np.ndarray | None  # (S, S) in [0, 1], None where missed
    failure: str  # a sentence, "" where fine
    seconds: float  # the picture's share of its batch's time


@dataclass
class Evaluation:
    """The records of one pass, picture by picture; figures follow from them without the model.

    N pictures, K classes. A picture that could not be read, or whose class scores are not finite, is a miss for every
    kind of map; one of whose maps one kind is not finite is a miss for that kind.

    Attributes:
        question: what was asked.
        num_classes: K.
        labels: (N,) ground truth.
        top5: (N, min(5, K)) predicted classes, best first.
        probabilities: of `top5`.
        sizes: (N, 2) (width, height) of the original pictures, 0 where unreadable.
        boxed: (N,) whether a picture has true boxes; those without count in the classification figures alone.
        failed: (N,) whether a picture is a miss for every kind of map.
        failure_of: position in the split -> sentence about a miss, or about a mask that could not be used.
        maps: kind -> result.
    """

    question: Question
    num_classes: int
    labels: np.ndarray
    top5: np.ndarray
    probabilities: np.ndarray
    sizes: np.ndarray
    boxed: np.ndarray
    failed: np.ndarray
    failure_of: dict[int, str] = field(default_factory=dict)
    maps: dict[MapKind, MapResult] = field(default_factory=dict)

    @property
    def failures(self) -> list[str]:
        """The sentences of `failure_of` in the split's order."""
        return [self.failure_of[index] for index in sorted(self.failure_of)]

    def scores(self, kind: MapKind | None = None, threshold: float | None = None) -> LocalizationScores:
        """Counts hits and misses of one kind of map (the main one) at one of its thresholds (the one in force)."""
        result = self.maps[kind or self.question.main]
        column = result.in_force if threshold is None else result.thresholds.index(threshold)
        scores = LocalizationScores(self.num_classes, strict=self.question.protocol.strict)
        found = ~result.missed & self.boxed
        scores.update(self.labels[found], self.top5[found], result.ious[found, column])
        unboxed = ~result.missed & ~self.boxed
        scores.update_unboxed(self.labels[unboxed], self.top5[unboxed])
        scores.update_missed(self.labels[result.missed & self.boxed])
        scores.update_missed(self.labels[result.missed & ~self.boxed], boxed=False)
        return scores

    def best_threshold(self, kind: MapKind) -> float:
        """The threshold with the highest GT-known Loc in the protocol's mean (the lowest of several)."""
        result = self.maps[kind]
        seen = self.boxed & ~result.missed
        right = np.zeros((self.num_classes, len(result.thresholds)))
        np.add.at(right, self.labels[seen], self.question.protocol.is_right(result.ious[seen]))
        if self.question.protocol.mean == "class_mean":
            right /= np.bincount(self.labels[self.boxed], minlength=self.num_classes).clip(min=1)[:, None]
        return result.thresholds[int(right.sum(axis=0).argmax())]

    def breakdown(self, kind: MapKind) -> ErrorBreakdown:
        """Counts the error types at the threshold in force."""
        breakdown = ErrorBreakdown()
        breakdown.update([error for error in self.maps[kind].errors if error])
        return breakdown

    def part(self, indices: np.ndarray) -> EvaluationPart:
        """The records of these pictures, the only ones that were scored so far."""
        rows = self.top5[indices], self.probabilities[indices], self.sizes[indices], self.failed[indices]
        return EvaluationPart(indices, *rows, self.failure_of, [result.part(indices) for result in self.maps.values()])

    def merge(self, part: EvaluationPart) -> None:
        """Adds the records of other pictures of the split, scored by another process for the same question."""
        rows = part.indices
        self.top5[rows], self.probabilities[rows] = part.top5, part.probabilities
        self.sizes[rows], self.failed[rows] = part.sizes, part.failed
        self.failure_of |= part.failure_of
        for result, map_part in zip(self.maps.values(), part.maps, strict=True):
            result.merge(rows, map_part)


def evaluate(
    model: BAS,
    loader: DataLoader,
    split: Split,
    question: Question,
    device: torch.device,
    description: str = "evaluation",
    observe: Callable[[Evaluation, Observation], Any] | None = None,
    receive: Callable[[Any], None] | None = None,
) -> Evaluation:
    """Localises and classifies every picture of a split.

    The map comes from the centre crop, the class scores are the mean softmax of ten crops; one pass serves both, and
    every kind of map, threshold and metric. While the device computes a batch, the host scores the one before.

    The processes of a run share the batches out among them (:mod:`utils.evaluation.sharding`) and must all call this
    with the same weights, split and question. Each returns the records of all pictures, which are a single process's.

    Args:
        model: on `device`; put into evaluation mode.
        loader: of :func:`build_loader` for this split and question.
        split: all pictures, with the true boxes in original pixels.
        question: what is asked.
        device: where the model is.
        description: the progress bar's.
        observe: called with each picture as soon as it is scored, in the split's order, by the process that scored it;
            given in all processes or in none.
        receive: called with what `observe` returned for each picture of the split, in the split's order; from other
            processes it comes pickled.

    Returns:
        The records of all pictures.
    """
    model.eval()
    own = own_pictures(len(split), loader.batch_size)
    evaluation = _blank_evaluation(split, question, model.num_classes)
    outputs = (
        _Output(model, batch._replace(indices=torch.from_numpy(own)[batch.indices]), question, device)
        for batch in progress_bar(loader if len(own) else (), description)
    )
    rounds = range(count_rounds(len(split), loader.batch_size))
    for _, output in zip_longest(rounds, _one_ahead(outputs)):  # in the last round a process may have no batch
        seconds = 0.0 if output is None else _score_batch(evaluation, split, output)
        if observe is not None:
            rows = () if output is None else range(len(output.batch.labels))
            for value in gather_round(observe(evaluation, output.observation(row, seconds)) for row in rows):
                if receive is not None:
                    receive(value)
    if process_count() > 1:
        for number, part in enumerate(gather_everywhere(evaluation.part(own))):
            if number != rank():
                evaluation.merge(part)
    return evaluation


def _blank_evaluation(split: Split, question: Question, num_classes: int) -> Evaluation:
    count, columns = len(split), min(5, num_classes)
    has_masks = question.with_masks and bool(split.masks)
    maps = {}
    for kind, threshold in question.thresholds.items():
        grids = question.grid, question.contour_grid
        maps[kind] = MapResult(count, threshold, question.protocol, *grids, has_masks)
    for kind, threshold in question.swept.items():
        maps[kind] = MapResult(count, threshold, question.protocol, question.swept_grid, (), False)
    return Evaluation(
        question=question,
        num_classes=num_classes,
        labels=split.labels,
        top5=np.zeros((count, columns), dtype=np.int64),
        probabilities=np.zeros((count, columns)),
        sizes=np.zeros((count, 2), dtype=np.int64),
        boxed=np.array([len(split.boxes.get(image_id, ())) > 0 for image_id in split.ids]),
        failed=np.zeros(count, dtype=bool),
        maps=maps,
    )


def build_loader(split: Split, question: Question, batch_size: int, num_workers: int, device: torch.device):
    """The loader of :func:`evaluate`, of this process's pictures alone.

    Arguments as for :func:`utils.data.datasets.build_evaluation_loader`. A process without pictures is given all, since
    a split is never empty, and reads none of them.
    """
    own = own_pictures(len(split), batch_size)
    if 0 < len(own) < len(split):
        split = take(split, own)
    return build_evaluation_loader(
        split,
        question.resize_size,
        batch_size,
        num_workers,
        device,
        crop_size=question.crop_size,
        with_masks=question.with_masks,
    )


class _Output:
    """A batch's way through the network and back: launched by the constructor, on the host after `wait`."""

    def __init__(self, model: BAS, batch: EvaluationBatch, question: Question, device: torch.device) -> None:
        begin = time.perf_counter()
        self.model, self.batch, self.question = model, batch, question
        self.failures: dict[int, str] = {}  # by position in the split
        self.main_maps: dict[int, np.ndarray] = {}  # by row
        labels = batch.labels.to(device, non_blocking=True)
        with torch.autocast(device.type, enabled=question.amp), torch.no_grad():
            encoding = model.encode_crops(*cut_crops(batch.images.to(device, non_blocking=True), question))
            maps = make_maps(model, encoding, (*question.thresholds, *question.swept), labels)
        probabilities = encoding.logits.float().softmax(dim=-1).mean(dim=1)
        best = probabilities.topk(min(5, model.num_classes))
        # From CUDA these copies go to pinned memory behind the batch's own kernels; `wait` waits for them alone, and
        # not for the next batch, which is launched by then.
        # Other devices have no such event: there the copies themselves wait.
        is_cuda = device.type == "cuda"
        self._is_finite = probabilities.isfinite().all(dim=1).to("cpu", non_blocking=is_cuda)
        self._best = [values.to("cpu", non_blocking=is_cuda) for values in (best.indices, best.values)]
        self._maps = {kind: values.squeeze(1).float().to("cpu", non_blocking=is_cuda) for kind, values in maps.items()}
        self._copied = torch.cuda.current_stream(device).record_event() if is_cuda else None
        self.seconds = time.perf_counter() - begin

    def wait(self) -> None:
        """Waits until the copies have arrived."""
        if self._copied is not None:
            self._copied.synchronize()
        self.is_finite = self._is_finite.tolist()
        self.top5, self.probabilities = (values.numpy() for values in self._best)
        self.maps = {kind: values.numpy() for kind, values in self._maps.items()}

    def score_map(self, row: int, kind: MapKind) -> np.ndarray | None:
        """One picture's map as thresholds see it; None where it is not finite."""
        spatial_map = self.maps[kind][row]
        if not np.isfinite(spatial_map).all():
            return None
        score_map = self.question.score_map(self.model, kind, spatial_map)
        if kind == self.question.main:
            self.main_maps[row] = score_map
        return score_map

    def observation(self, row: int, seconds: float) -> Observation:
        """What an observer sees of the batch's picture `row`."""
        index = int(self.batch.indices[row])
        picture = self.batch.images[row] if self.batch.readable[row] else None
        return Observation(index, picture, self.main_maps.get(row), self.failures.get(index, ""), seconds)


def cut_crops(images: Tensor, question: Question) -> tuple[Tensor, int]:
    """Crops (B, n, 3, S, S) of resized pictures, and which of the n gives the map."""
    if question.ten_crops:
        return ten_crop(images, question.crop_size), CENTRE_CROP
    return centre_crop(images, question.crop_size).unsqueeze(1), 0


def _one_ahead(items: Iterable) -> Iterator:
    """Passes items on, each once the next one was made."""
    previous = None
    for item in items:
        if previous is not None:
            yield previous
        previous = item
    if previous is not None:
        yield previous


def _score_batch(evaluation: Evaluation, split: Split, output: _Output) -> float:
    """Waits for a batch and scores it; the seconds of each of its pictures."""
    begin = time.perf_counter()
    output.wait()
    for row in range(len(output.batch.labels)):
        _score_picture(evaluation, split, output, row)
    evaluation.failure_of |= output.failures
    return (output.seconds + time.perf_counter() - begin) / len(output.batch.labels)


def _score_picture(evaluation: Evaluation, split: Split, output: _Output, row: int) -> None:
    batch, question = output.batch, evaluation.question
    index = int(batch.indices[row])
    evaluation.sizes[index] = batch.sizes[row]
    error = batch.errors[row]
    if not error and not output.is_finite[row]:
        error = f"{split.paths[index]}: the model's output is not finite"
    if error:
        evaluation.failed[index] = True
        output.failures[index] = error
        for result in evaluation.maps.values():
            result.miss(index, bool(evaluation.boxed[index]))
        return
    evaluation.top5[index], evaluation.probabilities[index] = output.top5[row], output.probabilities[row]
    mask = None
    if batch.masks is not None:
        if batch.mask_errors[row]:
            output.failures[index] = batch.mask_errors[row]
        elif split.ids[index] in split.masks:
            mask = batch.masks[row].numpy()
    truth = true_boxes(split, index, batch.sizes[row].tolist(), question) if evaluation.boxed[index] else None
    picture = Picture(truth, mask, bool(output.top5[row, 0] == split.labels[index]))
    for kind, result in evaluation.maps.items():
        score_map = output.score_map(row, kind)
        if score_map is not None:
            result.add(index, score_map, picture)
        else:
            result.miss(index, bool(evaluation.boxed[index]))
            output.failures[index] = f"{split.paths[index]}: the map of {kind.title} is not finite"


def true_boxes(split: Split, index: int, size: Sequence[int], question: Question) -> np.ndarray:
    """The true boxes of one picture: (n, 4) xyxy in crop pixels, from its (width, height) in original pixels."""
    boxes = split.boxes[split.ids[index]]
    return question.protocol.true_boxes(boxes, size, question.resize_size, question.crop_size)
