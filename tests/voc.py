"""Six pictures in PASCAL VOC's layout, for the tests of what reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.test_cub_data import write_lines
from train import DATASETS
from utils.datasets.voc.DataLoader import CLASSES
from utils.metrics.segmentation import IGNORED
from utils.segmentation.store import save_mask

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
