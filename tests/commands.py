"""What the tests of the commands share: tiny data sets, calls as from a shell, what is printed and written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import train
from tests.reference_weights import draw, published_keys
from tests.test_checkpoints import STALE
from tests.test_cub_data import write_lines
from utils.data.dataset import Dataset
from utils.inference import command
from utils.system.errors import run_command

ROOT = Path(__file__).parents[1]
AS_IN_THE_PAPER = {"name": "cvpr", "tap": None, "same_padding": False, "coarse_features": False, "plain_heads": False}
SIZES = ["--resize_size", "64", "--crop_size", "48", "--num_workers", "0"]
TINY = ["--arch", "mobilenet", "--batch_size", "4", *SIZES]
AS_PUBLISHED = [*TINY, "--no-adapt_recipe"]  # the paper's recipe, for three classes as well
# The published heads hold six sevenths of the network's weights; commands, files and pictures are the same without.
SMALL_HEADS = ["--plain_heads", "--no-final_relu"]
TRAINING = [*AS_PUBLISHED, *SMALL_HEADS]
OWN_TRAINING = [*TINY, *SMALL_HEADS]
# class, is_train, box x0 y0 x1 y1 of the 64 x 64 pictures
WHOLE, SMALL = (0, 0, 63, 63), (20, 20, 30, 30)
PICTURES = [(label, True, WHOLE) for label in (0, 1, 2, 0, 1, 2, 0, 1)] + [(0, False, WHOLE), (1, False, SMALL)] * 2
# Five classes, 5 pictures for training and 7 for testing, with boxes of many sizes.
BOXES = [(6 + i, 8 + i // 2, 58 - i, 60 - 2 * i) if i % 2 else (10 + 2 * i, 30 - i, 44 + i, 60) for i in range(12)]
NOISE = [(i % 5, i < 5, box) for i, box in enumerate(BOXES)]
BEST = (30, 10, 40, 50, 90)  # classes of CUB, the most probable one first
# What every run leaves besides its states and weights.
RUN_FILES = {"settings.json", "log.jsonl", "curves.png", "evaluation.json", "states/index.json"}
METRICS = {
    "Top-1 Loc": "top1_loc",
    "Top-5 Loc": "top5_loc",
    "GT-known Loc": "gt_known_loc",
    "Top-1 Cls": "top1_cls",
    "Top-5 Cls": "top5_cls",
}


def save_noise(path: Path, seed: int) -> None:
    """A 64 x 64 picture of coloured noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((64, 64)).save(path, format="PNG")


def make_cub(root: Path, pictures, num_classes: int) -> Path:
    """The owners' layout."""
    names = [f"{label + 1:03}.Class/{key}.jpg" for key, (label, *_) in enumerate(pictures, start=1)]
    for seed, name in enumerate(names):
        save_noise(root / "images" / name, seed)
    rows = list(enumerate(pictures, start=1))
    write_lines(root / "images.txt", [f"{key} {name}" for key, name in enumerate(names, start=1)])
    write_lines(root / "image_class_labels.txt", [f"{key} {label + 1}" for key, (label, _, _) in rows])
    write_lines(root / "train_test_split.txt", [f"{key} {int(is_train)}" for key, (_, is_train, _) in rows])
    boxes = [f"{key} {x0} {y0} {x1 - x0} {y1 - y0}" for key, (_, _, (x0, y0, x1, y1)) in rows]
    write_lines(root / "bounding_boxes.txt", boxes)
    write_lines(root / "classes.txt", [f"{label + 1} {label + 1:03}.Class" for label in range(num_classes)])
    return root


def make_ilsvrc(root: Path, pictures, num_classes: int) -> Path:
    """Class folders for training, a flat val/ with Kaggle's boxes."""
    rows = ["ImageId,PredictionString"]
    for seed, (label, is_train, box) in enumerate(pictures):
        wnid = f"n{label:08}"
        save_noise(root / (f"train/{wnid}" if is_train else "val") / f"picture_{seed}.JPEG", seed)
        if not is_train:
            rows.append(f"picture_{seed},{wnid} {' '.join(map(str, box))} ")
    write_lines(root / "LOC_val_solution.csv", rows)
    write_lines(root / "LOC_synset_mapping.txt", [f"n{label:08} a name" for label in range(num_classes)])
    return root


MAKE = {"CUB": make_cub, "ILSVRC": make_ilsvrc}


def shell(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`cd folder && python arguments`."""
    command = [sys.executable, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def call(main: Callable[[], None]) -> int:
    """The exit code of a command that is run in this process."""
    try:
        return run_command(main)
    except SystemExit as stop:  # argparse's way out
        return stop.code


def run_training(*arguments: object) -> int:
    return call(lambda: train.main([str(argument) for argument in arguments]))


def run_inference(dataset: str | Dataset, *arguments: object) -> int:
    argv = [str(argument) for argument in arguments]
    which = dataset if isinstance(dataset, Dataset) else train.DATASETS[dataset]
    return call(lambda: command.run(which, argv))


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


def read_log(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def run_files(run: Path) -> set[str]:
    """The files of a run, but for those of TensorBoard, which need not be installed."""
    names = {file.relative_to(run).as_posix() for file in run.rglob("*") if file.is_file()}
    return {name for name in names if not name.startswith("tensorboard/")}


def printed_scores(output: str) -> dict[str, list[float]]:
    """The rows of the printed table."""
    lines = output.splitlines()
    rows = {title: next(line for line in lines if line.startswith(title)) for title in METRICS}
    return {METRICS[title]: [float(word) for word in row.removeprefix(title).split()] for title, row in rows.items()}


def rounded(scores: dict) -> dict[str, list[float]]:
    return {
        metric: [round(scores[metric]["class_mean"], 2), round(scores[metric]["image_mean"], 2)]
        for metric in METRICS.values()
    }


def assert_one_sentence(err: str, *words: str) -> None:
    assert err.startswith("error: ") and err.count("\n") == 1 and "Traceback" not in err, err
    for word in words:
        assert word in err


def constant_state(dataset: str, arch: str, scores: dict[int, float], others: float) -> dict[str, torch.Tensor]:
    """A released file's keys and shapes for a net that sees nothing: each class has its score, each map is flat.

    All is zero but the last bias of the classifier head. The stale copies are NaN: whoever reads them finds out.
    """
    state = {}
    for key, shape in published_keys(dataset, arch).items():
        value = torch.zeros((), dtype=torch.int64 if key.endswith("num_batches_tracked") else torch.float32)
        if key.startswith(STALE) and value.is_floating_point():
            value.fill_(float("nan"))
        state[key] = value.expand(shape)
        if key.removeprefix("module.") in ("classifier_cls.4.bias", "classifier.4.bias"):
            state[key] = torch.full(shape, others)
            for label, score in scores.items():
                state[key][label] = score
    return state


def write_random_net(path: Path, num_classes: int, arch: str = "mobilenet", dataset: str = "CUB") -> Path:
    """A checkpoint of reference weights, whose maps have hills and valleys."""
    with torch.device("meta"):
        model = train.DATASETS[dataset].build(arch, num_classes, final_relu=False)
    torch.save({key: draw(key, tuple(value.shape)) for key, value in model.state_dict().items()}, path)
    settings = {"final_relu": False, "threshold": 0.6, "top_k": 2, "resize_size": 64, "crop_size": 48}
    names = [f"bird {number}" for number in range(num_classes)]
    content = {"weights": path.name, "recipe": settings, "class_names": names}
    path.with_name("settings.json").write_text(json.dumps(content))
    return path
