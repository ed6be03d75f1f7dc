"""A data set: its files, recipes, published results and names, defined by its own folder and handed down from there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from utils.models.recipe import PAPERS, Published, PublishedPixels, Recipe
from utils.models.registry import ARCHS, build, find_backbone
from utils.system.errors import UsageError, UserError

if TYPE_CHECKING:
    from utils.data.split import Split
    from utils.models.bas import BAS

ROOT = Path(__file__).resolve().parents[2]


class Released(NamedTuple):
    """A file of the authors on Google Drive."""

    path: Path  # where it belongs
    drive_id: str

    @property
    def page(self) -> str:
        """Where it is fetched by hand."""
        return f"https://drive.google.com/file/d/{self.drive_id}/view"


@dataclass(frozen=True)
class Dataset:
    """A data set, or what behaves like one.

    A data set's folder holds `DataLoader.py` (`load_split(root, name)`, `class_names()` where its files have none, and
    `download(root)` where it can be fetched) and what the papers say of each backbone, in `Model/<arch>.py` or, of all
    in one file, in `recipes.py` (`BACKBONES`: arch -> names): `RECIPE`, `PUBLISHED`, `DRIVE_ID` of the released file
    and `PUBLISHED_CAM` of the first paper, `IJCV_RECIPE`, `IJCV_PUBLISHED`, `IJCV_DRIVE_ID` of the second, as far as
    there are. Nothing of it is imported before it is asked for.

    Attributes:
        name: in `--dataset`, recipes and settings.
        title: in figures.
        package: the folder as Python imports it.
        num_classes: K.
        weights: how weight files are called: `{arch}`, and `{epoch}` counted from 0.
        released_epoch: the epoch of the authors' released files.
        how_to_get: the end of the sentence that says that it cannot be downloaded by `--download`.
        home: where its `data` and `logs` lie, beside its code where None.
        papers: those that have recipes for it, of :data:`utils.models.recipe.PAPERS`; the first one's are the default.
        segments: whether it has masks of classes, for :mod:`utils.segmentation`, and `load_list(root, name)`.
        protocol: of its figures unless the user says otherwise, see :mod:`utils.evaluation.protocols`.
    """

    name: str
    title: str
    package: str
    num_classes: int
    weights: str = "{arch}{epoch}.pth.tar"
    released_epoch: int = 99
    how_to_get: str = ""
    home: Path | None = None
    papers: tuple[str, ...] = PAPERS
    segments: bool = False
    protocol: str = "authors"

    # What is otherwise with the user's own data sets and the demo.
    is_own = False
    replaces_runs = False  # a new run takes the place of an old one
    is_adapted = False  # its recipe is made for its number of classes already
    snapshots = 0  # pictures of `--snapshot` unless the user says otherwise

    @property
    def default_arch(self) -> str:
        """The backbone where none is named."""
        return self.archs[0]

    @property
    def folder(self) -> Path:
        """Where its `data` and `logs` lie unless the user says otherwise."""
        return self.home or ROOT.joinpath(*self.package.split("."))

    @property
    def shown(self) -> str:
        """What it is called in messages."""
        return self.name

    @property
    def root(self) -> Path:
        """Where the pictures lie unless the user says otherwise."""
        return self.folder / "data"

    def root_of(self, run: Path) -> Path:
        """Where the pictures of a run that begins in the folder `run` lie unless the user says otherwise."""
        return self.root

    def run_folder(self, save_path: Path | None, arch: str) -> Path:
        """The folder of a run; `save_path` is the user's."""
        return (save_path or self.logs) / arch

    @property
    def logs(self) -> Path:
        """Where runs go unless the user says otherwise."""
        return self.folder / "logs"

    @property
    def _loader(self) -> ModuleType:
        return import_module(f"{self.package}.DataLoader")

    def load_split(self, root: Path, name: str) -> Split:
        """Reads a split.

        Args:
            root: the folder that holds the data set.
            name: `train`, `val` or `test`, as far as the data set has them.

        Raises:
            UsageError: another split.
            UserError: something is missing or malformed; the message names the file, the line and the hint.
        """
        return self._loader.load_split(root, name)

    def load_list(self, root: Path, name: str) -> Split:
        """Reads the pictures of a list, of a data set that `segments`; UserError as :meth:`load_split`."""
        return self._loader.load_list(root, name)

    def class_names(self) -> tuple[str, ...]:
        """K names for people, or none where the files alone have names."""
        return self._loader.class_names() if hasattr(self._loader, "class_names") else ()

    @property
    def can_download(self) -> bool:
        """Whether `--download` can fetch it."""
        return not self.how_to_get

    def download(self, root: Path) -> None:
        """Fetches it into `root` unless it is there; UserError if that fails."""
        self._loader.download(root)

    @property
    def command(self) -> str:
        """What evaluates it, as a shell runs it from the repository's folder; options follow."""
        if (ROOT.joinpath(*self.package.split(".")) / "BAS_inference.py").is_file():
            return f"cd {self.package} && python BAS_inference.py"
        return f"python -m utils.inference --dataset {self.name}"

    @property
    def archs(self) -> tuple[str, ...]:
        """The backbones that it has recipes for."""
        models = ROOT.joinpath(*self.package.split("."), "Model")
        if not models.is_dir():
            return tuple(import_module(f"{self.package}.recipes").BACKBONES)
        return tuple(arch for arch in ARCHS if (models / f"{arch}.py").is_file())

    def _of_backbone(self, arch: str, what: str, paper: str = "cvpr") -> Any:
        """What a paper says of a backbone, None where it says nothing; UsageError if there is no such backbone."""
        if find_backbone(arch).arch not in self.archs:
            raise UsageError(f"{self.name} has no recipe for {arch}; choose one of {', '.join(self.archs)}")
        name = what if paper == "cvpr" else f"{paper.upper()}_{what}"
        if ROOT.joinpath(*self.package.split("."), "Model").is_dir():
            return getattr(import_module(f"{self.package}.Model.{arch}"), name, None)
        return import_module(f"{self.package}.recipes").BACKBONES[arch].get(name)

    def recipe(self, arch: str, name: str | None = None) -> Recipe:
        """The authors' settings for `arch`, of the CVPR or the IJCV paper; UsageError if there are none."""
        name = name or self.papers[0]
        if name not in PAPERS:
            raise UsageError(f"no recipe is called {name!r}; choose one of {', '.join(PAPERS)}")
        if name not in self.papers:
            raise UsageError(f"{self.name} has no recipe {name}; choose --recipe {' or '.join(self.papers)}")
        return self._of_backbone(arch, "RECIPE", name)

    def published(self, arch: str, paper: str = "cvpr") -> Published | PublishedPixels | None:
        """A paper's result of `arch`, None where there is none; UsageError if there is no such backbone."""
        return self._of_backbone(arch, "PUBLISHED", paper)

    def published_cam(self, arch: str) -> Published | None:
        """The result of CAM with `arch` in the CVPR paper's table, as :meth:`published`."""
        return self._of_backbone(arch, "PUBLISHED_CAM")

    def released(self, arch: str, paper: str | None = None) -> Released | None:
        """The authors' file of `arch` and a paper, None where they released none; UsageError as :meth:`published`."""
        paper = paper or self.papers[0]
        drive_id = self._of_backbone(arch, "DRIVE_ID", paper)
        of_first = self.weights_name(arch, self.released_epoch)
        name = of_first if paper == "cvpr" else f"{arch}_{paper}.pth.tar"
        return Released(self.logs / arch / name, drive_id) if drive_id else None

    def build(
        self, arch: str, num_classes: int | None = None, final_relu: bool | None = None, tap: str | None = None
    ) -> BAS:
        """Builds a BAS model with random weights and the published state-dict keys; nothing is downloaded.

        Args:
            arch: `vgg`, `mobilenet`, `resnet` or `inception`.
            num_classes: K; the data set's own count when not given.
            final_relu: whether the class maps end in a ReLU (CVPR) or not (IJCV); the recipe's when not given.
            tap: the layer after which f1 ends, one of the backbone's `taps`; the paper's when not given.

        Returns:
            The model in training mode, on the CPU.

        Raises:
            UsageError: no such backbone or tap.
        """
        recipe = replace(self.recipe(arch), num_classes=num_classes or self.num_classes, tap=tap)
        return build(recipe if final_relu is None else replace(recipe, final_relu=final_relu))

    def weights_name(self, arch: str, epoch: int) -> str:
        """The published file name of the model after `epoch`, counted from 0."""
        return self.weights.format(arch=arch, epoch=epoch)

    def find_checkpoint(self, arch: str, paper: str | None = None) -> Path:
        """The checkpoint of the highest epoch under its published name in `<logs>/<arch>/`, else the second paper's
        released file there; this one first where that paper is asked for.

        Raises:
            UserError: there is none; names the file that the authors' release would be.
        """
        folder = self.logs / arch
        wanted = self.released(arch, paper) if paper in self.papers[1:] else None
        if wanted is not None and wanted.path.exists():
            return wanted.path
        before, after = self.weights.format(arch=arch, epoch="\0").split("\0")
        pattern = re.compile(rf"{re.escape(before)}(\d+){re.escape(after)}")
        found = [(int(match[1]), file) for file in folder.glob("*.pth.tar") if (match := pattern.fullmatch(file.name))]
        if found:
            return max(found)[1]
        files = [file for paper in self.papers if (file := self.released(arch, paper))]
        for file in files:
            if file.path.exists():
                return file.path
        options = [f"train one with `python train.py --dataset {self.name} --arch {arch}`", "give --checkpoint FILE"]
        if files:
            options.insert(0, f"put the authors' file at {files[0].path} ({files[0].page}, or --download)")
        raise UserError(f"there is no checkpoint in {folder}; {', '.join(options[:-1])}, or {options[-1]}")

    def prepare(self, run: Path) -> None:
        """What is to be done before a run in the folder `run` reads the pictures; the first process alone does it."""


