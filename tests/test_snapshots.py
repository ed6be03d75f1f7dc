"""`train.py --snapshot`: the maps are the network's own, training does not feel them, and they survive what it does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import functional as TF

from tests.commands import WHOLE, assert_one_sentence, make_cub, read_json, run_training
from tests.processes import run_processes
from tests.test_amc import TinyBAS
from tests.test_demo import run_demo
from utils.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from utils.models.bas import Grid
from utils.runs.settings import SNAPSHOTS
from utils.system.errors import UserError
from utils.training import log, snapshots
from utils.training import run as run_module
from utils.training.snapshots import read_snapshot

TRAINING = [(number % 3, True, WHOLE) for number in range(8)]
TEST = [(number % 3, False, WHOLE) for number in range(7)]
OPTIONS = ["--arch", "mobilenet", "--pretrained", "none", "--batch_size", 4, "--num_workers", 0, "--device", "cpu"]
OPTIONS += ["--resize_size", 32, "--crop_size", 24, "--epochs", 2]


class Tiny(TinyBAS):
    """A net whose final ReLU is alive."""

    class_grid = Grid(0, 4)

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__(num_classes)
        nn.init.uniform_(self.head[4].bias, 0.5, 1.0)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utils.training.run.build", lambda recipe: Tiny(recipe.num_classes))
    monkeypatch.setattr(log, "save_curves", lambda path, entries: path.touch())  # takes longer than the training


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_cub(tmp_path_factory.mktemp("snapshots") / "data", [*TRAINING, *TEST], 3)


@pytest.fixture
def train(data, tmp_path) -> Callable[..., Path]:
    """Trains two epochs into a folder of the given name, and gives that of the run."""

    def go(name: str, *more: object, code: int = 0, root: Path = data) -> Path:
        options = [*OPTIONS, "--root", root, "--save_path", tmp_path / name, *more]
        if "--resume" in more:
            del options[options.index("--pretrained") : options.index("--batch_size")]
        assert run_training(*options) == code
        return tmp_path / name / "mobilenet"

    return go


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / SNAPSHOTS).glob("*"))


def files(*epochs: int) -> list[str]:
    return [f"epoch_{epoch:03}.npz" for epoch in epochs]


def newest_state(run: Path) -> dict:
    (*_, entry) = read_json(run / "states" / "index.json")
    return torch.load(run / "states" / entry["file"], weights_only=True)


def assert_same_training(run: Path, other: Path) -> None:
    ours, theirs = newest_state(run), newest_state(other)
    assert [key for key, value in theirs["model"].items() if not torch.equal(ours["model"][key], value)] == []
    assert repr(ours["random"]) == repr(theirs["random"])
    for key, values in theirs["optimizer"]["state"].items():
        assert torch.equal(ours["optimizer"]["state"][key]["momentum_buffer"], values["momentum_buffer"])


def naive_map(data: Path, run: Path, image_id: str, label: int) -> np.ndarray:
    """The label's channel of the generator on the centre crop, by the last weights."""
    picture = Image.open(data / "images" / image_id).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)
    crop = TF.normalize(TF.to_tensor(picture.crop((4, 4, 28, 28))), IMAGENET_MEAN, IMAGENET_STD)
    model = Tiny().eval()
    model.load_state_dict(torch.load(run / "mobilenet1.pth.tar", weights_only=True))
    with torch.no_grad():
        return model.classifier_loc(model.stem(crop[None]))[0, label].numpy()


def test_training_does_not_feel_it(train) -> None:
    """Protects the run: weights, running statistics, momenta and random states are the same bits with and without."""
    ours, theirs = train("watched", "--snapshot", 3), train("plain")
    assert names(ours) == files(0, 1, 2) and not (theirs / SNAPSHOTS).exists()
    assert_same_training(ours, theirs)


def test_maps_are_the_networks_own(data, train) -> None:
    """Protects the figure: the label's map of the centre crop in evaluation mode, of test pictures from end to end."""
    run = train("run", "--snapshot", 3)
    last, start = (read_snapshot(run / SNAPSHOTS / name) for name in (files(2) + files(0)))
    assert last.ids.tolist() == [f"{label + 1:03}.Class/{key}.jpg" for label, key in ((0, 9), (0, 12), (0, 15))]
    assert last.maps.shape == (3, 12, 12) and last.maps.dtype == np.float16
    for found, image_id in zip(*last, strict=True):
        assert found == pytest.approx(naive_map(data, run, image_id, int(image_id[:3]) - 1), abs=1e-3)
    assert np.abs(last.maps - start.maps).max() > 0.01  # something was learnt


