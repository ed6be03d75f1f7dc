"""What a checkpoint is to be evaluated with: the recipe, under the settings of its run, under what the user gave."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from utils.checkpoint import Checkpoint
from utils.data.split import Split
from utils.errors import UsageError, UserError
from utils.evaluation.protocols import Protocol
from utils.files import file_digest, read_json, write_text
from utils.models.recipe import Recipe, marked, override
from utils.options import check

SETTINGS_FILE = "settings.json"
# What a run's own settings tell about evaluating its checkpoint; the rest concerns training.
EVALUATION_SETTINGS = marked("evaluates")


class RunSettings(NamedTuple):
    """What holds for a checkpoint."""

    recipe: Recipe
    class_names: tuple[str, ...] | None  # of the run that made it, None for a released file


def recipe_name(checkpoint: Checkpoint) -> str:
    """The paper whose recipe suits a file."""
    return "ijcv" if checkpoint.is_ijcv else "cvpr"


def settle(recipe: Recipe, checkpoint: Checkpoint, protocol: Protocol, given: Mapping[str, Any]) -> RunSettings:
    """The recipe, under what the file itself tells, under the settings of its run, under what the user gave.

    Args:
        recipe: of the paper that the user names, else of :func:`recipe_name`.
        checkpoint: the file.
        protocol: the rules.
        given: the user's options by name, None where not given.

    Raises:
        UserError: the run's settings file is damaged.
    """
    from_file: dict[str, Any] = {}
    if checkpoint.is_ijcv:
        from_file["final_relu"] = False
        if protocol.name == "ijcv" and checkpoint.best_threshold is not None:
            from_file["threshold"] = checkpoint.best_threshold
    path = checkpoint.path.with_name(SETTINGS_FILE)
    # A released file may lie in a run's folder: settings belong to the file that they name alone.
    stored, class_names = _read_settings(path, checkpoint)
    if stored:
        print(f"settings of the run: {path}")
    given = {name: given.get(name) for name in EVALUATION_SETTINGS}
    return RunSettings(override(override(override(recipe, from_file), stored), given), class_names)


def _read_settings(path: Path, checkpoint: Checkpoint) -> tuple[dict[str, Any], tuple[str, ...] | None]:
    if not path.is_file():
        return {}, None
    return read_json(
        path,
        "is no settings file of a run",
        "move it away to use the recipe",
        lambda content: _settings_of(content, path, checkpoint),
    )


def _settings_of(
    content: Mapping[str, Any], path: Path, checkpoint: Checkpoint
) -> tuple[dict[str, Any], tuple[str, ...] | None]:
    if not isinstance(content["weights"], str):
        raise ValueError(f"weights is {content['weights']!r}")
    if content["weights"] != checkpoint.path.name:
        return {}, None
    digest = content.get("sha256")
    if digest is not None and file_digest(checkpoint.path) != digest:
        print(
            f"warning: {checkpoint.path} is not the file that its run wrote (the SHA-256 in {path} is another): "
            "it was damaged or exchanged",
            file=sys.stderr,
        )
    recipe = dict(content["recipe"])
    settings = {name: recipe[name] for name in EVALUATION_SETTINGS if name in recipe}
    try:
        check(Recipe, settings)
    except UsageError as error:
        raise ValueError(str(error)) from error
    names = content.get("class_names")
    if names is None:
        return settings, None
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ValueError("class_names is no list of names")
    if len(names) != checkpoint.num_classes:
        raise ValueError(f"{len(names)} class names for {checkpoint.num_classes} classes")
    return settings, tuple(names)


def save_settings(weights: Path, recipe: Recipe, **more: Any) -> Path:
    """Writes the settings in force beside the run's weights, where inference finds them; they name that file."""
    content = {"weights": weights.name, "recipe": asdict(recipe), **more}
    return write_text(weights.with_name(SETTINGS_FILE), json.dumps(content, indent=2) + "\n")


def run_settings(folder: Path) -> dict[str, Any]:
    """What is recorded of the run in a folder; {} if there is none or its settings cannot be read."""
    try:
        return read_json(folder / SETTINGS_FILE, "is no settings file of a run", "move it away", dict)
    except UserError:
        return {}


def made_weights(folder: Path) -> list[Path]:
    """The weights that a run in a folder has written."""
    name = run_settings(folder).get("weights")
    return [folder / name] if isinstance(name, str) and name == Path(name).name else []


def change_settings(weights: Path, **changes: Any) -> Path:
    """Changes some of what :func:`save_settings` wrote."""
    path = weights.with_name(SETTINGS_FILE)
    mend = "move it away, and --resume writes it anew"
    content = read_json(path, "is no settings file of a run", mend, lambda content: {**content, **changes})
    return write_text(path, json.dumps(content, indent=2) + "\n")


def require_same_classes(checkpoint: Checkpoint, split: Split) -> None:
    """UserError if the checkpoint's classes cannot be the data set's: it was trained on another one."""
    if checkpoint.num_classes != len(split.class_names):
        raise UserError(
            f"{checkpoint.path} holds {checkpoint.description}, but the data set has {len(split.class_names)} classes "
            f"({split.layout}); give the checkpoint's own data set with --data, or another --checkpoint"
        )
