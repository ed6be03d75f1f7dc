"""Checkpoints: the authors' released files, the ones written here, and how both are named.

Released are a plain state dict (CVPR, CUB), the same with `module.` before each key and stale copies of f2 (CVPR,
ILSVRC), and a state dict wrapped as `{'model': ..., 'best_thr': ..., 'epoch': ...}` (IJCV). What other programs wrap
around a state dict comes off as well, and safetensors files are read. All clean-up happens in :func:`clean_state` and
:func:`sound_weights`; the load that follows is strict.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.models.bas import BAS
from utils.models.registry import BACKBONES
from utils.system.errors import UserError, is_out_of_memory
from utils.system.files import write_atomically

# Copies of f2 that the authors' ILSVRC models carried for the frozen branch; inference never reads them.
STALE_COPIES = re.compile(r"(conv_copy_5_\d|classifier_cls_copy|layer4_copy|Mixed_7[abc]_copy|erase_branch)\.")

GENERATOR_KEY = "classifier_loc.0.weight"
COUNTER = "num_batches_tracked"  # the one entry of batch normalisation that is a whole number
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
MOST_SHARED = 2**31  # bytes of weights that are other weights' bytes: a small file must not fill the memory


@dataclass(frozen=True)
class Weights:
    """A state dict out of a file.

    Attributes:
        state: under the published names, without the prefixes of wrapping modules and stale copies.
        wrapper: the name under which it lay in the file, "" where the file was the state dict.
        prefixes: what was taken off its names.
        dropped: how many stale entries were left out.
    """

    state: dict[str, Tensor]
    wrapper: str = ""
    prefixes: tuple[str, ...] = ()
    dropped: int = 0

    @property
    def unwrapped(self) -> str:
        """What was taken off, in words that follow a file's name; "" if nothing."""
        parts = [f"its {self.wrapper!r}"] if self.wrapper else []
        parts += [f"names without {' and '.join(map(repr, self.prefixes))}"] if self.prefixes else []
        return f" ({', '.join(parts)})" if parts else ""


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
        unwrapped: what was taken off around the state dict, see :attr:`Weights.unwrapped`.
        settings: a run's recipe by name, where the file is one of its training states; as it was read.
    """

    path: Path
    state: dict[str, Tensor]
    arch: str | None
    num_classes: int | None
    is_ijcv: bool
    dropped: int
    best_threshold: float | None = None
    unwrapped: str = ""
    settings: Mapping[str, Any] | None = None

    @property
    def description(self) -> str:
        """What the file is for, in words."""
        return describe(self.arch, self.num_classes)

    @property
    def summary(self) -> str:
        """What was loaded and what was left out, as one line."""
        kind = "IJCV checkpoint" if self.is_ijcv else "checkpoint"
        dropped = f", {self.dropped} stale copies of f2 left out" if self.dropped else ""
        return f"{kind} {self.path}{self.unwrapped}: {self.description}, {len(self.state)} entries{dropped}"


def describe(arch: str | None, num_classes: int | None) -> str:
    """`resnet for 200 classes` and the like."""
    return "no BAS model" if arch is None or num_classes is None else f"{arch} for {num_classes} classes"


def load_file(path: str | Path, hint: str = "the README of the data set's folder says where to get one") -> Any:
    """Reads a file of tensors onto the CPU without running any code from it: PyTorch's, zip or legacy, or safetensors.

    Args:
        path: the file.
        hint: what to do if there is no such file, said in the error.

    Raises:
        UserError: missing, not a checkpoint, truncated, too large for the memory, or holding anything but tensors and
            plain values; or a safetensors file where that package is not installed.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder; name the file in it")
    if not path.is_file():
        raise UserError(f"there is no file {path}; {hint}")
    start = b""
    try:
        with path.open("rb") as file:
            start = file.read(64)
        if start.startswith(b"PK"):
            _refuse_compressed(path)
        if _is_safetensors(start, path.stat().st_size):
            return _load_safetensors(path)
        # The IJCV files carry their best threshold as a NumPy scalar.
        with torch.serialization.safe_globals(_numpy_scalars()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on old and foreign formats
            return torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # bytes that are no checkpoint fail in the unpickler in any way whatever
        raise UserError(f"{path} {_why_unreadable(start, error)}") from error


def _is_safetensors(start: bytes, size: int) -> bool:
    """Whether a file begins as the format does: the length of a header, and the header, which is a JSON object."""
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= size - 8


def _refuse_compressed(path: Path) -> None:
    """UserError for an archive that is far larger unpacked than packed: PyTorch packs without compressing, and a small
    file must not fill the memory."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    size = sum(member.file_size for member in members)
    if size > 2 * path.stat().st_size + (1 << 20):
        is_checkpoint = any(member.filename.endswith("/data.pkl") for member in members)
        hint = (
            "torch.load it and torch.save it again" if is_checkpoint else "unpack it, and name the file that is in it"
        )
        raise UserError(f"{path} is a compressed archive of {size >> 20} MiB; {hint}")


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file as load
    except ImportError as error:
        raise UserError(
            f"{path} is a safetensors file, and the package that reads them is missing; pip install safetensors, or "
            "save the state dict with torch.save"
        ) from error
    return load(path, device="cpu")


def _why_unreadable(start: bytes, error: Exception) -> str:
    text = str(error)
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "is a web page, not a checkpoint; download the file itself again"
    if is_out_of_memory(error):
        return "does not fit into the memory, or is damaged; free some memory, or download or save it again"
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror or text}); check its rights and the disk"
    if "legacy .tar format" in text:
        return "is a .tar archive; unpack it, and name the checkpoint that is in it"
    refused = re.search(r"(?:Unsupported global:|unsupported) GLOBAL ([\w.]+)|(TorchScript archive)", text)
    if refused and start.startswith((b"PK", b"\x80")):  # of text, torch's words would make no sense
        return (
            "cannot be read as a checkpoint: it holds more than tensors and plain values "
            f"({refused[1] or refused[2]}), and to read that would run code from the file; load it in its authors' "
            "environment, and save the state dict alone, torch.save(model.state_dict(), FILE)"
        )
    reason = text.splitlines()[0] if text else type(error).__name__
    # Torch goes on to advise unpickling code from the file; what a lookup of Python's says tells a reader nothing.
    if reason.startswith("Weights only load failed") or isinstance(error, LookupError):
        reason = "it is damaged, or no PyTorch file"
    return f"cannot be read as a checkpoint ({reason}); download or save it again"


def _numpy_scalars() -> list[Any]:
    # NumPy 1 pickles scalars as numpy.core..., NumPy 2 as numpy._core...; old files must load under both.
    scalar = np.float64(0).__reduce__()[0]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    dtypes = [type(np.dtype(kind)) for kind in ("?", *np.typecodes["AllInteger"], *np.typecodes["Float"])]
    return [np.dtype, *dtypes, *((scalar, name) for name in names)]


def clean_state(content: Any) -> Weights:
    """Finds the state dict, unwraps it and its names, and drops exactly the stale copies of f2.

    Args:
        content: what the file held: a state dict, or a dictionary in which one lies under any name (`model`,
            `state_dict`, `model_state_dict`, `net`, `state_dict_ema`, ...), at most two levels deep. Its names may
            begin with `module.` (DataParallel), as often as they like, and hold `_orig_mod.` (torch.compile).

    Raises:
        ValueError: there is no state dict in it, or more than one; or two of its names become the same.
    """
    found = {"": content} if _is_state_dict(content) else dict(_wrapped_state_dicts(content))
    if not found:
        raise ValueError("it holds no state dict")
    if len(found) > 1:
        first = "".join(f"[{name!r}]" for name in next(iter(found)).split("."))
        raise ValueError(
            f"it holds several state dicts ({', '.join(found)}); save the one that you mean alone, as "
            f"torch.save(torch.load(FILE, weights_only=True){first}, NEW_FILE)"
        )
    ((wrapper, raw),) = found.items()
    state: dict[str, Tensor] = {}
    for name, value in raw.items():
        key = re.sub(r"^(module\.)+", "", name.replace("_orig_mod.", ""))
        if key in state:
            raise ValueError(f"it holds {key} twice, with and without a prefix")
        state[key] = value
    prefixes = tuple(
        prefix for prefix in ("module.", "_orig_mod.") if any(prefix in name for name in raw.keys() - state)
    )
    kept = {key: value for key, value in state.items() if not STALE_COPIES.match(key)}
    return Weights(kept, wrapper, prefixes, len(state) - len(kept))


def _is_state_dict(content: Any) -> bool:
    is_state = isinstance(content, Mapping) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    )
    return is_state and bool(content)


def _wrapped_state_dicts(content: Any, levels: int = 2) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """The state dicts in a dictionary, by their names there; one of scalars and vectors alone is no network's."""
    for name, value in content.items() if isinstance(content, Mapping) else ():
        if isinstance(name, str) and _is_state_dict(value):
            if any(tensor.ndim > 1 for tensor in value.values()):
                yield name, value
        elif isinstance(name, str) and levels > 1:
            yield from ((f"{name}.{inner}", found) for inner, found in _wrapped_state_dicts(value, levels - 1))


def sound_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict that can be loaded: finite float32 weights, whatever kind of floating-point numbers it came in.

    Raises:
        ValueError: says what the first wrong entry is and its name, in words that follow the file's.
    """
    sound, shared = {}, 0
    for key, value in state.items():
        wrong = _wrong_kind(key, value)
        if wrong:
            raise ValueError(f"holds {wrong} in {key}, which are no weights")
        shared += max(0, value.numel() * value.element_size() - value.untyped_storage().nbytes())
        if shared > MOST_SHARED:
            raise ValueError(f"holds numbers that stand for more than {MOST_SHARED >> 30} GiB of others, up to {key}")
        sound[key] = value.float() if value.dtype in FLOATS else value
        if not _is_finite(sound[key]):
            raise ValueError(f"holds NaN or infinite weights in {key}")
    return sound


def _is_finite(values: Tensor) -> bool:
    # Finite numbers may have a sum that is not, but no other numbers have a finite sum: one pass, mostly.
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())


def _wrong_kind(key: str, value: Tensor) -> str:
    if value.is_meta:
        return "numbers without values"
    if value.layout != torch.strided or value.is_nested or value.is_quantized:
        return "sparse, nested or quantised numbers"
    if value.numel() == 0:
        return "no numbers"
    if value.dtype in (FLOATS if not key.endswith(COUNTER) else FLOATS + INTEGERS):
        return ""
    return f"{str(value.dtype).removeprefix('torch.')} numbers"


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Reads and cleans a checkpoint and recognises what it is for.

    Raises:
        UserError: unreadable, no state dict or several, or a BAS model with weights that are not finite or no numbers
            to compute with.
    """
    path = Path(path)
    content = load_file(path)
    try:
        weights = clean_state(content)
    except ValueError as error:
        raise UserError(f"{path} is not a BAS checkpoint: {error}") from error
    # This repository's training state is wrapped as well; the best threshold is the IJCV release's own mark.
    is_ijcv = weights.wrapper == "model" and "best_thr" in content
    checkpoint = recognize(path, weights, is_ijcv, _share(content["best_thr"]) if is_ijcv else None)
    is_state = weights.wrapper == "model" and "progress" in content and isinstance(content.get("settings"), dict)
    return replace(checkpoint, settings=content["settings"]) if is_state else checkpoint


def recognize(path: Path, weights: Weights, is_ijcv: bool = False, best_threshold: float | None = None) -> Checkpoint:
    """What a file is for, by its names and shapes; the weights of a BAS model are made sound.

    Raises:
        UserError: they cannot be: not finite, or no numbers to compute with.
    """
    state = weights.state
    arch = next((arch for arch, row in BACKBONES.items() if row.landmark in state), None)
    if arch is not None:
        try:
            state = sound_weights(state)
        except ValueError as error:
            raise UserError(f"{path} {error}; take an earlier checkpoint, or another one") from error
    generator = state.get(GENERATOR_KEY)
    return Checkpoint(
        path=path,
        state=state,
        arch=arch,
        num_classes=generator.shape[0] if generator is not None and generator.ndim == 4 else None,
        is_ijcv=is_ijcv,
        dropped=weights.dropped,
        best_threshold=best_threshold,
        unwrapped=weights.unwrapped,
    )


def _share(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last of a tensor that is no scalar
        return None
    return number if 0 <= number <= 1 else None


def require_arch(checkpoint: Checkpoint, arch: str) -> None:
    """UserError if a checkpoint is of another backbone than `arch`, or of none."""
    if checkpoint.arch is None or checkpoint.num_classes is None:
        raise UserError(f"{checkpoint.path} holds no BAS model; its keys belong to none of the four backbones")
    if checkpoint.arch != arch:
        hint = f"give --arch {checkpoint.arch} or another file"
        raise UserError(f"{checkpoint.path} holds {checkpoint.description}, not {arch}; {hint}")


def apply_weights(model: BAS, checkpoint: Checkpoint, *, assign: bool = False) -> None:
    """Loads a cleaned checkpoint strictly.

    Args:
        model: where to.
        checkpoint: what.
        assign: whether the model takes the checkpoint's own tensors, as a model on the meta device must.

    Raises:
        UserError: the file is for another backbone, data set or head; says which, or which keys and shapes differ.
    """
    if (checkpoint.arch, checkpoint.num_classes) != (model.arch, model.num_classes):
        wanted = describe(model.arch, model.num_classes)
        raise UserError(f"{checkpoint.path} holds {checkpoint.description}, but the model is {wanted}")
    if wrong := differences(model.state_dict(), checkpoint.state):
        raise UserError(f"{checkpoint.path} does not fit the model: {wrong}")
    model.load_state_dict(checkpoint.state, assign=assign)


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


def differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], most: int = 4) -> str:
    """Missing, unexpected and differently shaped entries of a state dict, the first few by name; "" without any."""

    def some(items: list[str]) -> str:
        return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")

    missing = [f"{key} {list(value.shape)}" for key, value in expected.items() if key not in found]
    unexpected = [f"{key} {list(value.shape)}" for key, value in found.items() if key not in expected]
    shapes = [
        f"{key} {list(found[key].shape)} instead of {list(value.shape)}"
        for key, value in expected.items()
        if key in found and found[key].shape != value.shape
    ]
    parts = [("missing", missing), ("unexpected", unexpected), ("other shape", shapes)]
    return "; ".join(f"{name}: {some(items)}" for name, items in parts if items)


def save_weights(model: BAS, path: str | Path) -> Path:
    """Saves a plain state dict under the published keys, by write-then-rename.

    The legacy format keeps it readable for the authors' own environment (PyTorch 1.4), which knows no zip files.

    Returns:
        `path`.
    """
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    return write_atomically(path, lambda file: torch.save(state, file, _use_new_zipfile_serialization=False))
