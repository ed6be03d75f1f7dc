"""`settings.json` of a run: what it was made with, and what its weights are to be evaluated with."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from utils.models.checkpoint import Checkpoint
from utils.models.recipe import Recipe, as_of_today, marked
from utils.system.errors import UsageError, UserError
from utils.system.files import file_digest, read_json, write_json
from utils.system.options import check

SETTINGS_FILE = "settings.json"
# What a run's own settings tell about evaluating its checkpoint; the rest concerns training.
EVALUATION_SETTINGS = marked("evaluates")
NO_SETTINGS = "is no settings file of a run"
OFFSETS = "map_offsets"  # where the maps look, see `utils.inference.placing`


@dataclass(frozen=True)
class Recorded:
    """What the run that wrote a checkpoint tells of it.

    Attributes:
        is_run: whether a run here wrote it; of other files nothing else is known.
        settings: of the recipe, by name.
        class_names: of the K classes.
        root: where the data set lay, and `is_own`, whether it was one of the user's own.
    """

    is_run: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] | None = None
    root: Path | None = None
    is_own: bool = False


def recorded_settings(checkpoint: Checkpoint) -> Recorded:
    """What the run that wrote a checkpoint tells of evaluating it, in the settings beside the file.

    A released file may lie in a run's folder: settings belong to the file that they name alone.

    Raises:
        UserError: the settings file is damaged.
    """
    path = checkpoint.path.with_name(SETTINGS_FILE)
    if not path.is_file():
        return Recorded()
    hint = "move it away to use the recipe"
    return read_json(path, NO_SETTINGS, hint, lambda content: _settings_of(content, path, checkpoint))


def _settings_of(content: Mapping[str, Any], path: Path, checkpoint: Checkpoint) -> Recorded:
    if not isinstance(content["weights"], str):
        raise ValueError(f"weights is {content['weights']!r}")
    if content["weights"] != checkpoint.path.name:
        return Recorded()
    digest = content.get("sha256")
    if digest is not None and file_digest(checkpoint.path) != digest:
        print(
            f"warning: {checkpoint.path} is not the file that its run wrote (the SHA-256 in {path} is another): "
            "it was damaged or exchanged",
            file=sys.stderr,
        )
    recipe = as_of_today(content["recipe"])
    settings = {name: recipe[name] for name in EVALUATION_SETTINGS if name in recipe}
    try:
        check(Recipe, settings)
    except UsageError as error:
        raise ValueError(str(error)) from error
    root, is_own = content.get("root"), content.get("is_own", False)
    for name, value, kinds in (("root", root, (str, type(None))), ("is_own", is_own, bool)):
        if not isinstance(value, kinds):
            raise ValueError(f"{name} is of the type {type(value).__name__}")
    recorded = Recorded(True, settings, None, None if root is None else Path(root), is_own)
    names = content.get("class_names")
    if names is None:
        return recorded
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ValueError("class_names is no list of names")
    if len(names) != checkpoint.num_classes:
        raise ValueError(f"{len(names)} class names for {checkpoint.num_classes} classes")
    return replace(recorded, class_names=tuple(names))


def save_settings(weights: Path, recipe: Recipe, **more: Any) -> Path:
    """Writes the settings in force beside the run's weights, where inference finds them; they name that file."""
    content = {"weights": weights.name, "recipe": asdict(recipe), **more}
    return write_json(weights.with_name(SETTINGS_FILE), content)


def run_settings(folder: Path) -> dict[str, Any]:
    """What is recorded of the run in a folder; {} if there is none or its settings cannot be read."""
    try:
        return read_json(folder / SETTINGS_FILE, NO_SETTINGS, "move it away", dict)
    except UserError:
        return {}


def made_weights(folder: Path) -> list[Path]:
    """The weights that a run in a folder has written."""
    name = run_settings(folder).get("weights")
    return [folder / name] if isinstance(name, str) and name == Path(name).name else []


def change_settings(weights: Path, **changes: Any) -> Path:
    """Changes some of what :func:`save_settings` wrote."""
    path = weights.with_name(SETTINGS_FILE)
    hint = "move it away, and --resume writes it anew"
    content = read_json(path, NO_SETTINGS, hint, lambda content: {**content, **changes})
    return write_json(path, content)