def test_without_test_pictures_training_pictures_are_watched(tmp_path, train) -> None:
    """Protects data sets without a test set: pictures of the training are watched, all of them at most."""
    data = make_cub(tmp_path / "data", TRAINING, 3)
    run = train("run", "--snapshot", 100, root=data)
    assert len(read_snapshot(run / SNAPSHOTS / "epoch_000.npz").ids) == len(TRAINING)


def test_damaged_picture_is_left_out(tmp_path, train, capsys) -> None:
    """Protects a run on a real data set: what cannot be read is said; if nothing can be, one sentence ends the run."""
    data = make_cub(tmp_path / "data", [*TRAINING, *TEST[:2]], 3)
    damaged, good = (data / "images" / f"{label:03}.Class" / f"{key}.jpg" for label, key in ((1, 9), (2, 10)))
    damaged.write_bytes(b"no picture")
    run = train("run", "--snapshot", 2, "--epochs", 1, root=data)
    assert f"--snapshot: cannot read the picture {damaged}" in capsys.readouterr().out
    train("run", "--resume", root=data)
    assert names(run) == files(0, 1, 2)
    assert {tuple(read_snapshot(path).ids) for path in (run / SNAPSHOTS).iterdir()} == {("002.Class/10.jpg",)}
    good.write_bytes(b"no picture")
    train("none", "--snapshot", 2, root=data, code=1)
    assert_one_sentence(capsys.readouterr().err, "--snapshot: none of its pictures can be read")


def test_demo_takes_six(tmp_path, monkeypatch) -> None:
    """Protects the README's animation: the demo needs no option for it, and 0 leaves it out."""
    run_demo(tmp_path / "demo", monkeypatch, "--pretrained", "none")
    run = tmp_path / "demo" / "mobilenet"
    ids = read_snapshot(run / SNAPSHOTS / "epoch_000.npz").ids.tolist()
    assert names(run) == files(0, 1, 2) and len({Path(image_id).parent for image_id in ids}) == 6
    run_demo(tmp_path / "demo", monkeypatch, "--pretrained", "none", "--snapshot", "0")
    assert names(run) == []


# --- going on


def test_resumed_run_has_each_epoch_once(train) -> None:
    """Protects --resume: what is there stays as it is, the rest comes, and the maps are those of a run at a stretch."""
    whole = train("whole", "--snapshot", 3)
    run = train("stopped", "--snapshot", 3, "--epochs", 1)
    before = {path: path.stat().st_mtime_ns for path in (run / SNAPSHOTS).iterdir()}
    train("stopped", "--resume")  # as many as before, without being told
    assert names(run) == names(whole) == files(0, 1, 2) and len(before) == 2
    assert {path: path.stat().st_mtime_ns for path in before} == before
    for name in names(run):
        for ours, theirs in zip(
            read_snapshot(run / SNAPSHOTS / name), read_snapshot(whole / SNAPSHOTS / name), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)
    assert_same_training(run, whole)


def test_stopped_between_state_and_snapshot(train) -> None:
    """Protects a run that is killed right after it saved its state: the snapshot comes before the next epoch."""
    run = train("run", "--snapshot", 3, "--epochs", 1)
    expected = read_snapshot(run / SNAPSHOTS / "epoch_001.npz").maps
    (run / SNAPSHOTS / "epoch_001.npz").unlink()
    train("run", "--resume", "--snapshot", 3)
    assert names(run) == files(0, 1, 2)
    np.testing.assert_array_equal(read_snapshot(run / SNAPSHOTS / "epoch_001.npz").maps, expected)


def test_from_an_earlier_state_or_anew(train) -> None:
    """Protects against a mixture: snapshots from beyond the state that is resumed go, those of another run stay."""
    run = train("run", "--snapshot", 3)
    for path in (run / SNAPSHOTS).iterdir():
        path.write_bytes(path.read_bytes() + b" ")  # to be told from new ones
    first = run / "states" / "epoch_0001.pth.tar"
    train("run", "--resume", first)
    assert names(run) == files(0, 1, 2)
    assert [path.read_bytes().endswith(b" ") for path in sorted((run / SNAPSHOTS).iterdir())] == [True, True, False]
    for path in [*(run / "states").iterdir(), run / "mobilenet1.pth.tar"]:
        path.unlink()
    train("run", "--snapshot", 1, "--epochs", 1, code=2)  # they are another run's
    assert names(run) == files(0, 1, 2)
    for epoch in (1, 2):  # of a run that ended before its first epoch did, nothing is lost
        (run / SNAPSHOTS / f"epoch_00{epoch}.npz").unlink()
    train("run", "--snapshot", 1, "--epochs", 1)
    assert names(run) == files(0, 1) and len(read_snapshot(run / SNAPSHOTS / "epoch_001.npz").ids) == 1


