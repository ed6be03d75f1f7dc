"""Segmentation on VOC: its files, labels of several classes, maps, seeds, mean IoU, and the commands."""

from __future__ import annotations

import io
import json
import math
import pickle
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.commands import OWN_TRAINING, ROOT, assert_one_sentence, read_json, run_training
from tests.splits import make_split
from tests.test_cub_data import write_lines
from train import DATASETS
from utils.data.training import EpochBatches, TrainingBatch, build_training_loader
from utils.datasets.voc.DataLoader import CLASSES
from utils.metrics.segmentation import IGNORED, Confusion, SeedScores, seeds
from utils.models.losses import multi_label_loss
from utils.models.registry import build
from utils.runs.settings import Engine
from utils.segmentation.__main__ import main as segmentation
from utils.segmentation.store import palette, read_maps, read_mask, save_mask
from utils.system.errors import UsageError, UserError, run_command
from utils.training.engine import _step, build_trainer

CPU = torch.device("cpu")
SIDE = (50, 40)  # width, height
VOC = DATASETS["VOC"]
# id -> classes of its objects, the last one difficult.
PICTURES = {
    "2007_000032": ("aeroplane", "person"),
    "2007_000039": ("tvmonitor",),
    "2007_000063": ("dog", "chair"),
    "2007_000068": ("bird", "bird"),
    "2008_000001": ("cat", "person", "sofa"),
    "2008_000002": ("person",),
}
TRAIN, VAL = tuple(PICTURES)[:4], tuple(PICTURES)[4:]


def indices(image_id: str) -> list[int]:
    return sorted({CLASSES.index(name) for name in PICTURES[image_id]})


def make_voc(root: Path) -> Path:
    """Six pictures in the owners' layout; a mask has a rectangle of each class and a rim to be ignored."""
    folder = root / "VOCdevkit" / "VOC2012"
    lists = folder / "ImageSets" / "Segmentation"
    for place in ("JPEGImages", "Annotations", "SegmentationClass"):
        (folder / place).mkdir(parents=True)
    lists.mkdir(parents=True)
    for seed, (image_id, names) in enumerate(PICTURES.items()):
        noise = np.random.RandomState(seed).randint(0, 256, (5, 6, 3), dtype=np.uint8)
        Image.fromarray(noise).resize(SIDE).save(folder / "JPEGImages" / f"{image_id}.jpg", format="PNG")
        objects = "".join(
            f"<object><name>{name}</name><difficult>{number == len(names) - 1:d}</difficult><bndbox><xmin>1</xmin>"
            "<ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
            for number, name in enumerate(names)
        )
        (folder / "Annotations" / f"{image_id}.xml").write_text(f"<annotation>{objects}</annotation>")
        mask = np.zeros(SIDE[::-1], dtype=np.uint8)
        for number, index in enumerate(indices(image_id)):
            mask[5 + 10 * number : 13 + 10 * number, 5:30] = index + 1
        mask[:, -2:] = IGNORED
        save_mask(folder / "SegmentationClass" / f"{image_id}.png", mask)
    write_lines(lists / "train.txt", TRAIN)
    write_lines(lists / "val.txt", VAL)
    return root


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_voc(tmp_path / "data")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return make_voc(tmp_path_factory.mktemp("voc"))


@pytest.fixture(scope="module")
def net(tmp_path_factory) -> Path:
    """Weights of a random MobileNetV1 for VOC."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("net") / "mobilenet9.pth.tar"
    torch.save(build(VOC.recipe("mobilenet")).state_dict(), path)
    return path


def run(*arguments: object) -> int:
    return run_command(lambda: segmentation(list(map(str, arguments))))


# --- the data set


def test_labels_are_all_classes_of_the_xml(home: Path) -> None:
    """Protects the authors' labels: every object's class, difficult ones included, each once."""
    train, val = VOC.load_split(home, "train"), VOC.load_split(home, "val")
    assert train.ids == TRAIN and val.ids == VAL and train.class_names == CLASSES and len(CLASSES) == 20
    for split in (train, val):
        for row, image_id in zip(split.positives, split.ids, strict=True):
            assert np.flatnonzero(row).tolist() == indices(image_id)
    assert "masks for 4 of 4 images" in train.layout


def test_the_augmented_list_is_trained_on_where_it_is(data: Path) -> None:
    """Protects train_aug: bare ids or IRN's lines of two paths, with no newline at the end, in any of three places."""
    folder = data / "VOCdevkit" / "VOC2012"
    lines = [f"/JPEGImages/{name}.jpg /SegmentationClassAug/{name}.png" for name in TRAIN[:3]]
    for place in (folder / "ImageSets" / "Segmentation", folder, data):
        for text in ("\n".join(lines), "\n".join(TRAIN[:3])):
            (place / "train_aug.txt").write_text(text)
            assert VOC.load_split(data, "train").ids == VOC.load_list(data, "train_aug").ids == TRAIN[:3]
        (place / "train_aug.txt").unlink()
    with pytest.raises(UserError, match=r"train_aug\.txt is missing.*215992f6fd958f89800449fdb4bbabe6"):
        VOC.load_list(data, "train_aug")


