"""Protects checkpoints: every released format loads strictly, every other file is one sentence, saving never harms."""

from __future__ import annotations

import argparse
import json
import os
import re
import struct
import sys
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

import CUB.Model
import ILSVRC.Model
import train
from tests.reference_weights import PAIRS, draw, published_keys
from utils.models import checkpoint as checkpoint_module
from utils.models.bas import BAS
from utils.models.checkpoint import (
    GENERATOR_KEY,
    load_file,
    load_weights,
    read_checkpoint,
    save_weights,
)
from utils.system.errors import UserError

DATASETS = {"CUB": CUB.Model, "ILSVRC": ILSVRC.Model}
COPIES = ("conv_copy_5_", "classifier_cls_copy", "layer4_copy", "Mixed_7a_copy", "Mixed_7b_copy", "Mixed_7c_copy")
STALE = tuple(f"module.{name}" for name in (*COPIES, "erase_branch"))


def thin(key: str, shape: list[int]) -> Tensor:
    """A value for each key and output channel, expanded over the rest: full shapes in files of a few kilobytes."""
    return draw(key, (*shape[:1], *(1 for _ in shape[1:]))).expand(shape)


def published_state(dataset: str, arch: str) -> OrderedDict[str, Tensor]:
    """The released file's keys and shapes, with the metadata that `state_dict()` attaches."""
    keys = published_keys(dataset, arch).items()
    state = OrderedDict((key, thin(key.removeprefix("module."), shape)) for key, shape in keys)
    state._metadata = OrderedDict({"": {"version": 1}})
    return state


def lasting_keys(dataset: str, arch: str) -> list[str]:
    """What of the released keys a model has: all but the stale copies, without `module.`."""
    return [key.removeprefix("module.") for key in published_keys(dataset, arch) if not key.startswith(STALE)]


def save(content: object, path: Path, legacy: bool = True) -> Path:
    """Writes a file as torch 1.4 did (legacy), or as torch does since 1.6 (zip)."""
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    assert zipfile.is_zipfile(path) is not legacy
    return path


def unset(dataset: str, arch: str, num_classes: int | None = None) -> BAS:
    """A model whose every value is wrong until something is loaded: NaN, or -1 in its counters."""
    with torch.device("meta"):  # spares the random initialisation
        model = DATASETS[dataset].build(arch, num_classes)
    model.to_empty(device="cpu")
    for value in model.state_dict().values():
        value.fill_(float("nan") if value.is_floating_point() else -1)
    return model


def assert_published(model: BAS, dataset: str, arch: str) -> None:
    """Every entry of the model is the file's entry of that name."""
    state = model.state_dict()
    assert list(state) == lasting_keys(dataset, arch)
    for key, value in state.items():
        assert torch.equal(value, thin(key, list(value.shape))), key


# --- the formats there are


@pytest.mark.parametrize(("dataset", "arch"), PAIRS)
def test_released_files_load(tmp_path, dataset, arch):
    """All eight CVPR files: each value arrives, exactly the stale copies are dropped, the file is recognised."""
    path = save(published_state(dataset, arch), tmp_path / train.DATASETS[dataset].weights_name(arch, 8))
    model = unset(dataset, arch)
    checkpoint = load_weights(model, path)
    assert_published(model, dataset, arch)
    stale = [key for key in published_keys(dataset, arch) if key.startswith(STALE)]
    # Both data sets' nets have the same layers, so what ILSVRC's files have more is stale.
    assert checkpoint.dropped == len(stale) == len(published_keys(dataset, arch)) - len(published_keys("CUB", arch))
    assert (checkpoint.arch, checkpoint.num_classes) == (arch, {"CUB": 200, "ILSVRC": 1000}[dataset])
    assert not checkpoint.is_ijcv
    assert f"{arch} for {checkpoint.num_classes} classes" in checkpoint.summary
    assert ("stale" in checkpoint.summary) == bool(stale)


