"""What training's and evaluation's loaders have in common: pictures by their paths, and failures in one sentence."""

from __future__ import annotations

import atexit
import os
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _BaseDataLoaderIter, _MultiProcessingDataLoaderIter

from utils.data.images import ImageError, read_image
from utils.system.errors import UsageError, UserError


class Pictures(Dataset):
    """Pictures by their paths, with their classes; what an item is, a subclass says.

    Args:
        paths: N files.
        labels: (N,) int64.
        exif: turn the pictures as their EXIF tags say.
        banner: rows to cut off at the bottom.
    """

    def __init__(self, paths: Sequence[Path], labels: np.ndarray, exif: bool = False, banner: int = 0) -> None:
        # One array instead of a million Python objects: touching an object's reference count copies its memory page
        # into every worker process.
        self._paths = np.array([os.fsencode(path) for path in paths])
        self._labels = labels
        self._exif = exif
        self._banner = banner

    def __len__(self) -> int:
        return len(self._labels)

    def _path(self, index: int) -> str:
        return os.fsdecode(self._paths[index])

    def _read(self, index: int) -> Image.Image:
        image = read_image(self._path(index), self._exif)
        if not self._banner:
            return image
        if image.height <= self._banner:
            raise ImageError(
                f"the picture {self._path(index)} has {image.height} rows, no more than the banner of {self._banner} "
                "at its bottom"
            )
        return image.crop((0, 0, image.width, image.height - self._banner))


class PictureLoader(DataLoader):
    """A DataLoader whose failures, in its worker processes too, are one sentence."""

    def _get_iterator(self) -> _BaseDataLoaderIter:
        iterator = super()._get_iterator()
        if isinstance(iterator, _MultiProcessingDataLoaderIter):
            _with_workers.add(iterator)
            if self.persistent_workers:  # told to end before all of it is garbage, with the queues that tell them
                weakref.finalize(self, iterator._shutdown_workers)
        return iterator

    def __iter__(self) -> Iterator:  # type: ignore[override]  # torch asks for its own class, and uses an iterator
        batches: Any = super().__iter__()
        try:
            yield from self._sound(batches)
        finally:  # also where nobody wants the rest
            if batches in _with_workers and not self.persistent_workers:
                batches._shutdown_workers()

    def _sound(self, batches: Iterator) -> Iterator:
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


_with_workers: weakref.WeakSet[Any] = weakref.WeakSet()


@atexit.register
def _end_workers() -> None:
    """Tells workers to end before Python ends them by a SIGTERM, which they ignore, and waits for ever."""
    for iterator in list(_with_workers):
        iterator._shutdown_workers()


def check_counts(batch_size: int, num_workers: int) -> None:
    """Raises UsageError if a loader cannot work with these counts."""
    if batch_size < 1:
        raise UsageError(f"--batch_size is {batch_size}; choose 1 or more")
    if num_workers < 0:
        raise UsageError(f"--num_workers is {num_workers}; choose 0 or more")