def write_cls_labels(path: Path, content: object) -> None:
    np.save(path, np.array(content, dtype=object), allow_pickle=True)


def test_labels_of_other_files(data: Path) -> None:
    """Protects who has no XML: IRN's cls_labels.npy and the authors' text lists give the same labels."""
    expected = VOC.load_split(data, "train").positives
    folder = data / "VOCdevkit" / "VOC2012"
    shutil.rmtree(folder / "Annotations")
    with pytest.raises(UserError, match=r"no labels in .* \(looked for Annotations, cls_labels.npy and train_cls.txt"):
        VOC.load_split(data, "train")
    rows = {int(name.replace("_", "")): row.astype(np.float32) for name, row in zip(TRAIN, expected, strict=True)}
    write_cls_labels(data / "cls_labels.npy", rows)
    assert (VOC.load_split(data, "train").positives == expected).all()
    write_lines(folder / "train_cls.txt", [" ".join(map(str, (name, *indices(name)))) for name in TRAIN])
    (data / "cls_labels.npy").unlink()
    assert (VOC.load_split(data, "train").positives == expected).all()
    # Where both are there, IRN's, which the authors train on, wins; it was written by Python 2's protocol.
    header = io.BytesIO()
    np.save(header, np.array(rows, dtype=object), allow_pickle=True)
    content = header.getvalue()
    length = 10 + int.from_bytes(content[8:10], "little")
    one_more = {**rows, 2007000032: np.ones(20, dtype=np.float32)}
    pickled = pickle.dumps(np.array(one_more, dtype=object), protocol=2)
    (folder / "cls_labels.npy").write_bytes(content[:length] + pickled)
    assert VOC.load_split(data, "train").positives[0].all()


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("evil"),)


CLS_LABELS = {
    "code": {2007000032: Evil()},
    "no dictionary": [1, 2, 3],
    "21 classes": {2007000032: np.zeros(21)},
    "shares": {2007000032: np.full(20, 0.5)},
}