def as_numpy_wrote(path: Path, module: bytes) -> None:
    """Renames NumPy's own module in a file's pickle: `numpy.core` up to version 1, `numpy._core` since 2."""

    def rename(data: bytes) -> bytes:
        renamed, count = re.subn(rb"numpy\._?core", module, data)
        assert count
        return renamed

    if not zipfile.is_zipfile(path):
        path.write_bytes(rename(path.read_bytes()))
        return
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, rename(data) if name.endswith("data.pkl") else data)


@pytest.mark.parametrize("module", [b"numpy.core", b"numpy._core"])
@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_ijcv_files_load(tmp_path, prefix, legacy, module):
    """The IJCV wrapping, its threshold a NumPy scalar of any version: unwrapped, recognised, loaded strictly."""
    state = {prefix + key: value for key, value in published_state("CUB", "mobilenet").items()}
    content = {"model": state, "best_thr": np.float64(0.35), "epoch": 17}
    path = save(content, tmp_path / "ijcv.pth.tar", legacy)
    as_numpy_wrote(path, module)
    model = unset("CUB", "mobilenet")
    checkpoint = load_weights(model, path)
    assert_published(model, "CUB", "mobilenet")
    assert checkpoint.is_ijcv and checkpoint.dropped == 0
    assert checkpoint.summary.startswith("IJCV checkpoint")


def test_training_state_is_no_ijcv_file(tmp_path):
    """A run's own training state is wrapped, too, but its model ends in a ReLU unless its settings say otherwise."""
    content = {"model": published_state("CUB", "vgg"), "settings": {"final_relu": True}, "epoch": 3}
    assert not read_checkpoint(save(content, tmp_path / "last.pth.tar", legacy=False)).is_ijcv


# --- what other programs wrap around weights


