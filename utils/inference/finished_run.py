"""A run's folder, opened again: the network that it trained and the data that it was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.checkpoint import DATASET_OF_CLASSES
from utils.data import any_folder
from utils.data.split import Split
from utils.errors import UserError
from utils.files import read_json
from utils.inference.arguments import parse_options
from utils.inference.loading import DatasetFolder, Loaded, load
from utils.inference.settings import SETTINGS_FILE
from utils.models.registry import ARCHS

DATASETS = tuple(DATASET_OF_CLASSES.values())


@dataclass(frozen=True)
class FinishedRun:
    """What `train.py` left behind.

    Attributes:
        folder: with the settings, the log and the weights.
        weights: the file of the last epoch.
        dataset: one of `DATASETS`, whose recipe it had.
        arch: the backbone.
        num_classes: K of the data that it was trained on.
        root: the data set's folder, None if the settings do not tell.
        is_own: whether that is a data set of the user's own (`--dataset-dir`).
        has_test: whether there was a test split.
    """

    folder: Path
    weights: Path
    dataset: str
    arch: str
    num_classes: int
    root: Path | None
    is_own: bool
    has_test: bool

    def load(self, dataset: DatasetFolder, device: str | None = None) -> Loaded:
        """The trained network with its settings, ready for inference.

        Args:
            dataset: the one that `dataset` names.
            device: as in `--device`.

        Raises:
            UserError: the weights are missing or damaged.
        """
        return load(
            dataset, parse_options(self.dataset, {"arch": self.arch, "checkpoint": self.weights, "device": device})
        )

    def load_split(self, dataset: DatasetFolder, name: str, root: Path | None = None) -> Split:
        """A split of the data that it was trained on.

        Args:
            dataset: the one that `dataset` names.
            name: `train`, `val` or `test`.
            root: the data set's folder, if it lies elsewhere by now.

        Raises:
            UserError: it is not there, something in it is missing or malformed, or it has other classes.
        """
        root = root or self.root
        if root is None:
            raise UserError(f"{self.folder / SETTINGS_FILE} does not tell where the data set lies; name it with --data")
        if not root.is_dir():
            raise UserError(f"the data set of {self.folder} is no longer in {root}; name its folder with --data")
        split = any_folder.load_split(root, name) if self.is_own else dataset.loader.load_split(root, name)
        if len(split.class_names) != self.num_classes:
            raise UserError(
                f"{self.folder} was trained on {self.num_classes} classes, but the data set has "
                f"{len(split.class_names)} classes ({split.layout}); name the run's own with --data"
            )
        return split


def find_run(path: Path) -> FinishedRun:
    """Opens a run's folder, or the one that lies in `path` (`demo_run`, `CUB/logs` with a single backbone).

    Raises:
        UserError: there is none, more than one, or its settings are damaged.
    """
    if not path.is_dir():
        raise UserError(f"there is no folder {path}; give that of a run, such as demo_run or CUB/logs/vgg")
    found = (
        [path]
        if (path / SETTINGS_FILE).is_file()
        else [file.parent for file in sorted(path.glob(f"*/{SETTINGS_FILE}"))]
    )
    if len(found) != 1:
        several = f"{len(found)} runs ({', '.join(folder.name for folder in found)}); name one of them"
        raise UserError(f"{path} holds " + (several if found else f"no run: no {SETTINGS_FILE} in it; train one first"))
    (folder,) = found
    return read_json(
        folder / SETTINGS_FILE,
        "is no settings file of a run",
        "name another run",
        lambda content: _read_run(folder, content),
    )


def _read_run(folder: Path, settings: Mapping[str, Any]) -> FinishedRun:
    recipe, root = settings["recipe"], settings.get("root")
    for name, known in (("dataset", DATASETS), ("arch", ARCHS)):
        if recipe[name] not in known:
            raise ValueError(f"its {name} is {recipe[name]!r}, not one of {', '.join(known)}")
    is_own = settings.get("is_own", False)
    for name, value, kind in (
        ("class_names", settings["class_names"], list),
        ("weights", settings["weights"], str),
        ("is_own", is_own, bool),
    ):
        if not isinstance(value, kind):
            raise ValueError(f"{name} is of the type {type(value).__name__}")
    return FinishedRun(
        folder=folder,
        weights=folder / settings["weights"],
        dataset=recipe["dataset"],
        arch=recipe["arch"],
        num_classes=len(settings["class_names"]),
        root=None if root is None else Path(root),
        is_own=is_own,
        # The settings say null where there was none; old ones say nothing.
        has_test=settings.get("data", {}).get("test", True) is not None,
    )