@pytest.mark.parametrize("content", CLS_LABELS)
def test_damaged_cls_labels(data: Path, content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects from a pickle that would run code, and from foreign dictionaries: one sentence, and nothing is run."""
    monkeypatch.chdir(data)
    shutil.rmtree(data / "VOCdevkit" / "VOC2012" / "Annotations")
    write_cls_labels(data / "cls_labels.npy", CLS_LABELS[content])
    with pytest.raises(UserError, match=r"cls_labels\.npy is no cls_labels\.npy that can be read"):
        VOC.load_split(data, "train")
    assert not Path("evil").exists()


def spoil_xml(folder: Path, text: str) -> None:
    (folder / "Annotations" / f"{TRAIN[1]}.xml").write_text(text)


SPOIL = {
    "no object": (lambda folder: spoil_xml(folder, "<annotation></annotation>"), ("000039.xml", "no object")),
    "unknown class": (
        lambda folder: spoil_xml(
            folder,
            "<annotation><object><name>unicorn</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax>"
            "</bndbox></object></annotation>",
        ),
        ("'unicorn', which is none of VOC's 20", "000039.xml"),
    ),
    "no XML of a picture": (lambda folder: (folder / "Annotations" / f"{TRAIN[0]}.xml").unlink(), ("000032.xml",)),
    "no picture": (lambda folder: (folder / "JPEGImages" / f"{TRAIN[0]}.jpg").unlink(), ("000032.jpg", "1 of the 4")),
    "empty list": (
        lambda folder: (folder / "ImageSets" / "Segmentation" / "train.txt").write_text("\n"),
        ("train.txt is empty", "6cd6e144f989b92b3379bac3b3de84fd"),
    ),
    "no pictures at all": (lambda folder: shutil.rmtree(folder / "JPEGImages"), ("no PASCAL VOC in", "VOCtrainval")),
}


@pytest.mark.parametrize("name", SPOIL)
def test_missing_and_malformed_pieces(data: Path, name: str) -> None:
    """Protects users with half a data set: one sentence names the file, and where to get it or what is wrong."""
    spoil, words = SPOIL[name]
    spoil(data / "VOCdevkit" / "VOC2012")
    with pytest.raises(UserError) as error:
        VOC.load_split(data, "train")
    assert all(word in str(error.value) for word in words), error.value


def test_pictures_without_a_label_are_refused(data: Path) -> None:
    """Protects the random draw of a class: a picture that has none is named, and all are counted."""
    folder = data / "VOCdevkit" / "VOC2012"
    shutil.rmtree(folder / "Annotations")
    write_lines(folder / "train_cls.txt", [TRAIN[0], *(f"{name} 3" for name in TRAIN[1:])])
    with pytest.raises(UserError, match=r"2007_000032 of .*train\.txt has no label .*, as 1 of 4 pictures"):
        VOC.load_split(data, "train")


# --- training


def test_multi_label_loss() -> None:
    """Protects L_mcls: each positive against all negatives, other positives left out; a sum over labels, a mean over
    pictures; finite where every class is a label."""
    random = np.random.RandomState(0)
    logits, positives = random.randn(5, 7) * 4, random.random_sample((5, 7)) < 0.4
    positives[:, 0] |= ~positives.any(axis=1)
    total = 0.0
    for row, labels in zip(logits, positives, strict=True):
        for value in row[labels]:
            total -= math.log(math.exp(value) / (math.exp(value) + sum(map(math.exp, row[~labels]))))
    found = multi_label_loss(torch.tensor(logits), torch.tensor(positives))
    assert found.item() == pytest.approx(total / 5, rel=1e-12)
    single = torch.tensor(positives.argmax(axis=1))
    one_hot = torch.nn.functional.one_hot(single, 7).bool()
    expected = torch.nn.functional.cross_entropy(torch.tensor(logits), single)
    assert multi_label_loss(torch.tensor(logits), one_hot).item() == pytest.approx(expected.item())
    everything = torch.zeros(2, 7, requires_grad=True)
    multi_label_loss(everything, torch.ones(2, 7, dtype=torch.bool)).backward()
    assert everything.grad.isfinite().all()


@pytest.mark.parametrize("workers", [0, 2])
def test_one_class_a_picture_and_epoch(tmp_path: Path, workers: int) -> None:
    """Protects the random class: one of the picture's own, every one in time, the same whoever reads the picture."""
    positives = np.array([[1, 1, 0], [0, 1, 0], [1, 1, 1], [0, 0, 1], [1, 0, 1], [1, 0, 0]], dtype=bool)
    split = make_split(tmp_path, 6, positives=positives)
    loader = build_training_loader(split, 16, 12, 2, workers, 0, CPU)
    drawn: dict[int, list[int]] = {index: [] for index in range(6)}
    for epoch in range(25):
        loader.batch_sampler.start_at(epoch)
        for batch in loader:
            assert batch.positives.tolist() == positives[batch.indices].tolist()
            for index, label in zip(batch.indices.tolist(), batch.labels.tolist(), strict=True):
                drawn[index].append(label)
    assert [sorted(set(labels)) for labels in drawn.values()] == [np.flatnonzero(row).tolist() for row in positives]
    again = build_training_loader(split, 16, 12, 3, 0, 0, CPU)
    again.batch_sampler.start_at(7)
    found = {int(i): int(label) for batch in again for i, label in zip(batch.indices, batch.labels, strict=True)}
    assert found == {index: labels[7] for index, labels in drawn.items()}


def test_last_batch_can_be_left_out() -> None:
    """Protects the authors' number of steps: 10,582 pictures in batches of 16 are 661 of them."""
    assert EpochBatches(10_582, 16, 0, drop_last=True).steps == 661 and EpochBatches(10_582, 16, 0).steps == 662
    assert EpochBatches(5, 16, 0, drop_last=True).steps == 1


def test_trained_stopped_and_resumed(home: Path, tmp_path: Path, capsys) -> None:
    """Protects `train.py --dataset VOC`: the recipe's settings are in force, biases stay as they start, the rate falls
    step by step, and a run that goes on ends as one that was never stopped."""
    options = ("--dataset", "VOC", "--root", home, *OWN_TRAINING, "--batch_size", 2, "--no-sync_bn", "--keep", 5)
    options = (*options, "--poly_steps", 8)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run_training(*options, "--epochs", 3, "--save_path", whole) == 0
    output = capsys.readouterr().out
    assert "no evaluation after training: VOC's pictures have several classes" in output
    rates = [json.loads(line)["lr"] for line in (whole / "mobilenet" / "log.jsonl").read_text().splitlines()]
    assert rates == pytest.approx([0.005 * (1 - step / 8) ** 0.9 for step in (0, 2, 4)])
    assert run_training(*options, "--epochs", 2, "--save_path", parts) == 0
    assert run_training(*options, "--epochs", 3, "--save_path", parts, "--resume") == 0
    first, second = (
        torch.load(folder / "mobilenet" / "mobilenet2.pth.tar", weights_only=True) for folder in (whole, parts)
    )
    assert all(torch.equal(first[key], second[key]) for key in first) and first.keys() == second.keys()
    start = torch.load(Path("utils/weights/mobilenet_v1_imagenet.pth"), weights_only=True)
    moved = {key: not torch.equal(value, first[key]) for key, value in start.items() if key in first}
    assert not any(value for key, value in moved.items() if key.endswith("bias"))
    assert all(value for key, value in moved.items() if key.endswith("weight"))
    assert first["classifier_cls.weight"].shape == (20, 1024, 1, 1) and "classifier_loc.0.bias" not in first


def test_resumed_in_the_middle_of_an_epoch(home: Path, tmp_path: Path) -> None:
    """Protects the rate's place: a state of any step goes on at that step's rate, to the same weights."""
    options = ("--dataset", "VOC", "--root", home, *OWN_TRAINING, "--batch_size", 2, "--no-sync_bn", "--epochs", 2)
    options = (*options, "--poly_steps", 5, "--save_every_steps", 1, "--keep", 9)
    whole, part = tmp_path / "whole", tmp_path / "part"
    assert run_training(*options, "--save_path", whole) == 0
    (state,) = (whole / "mobilenet" / "states").glob("*1*step*1*.pth.tar")
    assert torch.load(state, weights_only=True)["scheduler"]["last_epoch"] == 3
    assert run_training(*options, "--save_path", part, "--resume", state) == 0
    first, second = (torch.load(f / "mobilenet" / "mobilenet1.pth.tar", weights_only=True) for f in (whole, part))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_biases_stay_out_of_it() -> None:
    """Protects --no-train_biases with heads that have some: no gradient gathers in them, in or after a warm-up."""
    recipe = replace(DATASETS["CUB"].recipe("mobilenet"), train_biases=False, num_classes=3, warmup_epochs=1)
    torch.manual_seed(0)
    trainer = build_trainer(build(recipe), None, (), recipe, Engine(), CPU)
    pixels = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    for epoch in range(2):
        trainer.progress.epoch = epoch
        _step(trainer, trainer.objective(), TrainingBatch(pixels, torch.tensor([0, 1, 2, 0]), torch.arange(4), ()))
        for name, parameter in trainer.model.named_parameters():
            is_left = name.endswith("bias") or (epoch == 0 and name.startswith("classifier_loc"))
            assert (parameter.grad is None) == is_left, name


@pytest.mark.parametrize("warmup", [0, 1])
def test_parts_of_a_batch_of_several_labels(warmup: int) -> None:
    """Protects --grad_accum on VOC: VGG16, in which no picture sees another, takes the same step."""
    recipe = replace(VOC.recipe("vgg"), warmup_epochs=warmup)
    ends = []
    for parts in (1, 2):
        torch.manual_seed(0)
        trainer = build_trainer(build(recipe).train(), None, (), recipe, Engine(grad_accum=parts), CPU)
        positives = torch.zeros(4, 20, dtype=torch.bool)
        positives[torch.arange(4), torch.arange(4)] = positives[0, 7] = positives[3, 11] = True
        pixels = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
        batch = TrainingBatch(pixels, torch.arange(4), torch.arange(4), (), positives)
        rows = _step(trainer, trainer.objective(), batch)
        assert len(rows) == parts
        ends.append(torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()]))
    assert torch.allclose(*ends, rtol=1e-5, atol=1e-7)


