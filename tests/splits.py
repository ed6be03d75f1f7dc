"""Small splits of noise pictures, for the tests of what reads them."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from utils.data.split import Split

CPU = torch.device("cpu")


def make_split(folder, count=5, **changes):
    """A split of `count` noise pictures of different sizes; labels 0, 1, 2, 0, ..."""
    random = np.random.RandomState(0)
    paths = []
    for index in range(count):
        pixels = random.randint(0, 256, (30 + index, 40 + 2 * index, 3), dtype=np.uint8)
        paths.append(folder / f"{index}.png")
        Image.fromarray(pixels).save(paths[-1])
    fields = {
        "name": "train",
        "layout": "a test",
        "ids": tuple(str(path.name) for path in paths),
        "paths": tuple(paths),
        "labels": np.arange(count, dtype=np.int64) % 3,
        "boxes": {},
        "class_names": ("a", "b", "c"),
        "masks": {},
    }
    return Split(**(fields | changes))


def spoil(split, index):
    """Cuts a picture of the split short."""
    content = split.paths[index].read_bytes()
    split.paths[index].write_bytes(content[: len(content) // 2])
    return str(split.paths[index])
