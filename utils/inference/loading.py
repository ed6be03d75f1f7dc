"""From the arguments to a network ready for inference."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from utils.arguments import DEFAULT_WORKERS, choose_device
from utils.checkpoint import GENERATOR_KEY, Checkpoint, apply_weights, find_checkpoint, read_checkpoint, require_arch
from utils.data.class_names import read_class_names
from utils.data.transforms import check_sizes
from utils.errors import UsageError, UserError
from utils.evaluation.protocols import Protocol, find_protocol
from utils.evaluation.question import build_question
from utils.inference.arguments import parse_options
from utils.inference.localizer import Localizer
from utils.inference.settings import recipe_name, settle
from utils.models.bas import BAS
from utils.models.fold import fold_batch_norm
from utils.models.recipe import Recipe, override


@dataclass(frozen=True)
class DatasetFolder:
    """What `CUB/` or `ILSVRC/` brings along.

    Attributes:
        name: `CUB` or `ILSVRC`.
        models: its `Model` package: `build`, `recipe`, `published`.
        loader: its `DataLoader` module: `load_split`, `class_names`.
    """

    name: str
    models: Any
    loader: Any

    @property
    def path(self) -> Path:
        """The folder, where `logs` and `data` lie."""
        return Path(self.models.__file__).parents[1]


@dataclass(frozen=True)
class Loaded:
    """A checkpoint ready to use.

    Attributes:
        checkpoint: the file.
        model: folded for inference, in evaluation mode, on `device`.
        recipe: the settings in force.
        protocol: the rules.
        class_names: K names.
        device: where the model is.
    """

    checkpoint: Checkpoint
    model: BAS
    recipe: Recipe
    protocol: Protocol
    class_names: tuple[str, ...]
    device: torch.device


def load(folder: DatasetFolder, args: argparse.Namespace) -> Loaded:
    """Finds, reads and builds what the arguments name, and says what was loaded.

    Raises:
        UserError: whatever the user can mend.
    """
    device = choose_device(args.device)
    if args.amp and device.type != "cuda":
        raise UsageError(f"--amp computes in half precision on CUDA, but the device is {device}; leave it out")
    if args.num_workers is None:
        args.num_workers = 0 if device.type == "cpu" else DEFAULT_WORKERS
    logs = (args.dataset_dir or folder.path) / "logs"
    checkpoint = read_checkpoint(args.checkpoint or find_checkpoint(logs, folder.name, args.arch))
    require_arch(checkpoint, args.arch)
    protocol = find_protocol(args.protocol)
    recipe = folder.models.recipe(args.arch, args.recipe or recipe_name(checkpoint))
    settings = settle(recipe, checkpoint, protocol, vars(args))
    check_sizes(settings.recipe.resize_size, settings.recipe.crop_size)
    names = _choose_class_names(checkpoint, args.classes, settings.class_names, folder.loader.class_names())
    model = folder.models.build(args.arch, checkpoint.num_classes, settings.recipe.final_relu, settings.recipe.tap)
    _require_tap(checkpoint, model)
    apply_weights(model, checkpoint)
    print(checkpoint.summary)
    model = fold_batch_norm(model.eval()).place(device)
    recipe = override(settings.recipe, {"num_classes": checkpoint.num_classes})
    return Loaded(checkpoint, model, recipe, protocol, names, device)


def _require_tap(checkpoint: Checkpoint, model: BAS) -> None:
    """UserError if the file's generator reads features of another width than the model's tap gives."""
    found, expected = checkpoint.state[GENERATOR_KEY].shape[1], model.taps[model.tap].channels
    if found != expected:
        fitting = [name for name, tap in model.taps.items() if tap.channels == found]
        mend = f"give --tap {' or '.join(fitting)}" if fitting else "give another file"
        raise UserError(
            f"{checkpoint.path} holds a generator on {found} channels, but {model.arch} has {expected} at its tap "
            f"{model.tap}; {mend}"
        )


def _choose_class_names(
    checkpoint: Checkpoint, file: Path | None, of_run: tuple[str, ...] | None, of_dataset: tuple[str, ...]
) -> tuple[str, ...]:
    """The user's names, else the run's own, else the data set's if their number fits, else numbers."""
    count = checkpoint.num_classes
    if file is not None:
        names = read_class_names(file)
        if len(names) != count:
            raise UsageError(f"--classes {file} has {len(names)} names, but {checkpoint.path} has {count} classes")
        return names
    fitting = [names for names in (of_run, of_dataset) if names is not None and len(names) == count]
    return fitting[0] if fitting else tuple(f"class {index}" for index in range(count))


def build_localizer(loaded: Loaded, args: argparse.Namespace) -> Localizer:
    """The function that `--images` and `load_localizer` share."""
    kinds = (args.map,)
    question = build_question(loaded.recipe, loaded.protocol, kinds, args.tencrop, args.threshold, amp=args.amp)
    return Localizer(loaded.model, loaded.class_names, question, loaded.device)


def make_load_localizer(folder: DatasetFolder) -> Callable[..., Localizer]:
    """The data set's `load_localizer`."""

    def load_localizer(arch: str, checkpoint: str | Path | None = None, **options: Any) -> Localizer:
        """Loads a checkpoint as a function from pictures (PIL images, arrays, files) to class, box and map.

        Args:
            arch: `vgg`, `mobilenet`, `resnet` or `inception`.
            checkpoint: a file; the highest epoch in `logs/<arch>/` where None.
            options: flags of `BAS_inference.py` by name, such as `threshold=0.2`, `device="cuda"` or `map="cam"`; see
                :data:`utils.inference.arguments.LOCALIZER_OPTIONS`.

        Returns:
            A :class:`utils.inference.localizer.Localizer`.

        Raises:
            UserError: the file is missing, damaged or another model's; an option that cannot work.
        """
        args = parse_options(folder.name, {"arch": arch, "checkpoint": checkpoint, **options})
        return build_localizer(load(folder, args), args)

    return load_localizer
