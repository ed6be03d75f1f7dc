"""PyTorch data sets and loaders over a split: shuffled crops for training, whole resized pictures for evaluation."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from utils.data.images import ImageError, read_image
from utils.data.split import Split
from utils.data.transforms import evaluation_transform, training_transform
from utils.errors import UsageError, UserError


class EvaluationBatch(NamedTuple):
    """A batch of B pictures; one that cannot be read is all zeros, and an evaluation goes on without it.

    Attributes:
        images: (B, 3, R, R) float32, resized and normalised.
        labels: (B,) int64.
        indices: (B,) int64, positions in the split.
        sizes: (B, 2) int64, (width, height) of the original picture; (0, 0) where unreadable.
        readable: (B,) bool.
        errors: B sentences, "" where readable.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    sizes: Tensor
    readable: Tensor
    errors: tuple[str, ...]


class _SplitPictures(Dataset):
    def __init__(self, split: Split) -> None:
        # One array instead of a million Python objects: touching an object's reference count copies its memory page
        # into every worker process.
        self._paths = np.array([os.fsencode(path) for path in split.paths])
        self._labels = split.labels

    def __len__(self) -> int:
        return len(self._labels)

    def _read(self, index: int) -> Image.Image:
        return read_image(os.fsdecode(self._paths[index]))


class TrainingImages(_SplitPictures):
    """The (transformed picture, label) pairs of a split.

    Args:
        split: the images.
        transform: RGB PIL image -> tensor, see `utils.data.transforms.training_transform`.

    Raises:
        ImageError: on access to a picture that cannot be read.
    """

    def __init__(self, split: Split, transform: Callable[[Image.Image], Tensor]) -> None:
        super().__init__(split)
        self._transform = transform

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(self._read(index)), int(self._labels[index])

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, int]] | ImageError:
        # What a DataLoader fetches. A failure travels as a value: torch would re-raise it from a worker process with
        # a whole traceback as its message.
        try:
            return [self[index] for index in indices]
        except ImageError as error:
            return error


class EvaluationImages(_SplitPictures):
    """The resized and normalised pictures of a split, to be collated into :class:`EvaluationBatch`.

    Args:
        split: the images.
        resize_size: side R of the resized picture, in pixels.
    """

    def __init__(self, split: Split, resize_size: int) -> None:
        super().__init__(split)
        self._resize_size = resize_size
        self._transform = evaluation_transform(resize_size)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int, tuple[int, int], str]:
        """Returns (image (3, R, R), label, index, (width, height), error sentence or "")."""
        label = int(self._labels[index])
        try:
            picture = self._read(index)
        except ImageError as error:
            return torch.zeros(3, self._resize_size, self._resize_size), label, index, (0, 0), str(error)
        return self._transform(picture), label, index, picture.size, ""


def collate_evaluation(items: Sequence[tuple[Tensor, int, int, tuple[int, int], str]]) -> EvaluationBatch:
    """Stacks items of :class:`EvaluationImages` into one batch."""
    images, labels, indices, sizes, errors = zip(*items, strict=True)
    return EvaluationBatch(
        images=default_collate(list(images)),
        labels=torch.tensor(labels),
        indices=torch.tensor(indices),
        sizes=torch.tensor(sizes),
        readable=torch.tensor([not error for error in errors]),
        errors=errors,
    )


def _collate_training(items: list[tuple[Tensor, int]] | ImageError) -> list[Tensor] | ImageError:
    return items if isinstance(items, ImageError) else default_collate(items)


class _Loader(DataLoader):
    """A DataLoader whose failures, in its worker processes too, are one sentence."""

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
) -> DataLoader:
    """Builds the shuffling loader of augmented crops.

    The order of the images and the worker processes' augmentation follow from `loader.generator`: restoring its state,
    saved before an epoch, repeats that epoch (without worker processes the augmentation draws from torch's global
    generator instead). Workers are started anew each epoch, because persistent ones go on from random states that
    nobody can save.

    Args:
        split: the images.
        resize_size: side of the resized picture, in pixels.
        crop_size: side S of the random crop.
        batch_size: B; the last batch of an epoch may be smaller, but one of a single image is left out, since batch
            normalisation would take its statistics from that image alone.
        num_workers: processes that read pictures; 0 reads them in this one.
        seed: of `loader.generator`.
        device: where the training runs; batches are pinned for CUDA.

    Returns:
        A loader of (images (B, 3, S, S) float32, labels (B,) int64).

    Raises:
        UsageError: a size or count that cannot work.
        ImageError: while iterating, when a picture cannot be read.
    """
    _check_counts(batch_size, num_workers)
    return _Loader(
        TrainingImages(split, training_transform(resize_size, crop_size)),
        batch_size=batch_size,
        shuffle=True,
        drop_last=len(split) > batch_size > 1 and len(split) % batch_size == 1,
        num_workers=num_workers,
        collate_fn=_collate_training,
        pin_memory=device.type == "cuda",
        generator=torch.Generator().manual_seed(seed),
    )


def build_evaluation_loader(
    split: Split, resize_size: int, batch_size: int, num_workers: int, device: torch.device
) -> DataLoader:
    """Builds the loader that goes once through a split in order.

    Args:
        split: the images.
        resize_size: side R of the resized picture, in pixels.
        batch_size: B; the last batch may be smaller.
        num_workers: processes that read pictures; 0 reads them in this one.
        device: where the evaluation runs; batches are pinned for CUDA.

    Returns:
        A loader of :class:`EvaluationBatch`.

    Raises:
        UsageError: a size or count that cannot work.
    """
    _check_counts(batch_size, num_workers)
    return _Loader(
        EvaluationImages(split, resize_size),
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=collate_evaluation,
        pin_memory=device.type == "cuda",
        # Its own generator: an evaluation between two epochs must not move the random numbers that training draws.
        generator=torch.Generator(),
    )


def _check_counts(batch_size: int, num_workers: int) -> None:
    if batch_size < 1:
        raise UsageError(f"--batch_size is {batch_size}; choose 1 or more")
    if num_workers < 0:
        raise UsageError(f"--num_workers is {num_workers}; choose 0 or more")
