"""Checkpoints: the authors' released files, the ones written here, and how both are named.

Four kinds of file load: a plain state dict (CVPR, CUB), the same with `module.` before each key and stale copies of f2
(CVPR, ILSVRC), a state dict wrapped as `{'model': ..., 'best_thr': ..., 'epoch': ...}` (IJCV), and this repository's
own. All clean-up happens in :func:`clean_state`; the load that follows is strict.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.errors import UserError
from utils.files import write_atomically
from utils.models.bas import BAS

# Copies of f2 that the authors' ILSVRC models carried for the frozen branch; inference never reads them.
STALE_COPIES = re.compile(r"(conv_copy_5_\d|classifier_cls_copy|layer4_copy|Mixed_7[abc]_copy|erase_branch)\.")

# A key that only this backbone has.
LANDMARKS = {
    "vgg": "conv1_1.weight",
    "mobilenet": "model.0.0.weight",
    "resnet": "layer1.0.conv1.weight",
    "inception": "Conv2d_1a_3x3.conv.weight",
}
GENERATOR_KEY = "classifier_loc.0.weight"
DATASET_OF_CLASSES = {200: "CUB", 1000: "ILSVRC"}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file after clean-up.

    Attributes:
        path: where it came from.
        state: state dict under the published names, without `module.` and stale copies.
        arch: the backbone that the keys belong to, None if they are no BAS model's.
        num_classes: K, None if there is no generator.
        is_ijcv: whether the file is wrapped as the IJCV release is (that model has no final ReLU).
        dropped: how many stale entries were left out.
        best_threshold: the IJCV release's `best_thr`, None where there is none in [0, 1].
    """

    path: Path
    state: dict[str, Tensor]
    arch: str | None
    num_classes: int | None
    is_ijcv: bool
    dropped: int
    best_threshold: float | None = None

    @property
    def description(self) -> str:
        """What the file is for, in words."""
        return describe(self.arch, self.num_classes)

    @property
    def summary(self) -> str:
        """What was loaded and what was left out, as one line."""
        kind = "IJCV checkpoint" if self.is_ijcv else "checkpoint"
        dropped = f", {self.dropped} stale copies of f2 left out" if self.dropped else ""
        return f"{kind} {self.path}: {self.description}, {len(self.state)} entries{dropped}"


def describe(arch: str | None, num_classes: int | None) -> str:
    """`resnet for 200 classes (CUB)` and the like."""
    if arch is None or num_classes is None:
        return "no BAS model"
    dataset = DATASET_OF_CLASSES.get(num_classes)
    return f"{arch} for {num_classes} classes" + (f" ({dataset})" if dataset else "")


def load_file(path: str | Path, mend: str = "the README's table of checkpoints says where to get one") -> Any:
    """Reads a file of tensors with `weights_only=True`, whether zip or legacy, onto the CPU.

    Args:
        path: the file.
        mend: what to do if there is no such file, said in the error.

    Raises:
        UserError: missing, not a checkpoint, truncated, or holding anything but tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no file {path}; {mend}")
    try:
        # The IJCV files carry their best threshold as a NumPy scalar.
        with torch.serialization.safe_globals(_numpy_scalars()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no checkpoint fail in the unpickler in any way whatever
        with path.open("rb") as file:
            start = file.read(64).lstrip().lower()
        if start.startswith((b"<!doctype", b"<html")):
            raise UserError(f"{path} is a web page, not a checkpoint; download the file itself again") from error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if reason.startswith("Weights only load failed"):  # torch goes on to advise unpickling code from the file
            reason = "it is damaged, no PyTorch file, or holds more than tensors and plain values"
        raise UserError(f"{path} cannot be read as a checkpoint ({reason}); download or save it again") from error


def _numpy_scalars() -> list[Any]:
    # NumPy 1 pickles scalars as numpy.core..., NumPy 2 as numpy._core...; old files must load under both.
    scalar = np.float64(0).__reduce__()[0]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    dtypes = [type(np.dtype(kind)) for kind in ("float64", "float32", "int64")]
    return [np.dtype, *dtypes, *((scalar, name) for name in names)]


def clean_state(content: Any) -> tuple[dict[str, Tensor], bool, int]:
    """Unwraps the IJCV wrapping, strips `module.` and drops exactly the stale copies of f2.

    Args:
        content: what the file held.

    Returns:
        The state dict, whether it was wrapped, and the number of entries dropped.

    Raises:
        ValueError: there is no state dict in it.
    """
    wrapped = isinstance(content, Mapping) and isinstance(content.get("model"), Mapping)
    state = content["model"] if wrapped else content
    is_state = isinstance(state, Mapping) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    )
    if not is_state or not state:
        raise ValueError("it holds no state dict")
    state = {key.removeprefix("module."): value for key, value in state.items()}
    kept = {key: value for key, value in state.items() if not STALE_COPIES.match(key)}
    return kept, wrapped, len(state) - len(kept)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Reads and cleans a checkpoint and recognises what it is for.

    Raises:
        UserError: unreadable, no state dict, or weights that are not finite.
    """
    path = Path(path)
    content = load_file(path)
    try:
        state, wrapped, dropped = clean_state(content)
    except ValueError as error:
        raise UserError(f"{path} is not a BAS checkpoint: {error}") from error
    broken = next((key for key, value in state.items() if not torch.isfinite(value).all()), None)
    if broken:
        raise UserError(f"{path} holds NaN or infinite weights in {broken}; take an earlier checkpoint")
    generator = state.get(GENERATOR_KEY)
    # This repository's training state is wrapped as well; the best threshold is the IJCV release's own mark.
    is_ijcv = wrapped and "best_thr" in content
    return Checkpoint(
        path=path,
        state=state,
        arch=next((arch for arch, key in LANDMARKS.items() if key in state), None),
        num_classes=generator.shape[0] if generator is not None and generator.ndim == 4 else None,
        is_ijcv=is_ijcv,
        dropped=dropped,
        best_threshold=_share(content["best_thr"]) if is_ijcv else None,
    )


