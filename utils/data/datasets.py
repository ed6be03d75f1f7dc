"""PyTorch data sets and loaders over a split: shuffled crops for training, whole resized pictures for evaluation."""

from __future__ import annotations

import atexit
import os
import signal
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler, default_collate

from utils.data.images import ImageError, read_image
from utils.data.masks import IGNORE, MaskError, read_mask
from utils.data.split import Split
from utils.data.transforms import TrainingTransform, check_sizes, evaluation_transform
from utils.distributed import process_count, rank
from utils.errors import UsageError, UserError

DEFAULT_PREFETCH = 2  # batches a worker, PyTorch's own


class EvaluationBatch(NamedTuple):
    """A batch of B pictures; one that cannot be read is all zeros, and an evaluation goes on without it.

    Attributes:
        images: (B, 3, R, R) float32, resized and normalised.
        labels: (B,) int64; -1 for pictures of unknown class.
        indices: (B,) int64, positions in the split.
        sizes: (B, 2) int64, (width, height) of the original picture; (0, 0) where unreadable.
        readable: (B,) bool.
        errors: B sentences, "" where readable.
        masks: (B, S, S) uint8, see :func:`utils.data.masks.read_mask`; all IGNORE for a picture without a usable mask.
            None where masks were not asked for or the split has none.
        mask_errors: B sentences about unusable masks, "" where all is well or there is no mask.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    sizes: Tensor
    readable: Tensor
    errors: tuple[str, ...]
    masks: Tensor | None
    mask_errors: tuple[str, ...]


class EvaluationItem(NamedTuple):
    """One picture of an :class:`EvaluationBatch`, with the same fields."""

    image: Tensor
    label: int
    index: int
    size: tuple[int, int]
    error: str
    mask: Tensor | None
    mask_error: str


class _Pictures(Dataset):
    def __init__(self, paths: Sequence[Path], labels: np.ndarray, exif: bool = False) -> None:
        # One array instead of a million Python objects: touching an object's reference count copies its memory page
        # into every worker process.
        self._paths = np.array([os.fsencode(path) for path in paths])
        self._labels = labels
        self._exif = exif

    def __len__(self) -> int:
        return len(self._labels)

    def _path(self, index: int) -> str:
        return os.fsdecode(self._paths[index])

    def _read(self, index: int) -> Image.Image:
        return read_image(self._path(index), self._exif)


class Draw(NamedTuple):
    """One picture of one epoch: what a training loader's sampler asks for."""

    index: int  # in the split
    epoch: int  # counted from 0


