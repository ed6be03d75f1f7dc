"""Speed of scoring maps against wsolevaluation's own evaluators: `python -m tests.benchmark_scoring`.

Both sides score the same maps, one after the other in one process of one thread, in turn: processor milliseconds a
picture, medians over the rounds. The maps come from an evaluation's `--save-maps` (with `--maps FOLDER`), or are made
up: smoothed noise at 28 x 28, upsampled.

wsolevaluation's box evaluator (Choe et al., CVPR 2020) is re-implemented literally: one threshold after another, one
contour after another. Its figures and ours must be equal, or the benchmark fails.

With `--scorers`, whole evaluations by a network that costs nothing: pictures a second and the peak of memory, by the
number of processes that score beside the main one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import torch
from torch import Tensor

from utils.data.evaluation import EvaluationBatch
from utils.data.split import Split
from utils.evaluation.kinds import MapKind
from utils.evaluation.protocols import PROTOCOLS
from utils.evaluation.records import MapResult, Truth
from utils.evaluation.run import evaluate
from utils.evaluation.spec import EvaluationSpec, threshold_grid
from utils.localization.maps import normalize_map, upsample_map
from utils.metrics import MaxBoxAcc
from utils.models.bas import Encoding
from utils.system.memory import peak_memory_mib
from utils.system.options import NATURAL, POSITIVE, CommandParser

SIDE = 224
THRESHOLD = 0.15
MADE_UP = 100


class TheirBoxEvaluator:
    """wsolevaluation's BoxEvaluator, of one setting of `multi_contour_eval`."""

    def __init__(self, thresholds: Sequence[float], ious: Sequence[int], multi_contour: bool) -> None:
        self.thresholds, self.ious, self.multi_contour = list(thresholds), ious, multi_contour
        self.num_correct = {iou: np.zeros(len(thresholds)) for iou in ious}

    def accumulate(self, score_map: np.ndarray, true_boxes: np.ndarray) -> None:
        boxes, counts = self._boxes(score_map)
        overlaps = self._ious(np.concatenate(boxes, axis=0), true_boxes)
        start, best = 0, []
        for count in counts:
            best.append(max(overlaps.max(1)[start : start + count]))
            start += count
        for iou in self.ious:
            self.num_correct[iou][np.where(np.asarray(best) >= iou / 100)[0]] += 1

    def _boxes(self, score_map: np.ndarray) -> tuple[list[np.ndarray], list[int]]:
        height, width = score_map.shape
        image = np.expand_dims((score_map * 255).astype(np.uint8), 2)
        found, counts = [], []
        for threshold in self.thresholds:
            _, mask = cv2.threshold(image, int(threshold * np.max(image)), 255, cv2.THRESH_BINARY)
            contours = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
            if len(contours) == 0:
                found.append(np.asarray([[0, 0, 0, 0]]))
                counts.append(1)
                continue
            if not self.multi_contour:
                contours = [max(contours, key=cv2.contourArea)]
            boxes = []
            for contour in contours:
                x, y, w, h = cv2.boundingRect(contour)
                boxes.append([x, y, min(x + w, width - 1), min(y + h, height - 1)])
            found.append(np.asarray(boxes))
            counts.append(len(contours))
        return found, counts

    @staticmethod
    def _ious(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        left, top = (np.maximum(first[:, side, None], second[:, side]) for side in (0, 1))
        right, bottom = (np.minimum(first[:, side, None], second[:, side]) for side in (2, 3))
        overlap = np.maximum(0, right - left + 1) * np.maximum(0, bottom - top + 1)
        areas = [(boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1) for boxes in (first, second)]
        return overlap / (areas[0][:, None] + areas[1] - overlap)


def load_maps(folder: Path | None) -> list[np.ndarray]:
    """Score maps (S, S) in [0, 1]."""
    if folder is not None:
        return [np.load(path) for path in sorted(folder.rglob("*.npy"))]
    rng = np.random.default_rng(0)
    small = [
        cv2.GaussianBlur(rng.random((28, 28)).astype(np.float32), (0, 0), rng.uniform(1, 4)) for _ in range(MADE_UP)
    ]
    return [upsample_map(normalize_map(values), SIDE) for values in small]


def scorer(grid: Sequence[float], contour_grid: Sequence[float], count: int) -> MapResult:
    """What an evaluation under the authors' protocol scores."""
    return MapResult(count, THRESHOLD, PROTOCOLS["authors"], grid, contour_grid, False)


class FreeNetwork:
    """Gives every picture the next of a few maps, and takes no time for it."""

    arch, num_classes = "free", 2

    def __init__(self, maps: Sequence[np.ndarray]) -> None:
        self._maps = torch.stack([torch.from_numpy(cv2.resize(values, (28, 28))) for values in maps])[:, None]
        self._next = 0

    def eval(self) -> None:
        pass

    def encode_crops(self, crops: Tensor, map_crop: int) -> Encoding:
        rows = torch.arange(self._next, self._next + len(crops)) % len(self._maps)
        self._next += len(crops)
        scores = torch.zeros(len(crops), self.num_classes)
        return Encoding(scores[:, None], scores, self._maps[rows], self._maps[rows])

    def fuse_top_k(self, features: Tensor, *_: object) -> Tensor:
        return features

    def foreground_maps(self, features: Tensor, classes: Tensor) -> Tensor:
        return features


class FreeBatches:
    """The batches of black pictures, read from nowhere."""

    batch_size = 8

    def __init__(self, count: int) -> None:
        self._count = count

    def __iter__(self) -> Iterator[EvaluationBatch]:
        for start in range(0, self._count, self.batch_size):
            size = min(self.batch_size, self._count - start)
            yield EvaluationBatch(
                images=torch.zeros(size, 3, 8, 8, dtype=torch.uint8),
                labels=torch.zeros(size, dtype=torch.int64),
                indices=torch.arange(start, start + size),
                sizes=torch.full((size, 2), 256),
                turns=torch.ones(size, dtype=torch.int64),
                readable=torch.ones(size, dtype=torch.bool),
                errors=("",) * size,
                masks=None,
                mask_errors=("",) * size,
            )


def measure_scorers(maps: Sequence[np.ndarray], count: int, numbers: Sequence[int], repeats: int) -> None:
    """Prints pictures a second of evaluations that only score, in turn, and their ratio to the first number's."""
    ids = tuple(map(str, range(count)))
    boxes = {image_id: np.array([[60.0, 60.0, 180.0, 180.0]]) for image_id in ids}
    paths = tuple(map(Path, ids))
    split = Split("test", "benchmark", ids, paths, np.zeros(count, dtype=np.int64), boxes, ("one", "other"), {})
    thresholds = {MapKind("bas", 2): THRESHOLD}
    spec = EvaluationSpec(PROTOCOLS["authors"], 8, 8, False, thresholds, contour_grid=threshold_grid())
    spec = replace(spec, resize_size=256, crop_size=224)
    rates: dict[int, list[float]] = {number: [] for number in numbers}
    with patch("utils.evaluation.run.cut_crops", lambda images, _: (images[:, None], 0)):
        for _ in range(repeats):
            for number in numbers:
                begin = time.perf_counter()
                model: Any = FreeNetwork(maps)
                batches: Any = FreeBatches(count)
                evaluate(model, batches, split, spec, torch.device("cpu"), scorers=number)
                rates[number].append(count / (time.perf_counter() - begin))
    peak = peak_memory_mib(torch.device("cpu"))
    print(f"\n{count} pictures by a network that costs nothing; {peak:.0f} MiB at the peak")
    for number, found in rates.items():
        ratios = [one / first for one, first in zip(found, rates[numbers[0]], strict=True)]
        print(f"{number} scorers: {median(found):6.0f} pictures/s, {median(ratios):.2f} times those of {numbers[0]}")


def milliseconds(task: Callable[[], object], count: int) -> float:
    begin = time.process_time()
    task()
    return 1000 * (time.process_time() - begin) / count


def main() -> None:
    parser = CommandParser(description=__doc__)
    parser.add_argument("--maps", type=Path, metavar="FOLDER", help="of an evaluation's --save-maps (default: made up)")
    parser.add_argument("--repeats", type=POSITIVE, default=5, help="rounds (default: %(default)s)")
    parser.add_argument("--scorers", type=NATURAL, nargs="+", default=(), metavar="N", help="whole evaluations as well")
    parser.add_argument("--pictures", type=POSITIVE, default=2000, help="of --scorers (default: %(default)s)")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    maps = load_maps(args.maps)
    rng = np.random.default_rng(1)
    corners = rng.integers(0, [SIDE // 2, SIDE // 2], (len(maps), 2))
    truths = [np.array([[*corner, *(corner + rng.integers(40, 110, 2))]]) for corner in corners]
    coarse, fine = threshold_grid(), threshold_grid(0.001)

    def ours(grid: Sequence[float], contour_grid: Sequence[float]) -> Callable[[], MaxBoxAcc]:
        def score() -> MaxBoxAcc:
            result = scorer(grid, contour_grid, len(maps))
            for index, (values, truth) in enumerate(zip(maps, truths, strict=True)):
                result.add(index, values, Truth(truth, None, True))
            assert result.max_box_acc is not None
            return result.max_box_acc

        return score

    def theirs(*evaluators: tuple[Sequence[float], tuple[int, ...], bool]) -> Callable[[], list[TheirBoxEvaluator]]:
        def score() -> list[TheirBoxEvaluator]:
            made = [TheirBoxEvaluator(*evaluator) for evaluator in evaluators]
            for values, truth in zip(maps, truths, strict=True):
                for evaluator in made:
                    evaluator.accumulate(values, truth)
            return made

        return score

    both = theirs((coarse, (50,), False), (coarse, (30, 50, 70), True))
    found, expected = ours((), coarse)(), both()
    equal = np.array_equal(found.correct_largest, expected[0].num_correct[50])
    equal &= all(
        np.array_equal(*pair) for pair in zip(found.correct_any, expected[1].num_correct.values(), strict=True)
    )
    tasks = {
        "wsolevaluation's MaxBoxAcc": theirs((coarse, (50,), False)),
        "wsolevaluation's MaxBoxAcc and V2": both,
        "here: default (the box in force, MaxBoxAcc and V2)": ours((), coarse),
        "here: --sweep": ours(coarse, coarse),
        "here: default at steps of 0.001": ours((), fine),
    }
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(args.repeats):
        for name, task in tasks.items():
            seconds[name].append(milliseconds(task, len(maps)))
    print(f"{len(maps)} maps, processor milliseconds a picture, medians of {args.repeats}")
    for name, values in seconds.items():
        print(f"{name:52} {median(values):7.2f}")
    if args.scorers:
        measure_scorers(maps, args.pictures, args.scorers, args.repeats)
    if not equal:
        sys.exit("the figures differ")


if __name__ == "__main__":
    main()
