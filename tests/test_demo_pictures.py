"""The demo's data set: layout, boxes, separate splits, repeatability, and the credits of the shipped pictures."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from utils.demo import compose as demo
from utils.system.errors import UsageError, UserError

SMALL = {"size": 64, "train_per_class": 2, "test_per_class": 1}


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo.compose(tmp_path_factory.mktemp("demo") / "data", **SMALL)


def rows(folder: Path, name: str) -> list[list[str]]:
    return [line.split(" ") for line in (folder / name).read_text(encoding="utf-8").splitlines()]


def pixels(folder: Path) -> dict[str, np.ndarray]:
    paths = sorted(folder.glob("images/*/*.jpg")) + sorted(folder.glob("segmentations/*/*.png"))
    return {path.relative_to(folder).as_posix(): np.asarray(Image.open(path)) for path in paths}


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_layout_is_cubs(composed: Path) -> None:
    """Every list names the same ids, every path exists, and classes and splits have the counts asked for."""
    images = rows(composed, "images.txt")
    ids = [row[0] for row in images]
    classes = dict(rows(composed, "classes.txt"))
    labels, splits = dict(rows(composed, "image_class_labels.txt")), dict(rows(composed, "train_test_split.txt"))
    assert ids == [str(i) for i in range(1, 12 * 3 + 1)]
    assert list(labels) == list(splits) == [row[0] for row in rows(composed, "bounding_boxes.txt")] == ids
    assert list(classes) == [str(i) for i in range(1, 13)] and list(classes.values()) == sorted(classes.values())
    for image_id, path in images:
        assert path.startswith(f"{classes[labels[image_id]]}/")
        assert f"_{'train' if splits[image_id] == '1' else 'test'}_" in path
    assert {path.relative_to(composed / "images").as_posix() for path in composed.glob("images/*/*")} == {
        path for _, path in images
    }
    for label in classes:
        of_class = [splits[image_id] for image_id in ids if labels[image_id] == label]
        assert sorted(of_class) == ["0", "1", "1"]


def test_boxes_enclose_the_masks_tightly(composed: Path) -> None:
    """The box is the mask's own, found here by hand, and the mask is black and white, of the picture's size."""
    paths = dict(rows(composed, "images.txt"))
    for image_id, *box in rows(composed, "bounding_boxes.txt"):
        mask = np.asarray(Image.open(composed / "segmentations" / Path(paths[image_id]).with_suffix(".png")))
        with Image.open(composed / "images" / paths[image_id]) as image:
            assert image.mode == "RGB" and mask.shape == (image.height, image.width)
        assert set(np.unique(mask)) == {0, 255}
        columns, lines = np.flatnonzero(mask.max(axis=0)), np.flatnonzero(mask.max(axis=1))
        expected = [columns[0], lines[0], columns[-1] - columns[0] + 1, lines[-1] - lines[0] + 1]
        assert [float(value) for value in box] == expected


def test_boxes_vary_and_stay_visible() -> None:
    """Animals are neither lost nor all alike in size: box areas run from some 5 % to 65 % of the picture."""
    shares = []
    for label in range(12):
        for number in range(12):
            mask = demo.compose_picture(label, number, True, 64, 3).mask
            columns, lines = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
            shares.append((np.ptp(columns) + 1) * (np.ptp(lines) + 1) / mask.size)
    assert 0.02 < min(shares) < 0.12 and 0.45 < max(shares) < 0.7
    assert 0.2 < np.median(shares) < 0.4


def test_mask_is_where_the_animal_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a red animal in a blue place, the masked pixels are redder than every pixel well outside the mask."""

    def painted(path: Path) -> np.ndarray:
        if path.suffix == ".jpg":
            return np.broadcast_to(np.float32([0.1, 0.1, 0.9]), (320, 320, 3)).copy()
        return np.broadcast_to(np.float32([0.9, 0.1, 0.1, 1.0]), (80, 120, 4)).copy()

    monkeypatch.setattr(demo, "_read", painted)
    for number in range(10):
        composite = demo.compose_picture(0, number, True, 96, 0)
        redness = composite.image[..., 0].astype(int) - composite.image[..., 2]
        assert np.mean((redness > 0) == composite.mask) > 0.97