def wrapped(state: dict, wrapper: str) -> dict:
    """As training scripts save it, among other things."""
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(2, 2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    content: dict = {"epoch": 3, "optimizer": optimizer, "meters": {"accuracy": torch.tensor(70.0)}, "arch": "x"}
    for name in reversed(wrapper.split(".")):
        state = {name: state}
    return content | state


@pytest.mark.parametrize(
    "wrapper", ["state_dict", "model_state_dict", "model", "net", "state_dict_ema", "weights", "model.state_dict"]
)
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module.module.", "module._orig_mod.module."])
def test_wrapped_weights_load(tmp_path, wrapper, prefix):
    """Protects weights of other programs: every value arrives, and the line that is printed tells what came off."""
    state = {prefix + key: value for key, value in published_state("CUB", "mobilenet").items()}
    model = unset("CUB", "mobilenet")
    checkpoint = load_weights(model, save(wrapped(state, wrapper), tmp_path / "x.pth"))
    assert_published(model, "CUB", "mobilenet")
    assert not checkpoint.is_ijcv and f"its {wrapper!r}" in checkpoint.summary
    for part in ("module.", "_orig_mod."):
        assert (f"{part!r}" in checkpoint.summary) == (part in prefix)


def test_weights_of_a_compiled_part(tmp_path):
    """Protects torch.compile of a module within the network: its prefix stands in the middle of the names."""
    state = {key.replace("model.3.", "model.3._orig_mod."): v for key, v in published_state("CUB", "mobilenet").items()}
    model = unset("CUB", "mobilenet")
    assert "'_orig_mod.'" in load_weights(model, save(state, tmp_path / "x.pth")).summary
    assert_published(model, "CUB", "mobilenet")


@pytest.mark.parametrize(
    "names", [("state_dict", "state_dict_ema"), ("model", "model_ema"), ("generator", "discriminator"), ("a", "b.c")]
)
def test_several_sets_of_weights(tmp_path, names):
    """Protects from the wrong ones: which is meant is asked, not guessed, and how to say it."""
    state = published_state("CUB", "mobilenet")
    path = save(wrapped(state, names[0]) | wrapped(state, names[1]), tmp_path / "x.pth")
    words = rf"several state dicts \({names[0]}, {names[1]}\); save .*torch\.load\(FILE, .*\)\['{names[0]}'\]"
    with pytest.raises(UserError, match=words):
        read_checkpoint(path)


def test_names_that_become_the_same(tmp_path):
    """Protects from losing an entry to another one in silence."""
    state = published_state("CUB", "mobilenet")
    state["module.model.0.0.weight"] = state["model.0.0.weight"]
    with pytest.raises(UserError, match=r"model\.0\.0\.weight twice, with and without a prefix"):
        read_checkpoint(save(state, tmp_path / "x.pth"))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_precision(tmp_path, kind):
    """Protects files that were made smaller or larger: their numbers are converted, counters stay counters."""
    state = published_state("CUB", "mobilenet")
    for key, value in state.items():
        state[key] = value[..., :1].to(kind).expand(value.shape) if value.is_floating_point() else value
    model = unset("CUB", "mobilenet")
    load_weights(model, save(state, tmp_path / "x.pth"))
    for key, value in model.state_dict().items():
        assert value.dtype in (torch.float32, torch.int64) and torch.equal(value, state[key].to(value.dtype)), key


def safetensors_file(state: dict, path: Path) -> Path:
    """As the package writes it: the header's length, the header as JSON, the numbers."""
    header, data = {}, b""
    for key, value in state.items():
        raw = value.contiguous().numpy().tobytes()
        kind = {torch.float32: "F32", torch.int64: "I64"}[value.dtype]
        header[key] = {"dtype": kind, "shape": list(value.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
def test_safetensors(tmp_path, monkeypatch, name):
    """Protects the format: known by its content, read by its package, and a sentence where that is not installed."""
    state = {GENERATOR_KEY: torch.ones(2, 3, 3, 3), "model.0.0.weight": torch.ones(1, 1)}
    path = safetensors_file(state, tmp_path / name)
    package = ModuleType("safetensors.torch")
    package.load_file = lambda path, device: {**state, "read": torch.tensor(float(device == "cpu"))}
    monkeypatch.setitem(sys.modules, "safetensors", ModuleType("safetensors"))
    monkeypatch.setitem(sys.modules, "safetensors.torch", package)
    checkpoint = read_checkpoint(path)
    assert (checkpoint.arch, checkpoint.num_classes, len(checkpoint.state)) == ("mobilenet", 2, 3)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(UserError, match=r"x\..* is a safetensors file, .* is missing; pip install safetensors"):
        read_checkpoint(path)


# --- files that must not load


@pytest.mark.parametrize(
    ("dataset", "arch", "num_classes", "words"),
    [
        ("CUB", "vgg", None, r"but the model is vgg for 200 classes"),
        ("ILSVRC", "mobilenet", None, r"but the model is mobilenet for 1000 classes"),
        ("CUB", "mobilenet", 3, r"but the model is mobilenet for 3 classes$"),
    ],
)
def test_file_of_another_model(tmp_path, dataset, arch, num_classes, words):
    """Another backbone, data set or class count: both are named and the model stays untouched."""
    path = save(published_state("CUB", "mobilenet"), tmp_path / "x.pth.tar")
    model = unset(dataset, arch, num_classes)
    with pytest.raises(UserError, match=rf"x\.pth\.tar holds mobilenet for 200 classes, {words}"):
        load_weights(model, path)
    assert all(value.isnan().all() for value in model.parameters())


def drop(state):
    del state["model.3.1.running_var"]


def add(state):
    state["model.3.1.extra"] = torch.zeros(2)


def reshape(state):
    state["classifier_cls.2.weight"] = torch.zeros(1024, 1024, 1, 1)


def copy_of_another_name(state):
    state["classifier_cls_copy2.0.bias"] = state["neck.layer4_copy.0.bias"] = torch.zeros(1)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (drop, r"does not fit the model: missing: model\.3\.1\.running_var \[128\]$"),
        (add, r"does not fit the model: unexpected: model\.3\.1\.extra \[2\]$"),
        (reshape, r"other shape: classifier_cls\.2\.weight \[1024, 1024, 1, 1\] instead of \[1024, 1024, 3, 3\]$"),
        (copy_of_another_name, r"unexpected: classifier_cls_copy2\.0\.bias \[1\], neck\.layer4_copy\.0\.bias \[1\]$"),
    ],
)
def test_one_wrong_entry(tmp_path, damage, words):
    """The load is strict: a key too few, too many (however like a stale copy) or of another shape is named."""
    state = published_state("CUB", "mobilenet")
    damage(state)
    model = unset("CUB", "mobilenet")
    with pytest.raises(UserError, match=rf"x\.pth\.tar .*{words}"):
        load_weights(model, save(state, tmp_path / "x.pth.tar"))
    assert all(value.isnan().all() for value in model.parameters())


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite(tmp_path, value):
    """A diverged run's weights are refused by name; in a stale copy nobody minds them."""
    state = published_state("ILSVRC", "mobilenet")
    state["module.classifier_cls_copy.0.bias"] = torch.full((1024,), value)
    assert read_checkpoint(save(state, tmp_path / "x.pth.tar")).num_classes == 1000
    state["module.classifier_loc.0.bias"] = torch.tensor([0.0] * 999 + [value])
    path = save(state, tmp_path / "x.pth.tar")
    with pytest.raises(UserError, match=r"x\.pth\.tar holds NaN or infinite weights in classifier_loc\.0\.bias; take"):
        read_checkpoint(path)


NUMBERS = {
    "complex": (lambda: torch.zeros(2, dtype=torch.complex64), "complex64 numbers"),
    "integers": (lambda: torch.zeros(2, dtype=torch.int32), "int32 numbers"),
    "flags": (lambda: torch.zeros(2, dtype=torch.bool), "bool numbers"),
    "bytes": (lambda: torch.zeros(2, dtype=torch.uint8), "uint8 numbers"),
    "float8": (lambda: torch.zeros(2).to(torch.float8_e4m3fn), "float8_e4m3fn numbers"),
    "sparse": (lambda: torch.eye(3).to_sparse(), "sparse, nested or quantised numbers"),
    "compressed": (lambda: torch.eye(3).to_sparse_csr(), "sparse, nested or quantised numbers"),
    "quantised": (lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "sparse, nested or quantised"),
    "nested": (lambda: torch.nested.nested_tensor([torch.zeros(2)]), "sparse, nested or quantised numbers"),
    "meta": (lambda: torch.zeros(2, device="meta"), "numbers without values"),
    "empty": (lambda: torch.zeros(0, 3), "no numbers"),
    "expanded": (
        lambda: torch.zeros(1).expand(2**20, 2**20),
        "numbers that stand for more than 2 GiB",
    ),
    "overlapping": (
        lambda: torch.zeros(2**16).as_strided((2**15, 2**15), (1, 1)),
        "numbers that stand for more than 2 GiB",
    ),
    "too large": (lambda: torch.tensor([1e300], dtype=torch.float64), "NaN or infinite weights"),
}


@pytest.mark.filterwarnings("ignore")  # torch's, of kinds that it means to give up
@pytest.mark.parametrize("key", ["model.0.1.weight", "classifier_loc.0.weight"])
@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_that_are_no_weights(tmp_path, kind, key):
    """Protects from tracebacks, from rounding in silence, and from filling the memory: the entry is named."""
    make, words = NUMBERS[kind]
    path = save({**published_state("CUB", "mobilenet"), key: make()}, tmp_path / "x.pth.tar", legacy=False)
    with warnings.catch_warnings(record=True) as told, pytest.raises(UserError) as caught:
        read_checkpoint(path)
    assert re.search(rf"x\.pth\.tar holds {words}.* {re.escape(key)}.*; take an earlier checkpoint", str(caught.value))
    assert not told


def test_counters_are_whole_numbers(tmp_path):
    """Protects what batch normalisation counts: any whole or floating-point number, but no complex one."""
    state = published_state("CUB", "mobilenet")
    key = "model.3.1.num_batches_tracked"
    for kind in (torch.int32, torch.float16):
        assert read_checkpoint(save({**state, key: torch.tensor(3, dtype=kind)}, tmp_path / "x.pth.tar")).arch
    with pytest.raises(UserError, match=f"complex64 numbers in {key}"):
        read_checkpoint(save({**state, key: torch.tensor(3, dtype=torch.complex64)}, tmp_path / "x.pth.tar"))


class _Elsewhere:
    """A class that a file can hold and torch does not know."""


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"args": argparse.Namespace(lr=0.1)}, "argparse.Namespace"),
        ({"log": np.zeros(3)}, r"numpy\._?core.multiarray._reconstruct"),
        ({"path": Path("x")}, "pathlib"),
        ({"model": _Elsewhere()}, "tests.test_checkpoints._Elsewhere"),
        ({"whole": torch.nn.Linear(1, 1)}, "torch.nn.modules.linear.Linear"),
    ],
)
def test_more_than_tensors(tmp_path, more, words, legacy):
    """Protects the user from a false alarm and from running a file's code: the class is named, and the safe way out."""
    path = save({"model": published_state("CUB", "mobilenet"), **more}, tmp_path / "x.pth.tar", legacy)
    with pytest.raises(UserError) as caught:
        read_checkpoint(path)
    assert re.search(rf"more than tensors and plain values \({words}.*\), .*authors' environment", str(caught.value))
    assert "damaged" not in str(caught.value) and "weights_only" not in str(caught.value)


