"""What the network makes of a picture through each mask: activation, entropy, background activation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from utils.data.evaluation import build_evaluation_loader
from utils.data.masks import OBJECT
from utils.data.split import Split, spread, take
from utils.data.transforms import centre_crop, normalize
from utils.exploratory.masks import cell_weights, choose_masks, kernel_step, mask_family
from utils.models.bas import BAS, global_average
from utils.models.recipe import Recipe
from utils.models.taps import Grid, Placement
from utils.system.errors import UsageError, UserError
from utils.system.progress import progress_bar

# `--at`: what the masks are laid on.
PLACES = {"features": "F, at the network's tap", "class_maps": "A, the class maps that GAP pools"}
KINDS = {"features": "bas", "class_maps": "cam"}  # the kind of map that has the same cells
DEFAULT_MASKS = 32  # of which up to 15 lie within the object, where its family has about a dozen
DEFAULT_PICTURES = 250
DEFAULT_BATCH_SIZE = 8
MASKED_PER_PICTURE = 4  # masked maps that pass f2 together, for each picture of a batch


@dataclass(frozen=True)
class Curve:
    """One picture seen through m masks of growing area."""

    image_id: str
    class_name: str  # the true class's
    is_correct: bool  # whether the network gives the whole picture (the full mask) its true class
    areas: np.ndarray  # (m,) the masks' shares of the whole picture, from 0 to 1, strictly growing
    ious: np.ndarray  # (m,) IoU of each mask with the object's own; 1 at the own mask alone
    entropy: np.ndarray  # (m,) cross-entropy of the true class, of the foreground
    activation: np.ndarray  # (m,) the true class's logit, of the foreground
    background_activation: np.ndarray  # (m,) the true class's logit, of the background

    @property
    def own_area(self) -> float:
        """The object's share of the picture."""
        return float(self.areas[self.ious.argmax()])

    @property
    def relative_areas(self) -> np.ndarray:
        """(m,) the masks' areas as shares of the object's own."""
        return self.areas / self.own_area


class Experiment(NamedTuple):
    """What :func:`run_experiment` measured, and what it passed over."""

    curves: tuple[Curve, ...]  # one for each picture, in the split's order; at least one
    without_mask: int  # pictures without a mask
    without_object: int  # pictures whose object lies outside the crop
    failures: tuple[str, ...]  # a sentence for each picture that could not be measured


def sample_pictures(split: Split, count: int | None = DEFAULT_PICTURES, ids: Sequence[str] = ()) -> Split:
    """At most `count` pictures with masks, spread evenly over those of a split, and those of `ids`; the whole split
    where `count` is None or it has no more.

    Raises:
        UsageError: one of `ids`, which `--examples` names, is none of the split's pictures, or has no mask.
    """
    for image_id in ids:
        if image_id not in split.ids:
            known = f"their ids are like {split.ids[0]}"
            raise UsageError(f"--examples {image_id} is none of the {split.name} pictures; {known}")
        if split.masks and image_id not in split.masks:
            raise UsageError(f"--examples {image_id} has no mask ({split.layout}); name another picture")
    has_mask = [image_id in split.masks for image_id in split.ids]
    if count is None or sum(has_mask) <= count:
        return split
    return take(split, sorted({*spread(has_mask, count), *map(split.ids.index, ids)}))


def run_experiment(
    model: BAS,
    split: Split,
    recipe: Recipe,
    device: torch.device,
    at: str = "features",
    place: Placement | None = None,
    masks: int = DEFAULT_MASKS,
    batch_size: int = DEFAULT_BATCH_SIZE,
    num_workers: int = 0,
) -> Experiment:
    """The paper's exploratory experiment on every picture of a split.

    Each mask of the object's family is resized to the size of F (or A) by the mean of the pixels that a cell stands for
    (:func:`utils.exploratory.masks.cell_weights`) and multiplied with it, and what is left passes the rest of the
    network. The network is in evaluation mode; f1 sees a picture once.

    Args:
        model: on `device`; put into evaluation mode.
        split: pictures with masks.
        recipe: the sizes of resized picture and crop.
        device: where the model is.
        at: of `PLACES`.
        place: where the maps are drawn, so that masks are laid there, too; None stretches them over the crop.
        masks: measured for each picture, at most; see :func:`utils.exploratory.masks.choose_masks`.
        batch_size: pictures that pass f1 together; four times as many masked F pass f2 together.
        num_workers: processes that read pictures.

    Raises:
        UserError: no picture of the split could be measured; says why.
        ValueError: there is no such place, or fewer than 3 masks.
    """
    if at not in PLACES:
        raise ValueError(f"there is no place {at!r}; choose one of {', '.join(PLACES)}")
    if not split.masks:
        needs = "and the experiment needs them; for CUB, unpack segmentations.tgz beside images/"
        raise UserError(f"the {split.name} split has no object masks ({split.layout}), {needs}")
    model.eval()
    curves: list[Curve] = []
    failures: list[str] = []
    without_mask = without_object = 0
    sizes = recipe.resize_size, recipe.crop_size
    loader = build_evaluation_loader(split, sizes[0], batch_size, num_workers, device, sizes[1], with_masks=True)
    for batch in progress_bar(loader, "pictures through masks"):
        objects = batch.masks.numpy() == OBJECT
        rows = []
        for row, index in enumerate(batch.indices.tolist()):
            if error := batch.errors[row] or batch.mask_errors[row]:
                failures.append(error)
            elif split.ids[index] not in split.masks:
                without_mask += 1
            elif not objects[row].any():
                without_object += 1
            else:
                rows.append(row)
        if not rows:
            continue
        families = [_choose_family(objects[row], masks) for row in rows]
        pixels, labels = (part[rows].to(device) for part in (centre_crop(batch.images, sizes[1]), batch.labels))
        chunk = MASKED_PER_PICTURE * len(rows)
        measured = measure_masks(model, normalize(pixels), labels, families, at=at, place=place, chunk=chunk)
        for row, family, values, is_correct in zip(rows, families, *measured, strict=True):
            index = int(batch.indices[row])
            if not np.isfinite(values).all():
                failures.append(f"{split.paths[index]}: the model's output is not finite")
                continue
            areas, own = family.mean(axis=(1, 2)), objects[row].mean()
            # Of two masks, one inside the other, the smaller one is the intersection and the larger one the union.
            ious = np.minimum(areas, own) / np.maximum(areas, own)
            name = split.class_names[split.labels[index]]
            curves.append(Curve(split.ids[index], name, is_correct, areas, ious, *values))
    if not curves:
        reason = f"the first: {failures[0]}" if failures else "no mask shows an object inside the crop"
        raise UserError(f"no picture of the {split.name} split could be measured ({split.layout}); {reason}")
    return Experiment(tuple(curves), without_mask, without_object, tuple(failures))


