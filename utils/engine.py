"""The two functions that carry the work: train one epoch, evaluate a split."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.utils.data import DataLoader
from tqdm import tqdm

from utils.boxes import centred_box, iou, scale_boxes_to_crop
from utils.data.datasets import EvaluationBatch
from utils.data.split import Split
from utils.data.transforms import CENTRE_CROP, centre_crop, ten_crop
from utils.errors import UserError
from utils.localization import maps_to_boxes
from utils.losses import bas_losses
from utils.metrics import LocalizationScores
from utils.models.bas import BAS, Localization
from utils.models.recipe import Recipe

LOSS_NAMES = ("cls", "frg", "bas", "area")


def progress_bar(loader: DataLoader, description: str) -> tqdm:
    """A bar on standard error that leaves no trace, and is silent when nobody looks at a terminal."""
    return tqdm(loader, desc=description, leave=False, disable=None, dynamic_ncols=True)


def to_device(images: Tensor, device: torch.device) -> Tensor:
    """Moves pictures to the device, channels last, without waiting for the copy."""
    return images.to(device, non_blocking=True, memory_format=torch.channels_last)


def train_one_epoch(
    model: BAS,
    loader: DataLoader,
    optimizer: Optimizer,
    recipe: Recipe,
    device: torch.device,
    epoch: int,
    show_step: int = 20,
) -> dict[str, float]:
    """One pass over the training pictures.

    The running figures stay on the device and are read every `show_step` steps only, so that the host never waits for
    the device in between.

    Args:
        model: on `device`.
        loader: gives (images (B, 3, S, S), labels (B,)).
        optimizer: from :func:`utils.optim.build_optimizer`.
        recipe: the losses' weights; its first `warmup_epochs` epochs minimise L_cls alone.
        device: where the model is.
        epoch: counted from 0.
        show_step: steps between two readings of the figures.

    Returns:
        Means over the epoch's pictures: cls, frg, bas, area, total, and accuracy in percent. An epoch of warm-up
        computes neither frg, bas nor area and leaves them out.

    Raises:
        UserError: a loss is NaN or infinite; names the step and the losses.
    """
    model.train()
    step = _warmup_step if epoch < recipe.warmup_epochs else _bas_step
    names = ("cls",) if epoch < recipe.warmup_epochs else (*LOSS_NAMES, "total")
    window = torch.zeros(len(names) + 1, device=device)  # sums since the last reading; no device lacks float32
    totals, seen = np.zeros(len(names) + 1), 0
    bar = progress_bar(loader, f"epoch {epoch + 1}/{recipe.epochs}")
    for index, (images, labels) in enumerate(bar, start=1):
        images, labels = to_device(images, device), labels.to(device, non_blocking=True)
        losses, logits = step(model, images, labels, recipe)
        optimizer.zero_grad(set_to_none=True)
        losses[-1].backward()
        optimizer.step()
        correct = (logits.detach().argmax(dim=1) == labels).sum()
        window += torch.stack([*(loss.detach().float() * len(labels) for loss in losses), correct])
        seen += len(labels)
        if index % show_step == 0 or index == len(loader):
            totals += window.tolist()
            window.zero_()
            figures = _name_figures(names, totals, seen, epoch, index)
            bar.set_postfix({name: f"{value:.3f}" for name, value in figures.items() if name != "total"})
    # The last step's loss was that before its update; what is saved next must not hold what the update broke.
    if not torch.stack([parameter.isfinite().all() for parameter in model.parameters()]).all():
        raise UserError(f"the weights are not finite after epoch {epoch + 1}; try a lower --lr, and --resume")
    return figures


def _bas_step(model: BAS, images: Tensor, labels: Tensor, recipe: Recipe) -> tuple[Sequence[Tensor], Tensor]:
    output = model(images, labels)
    return bas_losses(output, labels, recipe), output.logits


def _warmup_step(model: BAS, images: Tensor, labels: Tensor, recipe: Recipe) -> tuple[Sequence[Tensor], Tensor]:
    logits = model.classify(images)
    return (F.cross_entropy(logits, labels),), logits


def _name_figures(names: Sequence[str], totals: np.ndarray, seen: int, epoch: int, step: int) -> dict[str, float]:
    *losses, correct = totals.tolist()
    figures = {name: value / seen for name, value in zip(names, losses, strict=True)}
    if not all(math.isfinite(value) for value in figures.values()):
        listed = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        raise UserError(
            f"the loss is not finite at epoch {epoch + 1}, step {step} ({listed}); try a lower --lr, and --resume from "
            "the last finished epoch"
        )
    return {**figures, "accuracy": 100 * correct / seen}


@dataclass(frozen=True)
class Evaluation:
    """What one pass over a split found, picture by picture; scores follow from it without the model.

    N pictures, K classes. Pictures that could not be read, and those whose outputs were not finite, are misses.

    Attributes:
        num_classes: K.
        labels: (N,) ground truth.
        top5: (N, min(5, K)) predicted classes, best first.
        ious: for each kind of map, (N, T): the best IoU with a true box at each of T thresholds.
        thresholds: for each kind of map, its T thresholds (of `centre`, the box's share of the picture's side).
        failures: sentences about the pictures that count as misses.
        failed: (N,) whether a picture is one of these.
    """

    num_classes: int
    labels: np.ndarray
    top5: np.ndarray
    ious: Mapping[str, np.ndarray]
    thresholds: Mapping[str, tuple[float, ...]]
    failures: tuple[str, ...]
    failed: np.ndarray

    def scores(self, kind: str = "bas", index: int = 0) -> LocalizationScores:
        """Counts hits and misses at one of the thresholds."""
        scores = LocalizationScores(self.num_classes)
        good = ~self.failed
        scores.update(self.labels[good], self.top5[good], self.ious[kind][good, index])
        scores.update_missed(self.labels[self.failed])
        return scores

    def best_index(self, kind: str) -> int:
        """The threshold with the highest GT-known Loc (the first of several)."""
        return int((self.ious[kind] > 0.5).sum(axis=0).argmax())


@torch.no_grad()
def evaluate(
    model: BAS,
    loader: DataLoader,
    split: Split,
    recipe: Recipe,
    device: torch.device,
    ten_crops: bool = True,
    thresholds: Mapping[str, Sequence[float]] | None = None,
    description: str = "evaluation",
) -> Evaluation:
    """Localises and classifies every picture of a split (paper sections 3.4 and 4.1).

    The map comes from the centre crop, the class scores are the mean softmax of ten crops; one pass serves both.

    Args:
        model: on `device`; put into evaluation mode.
        loader: gives :class:`EvaluationBatch`, see :func:`utils.data.datasets.build_evaluation_loader`.
        split: the true boxes, in original pixels.
        recipe: threshold, top-k and sizes.
        device: where the model is.
        ten_crops: False scores the classes on the centre crop alone.
        thresholds: kinds of maps with the thresholds to try: `bas` (the fused foreground map), `cam` (the class
            activation map), `centre` (a centred box of that share of the side). Only `bas` at the recipe's if None.
        description: the progress bar's.

    Returns:
        The records of all pictures.
    """
    model.eval()
    thresholds = {kind: tuple(values) for kind, values in (thresholds or {"bas": (recipe.threshold,)}).items()}
    count = len(split)
    top5 = np.zeros((count, min(5, model.num_classes)), dtype=np.int64)
    ious = {kind: np.zeros((count, len(values))) for kind, values in thresholds.items()}
    failed = np.zeros(count, dtype=bool)
    failures = []
    for batch in progress_bar(loader, description):
        result = localize_batch(model, batch, recipe, device, ten_crops)
        probabilities = result.logits.softmax(dim=-1).mean(dim=1)
        finite = probabilities.isfinite().all(dim=1) & result.foreground_map.isfinite().all(dim=(1, 2, 3))
        best = probabilities.topk(top5.shape[1]).indices.cpu().numpy()
        boxes = predict_boxes(result, thresholds, recipe.crop_size)
        for row, (index, error, is_finite) in enumerate(
            zip(batch.indices.tolist(), batch.errors, finite.tolist(), strict=True)
        ):
            if error or not is_finite:
                failed[index] = True
                failures.append(error or f"{split.paths[index]}: the model's output is not finite")
                continue
            top5[index] = best[row]
            truth = true_boxes(split, index, batch.sizes[row].tolist(), recipe)
            for kind, predicted in boxes.items():
                ious[kind][index] = iou(predicted[:, row], truth).max(axis=1)
    return Evaluation(model.num_classes, split.labels, top5, ious, thresholds, tuple(failures), failed)


def localize_batch(
    model: BAS, batch: EvaluationBatch, recipe: Recipe, device: torch.device, ten_crops: bool
) -> Localization:
    """Crops a batch and localises it in one forward pass; k = 1 takes the label's map, as the authors evaluate."""
    images = batch.images.to(device, non_blocking=True)
    crops = ten_crop(images, recipe.crop_size) if ten_crops else centre_crop(images, recipe.crop_size).unsqueeze(1)
    map_crop = CENTRE_CROP if ten_crops else 0
    labels = batch.labels.to(device, non_blocking=True)
    return model.localize_crops(crops, map_crop, recipe.top_k, labels)


def predict_boxes(
    result: Localization, thresholds: Mapping[str, Sequence[float]], crop_size: int
) -> dict[str, np.ndarray]:
    """Boxes of each kind of map at each of its T thresholds: kind -> (T, B, 4) xyxy in crop pixels."""
    maps = {"bas": result.foreground_map, "cam": result.class_map}
    boxes = {}
    for kind, values in thresholds.items():
        if kind == "centre":
            batch = len(result.logits)
            boxes[kind] = np.stack([np.tile(centred_box(share, crop_size), (batch, 1)) for share in values])
        else:
            found = maps[kind].squeeze(1).float().cpu().numpy()
            boxes[kind] = np.stack([maps_to_boxes(found, threshold, crop_size) for threshold in values])
    return boxes


def true_boxes(split: Split, index: int, size: Sequence[int], recipe: Recipe) -> np.ndarray:
    """The true boxes of one picture: (n, 4) xyxy in crop pixels, from its (width, height) in original pixels."""
    return scale_boxes_to_crop(split.boxes[split.ids[index]], size, recipe.resize_size, recipe.crop_size)