def test_memory_that_is_not_enough(tmp_path, monkeypatch):
    """Protects a file from being called damaged for want of memory."""
    path = save(published_state("CUB", "mobilenet"), tmp_path / "x.pth.tar")
    monkeypatch.setattr(torch, "load", lambda *_, **__: torch.empty(2**50))
    with pytest.raises(UserError, match=r"x\.pth\.tar does not fit into the memory, or is damaged"):
        read_checkpoint(path)


@pytest.mark.parametrize("best", ["high", 10**400, float("nan"), torch.zeros(2), None, 2.0])
def test_best_threshold_that_is_none(tmp_path, best):
    """Protects the evaluation: a threshold that cannot be one is passed over, as if there were none."""
    content = {"model": published_state("CUB", "mobilenet"), "best_thr": best}
    checkpoint = read_checkpoint(save(content, tmp_path / "x.pth.tar"))
    assert checkpoint.is_ijcv and checkpoint.best_threshold is None


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_truncated_file(tmp_path, legacy, share):
    """An interrupted download, cut anywhere, is one sentence with the hint."""
    path = save(published_state("CUB", "mobilenet"), tmp_path / "x.pth.tar", legacy)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UserError, match=r"^.*x\.pth\.tar cannot be read as a checkpoint \(.+\); download .*$"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", r"cannot be read as a checkpoint \(.+\); download"),
        (b"no checkpoint at all\n", r"cannot be read as a checkpoint \(.+\); download"),
        (b"\n<!DOCTYPE html><html><title>Google Drive - Quota exceeded", "is a web page, not a checkpoint; download"),
        (b"<html><head>", "is a web page, not a checkpoint; download"),
    ],
)
def test_no_checkpoint_at_all(tmp_path, content, words):
    """An empty file, text, and the page that Google Drive sends in place of a file."""
    path = tmp_path / "x.pth.tar"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"x\.pth\.tar {words}"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "content", [{}, [1, 2], torch.zeros(3), {"epoch": 3}, {"model": {}}], ids=["empty", "list", "tensor", "int", "none"]
)
def test_tensors_that_are_no_state_dict(tmp_path, content):
    """A readable file without a state dict says so."""
    with pytest.raises(UserError, match=r"x\.pth\.tar is not a BAS checkpoint: it holds no state dict"):
        read_checkpoint(save(content, tmp_path / "x.pth.tar"))


