"""Data sets beyond CUB and ILSVRC: each in tiny pieces laid out as its owners ship it, read, trained on, evaluated."""

from __future__ import annotations

import json
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from tests.commands import OWN_TRAINING, assert_one_sentence, read_json, run_training, save_noise
from tests.test_cub_data import write_lines
from train import DATASETS
from utils.data.evaluation import read_pictures
from utils.evaluation.protocols import find_protocol
from utils.evaluation.spec import build_spec
from utils.inference.__main__ import main as inference
from utils.inference.released import fetch_released
from utils.inference.test_set import find_published
from utils.models.recipe import PublishedPixels
from utils.models.registry import build
from utils.system.errors import UsageError, UserError, run_command

SIDE = 64
COUNTS = {"train": 6, "test": 4}
CLASSES = ("Boeing 707-320", "A300B4", "F-16A/B")


def make_dogs(root: Path) -> None:
    """Three breeds; the second picture of the test shows two dogs."""
    folders = ["n02085620-Chihuahua", "n02085782-Japanese_spaniel", "n02085936-Maltese_dog"]
    for split, count in COUNTS.items():
        files = [f"{folders[number % 3]}/{split}_{number}.jpg" for number in range(count)]
        for number, file in enumerate(files):
            save_noise(root / "Images" / file, number)
            boxes = [(1, 2, 30, 40), (20, 10, 60, 62)][: 1 + (number == 1)]
            objects = "".join(
                f"<object><name>dog</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
                "</bndbox></object>"
                for x0, y0, x1, y1 in boxes
            )
            annotation = root / "Annotation" / file.removesuffix(".jpg")
            annotation.parent.mkdir(parents=True, exist_ok=True)
            annotation.write_text(f"<annotation>{objects}</annotation>")
        cells = np.empty((count, 1), dtype=object)
        names = cells.copy()
        cells[:, 0], names[:, 0] = files, [file.removesuffix(".jpg") for file in files]
        labels = np.array([[1 + number % 3] for number in range(count)], dtype=np.uint8)
        (root / "lists").mkdir(exist_ok=True)
        savemat(
            root / "lists" / f"{split}_list.mat",
            {"file_list": cells, "annotation_list": names, "labels": labels},
            do_compression=split == "test",
        )


def car_records(names: list[str], **more: list[int]) -> np.ndarray:
    fields = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
    records = np.zeros((1, len(names)), dtype=[(name, object) for name in (*fields, "class", "fname", *more)])
    for number, name in enumerate(names):
        values = (1, 2, 30 + number, 40)
        for field, value in zip(fields, values, strict=True):
            records[field][0, number] = value
        records["class"][0, number], records["fname"][0, number] = 1 + number % 3, name
        for field, of_all in more.items():
            records[field][0, number] = of_all[number]
    return records


def car_names() -> np.ndarray:
    cells = np.empty((1, 3), dtype=object)
    cells[0, :] = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "smart fortwo Convertible 2012"]
    return cells