@dataclass(frozen=True)
class OwnDataset(Dataset):
    """A data set of the user's own (`--dataset-dir`), in the folder `home`, under another one's recipes."""

    is_own = True

    @property
    def shown(self) -> str:
        return str(self.folder)

    @property
    def root(self) -> Path:
        return self.folder

    def load_split(self, root: Path, name: str) -> Split:
        return import_module("utils.data.any_folder").load_split(root, name)


def own_dataset(base: Dataset, place: Path) -> OwnDataset:
    """The data set in the folder `place`, under the recipes of `base`."""
    return OwnDataset(**{**vars(base), "home": place})


def find_datasets() -> dict[str, Dataset]:
    """All data sets of the repository by name: those of the folders that hold a `DataLoader.py` and say `DATASET`."""
    found = {}
    for home in (ROOT, ROOT / "utils" / "datasets"):
        for file in sorted(home.glob("*/DataLoader.py")):
            package = ".".join(file.parent.relative_to(ROOT).parts)
            dataset = getattr(import_module(package), "DATASET", None)
            if isinstance(dataset, Dataset):
                found[dataset.name] = dataset
    return found


def defaults_in_words(datasets: Iterable[Dataset]) -> Callable[[str], str | None]:
    """For help: a recipe's setting -> its default in words, None where all recipes have the same.

    Args:
        datasets: whose recipes are compared.
    """

    @cache
    def recipes() -> list[tuple[str, dict[str, list[Recipe]]]]:
        return [
            (dataset.name, {paper: [dataset.recipe(arch, paper) for arch in dataset.archs] for paper in dataset.papers})
            for dataset in datasets
        ]

    def words(name: str) -> str | None:
        if name == "name":
            return None
        names_of: dict[str, list[str]] = {}
        for title, by_paper in recipes():
            values = {
                paper: {_in_words(getattr(recipe, name)) for recipe in found} for paper, found in by_paper.items()
            }
            if any(len(found) > 1 for found in values.values()):
                return "the recipe's"
            said = {paper: found.pop() for paper, found in values.items()}
            first, *_ = said.values()
            others = [f"{paper.upper()} {value}" for paper, value in said.items() if value != first]
            names_of.setdefault(first + (f" ({', '.join(others)})" if others else ""), []).append(title)
        if len(names_of) == 1 and "(" not in next(iter(names_of)):
            return None
        usual = max(names_of, key=lambda value: len(names_of[value]))
        rarer = [f"{' and '.join(names)} {value}" for value, names in names_of.items() if value != usual]
        return ", ".join([*rarer, f"others {usual}" if rarer else usual])

    return words


def _in_words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)