def test_state_dict_of_another_net(tmp_path):
    """Weights of some other net are no BAS model, whatever model they are for."""
    path = save({"features.0.weight": torch.zeros(2)}, tmp_path / "x.pth.tar")
    with pytest.raises(UserError, match=r"x\.pth\.tar holds no BAS model, but the model is vgg for 200 classes"):
        load_weights(unset("CUB", "vgg"), path)


class _Touch:
    """Pickles as a call that makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("legacy", [True, False])
def test_code_in_a_file_never_runs(tmp_path, legacy):
    """A downloaded checkpoint is data: what would run on unpickling is refused, not run."""
    witness = tmp_path / "witness"
    path = save({"model.0.0.weight": _Touch(witness)}, tmp_path / "x.pth.tar", legacy)
    with pytest.raises(UserError, match=r"x\.pth\.tar cannot be read as a checkpoint"):
        read_checkpoint(path)
    assert not witness.exists()
    torch.load(path, weights_only=False)
    assert witness.exists()  # the file was armed


def test_missing_file(tmp_path):
    """A path that is no file points to where checkpoints come from."""
    with pytest.raises(UserError, match=r"there is no file .*; the README"):
        read_checkpoint(tmp_path / "nowhere.pth.tar")


# --- saving


@pytest.mark.parametrize("dataset", ["CUB", "ILSVRC"])
def test_saved_weights_are_a_released_file(tmp_path, dataset):
    """A plain state dict in the published order and the legacy format, which loads here again."""
    model = unset(dataset, "mobilenet")
    load_weights(model, save(published_state(dataset, "mobilenet"), tmp_path / "released.pth.tar"))
    path = save_weights(model, tmp_path / "new" / "folder" / "own.pth.tar")
    assert not zipfile.is_zipfile(path)
    content = torch.load(path, weights_only=True)
    assert type(content) is dict and list(content) == lasting_keys(dataset, "mobilenet")
    again = unset(dataset, "mobilenet")
    assert load_weights(again, path).dropped == 0
    assert_published(again, dataset, "mobilenet")


@pytest.mark.parametrize(("dataset", "arch"), PAIRS)
def test_saved_keys_are_the_published_ones(tmp_path, monkeypatch, dataset, arch):
    """For every model: the released file's keys and shapes in their order, less the stale copies."""
    written = {}
    monkeypatch.setattr(
        checkpoint_module.torch, "save", lambda state, path, **options: (written.update(state), Path(path).touch())
    )
    with torch.device("meta"):
        model = DATASETS[dataset].build(arch)
    save_weights(model.to_empty(device="cpu"), tmp_path / "x.pth.tar")
    shapes = {key.removeprefix("module."): shape for key, shape in published_keys(dataset, arch).items()}
    assert [(key, list(value.shape)) for key, value in written.items()] == [
        (key, shapes[key]) for key in lasting_keys(dataset, arch)
    ]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("unexpected pos 64 vs 0")])
