"""PyTorch data sets and loaders over a split: shuffled crops for training, whole resized pictures for evaluation."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from utils.data.images import ImageError, read_image
from utils.data.masks import IGNORE, MaskError, read_mask
from utils.data.split import Split
from utils.data.transforms import check_sizes, evaluation_transform, training_transform
from utils.errors import UsageError, UserError


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

    def _read(self, index: int) -> Image.Image:
        return read_image(os.fsdecode(self._paths[index]), self._exif)


class TrainingImages(_Pictures):
    """The (transformed picture, label) pairs of a split.

    Args:
        split: the images.
        transform: RGB PIL image -> tensor, see `utils.data.transforms.training_transform`.

    Raises:
        ImageError: on access to a picture that cannot be read.
    """

    def __init__(self, split: Split, transform: Callable[[Image.Image], Tensor]) -> None:
        super().__init__(split.paths, split.labels)
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
        # Its own generator: an evaluation between two epochs must not move the random numbers that training draws.
        generator=torch.Generator(),
    )


def _check_counts(batch_size: int, num_workers: int) -> None:
    if batch_size < 1:
        raise UsageError(f"--batch_size is {batch_size}; choose 1 or more")
    if num_workers < 0:
        raise UsageError(f"--num_workers is {num_workers}; choose 0 or more")
