"""One pass of a network over a split, and every figure that follows from it (paper sections 3.4 and 4.1)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from utils.data.evaluation import EvaluationBatch, build_evaluation_loader
from utils.data.split import Split, take
from utils.data.transforms import CENTRE_CROP, centre_crop, normalize, ten_crop
from utils.evaluation.maps import label_map_extremes, make_maps
from utils.evaluation.misfits import find_misfit, require_fit
from utils.evaluation.records import Evaluation, Observation, Truth, blank_evaluation, has_masks
from utils.evaluation.scoring import Scorer, Scorers, Unscored
from utils.evaluation.sharding import count_rounds, gather_round, own_pictures
from utils.evaluation.spec import EvaluationSpec
from utils.models.bas import BAS, rank_classes
from utils.system.processes import gather_everywhere, process_count, rank
from utils.system.progress import progress_bar


def evaluate(
    model: BAS,
    loader: DataLoader,
    split: Split,
    spec: EvaluationSpec,
    device: torch.device,
    description: str = "evaluation",
    observe: Callable[[Evaluation, Observation], Any] | None = None,
    receive: Callable[[Any], None] | None = None,
    scorers: int = 0,
) -> Evaluation:
    """Localises and classifies every picture of a split.

    The map comes from the centre crop, the class scores are the mean softmax of ten crops; one pass serves both, and
    every kind of map, threshold and metric. While the device computes a batch, the host scores those before.

    The processes of a run share the batches out among them (:mod:`utils.evaluation.sharding`) and must all call this
    with the same weights, split and spec. Each returns the records of all pictures, which are a single process's.

    Args:
        model: on `device`; put into evaluation mode.
        loader: of :func:`build_loader` for this split and spec.
        split: all pictures, with the true boxes in original pixels.
        spec: what is asked.
        device: where the model is.
        description: the progress bar's.
        observe: called with each picture as soon as it is scored, in the split's order, by the process that scored it;
            given in all processes or in none.
        receive: called with what `observe` returned for each picture of the split, in the split's order; from other
            processes it comes pickled.
        scorers: processes that score maps beside this one, or 0; the records are the same.

    Returns:
        The records of all pictures.

    Raises:
        MisfitError: too many boxes cannot be of their pictures, and the spec does not ignore it.
        UserError: a process that scores maps died.
    """
    model.eval()
    assert loader.batch_size is not None  # build_loader gives one
    own = own_pictures(len(split), loader.batch_size)
    evaluation = blank_evaluation(split, spec, model.num_classes)
    batches: Iterable[EvaluationBatch] = loader if len(own) else ()
    outputs = (
        _Output(model, batch._replace(indices=torch.from_numpy(own)[batch.indices]), spec, device)
        for batch in progress_bar(batches, description)
    )
    placements = tuple(spec.placement(model, kind) for kind in evaluation.maps)
    scorer = Scorer(spec, placements, has_masks(split, spec), observe is not None)
    rounds = range(count_rounds(len(split), loader.batch_size))
    with Scorers(scorer, scorers) as pool:
        # In the last round a process may have no batch.
        for _, output in zip_longest(rounds, _under_way(outputs, evaluation, split, pool)):
            if output is not None:
                output.enter(evaluation)
            # An hour's evaluation need not go to its end.
            if evaluation.misfit_of and process_count() == 1 and not spec.ignore_misfits:
                certain = [misfit for misfit in evaluation.misfits if misfit.kind != "turned"]
                require_fit(certain, evaluation.checked, int(evaluation.boxed.sum()), split.name)
            if observe is not None:
                rows = () if output is None else range(len(output.batch.labels))
                for value in gather_round(observe(evaluation, output.observation(row)) for row in rows):
                    if receive is not None:
                        receive(value)
    if process_count() > 1:
        for number, (indices, part) in enumerate(gather_everywhere((own, evaluation.part(own)))):
            if number != rank():
                evaluation.merge(indices, part)
    if not spec.ignore_misfits:
        require_fit(evaluation.misfits, evaluation.checked, evaluation.checked, split.name)
    return evaluation


def build_loader(split: Split, spec: EvaluationSpec, batch_size: int, num_workers: int, device: torch.device):
    """The loader of :func:`evaluate`, of this process's pictures alone.

    Arguments as for :func:`utils.data.evaluation.build_evaluation_loader`. A process without pictures is given all,
    since a split is never empty, and reads none of them.
    """
    own = own_pictures(len(split), batch_size)
    if 0 < len(own) < len(split):
        split = take(split, own.tolist())
    return build_evaluation_loader(
        split,
        spec.resize_size,
        batch_size,
        num_workers,
        device,
        crop_size=spec.crop_size,
        with_masks=spec.with_masks,
        any_level=spec.protocol.any_level,
    )


class _Output:
    """A batch's way through the network and the scorers: launched by the constructor, on the host after `hand_over`,
    in the records after `enter`."""

    def __init__(self, model: BAS, batch: EvaluationBatch, spec: EvaluationSpec, device: torch.device) -> None:
        begin = time.perf_counter()
        self.batch = batch
        self._rows: list[int] = []  # of the pictures whose maps are scored
        self._main_maps: dict[int, np.ndarray | None] = {}  # by row
        self._masks: dict[int, np.ndarray] = {}  # by row, of pictures without boxes
        self._failures: dict[int, str] = {}  # by position in the split
        is_cuda = device.type == "cuda"  # elsewhere memory is not pinned: a copy is waited for
        labels = batch.labels.to(device, non_blocking=is_cuda)
        with torch.autocast(device.type, enabled=spec.amp), torch.no_grad():
            encoding = model.encode_crops(*cut_crops(batch.images.to(device, non_blocking=is_cuda), spec))
            maps = make_maps(model, encoding, (*spec.thresholds, *spec.swept), labels)
            extremes = label_map_extremes(model, encoding, labels, maps)
        probabilities = encoding.logits.float().softmax(dim=-1).mean(dim=1)
        best = rank_classes(probabilities, min(5, model.num_classes))
        # From CUDA these copies go to pinned memory behind the batch's own kernels; they are waited for alone, and not
        # the next batch, which is launched by then.
        self._is_finite = probabilities.isfinite().all(dim=1).to("cpu", non_blocking=is_cuda)
        self._best = [values.to("cpu", non_blocking=is_cuda) for values in (best, probabilities.gather(1, best))]
        self._extremes = None if extremes is None else extremes.to("cpu", non_blocking=is_cuda)
        self._maps = {kind: values.squeeze(1).float().to("cpu", non_blocking=is_cuda) for kind, values in maps.items()}
        self._copied = torch.cuda.current_stream(device).record_event() if is_cuda else None
        self.seconds = time.perf_counter() - begin

    def hand_over(self, evaluation: Evaluation, split: Split, pool: Scorers) -> _Output:
        """Waits until the copies have arrived, enters what needs no scoring and gives the rest to the scorers."""
        begin = time.perf_counter()
        if self._copied is not None:
            self._copied.synchronize()
        maps = {kind: values.numpy() for kind, values in self._maps.items()}
        extremes = None if self._extremes is None else self._extremes.numpy()
        top5, probabilities = (values.numpy() for values in self._best)
        pictures = []
        for row, is_finite in enumerate(self._is_finite.tolist()):
            index = int(self.batch.indices[row])
            evaluation.sizes[index] = self.batch.sizes[row]
            if evaluation.boxed[index] and self.batch.readable[row]:
                _compare_boxes(evaluation, split, index, int(self.batch.turns[row]))
            if error := self.batch.errors[row] or (
                "" if is_finite else f"{split.paths[index]}: the model's output is not finite"
            ):
                evaluation.failed[index] = True
                self._failures[index] = error
                mask = None if self.batch.masks is None else self.batch.masks[row].numpy()
                for result in evaluation.maps.values():
                    result.miss(index, bool(evaluation.boxed[index]), mask)
                continue
            evaluation.top5[index], evaluation.probabilities[index] = top5[row], probabilities[row]
            if extremes is not None:
                evaluation.extremes[index] = extremes[row]
            truth = self._truth(evaluation, split, row, int(top5[row, 0]))
            of_kinds = [maps[kind][row] if kind in maps else None for kind in evaluation.maps]
            pictures.append(Unscored(split.ids[index], truth, of_kinds))
            self._rows.append(row)
        self._scored = pool.submit(pictures)
        self.seconds += time.perf_counter() - begin
        self._paths = split.paths
        return self

    def _truth(self, evaluation: Evaluation, split: Split, row: int, predicted: int) -> Truth:
        batch, spec = self.batch, evaluation.spec
        index, mask = int(batch.indices[row]), None
        if batch.masks is not None:
            if batch.mask_errors[row]:
                self._failures[index] = batch.mask_errors[row]
            elif split.ids[index] in split.masks:
                mask = batch.masks[row].numpy()
                if not evaluation.boxed[index]:
                    self._masks[row] = mask
        boxes = true_boxes(split, index, batch.sizes[row].tolist(), spec) if evaluation.boxed[index] else None
        return Truth(boxes, mask, predicted == split.labels[index])

    def enter(self, evaluation: Evaluation) -> None:
        """Waits for the scorers and puts what they found into the records."""
        begin = time.perf_counter()
        scored = self._scored()
        indices = self.batch.indices[self._rows].numpy()
        for result, part in zip(evaluation.maps.values(), scored.results, strict=True):
            result.merge(indices, part)
        for index, failure in zip(indices.tolist(), scored.failures, strict=True):
            if failure:
                self._failures[index] = f"{self._paths[index]}: {failure}"
        evaluation.failure_of |= self._failures
        self._main_maps = dict(zip(self._rows, scored.main_maps, strict=True))
        self.seconds += time.perf_counter() - begin

    def observation(self, row: int) -> Observation:
        """What an observer sees of the batch's picture `row`."""
        index = int(self.batch.indices[row])
        picture = self.batch.images[row] if self.batch.readable[row] else None
        seconds = self.seconds / len(self.batch.labels)
        mask = self._masks.get(row)
        return Observation(index, picture, self._main_maps.get(row), mask, self._failures.get(index, ""), seconds)