def _choose_family(mask: np.ndarray, count: int) -> np.ndarray:
    """The measured masks (m, S, S) of an object."""
    family = mask_family(mask, kernel_step(len(mask)))
    areas = family.mean(axis=(1, 2))
    return family[choose_masks(areas, int(np.searchsorted(areas, mask.mean())), count)]


@torch.no_grad()
def measure_masks(
    model: BAS,
    images: Tensor,
    labels: Tensor,
    families: Sequence[np.ndarray],
    *,
    at: str,
    place: Placement | None,
    chunk: int,
) -> tuple[list[np.ndarray], list[bool]]:
    """Entropy, activation and background activation of pictures through masks.

    Args:
        model: in evaluation mode.
        images: (B, 3, S, S) normalised crops on the model's device.
        labels: (B,) true classes, there too.
        families: for each picture its masks (m, S, S) bool, the first one empty, the last one full.
        at: of `PLACES`.
        place: where the maps' cells look, so that masks are laid there; None stretches them over the maps.
        chunk: masked maps that pass f2 together.

    Returns:
        For each picture (3, m) float64: entropy, activation, background activation; and for each picture whether the
        best class of the full mask is the true one.
    """
    maps = model.f1(images)
    if at == "class_maps":
        maps = model.f2(maps)
    x, y = place.first if place else (0, 0)
    down, across = (
        torch.from_numpy(cell_weights(size, cells, place and Grid(first, place.stride))).to(maps)
        for size, cells, first in zip(images.shape[-2:], maps.shape[-2:], (y, x), strict=True)
    )
    # The background of the empty mask is the foreground of the full one, and the other way round.
    masks = [np.concatenate([family, ~family[1:-1]]) for family in families]
    counts = torch.tensor([len(family) for family in masks])
    pictures = torch.arange(len(masks)).repeat_interleave(counts).to(images.device)
    columns = []
    for picture, mask in zip(pictures.split(chunk), torch.from_numpy(np.concatenate(masks)).split(chunk), strict=True):
        mask = mask.to(maps.device).to(maps)  # as bytes, not as floats, through the wire
        masked = maps[picture] * (down @ mask @ across.T)[:, None]
        logits = global_average(model.f2(masked) if at == "features" else masked)
        columns.append(_measure_logits(logits.cpu().double(), labels[picture].cpu()))
    values, correct = [], []
    for family, table in zip(families, torch.cat(columns, dim=1).split(counts.tolist(), 1), strict=True):
        m = len(family)
        entropy, activation, is_best = table.numpy()
        background_activation = np.concatenate([activation[[m - 1]], activation[m:], activation[[0]]])
        values.append(np.stack([entropy[:m], activation[:m], background_activation]))
        correct.append(bool(is_best[m - 1]))
    return values, correct


def _measure_logits(logits: Tensor, labels: Tensor) -> Tensor:
    """(n, K) float64 logits and (n,) true classes -> (3, n): cross-entropy, activation, whether that class is the best.

    The cross-entropy is log(1 + the others' share to the true class's), which stays exact where the usual difference
    of logarithms rounds to nothing: from a lead of 17 on in single precision.
    """
    truth = labels[:, None]
    activation = logits.gather(1, truth)[:, 0]
    others = logits.scatter(1, truth, -torch.inf).logsumexp(dim=1) - activation
    entropy = torch.logaddexp(torch.zeros_like(others), others)
    return torch.stack([entropy, activation, (logits.argmax(dim=1) == labels).double()])