def test_falls_at_epochs_take_the_place_of_those_at_steps(home: Path, tmp_path: Path, capsys) -> None:
    """Protects --lr_steps on VOC, which would go unheard beside its falling rate."""
    options = ("--dataset", "VOC", "--root", home, *OWN_TRAINING, "--no-sync_bn", "--epochs", 2, "--lr_steps", 1)
    assert run_training(*options, "--save_path", tmp_path) == 0
    rates = [json.loads(line)["lr"] for line in (tmp_path / "mobilenet" / "log.jsonl").read_text().splitlines()]
    assert rates == pytest.approx([0.005, 0.0005])


def test_heads_and_features_of_other_backbones() -> None:
    """Protects options that do not go together: coarse features without ResNet50, plain heads with a final ReLU."""
    for arch, setting, words in (
        ("vgg", "coarse_features", "vgg has no features at 1/16"),
        ("resnet", "plain_heads", "--plain_heads has no final ReLU; give --no-final_relu"),
    ):
        with pytest.raises(UsageError, match=re.escape(words)):
            build(replace(DATASETS["CUB"].recipe(arch), **{setting: True}))


# --- scores


def naive_confusion(maps: np.ndarray, classes: np.ndarray, truth: np.ndarray, threshold: float) -> np.ndarray:
    """IRN's eval_cam, in our words."""
    padded = np.concatenate([np.full((1, *truth.shape), threshold, np.float32), maps])
    predicted = np.pad(classes + 1, (1, 0))[padded.argmax(axis=0)]
    counts = np.zeros((21, 21), dtype=np.int64)
    for true, found in zip(truth.ravel(), predicted.ravel(), strict=True):
        if true != IGNORED:
            counts[true, found] += 1
    return counts