def _under_way(outputs: Iterable[_Output], evaluation: Evaluation, split: Split, pool: Scorers) -> Iterator[_Output]:
    """Hands batches over to the scorers, as many at a time as they can bear, and gives them back in order."""
    waiting: deque[_Output] = deque()
    for output in _one_ahead(outputs):
        waiting.append(output.hand_over(evaluation, split, pool))
        if len(waiting) > pool.ahead:
            yield waiting.popleft()
    yield from waiting


def cut_crops(images: Tensor, spec: EvaluationSpec) -> tuple[Tensor, int]:
    """Normalised crops (B, n, 3, S, S) of resized pictures (B, 3, R, R) uint8, and which of the n gives the map."""
    images = normalize(images)
    if spec.ten_crops:
        return ten_crop(images, spec.crop_size), CENTRE_CROP
    return centre_crop(images, spec.crop_size).unsqueeze(1), 0


def _one_ahead(items: Iterable) -> Iterator:
    """Passes items on, each once the next one was made."""
    previous = None
    for item in items:
        if previous is not None:
            yield previous
        previous = item
    if previous is not None:
        yield previous


def _compare_boxes(evaluation: Evaluation, split: Split, index: int, turn: int) -> None:
    """Notes what is wrong with the boxes of a picture."""
    image_id, size = split.ids[index], tuple(evaluation.sizes[index].tolist())
    misfit = find_misfit(split.paths[index], size, turn, split.boxes[image_id], split.sizes.get(image_id))
    if misfit is not None:
        evaluation.misfit_of[index] = misfit


def true_boxes(split: Split, index: int, size: Sequence[int], spec: EvaluationSpec) -> np.ndarray:
    """The true boxes of one picture: (n, 4) xyxy in crop pixels, from its (width, height) in original pixels."""
    boxes = split.boxes[split.ids[index]]
    return spec.protocol.true_boxes(boxes, size, spec.resize_size, spec.crop_size)
