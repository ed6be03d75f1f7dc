"""From a checkpoint to a network ready for inference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from utils.data.class_names import read_class_names
from utils.data.dataset import Dataset
from utils.data.split import Split
from utils.data.transforms import check_sizes
from utils.evaluation.protocols import Protocol, find_protocol
from utils.inference.arguments import EvaluationSettings
from utils.models.bas import BAS, NothingDrawn
from utils.models.checkpoint import GENERATOR_KEY, Checkpoint, apply_weights, read_checkpoint, require_arch
from utils.models.fold import fold_batch_norm
from utils.models.recipe import Recipe, marked
from utils.models.registry import build, find_backbone
from utils.runs.recorded import SETTINGS_FILE, Recorded, recorded_settings
from utils.system.devices import choose_device
from utils.system.errors import UsageError, UserError
from utils.system.options import check, settle


@dataclass(frozen=True)
class Loaded:
    """A checkpoint ready to use.

    Attributes:
        dataset: whose recipes hold, and which reads the pictures.
        checkpoint: the file.
        recorded: what the run that wrote it tells.
        model: folded for inference, in evaluation mode, on `device`.
        recipe: the settings in force.
        protocol: the rules.
        class_names: K names.
        device: where the model is.
        amp: whether to compute in half precision.
    """

    dataset: Dataset
    checkpoint: Checkpoint
    recorded: Recorded
    model: BAS
    recipe: Recipe
    protocol: Protocol
    class_names: tuple[str, ...]
    device: torch.device
    amp: bool


def load(
    dataset: Dataset,
    arch: str,
    checkpoint: str | Path | None = None,
    *,
    device: str | torch.device | None = None,
    amp: bool = False,
    protocol: str | None = None,
    classes: str | Path | None = None,
    **given: Any,
) -> Loaded:
    """Finds, reads and builds a network, and says what was loaded.

    Args:
        dataset: gives recipes, names of classes and the place of checkpoints.
        arch: the backbone.
        checkpoint: a file; the highest epoch in the data set's logs where None.
        device: see :func:`utils.system.devices.choose_device`.
        amp: half precision, on CUDA.
        protocol: the rules' name, see :mod:`utils.evaluation.protocols`; the data set's own where None.
        classes: a file of the classes' names, one a line; the run's or the data set's own where None.
        given: settings of the recipe that win over the run's and the paper's: those marked `evaluates`, and as `name`
            the paper's; None leaves one out.

    Raises:
        UserError: whatever the user can put right.
    """
    find_backbone(arch)
    unknown = sorted(given.keys() - set(marked("evaluates")))
    if unknown:
        settings = ("recipe" if name == "name" else name for name in marked("evaluates"))
        known = ", ".join(("device", "amp", "protocol", "classes", *settings))
        raise UsageError(f"there is no option {unknown[0]!r}; choose among {known}")
    device = None if device is None else str(device)
    options = {"checkpoint": checkpoint, "device": device, "amp": amp, "protocol": protocol, "classes": classes}
    check(EvaluationSettings, options)
    check(Recipe, given)
    on = choose_device(device)
    if amp and on.type != "cuda":
        raise UsageError(f"--amp computes in half precision on CUDA, but the device is {on}; leave it out")
    read = read_checkpoint(checkpoint or dataset.find_checkpoint(arch, given.get("name")))
    rules = find_protocol(protocol or dataset.protocol)
    require_arch(read, arch)
    recipe, recorded = settle_recipe(dataset, arch, read, rules, given)
    check_sizes(recipe.resize_size, recipe.crop_size)
    names = _choose_class_names(read, classes, recorded.class_names, dataset.class_names())
    with torch.device("meta"), NothingDrawn():  # no memory, no random numbers: the file has all of it
        model = build(recipe)
    _require_tap(read, model)
    apply_weights(model, read, assign=True)
    print(read.summary)
    model = fold_batch_norm(model.eval()).place(on)
    read = replace(read, state={})  # the network has them: once in memory is enough
    return Loaded(dataset, read, recorded, model, recipe, rules, names, on, amp)


def settle_recipe(
    dataset: Dataset, arch: str, checkpoint: Checkpoint, protocol: Protocol, given: Mapping[str, Any]
) -> tuple[Recipe, Recorded]:
    """What a checkpoint is to be evaluated with: the paper's recipe, under what the file itself tells, under the
    settings of its run, under what was given.

    Returns:
        The recipe, and what the run tells.

    Raises:
        UserError: the run's settings file is damaged.
    """
    from_file: dict[str, Any] = {"num_classes": checkpoint.num_classes}
    if checkpoint.is_ijcv:
        from_file["final_relu"] = False
        if protocol.for_masks().name == "count_pxap" and checkpoint.best_threshold is not None:
            from_file["threshold"] = checkpoint.best_threshold
    recorded = recorded_settings(checkpoint)
    if recorded.is_run:
        print(f"settings of the run: {recorded.source}")
    recipe = dataset.recipe(arch, given.get("name") or ("ijcv" if checkpoint.is_ijcv else None))
    files = (dataset.released(arch, paper) for paper in dataset.papers)
    is_released = checkpoint.is_ijcv or checkpoint.path.name in {file.path.name for file in files if file is not None}
    is_of_fewer = checkpoint.num_classes != recipe.num_classes
    if not recorded.is_run and (is_of_fewer or (recorded.other and not is_released)):
        there = f"{SETTINGS_FILE} there is about {recorded.other}" if recorded.other else f"no {SETTINGS_FILE} there"
        print(
            f"warning: nothing tells how {checkpoint.path} was trained ({there}); it is evaluated with the recipe for "
            f"{recipe.num_classes} classes, whose sizes, k, threshold and final ReLU may be others"
        )
    return settle(settle(settle(recipe, from_file), recorded.settings), given), recorded


def _require_tap(checkpoint: Checkpoint, model: BAS) -> None:
    """UserError if the file's generator reads features of another width than the model's tap gives."""
    found, expected = checkpoint.state[GENERATOR_KEY].shape[1], model.taps[model.tap].channels
    if found != expected:
        fitting = [name for name, tap in model.taps.items() if tap.channels == found]
        hint = f"give --tap {' or '.join(fitting)}" if fitting else "give another file"
        raise UserError(
            f"{checkpoint.path} holds a generator on {found} channels, but {model.arch} has {expected} at its tap "
            f"{model.tap}; {hint}"
        )


def _choose_class_names(
    checkpoint: Checkpoint, file: str | Path | None, of_run: tuple[str, ...] | None, of_dataset: tuple[str, ...]
) -> tuple[str, ...]:
    """The user's names, else the run's own, else the data set's if their number fits, else numbers."""
    count = checkpoint.state[GENERATOR_KEY].shape[0]
    if file is not None:
        names = read_class_names(Path(file))
        if len(names) != count:
            raise UsageError(f"--classes {file} has {len(names)} names, but {checkpoint.path} has {count} classes")
        return names
    fitting = [names for names in (of_run, of_dataset) if names is not None and len(names) == count]
    return fitting[0] if fitting else tuple(f"class {index}" for index in range(count))