def test_failing_write_leaves_the_old_file(tmp_path, monkeypatch, error):
    """A full disk half-way through: one sentence, the older checkpoint intact, no litter."""
    path = tmp_path / "x.pth.tar"
    path.write_bytes(b"older")

    def fail(state, target, **options):
        Path(target).write_bytes(b"half")
        raise error

    monkeypatch.setattr(checkpoint_module.torch, "save", fail)
    with pytest.raises(UserError, match=rf"cannot write .*x\.pth\.tar: .*{error.args[-1]}; free some space"):
        save_weights(unset("CUB", "mobilenet", 2), path)
    assert path.read_bytes() == b"older"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


# --- names


def test_published_names():
    """The names under which the authors released the models of the last epochs, counted from 0."""
    assert [train.DATASETS["CUB"].weights_name(arch, 99) for arch in ("vgg", "resnet")] == [
        "vgg99.pth.tar",
        "resnet99.pth.tar",
    ]
    assert train.DATASETS["ILSVRC"].weights_name("mobilenet", 8) == "mobilenet8_final.pth.tar"


@pytest.mark.parametrize(
    ("dataset", "names", "expected"),
    [
        ("CUB", ["vgg99.pth.tar"], "vgg99.pth.tar"),
        ("CUB", ["vgg9.pth.tar", "vgg10.pth.tar", "last.pth.tar"], "vgg10.pth.tar"),
        ("CUB", ["vgg1.pth.tar", "vgg8_final.pth.tar", "resnet99.pth.tar", "vgg2.pth.tar.part"], "vgg1.pth.tar"),
        ("ILSVRC", ["vgg8_final.pth.tar", "vgg99.pth.tar", "vgg8_final.pth.tar.old"], "vgg8_final.pth.tar"),
    ],
)
def test_highest_epoch_is_found(tmp_path, dataset, names, expected):
    """Epochs compare as numbers; training states, other backbones' files and half downloads do not count."""
    folder = tmp_path / "logs" / "vgg"
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()
    assert replace(train.DATASETS[dataset], home=tmp_path).find_checkpoint("vgg") == folder / expected