def random_picture(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.RandomState(seed)
    classes = np.sort(random.choice(20, random.randint(1, 4), replace=False))
    maps = random.randint(0, 101, (len(classes), 12, 9)).astype(np.float32) / np.float32(100)  # ties with thresholds
    truth = random.choice([0, IGNORED, *(classes + 1), 7], (12, 9)).astype(np.uint8)
    return maps, classes, truth


def test_all_thresholds_in_one_pass() -> None:
    """Protects seeds: at every threshold the confusion is that of a loop over pixels; ties are background; parts add
    up, in any order."""
    thresholds = tuple(round(0.01 * step, 2) for step in range(100))
    parts = [SeedScores(20, thresholds) for _ in range(2)]
    pictures = [random_picture(seed) for seed in range(6)]
    for number, picture in enumerate(pictures):
        parts[number % 2].update(*picture)
    parts[1].merge(parts[0])
    assert parts[1].images == 6
    for threshold in (0.0, 0.07, 0.29, 0.3, 0.58, 0.99):
        expected = sum(naive_confusion(*picture, threshold) for picture in pictures)
        confusion = parts[1].confusion(threshold)
        assert (confusion.counts == expected).all()
        by_masks = Confusion(20)
        for maps, classes, truth in pictures:
            by_masks.update(seeds(maps, classes, threshold), truth)
        assert (by_masks.counts == expected).all()
        with np.errstate(invalid="ignore"):
            ious = expected.diagonal() / (expected.sum(0) + expected.sum(1) - expected.diagonal())
        assert confusion.summary()["miou"] == pytest.approx(100 * np.nanmean(ious), abs=1e-12)
    curve = parts[1].curve()
    assert parts[1].best_threshold() == thresholds[int(np.argmax(curve))]


def test_pictures_without_classes_are_background() -> None:
    """Protects scores of pictures for which there is no map: all of it is background."""
    scores = SeedScores(20, (0.1, 0.5))
    scores.update(np.zeros((0, 3, 4), np.float32), np.zeros(0, np.int64), np.full((3, 4), 2, np.uint8))
    assert scores.confusion(0.1).counts[2, 0] == 12
    assert not seeds(np.zeros((0, 3, 4), np.float32), np.zeros(0, np.int64), 0.1).any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda maps, classes, truth: (maps, classes, truth[:-1]), "the mask has 9x11 pixels, not 9x12"),
        (lambda maps, classes, truth: (maps, classes, truth * 0 + 21), "the class 21, where 0 to 20"),
        (lambda maps, classes, truth: (maps, classes + 20, truth), "of 20 classes"),
        (lambda maps, classes, truth: (maps * np.float32("nan"), classes, truth), "not finite"),
    ],
    ids=["another size", "a class beyond", "a map of no class", "NaN"],
)
def test_scores_refuse_what_does_not_fit(change, words: str) -> None:
    """Protects counts: what cannot be scored is refused, and nothing of it is counted."""
    scores = SeedScores(20, (0.3,))
    with pytest.raises(ValueError, match=re.escape(words)):
        scores.update(*change(*random_picture(1)))
    assert not scores.counts.any() and scores.images == 0


# --- files


def test_palette_is_vocs() -> None:
    """Protects masks that people look at: the colours of VOC's own files."""
    colours = palette()
    assert colours[[0, 1, 2, 3, 15, 20]].tolist() == [
        *([0, 0, 0], [128, 0, 0], [0, 128, 0]),
        *([128, 128, 0], [192, 128, 128], [0, 64, 128]),
    ]
    assert colours[255].tolist() == [224, 224, 192] and len(np.unique(colours, axis=0)) == 256


@pytest.mark.parametrize("kind", ["palette", "grey", "npy", "npy of int64"])
def test_masks_are_read_as_indices(tmp_path: Path, kind: str) -> None:
    """Protects palette masks, which `convert("L")` would destroy, and arrays and grey pictures of other tools."""
    mask = np.random.RandomState(0).choice([0, 1, 15, 20, IGNORED], (7, 9)).astype(np.uint8)
    path = tmp_path / ("m.npy" if kind.startswith("npy") else "m.png")
    if kind == "palette":
        save_mask(path, mask)
        assert Image.open(path).mode == "P"
    elif kind == "grey":
        Image.fromarray(mask).save(path)
    else:
        np.save(path, mask.astype(np.int64) if "int64" in kind else mask)
    found = read_mask(path, 20)
    assert found.dtype == np.uint8 and (found == mask).all()


