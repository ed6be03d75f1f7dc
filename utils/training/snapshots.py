"""`--snapshot N`: the foreground maps of a few pictures before the first epoch and after each, to see them grow.

<run>/snapshots/epoch_000.npz     before the first epoch
<run>/snapshots/epoch_001.npz     after the first one
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from utils.data.evaluation import read_pictures
from utils.data.split import Split, spread
from utils.data.transforms import centre_crop, normalize
from utils.runs.settings import SNAPSHOTS
from utils.system.errors import UsageError, UserError
from utils.system.files import write_atomically
from utils.system.processes import is_main
from utils.training.engine import Trainer

BATCH = 16


class Snapshot(NamedTuple):
    """The foreground maps of n pictures after one epoch, as an NPZ file holds them (no pickled objects)."""

    maps: np.ndarray  # (n, h, w) float16 M_fg of the label's class on the centre crop, in [0, 1]
    ids: np.ndarray  # (n,) image ids


class Snapshots:
    """Takes a run's snapshots; every process calls it, the first one does it. Training does not feel it.

    Those of a run that begins anew, or goes on from an earlier state, replace the ones that are there.

    Args:
        run: the run's folder.
        trainer: whose model is looked at, and whose progress tells the epoch.
        split: of whose pictures some are taken, spread evenly.
        count: how many; None for those that the resumed run has in its snapshots, or for `default` of a new run.
        default: of a new run.

    Raises:
        UsageError: the resumed run has snapshots of another number of pictures, or of other ones.
        UserError: its last snapshot is damaged or shows pictures that are gone from the data, or no picture can be
            read.
    """

    def __init__(self, run: Path, trainer: Trainer, split: Split, count: int | None, default: int = 0) -> None:
        self._trainer, self._folder = trainer, run / SNAPSHOTS
        self._images: Tensor | None = None
        if not is_main():
            return
        progress = trainer.progress
        is_new = progress.epoch == progress.step == 0
        before = {} if is_new else {n: path for n, path in list_snapshots(run).items() if n <= progress.epoch}
        for path in {*list_snapshots(run).values()} - {*before.values()}:
            path.unlink()
        last = read_snapshot(before[max(before)]) if before else None
        if count is None and last is not None:
            places = {image_id: index for index, image_id in enumerate(split.ids)}
            gone = [image_id for image_id in last.ids.tolist() if image_id not in places]
            if gone:
                raise UserError(
                    f"--snapshot: those in {self._folder} show {gone[0]}, which is no longer in the data; put it back, "
                    "or give --snapshot 0"
                )
            indices = [places[image_id] for image_id in last.ids.tolist()]
        else:
            count = count if count is not None else default if is_new else 0
            indices = spread(np.ones(len(split)), count)
        if count == 0:
            return
        self._read_pictures(split, indices)
        if last is not None and self._ids != last.ids.tolist():
            raise UsageError(
                f"--snapshot: those in {self._folder} show {len(last.ids)} pictures, and not the {len(self._ids)} of "
                f"now; give --snapshot {len(last.ids)} with the same data, or --snapshot 0"
            )

    def take(self) -> None:
        """To be called between two epochs, and after the last: saves the maps unless they are there already.

        A file that cannot be written, say on a full disk, is a warning: the run goes on without it.
        """
        progress = self._trainer.progress
        path = snapshot_path(self._folder, progress.epoch)
        if self._images is None or progress.step or path.exists():
            return
        content = Snapshot(self._foreground_maps(self._images), np.array(self._ids))
        try:
            write_atomically(path, lambda file: np.savez_compressed(file, **content._asdict()), durable=True)
        except UserError as error:
            print(f"warning: the run goes on without this snapshot: {error}", file=sys.stderr)

    def _read_pictures(self, split: Split, indices: Sequence[int]) -> None:
        """The centre crops, once for all epochs; says which pictures cannot be read and leaves them out."""
        recipe = self._trainer.recipe
        crops, labels, self._ids = [], [], []
        for index in indices:
            try:
                batch = read_pictures(split, [index], recipe.resize_size)
            except UserError as error:
                print(f"--snapshot: {error}")
                continue
            crops.append(centre_crop(batch.images, recipe.crop_size))
            labels.append(batch.labels)
            self._ids.append(split.ids[index])
        if not crops:
            raise UserError("--snapshot: none of its pictures can be read; repair them, or give --snapshot 0")
        self._images, self._labels = torch.cat(crops), torch.cat(labels)

    @torch.no_grad()
    def _foreground_maps(self, crops: Tensor) -> np.ndarray:
        """(n, h, w) float16, in evaluation mode; the model's mode is as before when this returns."""
        trainer, maps = self._trainer, []
        model, device = trainer.model, trainer.device
        was_training = model.training
        model.eval()
        try:
            for images, labels in zip(crops.split(BATCH), self._labels.split(BATCH), strict=True):
                pixels = normalize(images.to(device, non_blocking=device.type == "cuda"), trainer.model.channels_last)
                features = model.f1(pixels)
                maps.append(model.foreground_maps(features, labels[:, None].to(device)).squeeze(1).cpu())
        finally:
            model.train(was_training)
        return torch.cat(maps).half().numpy()


def snapshot_path(folder: Path, epoch: int) -> Path:
    """The file of an epoch, whether it is there or not; 0 is before the first."""
    return folder / f"epoch_{epoch:03}.npz"


def list_snapshots(run: Path) -> dict[int, Path]:
    """A run's snapshots: finished epochs -> file, in order."""
    numbered = {path.stem.removeprefix("epoch_"): path for path in (run / SNAPSHOTS).glob("epoch_*.npz")}
    return dict(sorted((int(number), path) for number, path in numbered.items() if number.isdecimal()))


def read_snapshot(path: Path) -> Snapshot:
    """Reads one snapshot.

    Raises:
        UserError: the file is damaged, or something else.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            snapshot = Snapshot(**{name: content[name] for name in Snapshot._fields})
        _check(snapshot)
    except Exception as error:  # numpy, zipfile and zlib raise whatever a damaged file makes them stumble over
        raise UserError(f"{path} is no snapshot of a run ({error}); delete it to go on without it") from error
    return snapshot


def _check(snapshot: Snapshot) -> None:
    maps, ids = snapshot
    if maps.ndim != 3 or maps.size == 0 or maps.dtype.kind != "f":
        raise ValueError(f"maps of shape {maps.shape} and type {maps.dtype}")
    if ids.shape != maps.shape[:1]:
        raise ValueError(f"{len(maps)} maps, {ids.size} ids")
