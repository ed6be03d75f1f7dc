"""PASCAL VOC: its files, pictures of several classes, and training on them."""

from __future__ import annotations

import io
import json
import math
import pickle
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.commands import OWN_TRAINING, run_training
from tests.splits import make_split
from tests.test_cub_data import write_lines
from tests.voc import CPU, TRAIN, VAL, VOC, indices, make_voc
from train import DATASETS
from utils.data.training import EpochBatches, TrainingBatch, build_training_loader
from utils.datasets.voc.DataLoader import CLASSES
from utils.models.losses import multi_label_loss
from utils.models.registry import build
from utils.runs.settings import Engine
from utils.system.errors import UsageError, UserError
from utils.training.engine import _step, build_trainer


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_voc(tmp_path / "data")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return make_voc(tmp_path_factory.mktemp("voc"))


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
