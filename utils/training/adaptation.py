"""A paper's recipe for a data set of fewer classes and pictures than the paper's.

What is set here was found with MobileNetV1 on 2 to 10 bird classes of 30 pictures each; `utils/training/README.md` says
why. With the classes of the recipe's own data set, or more, nothing changes.

Each class's generator kernel is trained by its own pictures alone. With fewer classes it is one of fewer that share a
step's gradient, while the classifier has had fewer steps by then: the kernel is driven to 0 or 1 everywhere, where the
sigmoid's gradient is gone, before its loss means anything. So the classifier begins alone, and the generator follows at
a rate in proportion to the number of classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from utils.models.recipe import GEOMETRIC, Recipe

STEPS_PER_EPOCH = 16  # about, where the pictures allow it
SMALLEST_BATCH = 8  # of which batch normalisation still makes statistics
# The generator's rate, as a share of the head's, is classes x batch size / this: in proportion to the number of classes
# for each picture, whatever the batch.
KERNELS_AND_PICTURES = 430
WARMUP_SHARE, MOST_WARMUP_EPOCHS = 4, 10  # a quarter of the epochs
LAST_FALL = 0.8  # of the epochs, as in the CUB recipe
RATE_FALL = 0.4
# Without batch normalisation the gradients of a few pictures are a hundred times as large as later on.
WITHOUT_NORMS, LARGEST_NORM = ("vgg",), 1.0


class Adaptation(NamedTuple):
    """An adapted recipe."""

    recipe: Recipe
    reasons: Mapping[str, str]  # changed setting -> why


def adapt_recipe(recipe: Recipe, num_classes: int, pictures: int, given: Mapping[str, Any]) -> Adaptation:
    """The recipe for a data set of one's own.

    Args:
        recipe: a paper's, with its own number of classes.
        num_classes: K of the data set.
        pictures: for training.
        given: settings by name that the user gave, None where not: they are the user's, and what follows from them is
            computed with them.

    Returns:
        The recipe with K classes. Where K is smaller than the recipe's, with other defaults for what is not given.
    """
    if num_classes >= recipe.num_classes:
        return Adaptation(replace(recipe, num_classes=num_classes), {})

    def settle(name: str, default: Any) -> Any:
        return default if given.get(name) is None else given[name]

    epochs = settle("epochs", recipe.epochs)
    batch_size = settle("batch_size", _batch_size(pictures, recipe.batch_size))
    warmup = settle("warmup_epochs", min(epochs // WARMUP_SHARE, MOST_WARMUP_EPOCHS))
    falls = sorted({epoch for epoch in (warmup, round(LAST_FALL * epochs)) if 0 < epoch < epochs})
    wanted = {
        "final_relu": (False, "behind a final ReLU the class maps of few classes die, all logits 0"),
        "batch_size": (batch_size, f"about {STEPS_PER_EPOCH} steps an epoch"),
        "warmup_epochs": (warmup, "the classifier learns first, since maps are trained by what it has learnt"),
        "poly_steps": (0, "the rate falls at two epochs instead"),
        "lr_steps": (
            tuple(falls),
            "the rate falls when the maps' training begins, and near the end" if falls else "too few epochs for a fall",
        ),
        "lr_decay": (RATE_FALL if falls else recipe.lr_decay, "for these falls"),
        "generator_rate": (
            min(1.0, round(num_classes * batch_size / KERNELS_AND_PICTURES, 4)),
            "in proportion to the classes: at the full rate the maps of few classes end at 0 or 1 everywhere",
        ),
        "max_grad_norm": (
            LARGEST_NORM if recipe.arch in WITHOUT_NORMS else recipe.max_grad_norm,
            "without batch normalisation the first steps on few pictures end in NaN",
        ),
        "sync_bn": (False, "a batch is small enough for one process"),
        "frozen_statistics": (
            "masked" if given.get("sync_bn") else "whole",
            "with few classes in a batch, one class's masks would decide what is measured of another's background",
        ),
        "align_maps": (GEOMETRIC, "maps are drawn where their cells look, which finds more boxes"),
        "top_k": (min(recipe.top_k, num_classes), "there are no more classes"),
    }
    changes = {
        name: value for name, (value, _) in wanted.items() if given.get(name) is None and value != getattr(recipe, name)
    }
    adapted = replace(recipe, num_classes=num_classes, **changes)
    return Adaptation(adapted, {name: wanted[name][1] for name in changes})


def _batch_size(pictures: int, most: int) -> int:
    """The power of two that gives about STEPS_PER_EPOCH steps an epoch, from SMALLEST_BATCH to `most`."""
    size = SMALLEST_BATCH
    while 2 * size <= min(most, pictures / STEPS_PER_EPOCH):
        size *= 2
    return min(size, most)


def explain_adaptation(adaptation: Adaptation, paper_classes: int, pictures: int) -> str:
    """What was changed and why, a line a setting, each with its end; "" where nothing was."""
    recipe, reasons = adaptation
    if not reasons:
        return ""
    lines = [
        f"recipe for {recipe.num_classes} classes and {pictures} pictures instead of the paper's {paper_classes} "
        "classes (--no-adapt_recipe keeps the paper's):"
    ]
    lines += [f"  {name} {getattr(recipe, name)}: {reason}" for name, reason in reasons.items()]
    return "".join(f"{line}\n" for line in lines)