def test_splits_share_no_place_and_some_test_animals_are_new() -> None:
    """Test places are never trained on, nor is every third test animal of six classes; all animals take their turns."""
    names = {train: {demo.place_name(path) for path in demo.places(train)} for train in (True, False)}
    assert not names[True] & names[False] and names[False] == demo.TEST_PLACES
    assert len(names[True]) >= 11 and len(names[False]) >= 5
    for class_name in demo.class_names():
        train, test = demo.animals(class_name, True), demo.animals(class_name, False)
        assert train and not set(train) & set(test)
        assert bool(test) == (class_name in {"Chicken", "Cow", "Deer", "Penguin", "Pig", "Rabbit"})
    shipped = [path.stem for path in demo.pictures_folder().glob("animals/*/*.webp")]
    assert len(shipped) == len(set(shipped)) and set(shipped) >= demo.TEST_ANIMALS
    cattle = demo.class_names().index("Cow")
    known, unseen = set(demo.animals("Cow", True)), set(demo.animals("Cow", False))
    assert len(known) == 2 and len(unseen) == 1
    training = [demo.compose_picture(cattle, number, True, 48, 0) for number in range(8)]
    testing = [demo.compose_picture(cattle, number, False, 48, 0) for number in range(12)]
    assert {demo.place_name(c.place) for c in training} <= names[True]
    assert {demo.place_name(c.place) for c in testing} <= names[False]
    assert {c.animal for c in training} == known
    assert {c.animal for c in testing[::3]} == unseen
    assert {c.animal for i, c in enumerate(testing) if i % 3} == known
    lions = [demo.compose_picture(demo.class_names().index("Lion"), number, False, 48, 0) for number in range(4)]
    assert {c.animal for c in lions} == set(demo.animals("Lion", True))


def test_place_does_not_give_away_the_class() -> None:
    """Every class is drawn before many places, and no class before a place of its own."""
    seen = [{demo.compose_picture(label, n, True, 48, 0).place for n in range(20)} for label in range(4)]
    assert all(len(places) >= 10 for places in seen)
    assert all(a & b for a in seen for b in seen)


def test_same_seed_same_pictures_other_seed_others(composed: Path, tmp_path: Path) -> None:
    """All pictures follow from the seed alone."""
    again = pixels(demo.compose(tmp_path / "again", **SMALL))
    other = pixels(demo.compose(tmp_path / "other", **SMALL, seed=1))
    assert same(pixels(composed), again)
    assert other.keys() == again.keys()
    assert not any(np.array_equal(other[name], again[name]) for name in again if name.endswith(".jpg"))


def test_pictures_do_not_depend_on_how_many_there_are(composed: Path, tmp_path: Path) -> None:
    """A picture is the same in a larger data set."""
    larger = pixels(demo.compose(tmp_path / "larger", size=64, train_per_class=3, test_per_class=1))
    smaller = pixels(composed)
    assert len(larger) > len(smaller)
    assert same(smaller, {name: larger[name] for name in smaller})


