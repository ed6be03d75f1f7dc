"""A run's folder, opened again: the network that it trained and the data that it was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.data.dataset import Dataset, own_dataset
from utils.data.split import Split
from utils.models.registry import ARCHS
from utils.runs.recorded import NO_SETTINGS, SETTINGS_FILE
from utils.system.errors import UserError
from utils.system.files import read_json


@dataclass(frozen=True)
class FinishedRun:
    """What `train.py` left behind.

    Attributes:
        folder: with the settings, the log and the weights.
        weights: the file of the last epoch.
        dataset: whose recipe it had, and which reads its pictures.
        arch: the backbone.
        num_classes: K of the data that it was trained on.
        root: the data set's folder, None if the settings do not tell.
        has_test: whether there was a test split.
    """

    folder: Path
    weights: Path
    dataset: Dataset
    arch: str
    num_classes: int
    root: Path | None
    has_test: bool

    def load_split(self, name: str, root: Path | None = None) -> Split:
        """A split of the data that it was trained on.

        Args:
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
        split = self.dataset.load_split(root, name)
        if len(split.class_names) != self.num_classes:
            raise UserError(
                f"{self.folder} was trained on {self.num_classes} classes, but the data set has "
                f"{len(split.class_names)} classes ({split.layout}); name the run's own with --data"
            )
        return split


def find_run(path: Path, datasets: Mapping[str, Dataset]) -> FinishedRun:
    """Opens a run's folder, or the one that lies in `path` (`demo_run`, `CUB/logs` with a single backbone).

    Args:
        path: the folder.
        datasets: by name, one of which is the run's.

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
    path, hint = folder / SETTINGS_FILE, "name another run"
    return read_json(path, NO_SETTINGS, hint, lambda content: _read_run(folder, content, datasets))


def _read_run(folder: Path, settings: Mapping[str, Any], datasets: Mapping[str, Dataset]) -> FinishedRun:
    recipe, root = settings["recipe"], settings.get("root")
    for name, known in (("dataset", tuple(datasets)), ("arch", ARCHS)):
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
    dataset = datasets[recipe["dataset"]]
    if is_own and root is not None:
        dataset = own_dataset(dataset, Path(root))
    return FinishedRun(
        folder=folder,
        weights=folder / settings["weights"],
        dataset=dataset,
        arch=recipe["arch"],
        num_classes=len(settings["class_names"]),
        root=None if root is None else Path(root),
        # The settings say null where there was none; old ones say nothing.
        has_test=settings.get("data", {}).get("test", True) is not None,
    )
