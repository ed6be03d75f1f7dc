"""Weights, pictures and numbers that anyone can regenerate: the ground on which the authors' code was measured.

`tests/reference/golden/<dataset>_<arch>.json` holds what the authors' code gave for these weights and pictures on the
CPU; `tests/reference/keys/` every key and shape of their eight released checkpoints.
"""

from __future__ import annotations

import json
import math
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

REFERENCE = Path(__file__).parent / "reference"
PAIRS = [(dataset, arch) for dataset in ("CUB", "ILSVRC") for arch in ("vgg", "mobilenet", "resnet", "inception")]


@cache
def golden(dataset: str, arch: str) -> dict:
    """What the authors' code gave for this pair."""
    return json.loads((REFERENCE / "golden" / f"{dataset}_{arch}.json").read_text())


@cache
def published_keys(dataset: str, arch: str) -> dict[str, list[int]]:
    """Key -> shape of the released checkpoint, in the file's order."""
    return json.loads((REFERENCE / "keys" / f"{dataset}_{arch}.json").read_text())


@cache  # the data sets share trunks; nobody may write to what is returned
def draw(key: str, shape: tuple[int, ...]) -> Tensor:
    """The reference value of one state-dict entry; it depends on its key (without `module.`) and shape alone."""
    random = np.random.RandomState(zlib.crc32(key.encode()))
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    if key.endswith("running_mean"):
        value = 0.1 * random.standard_normal(shape)
    elif key.endswith("running_var"):
        value = random.uniform(0.5, 1.5, shape)
    elif len(shape) >= 2:
        value = random.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))
    elif key.endswith("weight"):
        value = random.uniform(0.5, 1.5, shape)
    else:
        value = 0.05 * random.standard_normal(shape)
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


def fill(model: nn.Module) -> nn.Module:
    """Gives `model` the reference weights."""
    model.load_state_dict({key: draw(key, tuple(value.shape)) for key, value in model.state_dict().items()})
    return model


def batch(seed: int, num_classes: int, count: int = 4) -> tuple[Tensor, Tensor]:
    """Reference pictures (count, 3, 224, 224) and labels (count,)."""
    random = np.random.RandomState(seed)
    images = torch.from_numpy(random.standard_normal((count, 3, 224, 224)).astype(np.float32))
    return images, torch.from_numpy(random.randint(0, num_classes, (count,)))
