"""`settings.json` of a run: what it was made with, and what its weights are to be evaluated with."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from utils.models.checkpoint import Checkpoint
from utils.models.recipe import Recipe, as_of_today, marked
from utils.runs.settings import STATES
from utils.system.errors import UsageError, UserError
from utils.system.files import file_digest, read_json, write_json
from utils.system.options import check

SETTINGS_FILE = "settings.json"
# What a run's own settings tell about evaluating its checkpoint; the rest concerns training.
EVALUATION_SETTINGS = marked("evaluates")
NO_SETTINGS = "is no settings file of a run"
OFFSETS = "map_offsets"  # where the maps look, see `utils.inference.placing`
EARLIER = "earlier_weights"  # of a run that was prolonged, by name: their `sha256` and `recipe`


@dataclass(frozen=True)
class Recorded:
    """What the run that wrote a checkpoint tells of it.

    Attributes:
        source: the file that tells it; None where no run here wrote the checkpoint: of other files nothing is known.
        other: the weights that the settings beside the file are about instead, if these are of a network alike.
        settings: of the recipe, by name.
        class_names: of the K classes.
        root: where the data set lay, and `is_own`, whether it was one of the user's own.
        is_final: whether the checkpoint is the very file that the run ended with.
    """

    source: Path | None = None
    other: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] | None = None
    root: Path | None = None
    is_own: bool = False
    is_final: bool = False

    @property
    def is_run(self) -> bool:
        """Whether a run here wrote the checkpoint."""
        return self.source is not None


def recorded_settings(checkpoint: Checkpoint) -> Recorded:
    """What the run that wrote a checkpoint tells of evaluating it, in the settings beside the file; a training state
    has its own.

    A released file may lie in a run's folder: settings belong to the file that they name alone.

    Raises:
        UserError: the settings file is damaged.
    """
    if checkpoint.settings is not None:
        return _of_state(checkpoint, checkpoint.settings)
    path = checkpoint.path.with_name(SETTINGS_FILE)
    if not path.is_file():
        return Recorded()
    hint = "move it away to use the recipe"
    return read_json(path, NO_SETTINGS, hint, lambda content: _of_weights(content, path, checkpoint))


def _of_state(checkpoint: Checkpoint, stored: Mapping[str, Any]) -> Recorded:
    """Its own recipe, and what its run has found out since or knows besides, where it lies in its run's folder."""
    try:
        recorded = Recorded(checkpoint.path, settings=_evaluation_settings(stored))
    except ValueError as error:
        raise UserError(f"{checkpoint.path} holds settings that cannot be: {error}; take another state") from error
    folder = checkpoint.path.absolute().parent
    path = folder.parent / SETTINGS_FILE
    if folder.name != STATES or not path.is_file():
        return recorded
    try:
        of_run = read_json(path, NO_SETTINGS, "", lambda content: _interpret(content, path, checkpoint))
    except UserError:  # the state is enough
        return recorded
    fixed = [name for name in recorded.settings if name not in marked("may_change")]
    is_same = all(of_run.settings.get(name) == recorded.settings[name] for name in fixed)
    return of_run if is_same else recorded


def _of_weights(content: Mapping[str, Any], path: Path, checkpoint: Checkpoint) -> Recorded:
    if not isinstance(content["weights"], str):
        raise ValueError(f"weights is {content['weights']!r}")
    name, of_run = checkpoint.path.name, content["weights"]
    earlier = _earlier(content).get(name)
    if of_run != name and earlier is not None and earlier["sha256"] == file_digest(checkpoint.path):
        return _interpret({**content, "recipe": earlier["recipe"]}, path, checkpoint)
    if of_run != name:
        recipe = content.get("recipe")
        network = {"arch": checkpoint.arch, "num_classes": checkpoint.num_classes}
        is_alike = isinstance(recipe, dict) and network.items() <= recipe.items()
        return Recorded(other=of_run if is_alike else "")
    recorded = _interpret(content, path, checkpoint)
    digest = content.get("sha256")
    if digest is None or file_digest(checkpoint.path) == digest:
        return replace(recorded, is_final=True)
    print(
        f"warning: {checkpoint.path} is not the file that its run wrote (the SHA-256 in {path} is another): it was "
        "damaged or exchanged",
        file=sys.stderr,
    )
    return recorded


def _earlier(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    found = content.get(EARLIER, {})
    rows = found.items() if isinstance(found, dict) else ()
    return {name: row for name, row in rows if isinstance(row, dict) and row.keys() >= {"sha256", "recipe"}}


def earlier_weights(settings: Mapping[str, Any], now: str) -> dict[str, dict[str, Any]]:
    """For a run that goes on and will write `now`: what to keep, as `EARLIER`, of the weights it wrote before.

    Args:
        settings: the run's so far.
        now: a file name.
    """
    kept, last = _earlier(settings), settings.get("weights")
    if isinstance(last, str) and settings.get("sha256"):
        kept[last] = {"sha256": settings["sha256"], "recipe": settings.get("recipe")}
    return {name: row for name, row in kept.items() if name != now}


def _evaluation_settings(stored: Mapping[str, Any]) -> dict[str, Any]:
    recipe = as_of_today(stored)
    settings = {name: recipe[name] for name in EVALUATION_SETTINGS if name in recipe}
    try:
        check(Recipe, settings)
    except UsageError as error:
        raise ValueError(str(error)) from error
    return settings


def _interpret(content: Mapping[str, Any], path: Path, checkpoint: Checkpoint) -> Recorded:
    settings = _evaluation_settings(content["recipe"])
    root, is_own = content.get("root"), content.get("is_own", False)
    for name, value, kinds in (("root", root, (str, type(None))), ("is_own", is_own, bool)):
        if not isinstance(value, kinds):
            raise ValueError(f"{name} is of the type {type(value).__name__}")
    recorded = Recorded(path, settings=settings, root=None if root is None else Path(root), is_own=is_own)
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
    settings = run_settings(folder)
    names = (settings.get("weights"), *_earlier(settings))
    return [folder / name for name in names if isinstance(name, str) and name == Path(name).name]


def change_settings(weights: Path, **changes: Any) -> Path:
    """Changes some of what :func:`save_settings` wrote."""
    path = weights.with_name(SETTINGS_FILE)
    hint = "move it away, and --resume writes it anew"
    content = read_json(path, NO_SETTINGS, hint, lambda content: {**content, **changes})
    return write_json(path, content)