@pytest.mark.parametrize(
    ("save", "words"),
    [
        (lambda path: Image.new("RGB", (4, 4), "red").save(path), ("a picture in colours (RGB)",)),
        (lambda path: Image.fromarray(np.full((4, 4), 21, np.uint8)).save(path), ("the class 21", "0 to 20 and 255")),
        (lambda path: path.write_bytes(b"nothing"), ("the mask", "m.png")),
        (lambda path: Image.fromarray(np.zeros((4, 4), np.float32)).save(path, format="TIFF"), ("in colours (F)",)),
    ],
    ids=["colours", "a class beyond 20", "no picture", "fractions"],
)
def test_masks_that_are_none(tmp_path: Path, save, words) -> None:
    """Protects scores from foreign masks: one sentence names the file and what is wrong."""
    save(tmp_path / "m.png")
    with pytest.raises(UserError) as error:
        read_mask(tmp_path / "m.png", 20)
    assert all(word in str(error.value) for word in words), error.value


# --- the commands


def test_from_network_to_scores(home: Path, net: Path, tmp_path: Path, capsys) -> None:
    """Protects the three commands: maps of each picture's own classes, seeds at the best threshold of these pictures,
    the same score for the saved seeds; IRN's dictionaries beside; what was made is not made again."""
    maps, saved = tmp_path / "maps", tmp_path / "seeds"
    made = ("maps", "--root", home, "--arch", "mobilenet", "--checkpoint", net, "--maps", maps, "--npy")
    assert run(*made) == 0
    assert re.search(r"^4 pictures in .* a second.*; maps in ", capsys.readouterr().out, re.MULTILINE)
    for image_id in TRAIN:
        found = read_maps(maps, image_id)
        assert found.keys.tolist() == indices(image_id)
        assert found.high_res.shape == (len(found.keys), SIDE[1], SIDE[0]) and found.cam.shape[1:] == (10, 13)
        assert found.high_res.max() == pytest.approx(1, abs=1e-4) and (found.high_res >= 0).all()
        content = np.load(maps / f"{image_id}.npy", allow_pickle=True).item()
        assert torch.equal(content["keys"], torch.tensor(indices(image_id))) and content["keys"].dtype == torch.int64
        assert torch.equal(content["cam"], torch.from_numpy(found.cam))
        assert (content["high_res"] == found.high_res).all()
    before = {path: path.stat().st_mtime_ns for path in maps.glob("*.np[yz]")}
    (maps / f"{TRAIN[2]}.npz").unlink()
    assert run("seeds", "--root", home, "--maps", maps) == 1
    assert_one_sentence(capsys.readouterr().err, f"has no maps of {TRAIN[2]}, as of 1 of 4 pictures", "goes on where")
    assert run(*made) == 0
    assert "1 pictures in " in capsys.readouterr().out
    kept = [path for path in before if TRAIN[2] not in path.name]
    assert all(path.stat().st_mtime_ns == before[path] for path in kept) and len(kept) == 6

    assert run("seeds", "--root", home, "--maps", maps, "--save", saved) == 0
    output, results = capsys.readouterr().out, read_json(saved / "results.json")
    assert "seeds of BAS, threshold" in output and "the best on these very pictures" in output
    assert results["miou"] == pytest.approx(max(results["curve"]["miou"]))
    assert results["threshold"] == results["curve"]["thresholds"][int(np.argmax(results["curve"]["miou"]))]
    assert re.search(rf"^mean +{results['miou']:.2f}$", output, re.MULTILINE) and "aeroplane" in output
    assert (saved / "sheet.png").is_file() and (saved / "curve.svg").is_file()
    assert Image.open(saved / f"{TRAIN[0]}.png").mode == "P"
    assert run("evaluate", "--root", home, "--masks", saved, "--save", tmp_path / "again") == 0
    again = read_json(tmp_path / "again" / "results.json")
    assert (again["miou"], again["ious"]) == (results["miou"], results["ious"])


