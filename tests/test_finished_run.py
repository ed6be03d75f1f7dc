"""A run's folder, opened again: found where it lies, and one sentence for each thing that can be wrong with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.commands import WHOLE, make_cub, save_noise
from train import DATASETS
from utils.data.dataset import own_dataset
from utils.runs.finished import FinishedRun, find_run
from utils.runs.recorded import SETTINGS_FILE
from utils.system.errors import UserError

CUB = DATASETS["CUB"]
PICTURES = [(number % 3, number < 3, WHOLE) for number in range(6)]
RECIPE = {"dataset": "CUB", "arch": "mobilenet", "top_k": 2}


def save_run(folder: Path, **changes: object) -> Path:
    """A run's settings, as training writes them, less what nobody reads here; None takes a setting away."""
    content = {"weights": "mobilenet1.pth.tar", "recipe": RECIPE, "class_names": ["a", "b", "c"], **changes}
    folder.mkdir(parents=True, exist_ok=True)
    content = {name: value for name, value in content.items() if value is not None}
    (folder / SETTINGS_FILE).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("place", ["run", "run/mobilenet"])
def test_run_is_found(tmp_path: Path, place: str) -> None:
    """Protects `--run demo_run`: a run is found in its folder and in the one around it, with all that it tells."""
    folder = save_run(tmp_path / place, root="/data/birds", is_own=True, data={"train": {}, "test": None})
    weights, place = folder / "mobilenet1.pth.tar", Path("/data/birds")
    expected = FinishedRun(folder, weights, own_dataset(CUB, place), "mobilenet", 3, place, has_test=False)
    assert find_run(tmp_path / "run", DATASETS) == expected


def test_old_run_tells_less(tmp_path: Path) -> None:
    """Protects runs made before their settings told where the data lie: they open, and the hint is --data."""
    run = find_run(save_run(tmp_path), DATASETS)
    assert (run.root, run.dataset.is_own, run.has_test) == (None, False, True)
    with pytest.raises(UserError, match=rf"{SETTINGS_FILE} does not tell where the data set lies; .* --data"):
        run.load_split("test")


def test_none_or_several(tmp_path: Path) -> None:
    """Protects against the wrong run: nothing there, no run in it, and two of them are each said, with the hint."""
    with pytest.raises(UserError, match="there is no folder .*nowhere; give that of a run"):
        find_run(tmp_path / "nowhere", DATASETS)
    with pytest.raises(UserError, match=f"holds no run: no {SETTINGS_FILE} in it; train one first"):
        find_run(tmp_path, DATASETS)
    for arch in ("vgg", "resnet"):
        save_run(tmp_path / arch)
    with pytest.raises(UserError, match=r"holds 2 runs \(resnet, vgg\); name one of them"):
        find_run(tmp_path, DATASETS)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weights": None}, "'weights' is missing"),
        ({"recipe": None}, "'recipe' is missing"),
        ({"recipe": {"dataset": "CUB"}}, "'arch' is missing"),
        ({"recipe": [1]}, "list"),
        ({"recipe": {**RECIPE, "arch": "alexnet"}}, "its arch is 'alexnet', not one of vgg, mobilenet, resnet"),
        ({"recipe": {**RECIPE, "dataset": "MNIST"}}, "its dataset is 'MNIST', not one of CUB, ILSVRC"),
        ({"recipe": {**RECIPE, "dataset": ["CUB"]}}, r"its dataset is \['CUB'\]"),
        ({"class_names": None}, "'class_names' is missing"),
        ({"class_names": 3}, "int"),
        ({"root": 3}, "int"),
        ({"is_own": "x"}, "is_own is of the type str"),
        ({"data": [1]}, "list"),
    ],
)
def test_damaged_settings_are_named(tmp_path: Path, changes: dict, words: str) -> None:
    """Protects against a traceback: whatever is wrong with the settings, one sentence names the file and the fault."""
    save_run(tmp_path, **changes)
    with pytest.raises(UserError, match=rf"{SETTINGS_FILE} is no settings file of a run \(.*{words}.*\); name another"):
        find_run(tmp_path, DATASETS)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe"])
def test_other_files_are_named(tmp_path: Path, content: bytes) -> None:
    """Protects against a traceback: a file of that name that is something else is named as well."""
    (tmp_path / SETTINGS_FILE).write_bytes(content)
    with pytest.raises(UserError, match=f"{SETTINGS_FILE} is no settings file of a run"):
        find_run(tmp_path, DATASETS)


def test_data_of_the_run(tmp_path: Path) -> None:
    """Protects the pictures: those of the run's own folder, or of --data where they lie elsewhere by now."""
    data = make_cub(tmp_path / "data", PICTURES, 3)
    run = find_run(save_run(tmp_path / "run", root=str(data)), DATASETS)
    split = run.load_split("test")
    assert (split.name, len(split)) == ("test", 3) and split.paths[0].is_relative_to(data)
    shutil.move(data, tmp_path / "moved")
    with pytest.raises(UserError, match=rf"the data set of .*run is no longer in {data}; name its folder with --data"):
        run.load_split("test")
    assert run.load_split("train", tmp_path / "moved").paths[0].is_relative_to(tmp_path / "moved")


def test_own_data_set_is_read_as_such(tmp_path: Path) -> None:
    """Protects --dataset-dir: the run's own class folders are read, not the published data set's layout."""
    for label in "abc":
        save_noise(tmp_path / "data" / "test" / label / "x.jpg", 0)
        save_noise(tmp_path / "data" / "train" / label / "y.jpg", 0)
    run = find_run(save_run(tmp_path / "run", root=str(tmp_path / "data"), is_own=True), DATASETS)
    assert run.load_split("test").class_names == ("a", "b", "c")


def test_other_classes_are_refused(tmp_path: Path) -> None:
    """Protects against a network's answers on data that it does not know: the two numbers, and the hint."""
    run = find_run(save_run(tmp_path / "run", root=str(make_cub(tmp_path / "data", PICTURES, 5))), DATASETS)
    with pytest.raises(UserError, match=r"run was trained on 3 classes, but the data set has 5 classes .* with --data"):
        run.load_split("test")
