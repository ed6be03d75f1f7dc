"""The pictures of an evaluation: whole and resized, in order, with their masks; unreadable ones are passed over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from utils.data.images import ImageError, exif_orientation
from utils.data.loader import PictureLoader, Pictures, check_counts
from utils.data.masks import IGNORE, MaskError, read_mask, understand_masks
from utils.data.split import Split
from utils.data.transforms import check_sizes, resize, stack_pixels
from utils.system.errors import UserError
from utils.system.signals import ignore_signals


class EvaluationBatch(NamedTuple):
    """A batch of B pictures; one that cannot be read is all zeros, and an evaluation goes on without it.

    Attributes:
        images: (B, 3, R, R) uint8, RGB, resized, for :func:`utils.data.transforms.normalize`.
        labels: (B,) int64; -1 for pictures of unknown class.
        indices: (B,) int64, positions in the split.
        sizes: (B, 2) int64, (width, height) of the original picture; (0, 0) where unreadable.
        turns: (B,) int64, the EXIF orientation, which was not applied, 1 to 8; 1 where unreadable.
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
    turns: Tensor
    readable: Tensor
    errors: tuple[str, ...]
    masks: Tensor | None
    mask_errors: tuple[str, ...]


class EvaluationItem(NamedTuple):
    """One picture of an :class:`EvaluationBatch`, with the same fields."""

    image: Tensor
    label: int
    index: int  # type: ignore[assignment]  # tuple's method goes unused
    size: tuple[int, int]
    turn: int
    error: str
    mask: Tensor | None
    mask_error: str


class _ResizedPictures(Pictures):
    def __init__(
        self, paths: Sequence[Path], labels: np.ndarray, resize_size: int, exif: bool = False, banner: int = 0
    ) -> None:
        super().__init__(paths, labels, exif, banner)
        self._resize_size = resize_size
        check_sizes(resize_size, resize_size)

    def __getitem__(self, index: int) -> EvaluationItem:
        label = int(self._labels[index])
        try:
            picture = self._read(index)
        except ImageError as error:
            blank = torch.zeros(3, self._resize_size, self._resize_size, dtype=torch.uint8)
            return EvaluationItem(blank, label, index, (0, 0), 1, str(error), *self._read_mask(index, (0, 0)))
        size, turn = picture.size, exif_orientation(picture)
        return EvaluationItem(
            resize(picture, self._resize_size), label, index, size, turn, "", *self._read_mask(index, size)
        )

    def _read_mask(self, index: int, size: tuple[int, int]) -> tuple[Tensor | None, str]:
        return None, ""


class EvaluationImages(_ResizedPictures):
    """The resized pictures of a split, to be collated into :class:`EvaluationBatch`.

    Args:
        split: the images.
        resize_size: side R of the resized picture, in pixels.
        crop_size: side S of the masks' centre crop; R if None.
        with_masks: whether to read the masks, too, if the split has any.
        any_level: of :func:`utils.data.masks.understand_masks`.

    Raises:
        UsageError: a size is not positive, or the crop is larger than the resized picture.
        MaskError: what the masks' levels mean cannot be told for sure.
    """

    def __init__(
        self,
        split: Split,
        resize_size: int,
        crop_size: int | None = None,
        with_masks: bool = False,
        any_level: bool = False,
    ) -> None:
        super().__init__(split.paths, split.labels, resize_size, banner=split.banner)
        self._crop_size = resize_size if crop_size is None else crop_size
        check_sizes(resize_size, self._crop_size)
        self._masks = [split.masks.get(image_id) for image_id in split.ids] if with_masks and split.masks else None
        # Of the whole data set, of which the split may be a part.
        self._meanings = understand_masks(split.masks.values(), any_level) if self._masks else None

    def _read_mask(self, index: int, size: tuple[int, int]) -> tuple[Tensor | None, str]:
        if self._masks is None:
            return None, ""
        files, error = self._masks[index], ""
        if files is not None:
            of_picture = None if size == (0, 0) else size  # of one that cannot be read
            try:
                mask = read_mask(files, of_picture, self._resize_size, self._crop_size, self._meanings)
                return torch.from_numpy(mask), ""
            except MaskError as failure:
                error = str(failure)
        return torch.full((self._crop_size, self._crop_size), IGNORE, dtype=torch.uint8), error


def collate_evaluation(items: Sequence[EvaluationItem]) -> EvaluationBatch:
    """Stacks the items of the pictures above into one batch."""
    images, labels, indices, sizes, turns, errors, masks, mask_errors = zip(*items, strict=True)
    return EvaluationBatch(
        images=stack_pixels(images),
        labels=torch.tensor(labels),
        indices=torch.tensor(indices),
        sizes=torch.tensor(sizes),
        turns=torch.tensor(turns),
        readable=torch.tensor([not error for error in errors]),
        errors=errors,
        masks=None if masks[0] is None else default_collate(list(masks)),
        mask_errors=mask_errors,
    )


def read_pictures(
    split: Split,
    indices: Sequence[int],
    resize_size: int,
    crop_size: int | None = None,
    with_masks: bool = False,
    any_level: bool = False,
) -> EvaluationBatch:
    """Reads a few pictures of a split as one batch, in the order of `indices`; the rest as for
    :class:`EvaluationImages`.

    Raises:
        UserError: a picture or mask cannot be read.
    """
    pictures = EvaluationImages(split, resize_size, crop_size, with_masks, any_level)
    batch = collate_evaluation([pictures[index] for index in indices])
    for error in (*batch.errors, *batch.mask_errors):
        if error:
            raise UserError(error)
    return batch


def build_evaluation_loader(
    split: Split,
    resize_size: int,
    batch_size: int,
    num_workers: int,
    device: torch.device,
    crop_size: int | None = None,
    with_masks: bool = False,
    any_level: bool = False,
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
        any_level: of :func:`utils.data.masks.understand_masks`.

    Returns:
        A loader of :class:`EvaluationBatch`.

    Raises:
        UsageError: a size or count that cannot work.
        MaskError: what the masks' levels mean cannot be told for sure.
    """
    images = EvaluationImages(split, resize_size, crop_size, with_masks, any_level)
    return _build_ordered_loader(images, batch_size, num_workers, device)


def build_loose_loader(
    paths: Sequence[Path], resize_size: int, batch_size: int, num_workers: int, device: torch.device
) -> DataLoader:
    """Builds the loader that goes once through pictures of no data set, turned as their EXIF tags say, with the label
    -1 and an index that is the position; the rest as for :func:`build_evaluation_loader`."""
    images = _ResizedPictures(paths, np.full(len(paths), -1), resize_size, exif=True)
    return _build_ordered_loader(images, batch_size, num_workers, device)


def _build_ordered_loader(
    images: _ResizedPictures, batch_size: int, num_workers: int, device: torch.device
) -> DataLoader:
    check_counts(batch_size, num_workers)
    return PictureLoader(
        images,
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=collate_evaluation,
        pin_memory=device.type == "cuda",
        worker_init_fn=ignore_signals,
        # Its own generator: an evaluation between two epochs must not move the random numbers that training draws.
        generator=torch.Generator(),
    )