def test_threshold_of_another_list(home: Path, net: Path, tmp_path: Path, capsys) -> None:
    """Protects honest scores: the threshold is chosen on train and applied to val, or given; and says so."""
    maps = tmp_path / "maps"
    for name in ("train", "val"):
        made = ("--root", home, "--list", name, "--arch", "mobilenet", "--checkpoint", net, "--maps", maps)
        assert run("maps", *made, "--map", "fused") == 0
    asked = ("seeds", "--root", home, "--maps", maps)
    assert run(*asked, "--save", tmp_path / "t", "--vis", 0) == 0
    threshold = read_json(tmp_path / "t" / "results.json")["threshold"]
    assert run(*asked, "--list", "val", "--select-on", "train", "--save", tmp_path / "v") == 0
    results = read_json(tmp_path / "v" / "results.json")
    assert (results["threshold"], results["threshold_from"]) == (threshold, "the best on train")
    assert "seeds of BAS and CAM" in capsys.readouterr().out
    assert run(*asked, "--list", "val", "--threshold", threshold, "--save", tmp_path / "g") == 0
    given = read_json(tmp_path / "g" / "results.json")
    assert (given["miou"], given["threshold_from"]) == (results["miou"], "given")
    # The folder is of these maps: others do not mix with them.
    assert run("maps", "--root", home, "--arch", "mobilenet", "--checkpoint", net, "--maps", maps, "--map", "cam") == 2
    assert_one_sentence(capsys.readouterr().err, "holds maps of map 'fused', not 'cam'", "name another --maps folder")


def test_wrong_inputs_of_the_commands(home: Path, net: Path, tmp_path: Path, capsys) -> None:
    """Protects users of the commands: one sentence each, exit code 2 for usage and 1 for files."""

    def refused(code: int, *words: str, options: tuple = ()) -> None:
        assert run(*options) == code
        assert_one_sentence(capsys.readouterr().err, *words)

    maps, masks = tmp_path / "maps", tmp_path / "masks"
    at = ("--root", home)
    refused(2, "no list is called 'test'", options=("seeds", *at, "--list", "test", "--maps", maps))
    refused(1, "has no maps of 2007_000032, as of 4 of 4", options=("seeds", *at, "--maps", maps))
    refused(1, "has no 2007_000032.png or .npy, as for 4 of 4", options=("evaluate", *at, "--masks", masks))
    refused(1, "no PASCAL VOC in", options=("evaluate", "--root", tmp_path, "--masks", masks))
    cam = (
        "maps",
        *at,
        "--arch",
        "mobilenet",
        "--checkpoint",
        net,
        "--maps",
        maps,
        "--map",
        "cam",
        "--cam-weights",
        net,
    )
    refused(1, "--cam-weights", "is not a ResNet50 for 20 classes", options=cam)
    masks.mkdir()
    for image_id in TRAIN:
        save_mask(masks / f"{image_id}.png", np.zeros((3, 3), np.uint8))
    refused(1, "2007_000032.png", "50x40 pixels, not 3x3", options=("evaluate", *at, "--masks", masks))
    maps.mkdir(exist_ok=True)
    for image_id in TRAIN:
        (maps / f"{image_id}.npz").write_bytes(b"nothing")
    refused(1, "2007_000032.npz is no file of maps", options=("seeds", *at, "--maps", maps))
    for arguments in (("maps", "--cam-weights", net), ("seeds", "--select-on", "val", "--threshold", 0.3)):
        with pytest.raises(SystemExit, match="2"):
            segmentation(list(map(str, arguments)))
        assert "error: " in capsys.readouterr().err


def test_nothing_is_overwritten(data: Path, net: Path, tmp_path: Path, capsys) -> None:
    """Protects files that others made: seeds and scores go into new folders, true masks are never replaced."""
    folder = data / "VOCdevkit" / "VOC2012" / "SegmentationClass"
    maps, saved = tmp_path / "maps", tmp_path / "seeds"
    made = ("maps", "--root", data, "--arch", "mobilenet", "--checkpoint", net, "--maps", maps, "--scales", 1)
    assert run(*made) == 0
    asked = ("seeds", "--root", data, "--maps", maps, "--vis", 2)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert run(*asked, "--save", folder) == 2
    assert_one_sentence(capsys.readouterr().err, "2007_000032.png is there already; name a new folder with --save")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert run(*asked, "--save", saved) == 0
    capsys.readouterr()
    assert run("evaluate", "--root", data, "--masks", saved, "--save", saved) == 2
    assert_one_sentence(capsys.readouterr().err, "results.json is there already")
    # A network that was trained anew makes maps anew, whatever its file is called.
    torch.manual_seed(1)
    anew = tmp_path / "anew" / net.name
    anew.parent.mkdir()
    torch.save(build(VOC.recipe("mobilenet")).state_dict(), anew)
    assert run(*made[:6], anew, *made[7:]) == 2
    assert_one_sentence(capsys.readouterr().err, "holds maps of checkpoint_sha256", "name another --maps folder")
    copied = shutil.copy(net, tmp_path / "anew" / "same.pth.tar")
    assert run(*made[:6], copied, *made[7:]) == 0