class TrainingBatch(NamedTuple):
    """A batch of B augmented crops.

    Attributes:
        images: (B, 3, S, S) float32, normalised.
        labels: (B,) int64.
        indices: (B,) int64, positions in the split.
        replaced: a sentence for each picture that could not be read and whose place another one took.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    replaced: tuple[str, ...]


class TrainingItem(NamedTuple):
    """One picture of a :class:`TrainingBatch`, with the same fields; `replaced` is "" where nothing was."""

    image: Tensor
    label: int
    index: int
    replaced: str


class TrainingImages(_Pictures):
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
        super().__init__(split.paths, split.labels)
        self._transform = transform
        self._seed = seed
        self._skip_bad = skip_bad

    def __getitem__(self, draw: Draw) -> TrainingItem:
        index, picture, replaced = self._read_or_replace(draw.index)
        generator = np.random.default_rng((self._seed, draw.epoch, draw.index))
        return TrainingItem(self._transform(picture, generator), int(self._labels[index]), index, replaced)

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
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self._order = DistributedSampler(range(count), process_count(), rank(), seed=seed)
        self._batch_size = batch_size
        self._epoch, self._first = 0, 0
        steps, rest = divmod(len(self._order), batch_size)
        self.steps = steps + (rest > 1 or (rest == 1 and steps == 0))  # of a whole epoch

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


class _ResizedPictures(_Pictures):
    def __init__(self, paths: Sequence[Path], labels: np.ndarray, resize_size: int, exif: bool = False) -> None:
        super().__init__(paths, labels, exif)
        self._resize_size = resize_size
        self._transform = evaluation_transform(resize_size)

    def __getitem__(self, index: int) -> EvaluationItem:
        label = int(self._labels[index])
        try:
            picture = self._read(index)
        except ImageError as error:
            image, size, message = torch.zeros(3, self._resize_size, self._resize_size), (0, 0), str(error)
        else:
            image, size, message = self._transform(picture), picture.size, ""
        return EvaluationItem(image, label, index, size, message, *self._read_mask(index, size))

    def _read_mask(self, index: int, size: tuple[int, int]) -> tuple[Tensor | None, str]:
        return None, ""


class EvaluationImages(_ResizedPictures):
    """The resized and normalised pictures of a split, to be collated into :class:`EvaluationBatch`.

    Args:
        split: the images.
        resize_size: side R of the resized picture, in pixels.
        crop_size: side S of the masks' centre crop; R if None.
        with_masks: whether to read the masks, too, if the split has any.

    Raises:
        UsageError: a size is not positive, or the crop is larger than the resized picture.
    """

    def __init__(self, split: Split, resize_size: int, crop_size: int | None = None, with_masks: bool = False) -> None:
        super().__init__(split.paths, split.labels, resize_size)
        self._crop_size = resize_size if crop_size is None else crop_size
        check_sizes(resize_size, self._crop_size)
        self._masks = [split.masks.get(image_id) for image_id in split.ids] if with_masks and split.masks else None

    def _read_mask(self, index: int, size: tuple[int, int]) -> tuple[Tensor | None, str]:
        if self._masks is None:
            return None, ""
        files, error = self._masks[index], ""
        if files is not None and size != (0, 0):
            try:
                return torch.from_numpy(read_mask(files, size, self._resize_size, self._crop_size)), ""
            except MaskError as failure:
                error = str(failure)
        return torch.full((self._crop_size, self._crop_size), IGNORE, dtype=torch.uint8), error


class LooseImages(_ResizedPictures):
    """Pictures of no data set, turned as their EXIF tags say, as items of the same kind with the label -1.

    Args:
        paths: the pictures; an item's index is its position.
        resize_size: side R of the resized picture, in pixels.

    Raises:
        UsageError: the size is not positive.
    """

    def __init__(self, paths: Sequence[Path], resize_size: int) -> None:
        super().__init__(paths, np.full(len(paths), -1), resize_size, exif=True)


def collate_evaluation(items: Sequence[EvaluationItem]) -> EvaluationBatch:
    """Stacks the items of :class:`EvaluationImages` or :class:`LooseImages` into one batch."""
    images, labels, indices, sizes, errors, masks, mask_errors = zip(*items, strict=True)
    return EvaluationBatch(
        images=default_collate(list(images)),
        labels=torch.tensor(labels),
        indices=torch.tensor(indices),
        sizes=torch.tensor(sizes),
        readable=torch.tensor([not error for error in errors]),
        errors=errors,
        masks=None if masks[0] is None else default_collate(list(masks)),
        mask_errors=mask_errors,
    )


def _collate_training(items: list[TrainingItem] | ImageError) -> TrainingBatch | ImageError:
    if isinstance(items, ImageError):
        return items
    images, labels, indices, replaced = zip(*items, strict=True)
    return TrainingBatch(
        images=default_collate(list(images)),
        labels=torch.tensor(labels),
        indices=torch.tensor(indices),
        replaced=tuple(filter(None, replaced)),
    )


def _ignore_signals(worker: int) -> None:
    # Ctrl-C, and often a scheduler's SIGTERM, reach every process at once; training finishes its step before it stops,
    # and needs its workers for it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


class _Loader(DataLoader):
    """A DataLoader whose failures, in its worker processes too, are one sentence."""

    def _get_iterator(self) -> Iterator:
        iterator = super()._get_iterator()
        if self.num_workers:
            # Told to end while the queues that tell them still work, not when all of it is garbage, and before Python
            # ends them by a SIGTERM, which they ignore, and waits for ever.
            atexit.register(weakref.finalize(self, iterator._shutdown_workers))
        return iterator

    def __iter__(self) -> Iterator:
        batches = super().__iter__()
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                raise UserError(
                    "a process that loads pictures died, often for want of memory or shared memory; lower --num_workers"
                    " or --batch_size"
                ) from error
            if isinstance(batch, ImageError):
                raise batch
            yield batch


def build_training_loader(
    split: Split,
    resize_size: int,
    crop_size: int,
    batch_size: int,
    num_workers: int,
    seed: int,
    device: torch.device,
    skip_bad: bool = False,
    prefetch: int = DEFAULT_PREFETCH,
) -> DataLoader:
    """Builds the shuffling loader of augmented crops, of this process's share where the run has several.

    Order and augmentation follow from seed and epoch alone: not from the number of workers, nor from what was read
    before. Its `batch_sampler` is an :class:`EpochBatches`, whose `start_at` chooses the epoch and the batch to begin
    with.

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

    Returns:
        A loader of :class:`TrainingBatch`.

    Raises:
        UsageError: a size or count that cannot work.
        ImageError: while iterating, when a picture cannot be read.
    """
    _check_counts(batch_size, num_workers)
    return _Loader(
        TrainingImages(split, TrainingTransform(resize_size, crop_size), seed, skip_bad),
        batch_sampler=EpochBatches(len(split), batch_size, seed),
        num_workers=num_workers,
        collate_fn=_collate_training,
        pin_memory=device.type == "cuda",
        worker_init_fn=_ignore_signals,
        persistent_workers=num_workers > 0,
        prefetch_factor=prefetch if num_workers else None,
        generator=torch.Generator(),  # of the workers' base seeds, which nothing here uses
    )


def build_evaluation_loader(
    split: Split,
    resize_size: int,
    batch_size: int,
    num_workers: int,
    device: torch.device,
    crop_size: int | None = None,
    with_masks: bool = False,
) -> DataLoader:
    """Builds the loader that goes once through a split in order.

    Args:
        split: the images.
        resize_size: side R of the resized picture, in pixels.
        batch_size: B; the last batch may be smaller.
        num_workers: processes that read pictures; 0 reads them in this one.
        device: where the evaluation runs; batches are pinned for CUDA.
        crop_size: side S of the masks' centre crop; R if None.
        with_masks: whether to read the masks, too, if the split has any.

    Returns:
        A loader of :class:`EvaluationBatch`.

    Raises:
        UsageError: a size or count that cannot work.
    """
    images = EvaluationImages(split, resize_size, crop_size, with_masks)
    return _build_ordered_loader(images, batch_size, num_workers, device)


def build_loose_loader(
    paths: Sequence[Path], resize_size: int, batch_size: int, num_workers: int, device: torch.device
) -> DataLoader:
    """Builds the loader that goes once through :class:`LooseImages`; see :func:`build_evaluation_loader`."""
    return _build_ordered_loader(LooseImages(paths, resize_size), batch_size, num_workers, device)


def _build_ordered_loader(
    images: _ResizedPictures, batch_size: int, num_workers: int, device: torch.device
) -> DataLoader:
    _check_counts(batch_size, num_workers)
    return _Loader(
        images,
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=collate_evaluation,
        pin_memory=device.type == "cuda",
        worker_init_fn=_ignore_signals,
        # Its own generator: an evaluation between two epochs must not move the random numbers that training draws.
        generator=torch.Generator(),
    )


def _check_counts(batch_size: int, num_workers: int) -> None:
    if batch_size < 1:
        raise UsageError(f"--batch_size is {batch_size}; choose 1 or more")
    if num_workers < 0:
        raise UsageError(f"--num_workers is {num_workers}; choose 0 or more")