def test_finished_folder_is_reused_and_other_parameters_replace_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second call writes nothing; other parameters compose anew and leave no older picture behind."""
    folder = demo.compose(tmp_path / "data", **SMALL)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with monkeypatch.context() as patch:
        patch.setattr(demo, "_write_dataset", lambda *_: pytest.fail("composed again"))
        assert demo.compose(tmp_path / "data", **SMALL) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    pictures = pixels(folder)
    demo.compose(folder, **SMALL, seed=1)
    assert not same(pixels(folder), pictures)
    demo.compose(folder, size=64, train_per_class=1, test_per_class=1)
    assert len(rows(folder, "images.txt")) == len(list(folder.glob("images/*/*.jpg"))) == 24
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_interrupted_composition_is_repeated(composed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle leaves no half data set, and the next call gives the whole one."""
    compose_picture, done = demo.compose_picture, []

    def interrupt(*arguments: int) -> demo.Composite:
        done.append(arguments)
        if len(done) == 5:
            raise KeyboardInterrupt
        return compose_picture(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(demo, "compose_picture", interrupt)
        with pytest.raises(KeyboardInterrupt):
            demo.compose(tmp_path / "data", **SMALL)
    assert list(tmp_path.iterdir()) == []
    assert same(pixels(demo.compose(tmp_path / "data", **SMALL)), pixels(composed))


def test_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    """A real data set, or a composed one to which files were added, is never deleted."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images.txt").write_text("1 a.jpg\n")
    with pytest.raises(UserError, match="not the demo's"):
        demo.compose(tmp_path, **SMALL)
    assert (tmp_path / "images.txt").read_text() == "1 a.jpg\n"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is not a folder"):
        demo.compose(tmp_path / "file", **SMALL)
    folder = demo.compose(tmp_path / "data", size=48, train_per_class=1, test_per_class=1)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not the demo's"):
        demo.compose(folder, **SMALL)
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("wrong", [{"size": 10}, {"train_per_class": 0}, {"test_per_class": 0}, {"seed": -1}])
def test_impossible_parameters_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    """Wrong parameters end in one sentence before anything is written."""
    with pytest.raises(UsageError, match="the demo needs"):
        demo.compose(tmp_path / "data", **wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_or_corrupt_shipped_picture_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its pictures the demo says which are missing and how to correct it."""
    monkeypatch.setattr(demo, "pictures_folder", lambda: tmp_path)
    with pytest.raises(UserError, match=r"no demo pictures match .*webp; restore"):
        demo.compose(tmp_path / "data", **SMALL)
    (tmp_path / "animals" / "Cat").mkdir(parents=True)
    (tmp_path / "backgrounds").mkdir()
    (tmp_path / "animals" / "Cat" / "tom.webp").write_bytes(b"no picture")
    Image.new("RGB", (64, 64)).save(tmp_path / "backgrounds" / "wood_1.jpg")
    with pytest.raises(UserError, match=r"cannot read the demo picture .*tom\.webp"):
        demo.compose(tmp_path / "data", **SMALL)


def test_credits_name_every_shipped_picture_and_no_other() -> None:
    """Each picture has one line with its original file, author and licence."""
    folder = demo.pictures_folder()
    lines = [
        line
        for line in (folder / "CREDITS.md").read_text(encoding="utf-8").splitlines()
        if ".png` |" in line or ".jpg` |" in line
    ]
    credited = []
    for line in lines:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert all(cells), line
        assert re.fullmatch(r"(L?GPL|CC0|CC-BY|CC-BY-SA)-[\d.]+(-only|-or-later)?", cells[-1]), line
        credited.append(cells[0].strip("`"))
    shipped = [path.relative_to(folder / "animals").as_posix() for path in folder.glob("animals/*/*")]
    shipped += [path.name for path in folder.glob("backgrounds/*")]
    assert sorted(credited) == sorted(shipped)


def test_shipped_pictures_are_small_and_right() -> None:
    """At most 4 MiB in all; cut-outs have soft alpha and touch their borders; views are at least 170 pixels wide."""
    files = [path for path in demo.pictures_folder().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 4 * 2**20
    for path in files:
        if path.suffix == ".webp":
            alpha = np.asarray(Image.open(path).convert("RGBA"))[..., 3]
            assert max(alpha.shape) <= 200 and alpha.max() == 255 and alpha.min() == 0
            assert all((strip > 60).any() for strip in (alpha[:3], alpha[-3:], alpha[:, :3], alpha[:, -3:])), path
        elif path.suffix == ".jpg":
            assert min(Image.open(path).size) >= 170