def test_masks_that_are_unsure_count_as_background(home: Path, tmp_path: Path, capsys) -> None:
    """Protects `evaluate` for masks with 255 in them, as IRN's labels have: background, and said."""
    for image_id in TRAIN:
        truth = read_mask(home / "VOCdevkit" / "VOC2012" / "SegmentationClass" / f"{image_id}.png", 20)
        save_mask(tmp_path / f"{image_id}.png", np.where(truth == 0, IGNORED, truth).astype(np.uint8))
    assert run("evaluate", "--root", home, "--masks", tmp_path, "--save", tmp_path / "r", "--vis", 0) == 0
    output, results = capsys.readouterr().out, read_json(tmp_path / "r" / "results.json")
    assert results["miou"] == pytest.approx(100) and results["unsure_pixels"] > 1000
    assert f"{results['unsure_pixels']} pixels of the masks are 255, unsure, and count as background" in output


def test_lists_without_masks(data: Path, net: Path, tmp_path: Path, capsys) -> None:
    """Protects who has no truth of a list: it cannot choose the threshold, but seeds are cut all the same."""
    for image_id in VAL:
        (data / "VOCdevkit" / "VOC2012" / "SegmentationClass" / f"{image_id}.png").unlink()
    maps = tmp_path / "maps"
    for name in ("train", "val"):
        made = ("--root", data, "--list", name, "--arch", "mobilenet", "--checkpoint", net, "--maps", maps)
        assert run("maps", *made, "--scales", 1) == 0
    capsys.readouterr()
    asked = ("seeds", "--root", data, "--maps", maps)
    for more in (("--select-on", "val"), ("--list", "val", "--select-on", "val"), ("--list", "val")):
        assert run(*asked, *more) == 2
        assert_one_sentence(capsys.readouterr().err, "no picture of val has a mask to choose the threshold by")
    assert run(*asked, "--list", "val", "--threshold", 0.3, "--save", tmp_path / "seeds") == 0
    assert sorted(path.stem for path in (tmp_path / "seeds").glob("2008*.png")) == list(VAL)
    assert run("evaluate", "--root", data, "--list", "val", "--masks", tmp_path / "seeds") == 1
    assert_one_sentence(capsys.readouterr().err, "no picture of val has a mask to compare with")


def test_several_processes_share_the_pictures(home: Path, net: Path, tmp_path: Path) -> None:
    """Protects torchrun: every picture's maps, once, as one process makes them; the first one tells of all."""
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    made = ["--root", home, "--arch", "mobilenet", "--checkpoint", net, "--scales", 1, "--device", "cpu"]
    assert run("maps", *made, "--maps", alone) == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"]
    command = [*launch, "utils.segmentation", "maps", *made, "--maps", shared]
    result = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("4 pictures in ") == result.stdout.count("labels from") == 1
    for image_id in TRAIN:
        for one, other in zip(read_maps(alone, image_id), read_maps(shared, image_id), strict=True):
            assert np.allclose(one, other, atol=1e-5)


def test_unreadable_picture_is_named_at_the_end(data: Path, net: Path, tmp_path: Path, capsys) -> None:
    """Protects hours of maps from one bad file: all others are made, and the exit code says that one is missing."""
    path = data / "VOCdevkit" / "VOC2012" / "JPEGImages" / f"{TRAIN[1]}.jpg"
    path.write_bytes(path.read_bytes()[:50])
    made = ("maps", "--root", data, "--arch", "mobilenet", "--checkpoint", net, "--maps", tmp_path / "maps")
    assert run(*made) == 1
    assert_one_sentence(capsys.readouterr().err, "1 pictures have no maps; the first", str(path))
    assert len(list((tmp_path / "maps").glob("*.npz"))) == 3


def test_authors_file_loads(tmp_path: Path, home: Path, capsys) -> None:
    """Protects the released segmentation network: a bare state dict whose keys all begin with `module.`."""
    state = build(VOC.recipe("resnet")).state_dict()
    keys = json.loads((Path(__file__).parent / "reference" / "golden_ijcv" / "VOC_resnet50_bas.json").read_text())
    assert list(state) == list(keys["param_norm_after_1"])
    path = tmp_path / "epoch_10.pth.tar"
    torch.save({f"module.{key}": value for key, value in state.items()}, path)
    made = ("maps", "--root", home, "--list", "val", "--checkpoint", path, "--maps", tmp_path / "maps")
    assert run(*made, "--scales", 1) == 0
    assert "resnet for 20 classes" in capsys.readouterr().out
    assert read_maps(tmp_path / "maps", VAL[0]).keys.tolist() == indices(VAL[0])