def test_resumed_with_other_pictures(train, capsys) -> None:
    """Protects the animation: another number is refused with the hint, 0 ends the watching, damage is named."""
    run = train("run", "--snapshot", 3, "--epochs", 1)
    train("run", "--snapshot", 2, "--resume", code=2)
    assert_one_sentence(capsys.readouterr().err, str(run / SNAPSHOTS), "give --snapshot 3")
    train("run", "--snapshot", 0, "--resume")
    assert names(run) == files(0, 1)
    (run / SNAPSHOTS / "epoch_001.npz").write_bytes(b"PK\x03\x04 no archive")
    train("run", "--resume", "--epochs", 3, code=1)
    assert_one_sentence(capsys.readouterr().err, str(run / SNAPSHOTS / "epoch_001.npz"), "delete it")


def test_resumed_without_its_pictures(tmp_path, train, capsys) -> None:
    """Protects who changes the test set: the sentence names the picture that is gone, and both hints."""
    data = make_cub(tmp_path / "data", [*TRAINING, *TEST[:2]], 3)
    run = train("run", "--snapshot", 2, "--epochs", 1, root=data)
    lists = {path: path.read_text() for path in data.glob("*.txt")}
    make_cub(tmp_path / "fewer", [*TRAINING, *TEST[:1]], 3)
    for path in lists:
        path.write_text((tmp_path / "fewer" / path.name).read_text())
    train("run", "--resume", root=data, code=1)
    assert_one_sentence(capsys.readouterr().err, "--snapshot", str(run / SNAPSHOTS), "002.Class/10.jpg", "put it back")
    for path, text in lists.items():
        path.write_text(text)
    train("run", "--resume", root=data)
    assert names(run) == files(0, 1, 2)


def test_full_disk_does_not_end_the_run(train, monkeypatch, capsys) -> None:
    """Protects days of training: a snapshot that cannot be saved is a warning, and the weights are saved."""

    def fail(path: Path, *_: object, **__: object) -> None:
        raise UserError(f"cannot write {path}: no space")

    monkeypatch.setattr(snapshots, "write_atomically", fail)
    run = train("run", "--snapshot", 2)
    assert names(run) == [] and (run / "mobilenet1.pth.tar").is_file()
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert len(lines) == 3 and all("goes on without" in line for line in lines)
    assert [str(run / SNAPSHOTS / name) in line for name, line in zip(files(0, 1, 2), lines, strict=True)] == [True] * 3


def test_weights_come_before_the_last_snapshot(train, monkeypatch) -> None:
    """Protects the weights: whatever happens to the last snapshot, they are on the disk by then."""
    weights_there = []
    take = snapshots.Snapshots.take

    def note(self: snapshots.Snapshots) -> None:
        weights_there.append((self._folder.parent / "mobilenet1.pth.tar").exists())
        take(self)

    monkeypatch.setattr(snapshots.Snapshots, "take", note)
    train("run", "--snapshot", 1)
    assert weights_there == [False, False, True]


@pytest.mark.parametrize("damage", ["empty", "cut", "no maps", "another shape", "pickled"])
def test_damaged_file_is_named(tmp_path, damage: str) -> None:
    """Protects against a traceback: whatever is wrong with a snapshot, the sentence names it; nothing is unpickled."""
    path = tmp_path / "epoch_001.npz"
    good = {"maps": np.zeros((2, 3, 3), np.float16), "ids": np.array(["a", "b"])}
    wrong = {"no maps": {"maps": None}, "another shape": {"maps": np.zeros((1, 3, 3))}}
    wrong["pickled"] = {"ids": np.array(["a", None], dtype=object)}
    np.savez_compressed(
        path, **{key: value for key, value in {**good, **wrong.get(damage, {})}.items() if value is not None}
    )
    if damage in ("empty", "cut"):
        path.write_bytes(path.read_bytes()[: 0 if damage == "empty" else 200])
    with pytest.raises(UserError, match="epoch_001.npz is no snapshot of a run"):
        read_snapshot(path)


# --- several processes


def process(number: int, count: int, arguments: list[str]) -> None:
    run_module.build = lambda recipe: Tiny()
    assert run_training(*arguments) == 0


def test_first_process_takes_them(data, tmp_path) -> None:
    """Protects torchrun: two processes with snapshots end with the bits of two without, and each file is there once."""
    for name, more in (("watched", ["--snapshot", "3"]), ("plain", [])):
        arguments = [*OPTIONS, "--root", data, "--save_path", tmp_path / name, *more]
        run_processes(process, 2, [str(argument) for argument in arguments])
    run = tmp_path / "watched" / "mobilenet"
    assert names(run) == files(0, 1, 2) and os.listdir(tmp_path / "plain" / "mobilenet").count(SNAPSHOTS) == 0
    assert_same_training(run, tmp_path / "plain" / "mobilenet")
