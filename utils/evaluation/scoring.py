"""Scores the maps of a batch of pictures: in this process, or in others beside it while the device computes.

Threads would not do: a map's time goes into hundreds of calls of some 20 microseconds, and at each of them Python's
lock changes hands. Two threads score 0.8 times as many maps a second as one.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import NamedTuple

import cv2
import numpy as np

from utils.data.loader import ignore_signals
from utils.evaluation.kinds import MapKind
from utils.evaluation.map_files import read_map
from utils.evaluation.records import MapPart, Truth, blank_results
from utils.evaluation.spec import EvaluationSpec
from utils.models.taps import Placement
from utils.system.errors import UserError

AHEAD = 2  # batches that wait for each process, so that none of them idles and memory stays as it is
_ORPHANED = 1.0  # seconds between two looks at whether the evaluation is still there


class Unscored(NamedTuple):
    """What is known of one picture before its maps are scored."""

    image_id: str
    truth: Truth
    maps: list[np.ndarray | None]  # (h, w) of each kind, as the network gives them; None for those of files


class Scored(NamedTuple):
    """What was found of n pictures."""

    parts: list[MapPart]  # of each kind
    failures: list[str]  # n sentences about maps that cannot be scored, "" where all is well
    main_maps: list[np.ndarray | None]  # n of (S, S) in [0, 1]; None where missed, or where nobody looks at them


@dataclass(frozen=True)
class Scorer:
    """Scores maps as a spec asks; can be sent to another process, and knows no network.

    Attributes:
        spec: protocol, kinds, thresholds.
        placements: of each kind, of :meth:`EvaluationSpec.placement`.
        has_masks: whether there are masks to score by.
        keeps_maps: whether the main maps are wanted back.
    """

    spec: EvaluationSpec
    placements: tuple[Placement | None, ...]
    has_masks: bool
    keeps_maps: bool

    def __call__(self, pictures: Sequence[Unscored]) -> Scored:
        """Scores every kind of map of n pictures."""
        results = blank_results(len(pictures), self.spec, self.has_masks)
        failures = [""] * len(pictures)
        main_maps: list[np.ndarray | None] = [None] * len(pictures)
        for row, picture in enumerate(pictures):
            for (kind, result), place, values in zip(results.items(), self.placements, picture.maps, strict=True):
                try:
                    score_map = self._score_map(kind, place, values, picture.image_id)
                except UserError as error:
                    result.miss(row, picture.truth.true_boxes is not None)
                    failures[row] = str(error)
                    continue
                result.add(row, score_map, picture.truth)
                if kind == self.spec.main and self.keeps_maps:
                    main_maps[row] = score_map
        rows = np.arange(len(pictures))
        return Scored([result.part(rows) for result in results.values()], failures, main_maps)

    def _score_map(
        self, kind: MapKind, place: Placement | None, values: np.ndarray | None, image_id: str
    ) -> np.ndarray:
        """One map as thresholds see it; UserError where there is none, or it is not finite."""
        spec = self.spec
        if values is None:
            assert spec.map_folder is not None  # only maps of files are missing here
            values = read_map(spec.map_folder, image_id, (spec.crop_size,) * 2 if spec.are_scored else None)
        elif not np.isfinite(values).all():
            raise UserError(f"the map of {kind.title} is not finite")
        return spec.placed_score_map(kind, values, place)


class Scorers:
    """A scorer at work in `count` processes, or in this one.

    Args:
        scorer: what they do.
        count: of processes; 0 scores in this one, when a result is asked for.

    Attributes:
        ahead: the number of batches that may be under way.
    """

    def __init__(self, scorer: Scorer, count: int) -> None:
        self._scorer = scorer
        self._pool = ProcessPoolExecutor(count, initializer=_begin) if count else None
        self.ahead = AHEAD * count

    def __enter__(self) -> Scorers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def submit(self, pictures: Sequence[Unscored]) -> Callable[[], Scored]:
        """Hands a batch over.

        Returns:
            A function that waits for what is found. It raises UserError if a process has died.
        """
        if self._pool is None:
            return partial(self._scorer, pictures)
        try:
            return partial(_result, self._pool.submit(self._scorer, pictures))
        except BrokenProcessPool as error:
            raise _died() from error


def _result(future: Future[Scored]) -> Scored:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise _died() from error


def _died() -> UserError:
    return UserError(
        "a process that scores maps died, often for want of memory; lower --scorers, or give --scorers 0 to score in "
        "the main process"
    )


def _begin() -> None:
    """The start of a process that scores: it takes one core, and ends with the evaluation alone, however that ends."""
    ignore_signals(0)
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    # A killed parent tells nobody; its children would wait for work for ever.
    while os.getppid() == parent:
        time.sleep(_ORPHANED)
    os._exit(1)