def require_same_classes(loaded: Loaded, split: Split) -> None:
    """UserError if the checkpoint's classes cannot be the data set's: it was trained on another one, or they come in
    another order there."""
    checkpoint, trained_on = loaded.checkpoint, loaded.recorded.class_names
    if checkpoint.num_classes != len(split.class_names):
        raise UserError(
            f"{checkpoint.path} holds {checkpoint.description}, but the data set has {len(split.class_names)} classes "
            f"({split.layout}); give the checkpoint's own data set with --data, or another --checkpoint"
        )
    if trained_on is None or trained_on == tuple(split.class_names):
        return
    labels = {name: label for label, name in enumerate(split.class_names) if split.class_names.count(name) == 1}
    for label, name in enumerate(trained_on):
        if name.isdigit():  # made up, where a data set has no names
            continue
        if labels.get(name, label) != label and trained_on.count(name) == 1:
            raise UserError(
                f"{checkpoint.path} was trained with {name} as class {label + 1}, which is class {labels[name] + 1} of "
                f"this data set ({split.layout}); give the data set that it was trained on, or classes of equal order"
            )
    mine, theirs = next(pair for pair in zip(trained_on, split.class_names, strict=True) if pair[0] != pair[1])
    print(f"warning: the classes have other names than in training, {theirs} instead of {mine}")
