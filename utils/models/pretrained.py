"""ImageNet initialisation: torchvision's weights by name, MobileNetV1's by name or by checked order."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torchvision.models import Inception_V3_Weights, ResNet50_Weights, VGG16_Weights

from utils.checkpoint import clean_state, differences, load_file
from utils.errors import UserError
from utils.models.bas import BAS

TORCHVISION_WEIGHTS = {
    "vgg": VGG16_Weights.IMAGENET1K_V1,
    "resnet": ResNet50_Weights.IMAGENET1K_V1,
    "inception": Inception_V3_Weights.IMAGENET1K_V1,
}
SHIPPED_MOBILENET = Path(__file__).parents[1] / "weights" / "mobilenet_v1_imagenet.pth"

# Parts of an ImageNet net that BAS has no use for; anything else that does not fit is refused.
NOT_IN_BAS = ("classifier.", "fc.", "AuxLogits.")


def load_imagenet(model: BAS, source: str = "auto") -> str:
    """Initialises the trunk with ImageNet weights; both heads keep their random values.

    Args:
        model: a BAS model.
        source: `auto` (torchvision's weights, downloaded once by torchvision; the shipped file for MobileNetV1),
            `none`, or the path of a file in torchvision's names, in this repository's, or, for MobileNetV1, the
            authors' sequential net.

    Returns:
        One line that says what was loaded, renamed and left out.

    Raises:
        UserError: the download failed, or the file does not fit; names the differing keys and shapes.
    """
    if source == "none":
        return "ImageNet weights: none, the whole model starts from random values"
    state, origin = _read(model.arch, source)
    trunk = {
        key: value
        for key, value in model.state_dict().items()
        if not key.startswith("classifier") and not key.endswith("num_batches_tracked")
    }
    wanted, left_out = _split(state, trunk)
    renamed = _rename(model.arch, wanted, trunk)
    _require_fit(origin, renamed, trunk)
    model.load_state_dict(renamed, strict=False)  # strict for the trunk by the line above; heads stay random
    return _report(origin, wanted, renamed, left_out)


def _read(arch: str, source: str) -> tuple[dict[str, Tensor], str]:
    if source != "auto":
        path = Path(source)
    elif arch == "mobilenet":
        path = SHIPPED_MOBILENET
    else:
        return _download(arch)
    try:
        return clean_state(load_file(path, "give the ImageNet weights with --pretrained, or auto or none"))[0], str(
            path
        )
    except ValueError as error:
        raise UserError(f"--pretrained {path}: {error}") from error


def _download(arch: str) -> tuple[dict[str, Tensor], str]:
    weights = TORCHVISION_WEIGHTS[arch]
    try:
        return dict(
            weights.get_state_dict(progress=sys.stderr.isatty(), check_hash=True, weights_only=True)
        ), weights.url
    except Exception as error:  # networks fail in many ways, and a damaged file in torch's cache in any way whatever
        raise UserError(
            f"the ImageNet weights {weights.url} cannot be had ({error}); "
            "give a local copy with --pretrained FILE, or --pretrained none to start from random values"
        ) from error


def _split(state: Mapping[str, Tensor], trunk: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Parts the file into what BAS may want and what it has no use for."""
    left_out = [
        key for key in state if key not in trunk and (key.startswith(NOT_IN_BAS) or key.endswith("num_batches_tracked"))
    ]
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
    found = {key: tuple(value.shape) for key, value in state.items()}
    expected = {key: tuple(value.shape) for key, value in trunk.items()}
    if found != expected:
        raise UserError(f"--pretrained: {origin} does not fit this backbone: {differences(expected, found)}")
    broken = next((key for key, value in state.items() if not torch.isfinite(value).all()), None)
    if broken:
        raise UserError(f"--pretrained: {origin} holds NaN or infinite weights in {broken}")


def _report(origin: str, found: Mapping[str, Tensor], loaded: Mapping[str, Tensor], left_out: list[str]) -> str:
    pairs = zip(found, loaded, strict=True)
    first = next((f"{theirs} -> {ours}" for theirs, ours in pairs if theirs != ours), None)
    names = f"renamed in order ({first}, ...)" if first else "by name"
    counted = [key for key in left_out if not key.endswith("num_batches_tracked")]
    parts = sorted({key.split(".")[0] for key in counted})
    dropped = f"left out {len(counted)} of {', '.join(parts)}" if counted else "nothing left out"
    return f"ImageNet weights: {len(loaded)} tensors from {origin}, {names}, {dropped}; both heads start at random"