def make_cars(root: Path) -> None:
    (root / "devkit").mkdir(parents=True)
    savemat(root / "devkit" / "cars_meta.mat", {"class_names": car_names()})
    for split, path in (("train", "devkit/cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
        names = [f"{number:05d}.jpg" for number in range(1, COUNTS[split] + 1)]
        for number, name in enumerate(names):
            save_noise(root / f"cars_{split}" / name, number)
        savemat(root / path, {"annotations": car_records(names)})


def make_older_cars(root: Path) -> None:
    names = [f"car_ims/{number:06d}.jpg" for number in range(1, sum(COUNTS.values()) + 1)]
    for number, name in enumerate(names):
        save_noise(root / name, number)
    is_test = [int(number >= COUNTS["train"]) for number in range(len(names))]
    records = car_records(names, test=is_test)
    records = records.astype(
        [("relative_im_path" if name == "fname" else name, object) for name in records.dtype.names]
    )
    savemat(root / "cars_annos.mat", {"annotations": records, "class_names": car_names()})


def make_aircraft(root: Path) -> None:
    data = root / "fgvc-aircraft-2013b" / "data"
    data.mkdir(parents=True)
    write_lines(data / "variants.txt", CLASSES)
    numbers = {split: [f"{split == 'test':d}{number:06d}" for number in range(COUNTS[split])] for split in COUNTS}
    boxes = []
    for split, members in numbers.items():
        lines = [f"{name} {CLASSES[number % 3]}" for number, name in enumerate(members)]
        write_lines(data / f"images_variant_{'trainval' if split == 'train' else split}.txt", lines)
        if split == "train":
            write_lines(data / "images_variant_val.txt", lines[3:])
        for number, name in enumerate(members):
            save_noise(data / "images" / f"{name}.jpg", number)
            boxes.append(f"{name} 1 2 {30 + number} 40")
    write_lines(data / "images_box.txt", boxes)


def make_openimages(root: Path, lists: str = "metadata/OpenImages") -> None:
    """wsolevaluation's files as they come: no newline at the end, a line for each object's mask, the ignored pixels
    once, masks of other sizes than the pictures."""
    folders = ("01226z", "0bt_c3", "05r655")
    for split, count in (("train", 6), ("val", 4), ("test", 5)):
        ids = [f"{split}/{folders[number % 3]}/{number:016x}.jpg" for number in range(count)]
        for number, image_id in enumerate(ids):
            save_noise(root / image_id, number)
        folder = root / lists / split
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "image_ids.txt").write_text("\n".join(ids))
        (folder / "class_labels.txt").write_text("\n".join(f"{name},{i % 3}" for i, name in enumerate(ids)))
        if split == "train":
            continue
        lines = []
        for number, image_id in enumerate(ids):
            stem = image_id.removesuffix(".jpg")
            masks = [f"{stem}_m{folders[number % 3]}_{part}.png" for part in range(1 + number % 2)]
            for part, name in enumerate(masks):
                mask = np.zeros((2 * SIDE, 2 * SIDE), dtype=np.uint8)
                mask[20 + 40 * part : 50 + 40 * part, 30:90] = 255
                Image.fromarray(mask).save(root / name)
                lines.append(f"{image_id},{name},{stem}_ignore.png" if part == 0 else f"{image_id},{name},")
            ignore = np.zeros((SIDE, SIDE), dtype=np.uint8)
            ignore[:20, :20] = 255  # reaches into the first object, which prevails
            Image.fromarray(ignore).save(root / f"{stem}_ignore.png")
        (folder / "localization.txt").write_text("\n".join(lines))


MAKE = {
    "StanfordDogs": make_dogs,
    "StanfordCars": make_cars,
    "FGVCAircraft": make_aircraft,
    "OpenImages": make_openimages,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The four data sets, each in a folder of its name."""
    home = tmp_path_factory.mktemp("datasets")
    for name, make in MAKE.items():
        make(home / name)
    return home


@pytest.mark.parametrize("name", MAKE)
def test_owners_layouts(home: Path, name: str) -> None:
    """Protects the readers: pictures, labels from 0 in the owners' order, and true boxes as edges in pixels from 0."""
    train, test = (DATASETS[name].load_split(home / name, split) for split in ("train", "test"))
    assert len(train) == 6 and train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert test.labels.tolist() == [0, 1, 2, 0, 1][: len(test)]
    assert train.class_names == test.class_names and len(train.class_names) == 3
    assert all(path.is_file() for path in (*train.paths, *test.paths))
    if name == "OpenImages":
        assert not train.masks and len(test.masks) == len(test) == 5 and not test.boxes
        assert [len(files.objects) for files in test.masks.values()] == [1, 2, 1, 2, 1]
        return
    assert len(train.boxes) == 6 and len(test.boxes) == 4
    first, second = (test.boxes[image_id].tolist() for image_id in test.ids[:2])
    if name == "StanfordDogs":
        assert first == [[1, 2, 30, 40]] and second == [[1, 2, 30, 40], [20, 10, 60, 62]]
        assert test.class_names == ("Chihuahua", "Japanese spaniel", "Maltese dog")
    else:  # pixels from 1, both corners within
        assert first == [[0, 1, 30, 40]] and second == [[0, 1, 31, 40]]
    if name == "FGVCAircraft":
        assert test.class_names == CLASSES
        assert DATASETS[name].load_split(home / name, "val").ids == train.ids[3:]


def test_older_layout_of_cars(tmp_path: Path) -> None:
    """Protects Stanford Cars as it was shipped first: one list, a flag for the test."""
    make_older_cars(tmp_path / "stanford_cars")
    train, test = (DATASETS["StanfordCars"].load_split(tmp_path, split) for split in ("train", "test"))
    assert len(train) == 6 and test.ids == tuple(f"car_ims/{number:06d}.jpg" for number in range(7, 11))
    assert test.labels.tolist() == [0, 1, 2, 0] and test.boxes[test.ids[0]].tolist() == [[0, 1, 36, 40]]


@pytest.mark.parametrize("lists", [".", "metadata", "metadata/OpenImages"])
def test_places_of_openimages_lists(tmp_path: Path, lists: str) -> None:
    """Protects wsolevaluation's users: its lists are found beside the pictures and in its own folders, and the label of
    the last picture is read whole, though no line ends there."""
    make_openimages(tmp_path, lists)
    path = tmp_path / lists / "test" / "class_labels.txt"
    path.write_text(path.read_text()[:-1] + "99")
    assert DATASETS["OpenImages"].load_split(tmp_path, "test").labels.tolist() == [0, 1, 2, 0, 99]


def test_banner_of_aircraft_is_cut_off(home: Path) -> None:
    """Protects FGVC-Aircraft from learning a copyright line: the lowest 20 rows are gone before anything is resized."""
    split = DATASETS["FGVCAircraft"].load_split(home / "FGVCAircraft", "test")
    assert "20 rows of the copyright banner cut off" in split.layout
    batch = read_pictures(split, [0], SIDE)
    assert batch.sizes.tolist() == [[SIDE, SIDE - 20]]
    with Image.open(split.paths[0]) as image:
        whole = image.convert("RGB").crop((0, 0, SIDE, SIDE - 20)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    assert (batch.images[0].permute(1, 2, 0).numpy() == np.asarray(whole)).all()
    Image.new("RGB", (SIDE, 20)).save(split.paths[0].with_name("low.jpg"))
    low = DATASETS["FGVCAircraft"].load_split(home / "FGVCAircraft", "test")
    low = type(low)(**{**vars(low), "paths": (split.paths[0].with_name("low.jpg"), *low.paths[1:])})
    with pytest.raises(UserError, match=r"low\.jpg has 20 rows, no more than the banner of 20"):
        read_pictures(low, [0], SIDE)


MISSING = {
    ("StanfordDogs", "lists/test_list.mat"): ("test_list.mat", "vision.stanford.edu"),
    ("StanfordDogs", "Annotation/n02085620-Chihuahua/test_0"): ("test_0", "annotation.tar"),
    ("StanfordDogs", "Images/n02085620-Chihuahua/test_0.jpg"): ("test_0.jpg", "1 of the 4 pictures", "images.tar"),
    ("StanfordCars", "devkit/cars_meta.mat"): ("cars_meta.mat", "c3b158d763b6e2245038c8ad08e45376"),
    ("StanfordCars", "cars_test_annos_withlabels.mat"): ("withlabels.mat", "b0a2b23655a3edd16d84508592a98d10"),
    ("StanfordCars", "cars_test/00001.jpg"): ("00001.jpg", "4ce7ebf6a94d07f1952d94dd34c4d501"),
    ("FGVCAircraft", "fgvc-aircraft-2013b/data/variants.txt"): ("variants.txt", "robots.ox.ac.uk"),
    ("FGVCAircraft", "fgvc-aircraft-2013b/data/images_box.txt"): ("images_box.txt", "robots.ox.ac.uk"),
    ("FGVCAircraft", "fgvc-aircraft-2013b/data/images/1000000.jpg"): ("1000000.jpg", "fgvc-aircraft-2013b.tar.gz"),
    ("OpenImages", "metadata/OpenImages/test/image_ids.txt"): ("image_ids.txt", "metadata format"),
    ("OpenImages", "metadata/OpenImages/test/localization.txt"): ("no masks", "OpenImages_annotations.zip"),
    ("OpenImages", "test/01226z/0000000000000000.jpg"): ("0000000000000000.jpg", "1 of the 5 pictures"),
}


@pytest.mark.parametrize(("name", "piece"), MISSING)
def test_missing_pieces_are_named(tmp_path: Path, name: str, piece: str) -> None:
    """Protects users with half a data set: one sentence names the file, and where its owners have it, or its md5."""
    MAKE[name](tmp_path)
    (tmp_path / piece).unlink()
    with pytest.raises(UserError) as error:
        DATASETS[name].load_split(tmp_path, "test")
    assert all(word in str(error.value) for word in MISSING[name, piece]), error.value


@pytest.mark.parametrize("name", MAKE)
def test_empty_folders_are_refused(tmp_path: Path, name: str) -> None:
    """Protects users with a wrong --root: it says so, for every split."""
    for split in ("train", "test"):
        with pytest.raises(UserError, match=re.escape(str(tmp_path))):
            DATASETS[name].load_split(tmp_path, split)


DAMAGE = {
    "no MATLAB file": lambda path: path.write_bytes(b"nothing of the kind" * 30),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:200]),
    "empty": lambda path: path.write_bytes(b""),
    "another variable": lambda path: savemat(path, {"other": [1, 2]}),
    "numbers for records": lambda path: savemat(path, {"annotations": [1, 2], "file_list": [1], "labels": [1]}),
    "a class from 0": lambda path: savemat(path, {"annotations": car_of_class(0)}),
    "a class in words": lambda path: savemat(path, {"annotations": car_of_class("Hummer")}),
    "no class": lambda path: savemat(path, {"annotations": car_of_class(np.zeros((0, 0)))}),
    "half a class": lambda path: savemat(path, {"annotations": car_of_class(1.5)}),
}


def car_of_class(value: object) -> np.ndarray:
    records = car_records(["00001.jpg"])
    records["class"][0, 0] = value
    return records


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(
    ("name", "piece"), [("StanfordDogs", "lists/test_list.mat"), ("StanfordCars", "cars_test_annos_withlabels.mat")]
)
def test_damaged_matlab_files(tmp_path: Path, name: str, piece: str, damage: str) -> None:
    """Protects from foreign files: one sentence that names the file, whatever SciPy makes of it."""
    MAKE[name](tmp_path)
    DAMAGE[damage](tmp_path / piece)
    with pytest.raises(UserError, match=re.escape(str(tmp_path / piece))):
        DATASETS[name].load_split(tmp_path, "test")


def test_without_scipy_the_sentence_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects installations without SciPy: two data sets need it, and say it."""
    make_dogs(tmp_path)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(UserError, match=r"list\.mat is a MATLAB file, which is read by SciPy; `pip install scipy`"):
        DATASETS["StanfordDogs"].load_split(tmp_path, "train")


@pytest.mark.parametrize("name", ["FGVCAircraft", "OpenImages"])
def test_trained_and_evaluated_by_name(home: Path, tmp_path: Path, capsys, name: str) -> None:
    """Protects `train.py --dataset NAME` and `python -m utils.inference --dataset NAME`: the run evaluates itself by
    the paper's protocol, and the command that it prints gives the same figures."""
    options = ("--dataset", name, "--root", home / name, "--save_path", tmp_path, *OWN_TRAINING, "--epochs", 1)
    assert run_training(*options) == 0
    output = capsys.readouterr().out
    folder = tmp_path / "mobilenet"
    (command,) = re.findall(r"python -m utils\.inference (--dataset \S+ .*)", output)
    assert run_command(lambda: inference([*command.split(), "--json", str(tmp_path / "r.json")])) == 0
    record, printed = read_json(tmp_path / "r.json"), capsys.readouterr().out
    of_run = read_json(folder / "evaluation.json")
    assert record["protocol"] == of_run["protocol"] == ("count_pxap" if name == "OpenImages" else "ijcv")
    assert record["settings"]["name"] == "ijcv" and not record["settings"]["final_relu"]
    entry = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
    if name == "OpenImages":
        assert record["pixels"] == of_run["pixels"] == entry["test"]["pixels"]
        assert output.index("PxAP") < output.index("Top-1 Cls ") and printed.index("PxAP") < printed.index("Top-1 Cls ")
    else:
        assert record["scores"] == of_run["scores"] == entry["test"]
        assert "20 rows of the copyright banner cut off" in printed
    assert record["published"] is None  # three classes are another data set


def test_published_figures_stand_beside_the_result(home: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    """Protects comparisons with the second paper: the whole data set, its protocol, its network; on nothing less."""
    dataset = DATASETS["OpenImages"]
    monkeypatch.setattr(type(dataset), "load_split", lambda self, root, name: hundred_classes(home, name))
    path = tmp_path / "resnet_ijcv.pth.tar"
    torch.save({"model": build(dataset.recipe("resnet")).state_dict(), "best_thr": 0.3, "epoch": 70}, path)
    asked = ["--dataset", "OpenImages", "--arch", "resnet", "--checkpoint", str(path), "--num_workers", "0"]
    sizes = ["--crop_size", "64", "--resize_size", "64"]

    def published(*more: str) -> object:
        options = [*asked, *sizes, *more, "--json", str(tmp_path / "r.json")]
        assert run_command(lambda: inference(options)) == 0
        return read_json(tmp_path / "r.json")["published"]

    assert dataset.published("resnet", "ijcv") == PublishedPixels(peak_iou=50.72, px_ap=66.86)
    assert published() == {"peak_iou": 50.72, "px_ap": 66.86}
    output = capsys.readouterr().out
    assert re.search(r"^PxAP .* published 66\.86$", output, re.MULTILINE)
    assert re.search(r"^peak pixel IoU .* published 50\.72$", output, re.MULTILINE)
    assert published("--protocol", "wsolevaluation") is None and published("--map", "center") is None


def test_box_figures_are_not_compared_with_the_rules_of_masks() -> None:
    """Protects comparisons on CUB: the second paper's Loc stands beside its own protocol's alone."""
    dataset = DATASETS["CUB"]
    model = types.SimpleNamespace(arch="vgg", num_classes=200)
    for protocol, has_boxes, expected in (
        ("ijcv", True, dataset.published("vgg", "ijcv")),
        ("count_pxap", True, None),
        ("authors", True, None),
    ):
        recipe = dataset.recipe("vgg", "ijcv")
        loaded = types.SimpleNamespace(dataset=dataset, recipe=recipe, model=model)
        spec = build_spec(recipe, find_protocol(protocol))
        assert find_published(loaded, spec, has_boxes) == expected


def hundred_classes(home: Path, name: str):
    from utils.datasets.openimages import DataLoader

    split = DataLoader.load_split(home / "OpenImages", name)
    return type(split)(**{**vars(split), "class_names": tuple(map(str, range(100)))})


def test_released_files_are_fetched(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects --download of a checkpoint: fetched once by its id, kept under the name that is found, checked, and
    refused in one sentence with id and place where Google Drive cannot be reached or sends something else."""
    dataset = type(DATASETS["OpenImages"])(**{**vars(DATASETS["OpenImages"]), "home": tmp_path})
    place, drive_id = tmp_path / "logs" / "resnet" / "resnet_ijcv.pth.tar", "1PxDUkAPyWSL6zfez981SxODMSrESM5fh"
    asked = []

    def fake(download) -> None:
        monkeypatch.setitem(sys.modules, "gdown", types.SimpleNamespace(download=download))

    def fails(**_) -> None:
        raise ConnectionError("Cannot retrieve the public link of the file.")

    def sends_a_page(id, output, **_) -> None:
        Path(output).write_text("<html>too many users have viewed this file</html>")

    def sends_weights(id, output, **_) -> None:
        asked.append(id)
        torch.save({"model": build(dataset.recipe("resnet")).state_dict(), "best_thr": 0.3, "epoch": 9}, output)

    for download, word in ((fails, "Cannot retrieve the public link"), (sends_a_page, "no checkpoint")):
        fake(download)
        with pytest.raises(UserError) as error:
            fetch_released(dataset, "resnet")
        assert all(text in str(error.value) for text in (word, drive_id, str(place))), error.value
        assert not list(place.parent.iterdir())
    fake(sends_weights)
    assert fetch_released(dataset, "resnet") == fetch_released(dataset, "resnet") == place
    assert asked == [drive_id] and dataset.find_checkpoint("resnet") == place
    with pytest.raises(UsageError, match="released no vgg on OpenImages"):
        fetch_released(dataset, "vgg")
    with pytest.raises(UsageError, match=r"released no vgg on StanfordDogs .*; train one$"):
        fetch_released(DATASETS["StanfordDogs"], "vgg")


def test_a_run_of_ones_own_is_not_taken_for_the_authors(tmp_path: Path) -> None:
    """Protects from figures of the wrong network: a default run on CUB writes the very name of the authors' file."""
    dataset = type(DATASETS["CUB"])(**{**vars(DATASETS["CUB"]), "home": tmp_path})
    place = tmp_path / "logs" / "vgg"
    place.mkdir(parents=True)
    (place / "vgg99.pth.tar").touch()
    assert fetch_released(dataset, "vgg") == place / "vgg99.pth.tar"  # the authors', fetched earlier
    (place / "settings.json").write_text(json.dumps({"weights": "vgg99.pth.tar"}))
    with pytest.raises(UsageError, match=r"vgg99\.pth\.tar is of a run of yours"):
        fetch_released(dataset, "vgg")


def test_the_papers_file_is_taken_where_both_are(tmp_path: Path) -> None:
    """Protects `--recipe ijcv`: its own released file, not the first paper's that lies beside it."""
    dataset = type(DATASETS["CUB"])(**{**vars(DATASETS["CUB"]), "home": tmp_path})
    place = tmp_path / "logs" / "vgg"
    place.mkdir(parents=True)
    for name in ("vgg99.pth.tar", "vgg_ijcv.pth.tar"):
        (place / name).touch()
    found = {paper: dataset.find_checkpoint("vgg", paper).name for paper in (None, "cvpr", "ijcv")}
    assert found == {None: "vgg99.pth.tar", "cvpr": "vgg99.pth.tar", "ijcv": "vgg_ijcv.pth.tar"}
    (place / "vgg_ijcv.pth.tar").unlink()
    assert dataset.find_checkpoint("vgg", "ijcv").name == "vgg99.pth.tar"  # a run's may be of either


@pytest.mark.parametrize("other", ["--checkpoint", "--dataset-dir"])
def test_download_contradicts_other_options(tmp_path: Path, capsys, other: str) -> None:
    """Protects from an option that would be ignored."""
    with pytest.raises(SystemExit, match="2"):
        inference(["--dataset", "OpenImages", "--download", other, str(tmp_path)])
    assert f"leave out {other}" in capsys.readouterr().err


@pytest.mark.parametrize("name", DATASETS)
def test_what_cannot_be_downloaded_says_so(name: str, capsys) -> None:
    """Protects `train.py --download`: a data set has what it takes, or a sentence that says where to get it."""
    dataset = DATASETS[name]
    if dataset.can_download:
        assert callable(dataset._loader.download)
        return
    assert run_training("--dataset", name, "--download") == 2
    assert f"--download cannot fetch {dataset.title}; {dataset.how_to_get}" in capsys.readouterr().err


def test_every_released_file_has_an_id_of_its_own() -> None:
    """Protects the ids on Google Drive: ten of the second paper's models, eight of the first's, no two the same."""
    released = {
        (name, arch, paper): file
        for name, dataset in DATASETS.items()
        for paper in dataset.papers
        for arch in dataset.archs
        if (file := dataset.released(arch, paper))
    }
    assert len(released) == len({file.drive_id for file in released.values()}) == 18
    assert sum(paper == "ijcv" for *_, paper in released) == 10
    assert len({file.path for file in released.values()}) == 18
    assert all(re.fullmatch(r"[\w-]{33}", file.drive_id) for file in released.values())


@pytest.mark.parametrize("name", ["StanfordDogs", "StanfordCars", "FGVCAircraft"])
def test_defaults_of_fine_grained_data_sets(name: str, capsys) -> None:
    """Protects recipes that nobody published: the authors' defaults with k as large as the classes allow (theirs, 200,
    fails), and no other paper's recipe."""
    dataset = DATASETS[name]
    for arch in dataset.archs:
        recipe = dataset.recipe(arch)
        assert (recipe.name, recipe.top_k, recipe.final_relu) == ("ijcv", dataset.num_classes, False)
        assert (recipe.frg_weight, recipe.area_weight, recipe.threshold) == (0.5, 1.5, 0.1)
        assert (recipe.epochs, recipe.lr_steps, recipe.batch_size, recipe.seed) == (120, (80,), 32, 6)
        assert dataset.published(arch, "ijcv") is None
    with pytest.raises(UsageError, match=f"{name} has no recipe cvpr; choose --recipe ijcv"):
        dataset.recipe("vgg", "cvpr")
    assert run_training("--dataset", name, "--recipe", "cvpr", "--root", "/nowhere") == 2
    assert_one_sentence(capsys.readouterr().err, f"{name} has no recipe cvpr")


def test_openimages_recipe() -> None:
    """Protects every number of the second paper's OpenImages recipe."""
    recipe = DATASETS["OpenImages"].recipe("resnet")
    assert (recipe.frg_weight, recipe.area_weight, recipe.top_k, recipe.num_classes) == (0.5, 1.5, 1, 100)
    assert (recipe.epochs, recipe.lr_steps, recipe.lr_decay, recipe.batch_size) == (50, (20, 40), 0.1, 64)
    assert (recipe.ratio_beyond_one, recipe.ratio_compare, recipe.seed, recipe.lr) == ("one", "gt", 6, 0.001)
