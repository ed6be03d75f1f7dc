"""One pass of a network over a split, and every figure that follows from it (paper sections 3.4 and 4.1)."""

from __future__ import annotations

import time
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
from utils.evaluation.kinds import FILES, MapKind
from utils.evaluation.map_files import read_map
from utils.evaluation.maps import label_map_extremes, make_maps
from utils.evaluation.misfits import find_misfit, require_fit
from utils.evaluation.records import Evaluation, Observation, Truth, blank_evaluation
from utils.evaluation.sharding import count_rounds, gather_round, own_pictures
from utils.evaluation.spec import EvaluationSpec
from utils.models.bas import BAS, rank_classes
from utils.system.errors import UserError
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
) -> Evaluation:
    """Localises and classifies every picture of a split.

    The map comes from the centre crop, the class scores are the mean softmax of ten crops; one pass serves both, and
    every kind of map, threshold and metric. While the device computes a batch, the host scores the one before.

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

    Returns:
        The records of all pictures.

    Raises:
        MisfitError: too many boxes cannot be of their pictures, and the spec does not ignore it.
    """
    model.eval()
    assert loader.batch_size is not None  # build_loader gives one
    own = own_pictures(len(split), loader.batch_size)
    evaluation = blank_evaluation(split, spec, model.num_classes)
    batches: Iterable[EvaluationBatch] = loader
    if len(own) == 0:
        batches = ()
    outputs = (
        _Output(model, batch._replace(indices=torch.from_numpy(own)[batch.indices]), spec, device)
        for batch in progress_bar(batches, description)
    )
    rounds = range(count_rounds(len(split), loader.batch_size))
    for _, output in zip_longest(rounds, _one_ahead(outputs)):  # in the last round a process may have no batch
        seconds = 0.0 if output is None else _score_batch(evaluation, split, output)
        # An hour's evaluation need not go to its end.
        if evaluation.misfit_of and process_count() == 1 and not spec.ignore_misfits:
            certain = [misfit for misfit in evaluation.misfits if misfit.kind != "turned"]
            require_fit(certain, evaluation.checked, int(evaluation.boxed.sum()), split.name)
        if observe is not None:
            rows = () if output is None else range(len(output.batch.labels))
            for value in gather_round(observe(evaluation, output.observation(row, seconds)) for row in rows):
                if receive is not None:
                    receive(value)
    if process_count() > 1:
        for number, part in enumerate(gather_everywhere(evaluation.part(own))):
            if number != rank():
                evaluation.merge(part)
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
    )


class _Output:
    """A batch's way through the network and back: launched by the constructor, on the host after `wait`."""

    def __init__(self, model: BAS, batch: EvaluationBatch, spec: EvaluationSpec, device: torch.device) -> None:
        begin = time.perf_counter()
        self.model, self.batch, self.spec = model, batch, spec
        self.failures: dict[int, str] = {}  # by position in the split
        self.main_maps: dict[int, np.ndarray] = {}  # by row
        labels = batch.labels.to(device, non_blocking=True)
        with torch.autocast(device.type, enabled=spec.amp), torch.no_grad():
            encoding = model.encode_crops(*cut_crops(batch.images.to(device, non_blocking=True), spec))
            maps = make_maps(model, encoding, (*spec.thresholds, *spec.swept), labels)
            extremes = label_map_extremes(model, encoding, labels, maps)
        probabilities = encoding.logits.float().softmax(dim=-1).mean(dim=1)
        best = rank_classes(probabilities, min(5, model.num_classes))
        # From CUDA these copies go to pinned memory behind the batch's own kernels; `wait` waits for them alone, and
        # not for the next batch, which is launched by then.
        # Other devices have no such event: there the copies themselves wait.
        is_cuda = device.type == "cuda"
        self._is_finite = probabilities.isfinite().all(dim=1).to("cpu", non_blocking=is_cuda)
        self._best = [values.to("cpu", non_blocking=is_cuda) for values in (best, probabilities.gather(1, best))]
        self._extremes = None if extremes is None else extremes.to("cpu", non_blocking=is_cuda)
        self._maps = {kind: values.squeeze(1).float().to("cpu", non_blocking=is_cuda) for kind, values in maps.items()}
        self._copied = torch.cuda.current_stream(device).record_event() if is_cuda else None
        self.seconds = time.perf_counter() - begin

    def wait(self) -> None:
        """Waits until the copies have arrived."""
        if self._copied is not None:
            self._copied.synchronize()
        self.is_finite = self._is_finite.tolist()
        self.top5, self.probabilities = (values.numpy() for values in self._best)
        self.extremes = None if self._extremes is None else self._extremes.numpy()
        self.maps = {kind: values.numpy() for kind, values in self._maps.items()}

    def score_map(self, row: int, kind: MapKind, image_id: str) -> np.ndarray:
        """One picture's map as thresholds see it.

        Raises:
            UserError: there is none, or it is not finite.
        """
        if kind.kind == FILES and self.spec.map_folder is not None:
            side = (self.spec.crop_size,) * 2 if self.spec.are_scored else None
            spatial_map = read_map(self.spec.map_folder, image_id, side)
        else:
            spatial_map = self.maps[kind][row]
            if not np.isfinite(spatial_map).all():
                raise UserError(f"the map of {kind.title} is not finite")
        score_map = self.spec.score_map(self.model, kind, spatial_map)
        if kind == self.spec.main:
            self.main_maps[row] = score_map
        return score_map

    def observation(self, row: int, seconds: float) -> Observation:
        """What an observer sees of the batch's picture `row`."""
        index = int(self.batch.indices[row])
        picture = self.batch.images[row] if self.batch.readable[row] else None
        return Observation(index, picture, self.main_maps.get(row), self.failures.get(index, ""), seconds)


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


def _score_batch(evaluation: Evaluation, split: Split, output: _Output) -> float:
    """Waits for a batch and scores it; the seconds of each of its pictures."""
    begin = time.perf_counter()
    output.wait()
    for row in range(len(output.batch.labels)):
        _score_picture(evaluation, split, output, row)
    evaluation.failure_of |= output.failures
    return (output.seconds + time.perf_counter() - begin) / len(output.batch.labels)


def _score_picture(evaluation: Evaluation, split: Split, output: _Output, row: int) -> None:
    batch, spec = output.batch, evaluation.spec
    index = int(batch.indices[row])
    evaluation.sizes[index] = batch.sizes[row]
    if evaluation.boxed[index] and batch.readable[row]:
        _compare_boxes(evaluation, split, index, int(batch.turns[row]))
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
    if output.extremes is not None:
        evaluation.extremes[index] = output.extremes[row]
    mask = None
    if batch.masks is not None:
        if batch.mask_errors[row]:
            output.failures[index] = batch.mask_errors[row]
        elif split.ids[index] in split.masks:
            mask = batch.masks[row].numpy()
    boxes = true_boxes(split, index, batch.sizes[row].tolist(), spec) if evaluation.boxed[index] else None
    truth = Truth(boxes, mask, bool(output.top5[row, 0] == split.labels[index]))
    for kind, result in evaluation.maps.items():
        try:
            score_map = output.score_map(row, kind, split.ids[index])
        except UserError as error:
            result.miss(index, bool(evaluation.boxed[index]))
            output.failures[index] = f"{split.paths[index]}: {error}"
        else:
            result.add(index, score_map, truth)


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