@pytest.mark.parametrize(("dataset", "name"), [("CUB", "resnet99.pth.tar"), ("ILSVRC", "resnet8_final.pth.tar")])
def test_no_checkpoint_yet(tmp_path, dataset, name):
    """The message says where the released file belongs and how to train one."""
    words = rf"put the authors' file at .*resnet.{re.escape(name)} .*train\.py --dataset {dataset} --arch resnet"
    with pytest.raises(UserError, match=words):
        replace(train.DATASETS[dataset], home=tmp_path).find_checkpoint("resnet")


class Runs:
    """Would run a command where it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("exit 1",)


def test_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    """Protects the hint: code is not called damage, an archive is to be unpacked, a folder is named as one."""
    torch.save({"a": torch.ones(2), "b": Runs()}, tmp_path / "code.pth")
    with tarfile.open(tmp_path / "packed.tar", "w") as archive:
        archive.add(tmp_path / "code.pth", "code.pth")
    with zipfile.ZipFile(tmp_path / "zeros.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(8 << 20))
    (tmp_path / "text.pth").write_bytes(b"hello")
    for name, words in {
        "code.pth": r"more than tensors and plain values \((posix|nt)\.system\)",
        "packed.tar": "is a .tar archive; unpack it",
        "zeros.pth": "is a compressed archive of 8 MiB; unpack it",
        "text.pth": "it is damaged, or no PyTorch file",
        "": "is a folder; name the file in it",
    }.items():
        with pytest.raises(UserError, match=words) as told:
            load_file(tmp_path / name)
        assert "weights_only" not in str(told.value)


@pytest.mark.parametrize("kind", [np.bool_, np.int32, np.uint8, np.float16, np.int64, np.float64])
def test_numbers_of_numpy_beside_the_weights(tmp_path: Path, kind: type) -> None:
    """Protects files that carry an epoch or a score as whichever of NumPy's numbers."""
    torch.save({"state_dict": {"a": torch.ones(2)}, "epoch": kind(1)}, tmp_path / "x.pth")
    assert load_file(tmp_path / "x.pth")["epoch"] == 1


def test_newest_of_a_backbone_with_a_number(tmp_path: Path) -> None:
    """Protects a backbone that is added under a name with a 0 in it: the number to compare is the epoch's."""
    dataset = replace(train.DATASETS["CUB"], home=tmp_path)
    folder = dataset.logs / "net_b0"
    folder.mkdir(parents=True)
    for epoch in (0, 9, 10):
        (folder / dataset.weights_name("net_b0", epoch)).touch()
    assert dataset.find_checkpoint("net_b0").name == "net_b010.pth.tar"
