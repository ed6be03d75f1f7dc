"""What a training starts from: ImageNet weights, torchvision's by name, MobileNetV1's by name or by checked order; or a
BAS model's."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from utils.models.bas import BAS
from utils.models.checkpoint import (
    COUNTER,
    GENERATOR_KEY,
    Checkpoint,
    Weights,
    clean_state,
    differences,
    load_file,
    recognize,
    require_arch,
    sound_weights,
)
from utils.models.registry import BACKBONES
from utils.system.errors import UserError

SHIPPED = Path(__file__).parents[1] / "weights"

# Parts of an ImageNet net that BAS has no use for; anything else that does not fit is refused.
NOT_IN_BAS = ("classifier.", "fc.", "AuxLogits.")


def load_imagenet(model: BAS, source: str = "auto") -> str:
    """Initialises the trunk with ImageNet weights, and both heads keep their random values; or with a BAS model's.

    Args:
        model: a BAS model.
        source: `auto` (torchvision's weights, downloaded once by torchvision; the shipped file for MobileNetV1),
            `none`, or the path of a file in torchvision's names, in this repository's, or, for MobileNetV1, the
            authors' sequential net. Of a BAS model, released or trained here, of any number of classes, a head is taken
            along where its shapes are the model's.

    Returns:
        One line that says what was loaded, unwrapped, renamed and left out.

    Raises:
        UserError: the download failed, or the file does not fit; names the differing keys and shapes.
    """
    if source == "none":
        return "ImageNet weights: none, the whole model starts from random values"
    weights, origin = _read(model.arch, source)
    trunk = {
        key: value
        for key, value in model.state_dict().items()
        if not key.startswith("classifier") and not key.endswith(COUNTER)
    }
    if GENERATOR_KEY in weights.state:
        return _load_bas(model, trunk, recognize(Path(source), weights))
    wanted, left_out = _split(weights.state, trunk)
    renamed = _rename(model.arch, wanted, trunk)
    _require_fit(origin, renamed, trunk)
    try:
        # Strict for the trunk by the line above; heads stay random.
        model.load_state_dict(sound_weights(renamed), strict=False)
    except ValueError as error:
        raise UserError(f"--pretrained: {origin} {error}; give another file") from error
    return _report(origin + weights.unwrapped, wanted, renamed, left_out)


def _load_bas(model: BAS, trunk: Mapping[str, Tensor], checkpoint: Checkpoint) -> str:
    require_arch(checkpoint, model.arch)
    parts: dict[str, dict[str, Tensor]] = {"trunk": {}, "classifier head": {}, "generator": {}}
    for key, value in checkpoint.state.items():
        first, _, rest = key.partition(".")
        if first in ("classifier_cls", "classifier"):  # the backbones' and data sets' files differ in its name
            parts["classifier head"][rest] = value
        elif first == "classifier_loc":
            parts["generator"][rest] = value
        elif not key.endswith(COUNTER):
            parts["trunk"][key] = value
    _require_fit(str(checkpoint.path), parts["trunk"], trunk)
    model.load_state_dict(parts["trunk"], strict=False)
    kept = []
    for name, head in (("classifier head", model.head), ("generator", model.classifier_loc)):
        if not differences(head.state_dict(), parts[name]):
            head.load_state_dict(parts[name])
            kept.append(name)
    anew = [name for name in ("classifier head", "generator") if name not in kept]
    heads = [f"kept: {', '.join(kept)}"] if kept else []
    heads += [f"at random, for the shapes differ: {', '.join(anew)}"] if anew else []
    return (
        f"BAS weights: {len(trunk)} tensors of the trunk from {checkpoint.path}{checkpoint.unwrapped}, "
        f"{checkpoint.description}; {'; '.join(heads)}"
    )


def _read(arch: str, source: str) -> tuple[Weights, str]:
    name = BACKBONES[arch].imagenet
    path = SHIPPED / name if source == "auto" else Path(source)
    if source == "auto" and not path.is_file():
        return _download(name)
    content = load_file(path, "give the weights to start from with --pretrained, or auto or none")
    try:
        return clean_state(content), str(path)
    except ValueError as error:
        raise UserError(f"--pretrained {path}: {error}") from error


def _download(name: str) -> tuple[Weights, str]:
    from torchvision.models import get_weight  # here, since the import takes a second

    weights = get_weight(name)
    try:
        state = weights.get_state_dict(progress=sys.stderr.isatty(), check_hash=True, weights_only=True)
        return Weights(dict(state)), weights.url
    except Exception as error:  # networks fail in many ways, and a damaged file in torch's cache in any way whatever
        raise UserError(
            f"the ImageNet weights {weights.url} are not available ({error}); "
            "give a local copy with --pretrained FILE, or --pretrained none to start from random values"
        ) from error


def _split(state: Mapping[str, Tensor], trunk: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Parts the file into what BAS may want and what it has no use for."""
    left_out = [key for key in state if key not in trunk and (key.startswith(NOT_IN_BAS) or key.endswith(COUNTER))]
    return {key: value for key, value in state.items() if key not in left_out}, left_out


def _rename(arch: str, state: Mapping[str, Tensor], trunk: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if state.keys() & trunk.keys():
        return dict(state)
    in_order = arch == "mobilenet" or (arch == "vgg" and all(key.startswith("features.") for key in state))
    if in_order and len(state) == len(trunk):
        # Both are plain sequences of the same layers; _require_fit then checks the shapes one by one.
        return dict(zip(trunk, state.values(), strict=True))
    return dict(state)


def _require_fit(origin: str, state: Mapping[str, Tensor], trunk: Mapping[str, Tensor]) -> None:
    if wrong := differences(trunk, state):
        raise UserError(f"--pretrained: {origin} does not fit this backbone: {wrong}")


def _report(origin: str, found: Mapping[str, Tensor], loaded: Mapping[str, Tensor], left_out: list[str]) -> str:
    pairs = zip(found, loaded, strict=True)
    first = next((f"{theirs} -> {ours}" for theirs, ours in pairs if theirs != ours), None)
    names = f"renamed in order ({first}, ...)" if first else "by name"
    counted = [key for key in left_out if not key.endswith(COUNTER)]
    parts = sorted({key.split(".")[0] for key in counted})
    dropped = f"left out {len(counted)} of {', '.join(parts)}" if counted else "nothing left out"
    return f"ImageNet weights: {len(loaded)} tensors from {origin}, {names}, {dropped}; both heads start at random"