def _share(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if 0 <= number <= 1 else None


def apply_weights(model: BAS, checkpoint: Checkpoint) -> None:
    """Loads a cleaned checkpoint strictly.

    Raises:
        UserError: the file is for another backbone, data set or head; says which, or which keys and shapes differ.
    """
    if (checkpoint.arch, checkpoint.num_classes) != (model.arch, model.num_classes):
        wanted = describe(model.arch, model.num_classes)
        raise UserError(f"{checkpoint.path} holds {checkpoint.description}, but the model is {wanted}")
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in checkpoint.state.items()}
    if expected != found:
        raise UserError(f"{checkpoint.path} does not fit the model: {differences(expected, found)}")
    model.load_state_dict(checkpoint.state)


def load_weights(model: BAS, path: str | Path) -> Checkpoint:
    """Loads a released or own checkpoint into `model`, strictly after the clean-up of this module.

    Args:
        model: a BAS model of the right backbone and class count.
        path: legacy or zip file, CVPR or IJCV layout.

    Returns:
        The checkpoint, whose `summary` says what was loaded and left out.

    Raises:
        UserError: the file is missing, damaged or for another model; the message says which.
    """
    checkpoint = read_checkpoint(path)
    apply_weights(model, checkpoint)
    return checkpoint


def differences(expected: Mapping[str, tuple], found: Mapping[str, tuple], most: int = 4) -> str:
    """Missing, unexpected and differently shaped entries of two `key -> shape` tables, the first few by name."""

    def some(items: list[str]) -> str:
        return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")

    missing = [f"{key} {list(expected[key])}" for key in expected if key not in found]
    unexpected = [f"{key} {list(found[key])}" for key in found if key not in expected]
    shapes = [
        f"{key} {list(found[key])} instead of {list(expected[key])}"
        for key in expected
        if key in found and found[key] != expected[key]
    ]
    parts = [("missing", missing), ("unexpected", unexpected), ("other shape", shapes)]
    return "; ".join(f"{name}: {some(items)}" for name, items in parts if items)


def checkpoint_name(dataset: str, arch: str, epoch: int) -> str:
    """The published file name of the model after `epoch` (counted from 0): `vgg99.pth.tar`, `vgg8_final.pth.tar`."""
    return f"{arch}{epoch}{'_final' if dataset == 'ILSVRC' else ''}.pth.tar"


def find_checkpoint(folder: Path, dataset: str, arch: str) -> Path:
    """The checkpoint of the highest epoch under its published name in `<folder>/<arch>/`.

    Raises:
        UserError: there is none; names the file that the authors' release would be.
    """
    pattern = re.compile(re.escape(checkpoint_name(dataset, arch, 0)).replace("0", r"(\d+)", 1))
    found = [
        (int(match[1]), file) for file in (folder / arch).glob("*.pth.tar") if (match := pattern.fullmatch(file.name))
    ]
    if not found:
        released = folder / arch / checkpoint_name(dataset, arch, 8 if dataset == "ILSVRC" else 99)
        raise UserError(
            f"there is no checkpoint in {folder / arch}; put the authors' file at {released} (links in the README), "
            f"train one with `python train.py --dataset {dataset} --arch {arch}`, or give --checkpoint FILE"
        )
    return max(found)[1]


def save_weights(model: BAS, path: str | Path) -> Path:
    """Saves a plain state dict under the published keys, by write-then-rename.

    The legacy format keeps it readable for the authors' own environment (PyTorch 1.4), which knows no zip files.

    Returns:
        `path`.
    """
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    return write_atomically(path, lambda file: torch.save(state, file, _use_new_zipfile_serialization=False))
