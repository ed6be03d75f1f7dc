"""The training pictures: augmented crops in an order and a look that follow from seed, epoch and picture alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DistributedSampler, Sampler

from utils.data.images import ImageError
from utils.data.loader import PictureLoader, Pictures, check_counts
from utils.data.split import Split
from utils.data.transforms import TrainingTransform, stack_pixels
from utils.models.recipe import BILINEAR
from utils.system.processes import process_count, rank
from utils.system.signals import ignore_signals


class Draw(NamedTuple):
    """One picture of one epoch: what a training loader's sampler asks for."""

    index: int  # type: ignore[assignment]  # in the split; tuple's method goes unused
    epoch: int  # counted from 0


class TrainingBatch(NamedTuple):
    """A batch of B augmented crops.

    Attributes:
        images: (B, 3, S, S) uint8, RGB, for :func:`utils.data.transforms.normalize`.
        labels: (B,) int64.
        indices: (B,) int64, positions in the split.
        replaced: a sentence for each picture that could not be read and whose place another one took.
        positives: (B, K) bool, all labels of pictures of several, of which `labels` has one, drawn at random; None
            where each has one.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    replaced: tuple[str, ...]
    positives: Tensor | None = None


class TrainingItem(NamedTuple):
    """One picture of a :class:`TrainingBatch`, with the same fields; `replaced` is "" where nothing was."""

    image: Tensor
    label: int
    index: int  # type: ignore[assignment]  # as in `Draw`
    replaced: str
    positives: np.ndarray | None = None


class TrainingImages(Pictures):
    """The augmented pictures of a split; what a picture looks like follows from seed, epoch and picture alone.

    So it does not matter which process reads it, or after what: an epoch can be entered anywhere.

    Args:
        split: the images.
        transform: RGB PIL image and random generator -> tensor, see :class:`utils.data.transforms.TrainingTransform`.
        seed: of all epochs' augmentation.
        skip_bad: put the next readable picture of the split in the place of one that cannot be read.

    Raises:
        ImageError: on access to a picture that cannot be read, or to any where none can be.
    """

    def __init__(
        self,
        split: Split,
        transform: Callable[[Image.Image, np.random.Generator], Tensor],
        seed: int,
        skip_bad: bool = False,
    ) -> None:
        super().__init__(split.paths, split.labels, banner=split.banner)
        self._positives = split.positives
        self._transform = transform
        self._seed = seed
        self._skip_bad = skip_bad

    def __getitem__(self, draw: Draw) -> TrainingItem:
        index, picture, replaced = self._read_or_replace(draw.index)
        generator = np.random.default_rng((self._seed, draw.epoch, draw.index))
        image = self._transform(picture, generator)
        if self._positives is None:
            return TrainingItem(image, int(self._labels[index]), index, replaced)
        positives = self._positives[index]
        return TrainingItem(image, int(generator.choice(np.flatnonzero(positives))), index, replaced, positives)

    def _read_or_replace(self, index: int) -> tuple[int, Image.Image, str]:
        try:
            return index, self._read(index), ""
        except ImageError as error:
            if not self._skip_bad:
                raise
            reason = str(error)
        for other in (*range(index + 1, len(self)), *range(index)):
            with suppress(ImageError):
                return other, self._read(other), f"{reason} (until then {self._path(other)} takes its place)"
        raise ImageError(f"no picture of the split can be read; the first: {reason}")

    def __getitems__(self, draws: Sequence[Draw]) -> list[TrainingItem] | ImageError:
        # What a DataLoader fetches. A failure travels as a value: torch would re-raise it from a worker process with
        # a whole traceback as its message.
        try:
            return [self[draw] for draw in draws]
        except ImageError as error:
            return error


class EpochBatches(Sampler):
    """The batches of one epoch for one of the run's processes, each a list of :class:`Draw`.

    The order is DistributedSampler's for this seed and epoch: shuffled anew each epoch, and dealt out to the processes
    so that the n-th batches of all of them together are the n-th batch of a single process with a batch as large. The
    last one is filled up with pictures from the epoch's start, so that all processes get equally many.

    A last batch of a single image is left out, since batch normalisation would take its statistics from that image
    alone.

    Args:
        count: pictures in the split.
        batch_size: of this process.
        seed: of all epochs' orders.
        drop_last: whether to leave out every last batch that is not full, unless it is the only one.
    """

    def __init__(self, count: int, batch_size: int, seed: int, drop_last: bool = False) -> None:
        pictures: Any = range(count)  # no Dataset, and only its length is asked for
        self._order: DistributedSampler[int] = DistributedSampler(pictures, process_count(), rank(), seed=seed)
        self._batch_size = batch_size
        self._epoch, self._first = 0, 0
        steps, rest = divmod(len(self._order), batch_size)
        self.steps = steps + (steps == 0 or (rest > 1 and not drop_last))  # of a whole epoch

    def start_at(self, epoch: int, step: int = 0) -> None:
        """Sets which epoch the next iteration gives, and how many of its batches it passes over."""
        self._epoch, self._first = epoch, step

    def __iter__(self) -> Iterator[list[Draw]]:
        self._order.set_epoch(self._epoch)
        indices, epoch, size = list(self._order), self._epoch, self._batch_size
        for step in range(self._first, self.steps):
            yield [Draw(index, epoch) for index in indices[step * size : (step + 1) * size]]

    def __len__(self) -> int:
        return self.steps - self._first


class TrainingLoader(PictureLoader):
    """A loader of :class:`TrainingBatch`, of the epoch that its `batch_sampler` is told."""

    batch_sampler: EpochBatches


def _collate_training(items: list[TrainingItem] | ImageError) -> TrainingBatch | ImageError:
    if isinstance(items, ImageError):
        return items
    images, labels, indices, replaced, positives = zip(*items, strict=True)
    return TrainingBatch(
        images=stack_pixels(images),
        labels=torch.tensor(labels),
        indices=torch.tensor(indices),
        replaced=tuple(filter(None, replaced)),
        positives=None if positives[0] is None else torch.from_numpy(np.stack(positives)),
    )


def build_training_loader(
    split: Split,
    resize_size: int,
    crop_size: int,
    batch_size: int,
    num_workers: int,
    seed: int,
    device: torch.device,
    skip_bad: bool = False,
    prefetch: int = 2,
    drop_last: bool = False,
    resample: str = BILINEAR,
) -> TrainingLoader:
    """Builds the shuffling loader of augmented crops, of this process's share where the run has several.

    Order and augmentation follow from seed and epoch alone: not from the number of workers, nor from what was read
    before. `start_at` of its `batch_sampler` chooses the epoch and the batch to begin with.

    Args:
        split: the images.
        resize_size: side of the resized picture, in pixels.
        crop_size: side S of the random crop.
        batch_size: B of this process; the last batch of an epoch may be smaller.
        num_workers: processes that read pictures, kept from epoch to epoch; 0 reads them in this one.
        seed: of order and augmentation.
        device: where the training runs; batches are pinned for CUDA.
        skip_bad: see :class:`TrainingImages`.
        prefetch: batches that each worker reads ahead.
        drop_last: of :class:`EpochBatches`.
        resample: how pictures are resized.

    Returns:
        A loader of :class:`TrainingBatch`.

    Raises:
        UsageError: a size or count that cannot work.
        ImageError: while iterating, when a picture cannot be read.
    """
    check_counts(batch_size, num_workers)
    return TrainingLoader(
        TrainingImages(split, TrainingTransform(resize_size, crop_size, resample), seed, skip_bad),
        batch_sampler=EpochBatches(len(split), batch_size, seed, drop_last),
        num_workers=num_workers,
        collate_fn=_collate_training,
        pin_memory=device.type == "cuda",
        worker_init_fn=ignore_signals,
        persistent_workers=num_workers > 0,
        prefetch_factor=prefetch if num_workers else None,
        generator=torch.Generator(),  # of the workers' base seeds, which nothing here uses
    )
