"""Scores the maps of a batch of pictures: in this process, or in others beside it while the device computes.

Threads would not do: a map's time goes into hundreds of calls of some 20 microseconds, and at each of them Python's
lock changes hands. Two threads score 0.8 times as many maps a second as one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from queue import SimpleQueue
from types import TracebackType
from typing import NamedTuple

import cv2
import numpy as np

from utils.evaluation.kinds import MapKind
from utils.evaluation.map_files import read_map
from utils.evaluation.records import MapResult, Truth, blank_results
from utils.evaluation.spec import EvaluationSpec
from utils.models.taps import Placement
from utils.system.errors import UserError
from utils.system.signals import ignore_signals, no_signals

AHEAD = 2  # batches that wait for each process, so that none of them idles and memory stays as it is


class Unscored(NamedTuple):
    """What is known of one picture before its maps are scored."""

    image_id: str
    truth: Truth
    maps: list[np.ndarray | None]  # (h, w) of each kind, as the network gives them; None for those of files


class Scored(NamedTuple):
    """What was found of n pictures."""

    results: list[MapResult]  # of each kind
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
                    result.miss(row, picture.truth.true_boxes is not None, picture.truth.mask)
                    failures[row] = str(error)
                    continue
                result.add(row, score_map, picture.truth)
                if kind == self.spec.main and self.keeps_maps:
                    main_maps[row] = score_map
        return Scored(list(results.values()), failures, main_maps)

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

    They are started anew, not forked: a fork of a process whose OpenCV has threads waits for these for ever. Each has a
    pipe of its own and a thread here that waits for it, so that one that dies is known by the end of its pipe, holds up
    no other, and ends by itself when this process is gone.

    Args:
        scorer: what they do.
        count: of processes; 0 scores in this one, when a result is asked for.

    Attributes:
        ahead: the number of batches that may be under way.
    """

    def __init__(self, scorer: Scorer, count: int) -> None:
        self._scorer = scorer
        self.ahead = AHEAD * count
        self._idle: SimpleQueue[Connection] = SimpleQueue()
        self._threads = ThreadPoolExecutor(count) if count else None
        self._processes = [self._start() for _ in range(count)]

    def _start(self) -> SpawnProcess:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, self._scorer))
        with no_signals():
            process.start()
        theirs.close()
        self._idle.put(ours)
        return process

    def __enter__(self) -> Scorers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()  # it has nothing to lose, and ignores anything gentler
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.join()

    def submit(self, pictures: Sequence[Unscored]) -> Callable[[], Scored]:
        """Hands a batch over.

        Returns:
            A function that waits for what is found. It raises UserError if a process has died.
        """
        if self._threads is None:
            return partial(self._scorer, pictures)
        return self._threads.submit(self._ask, pictures).result

    def _ask(self, pictures: Sequence[Unscored]) -> Scored:
        pipe = self._idle.get()  # there are as many threads as pipes
        try:
            pipe.send(pictures)
            found = pipe.recv()
        except (EOFError, OSError) as error:
            raise UserError(
                "a process that scores maps died, often for want of memory; lower --scorers, or give --scorers 0 to "
                "score in the main process"
            ) from error
        finally:
            self._idle.put(pipe)
        if isinstance(found, Exception):
            raise found
        return found


def _work(pipe: Connection, scorer: Scorer) -> None:
    """A process that scores: it takes one core, and ends with the evaluation alone, however that ends."""
    ignore_signals()
    cv2.setNumThreads(1)
    with suppress(EOFError, OSError):  # the other end is gone, and so is whoever would want the rest
        while True:
            pictures = pipe.recv()
            try:
                found: Scored | Exception = scorer(pictures)
            except Exception as error:
                found = error
            pipe.send(found)
