"""Tries every command with bad input of every kind: `python -m tests.bad_inputs`.

Each option of each parser gets values that are bad for its type; each file that a command reads is damaged in many
ways. Every case is a call of the command's own entry, in a process of its own on a copy of tiny data, as a user
without root's rights. Good is one sentence that names the option or file, with exit code 2 for wrong usage and 1 for
a failure. Printed are counts by command and kind, and each case that is anything else; after a traceback or a hang
the exit code is 1:

traceback    an exception that nobody caught, or the end by a signal
hang         not done within the time limit
code         another exit code than 1 or 2, or one that the kind of case should not have
unnamed      the sentence names neither the option nor the file, or there is no sentence, or more than one
silent       exit code 0 and not a word
told         exit code 0, but a line names the file: a picture passed over, a state replaced by the one before it
same         exit code 0 and the very output of good input: a byte order mark, a blank line
fine         exit code 0 for a reason that is given here

`--only REGEX` runs the cases whose name (command, kind, case) it matches.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import redirect_stdout, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple, TextIO
from unittest.mock import patch

import cv2
import numpy as np
import torch
from PIL import Image

import CUB
import CUB.DataLoader
import ILSVRC
import train
from Img import __main__ as figures
from tests import damage
from tests.commands import PICTURES, call, make_cub, make_ilsvrc, save_noise
from tests.damage import Damage
from tests.isolated import UNCAUGHT, Outcome, obey_permissions, run_isolated
from tests.test_cub_data import write_lines
from tests.test_option_values import COMMANDS as PARSERS
from tests.test_option_values import options_of
from utils.data.download import calculate_md5
from utils.demo import ablation
from utils.demo import compose as demo
from utils.demo.compose import compose
from utils.exploratory import __main__ as exploratory
from utils.inference.command import run as infer
from utils.system.options import Name, Place

CLASSES = 3
MEMORY = "/dev/shm"  # each run that is not refused writes a state of 180 MB and waits until it is on the disk
SIZES = ("--resize_size", "40", "--crop_size", "32", "--num_workers", "0", "--device", "cpu")
ARCH = ("--arch", "mobilenet")
TRAIN = (*ARCH, "--root", "data", "--save_path", "new", "--epochs", "1", "--batch_size", "4", *SIZES)
RESUME = (
    *ARCH,
    "--root",
    "data",
    "--save_path",
    "unfinished",
    "--epochs",
    "2",
    "--batch_size",
    "4",
    *SIZES,
    "--resume",
)
DEMO = ("--save_path", "demo", "--epochs", "2", "--warmup_epochs", "1", *SIZES)
WEIGHTS = "run/mobilenet/mobilenet0.pth.tar"
INFER = (*ARCH, "--checkpoint", WEIGHTS, "--no-tencrop", *SIZES)
RELEASED = "released/net.pth.tar"
CALIBRATED = (*ARCH, "--checkpoint", RELEASED, "--no-tencrop", *SIZES, "--data", "data", "--align_maps", "calibrated")
DRAW = ("--run", "run", "--data", "data", "--save", "drawn", "--device", "cpu")
EXPLORE = (*DRAW[:4], "--save", "measured", "--at", "class_maps", "--masks", "4", "--device", "cpu")
SCORED = {"top1_loc", "top5_loc", "gt_known_loc", "top1_cls", "top5_cls"}

# Started in place of train.py by the grid; leaves results as a demo does.
STAND_IN = """
import json, sys
from pathlib import Path
folder = Path(sys.argv[sys.argv.index("--save_path") + 1])
scores = {"images": 216, **{name: {"image_mean": 1.0, "class_mean": 1.0} for name in SCORED}}
results = {"scores": {kind: scores for kind in ("bas", "cam", "center")}}
results["top_k"] = [{"k": k, "threshold": 0.5, "scores": scores} for k in (1, 2, 4, 8, 12)]
(folder / "results.json").write_text(json.dumps(results))
""".replace("in SCORED", f"in {sorted(SCORED)}")

MAINS: dict[str, Callable[[list[str]], None]] = {
    "train": train.main,
    "train --demo": lambda argv: train.main(["--demo", *argv]),
    "CUB/BAS_inference": lambda argv: infer(CUB.DATASET, argv),
    "ILSVRC/BAS_inference": lambda argv: infer(ILSVRC.DATASET, argv),
    "figures": figures.main,
    "exploratory": exploratory.main,
    "ablation": ablation.main,
}
# Calls that succeed, of which bad options and files make bad ones; relative to a case's folder.
GOOD: dict[str, tuple[str, tuple[str, ...]]] = {
    "train": ("train", TRAIN),
    "train --resume": ("train", RESUME),
    "train class folders": ("train", (*TRAIN[:2], "--dataset-dir", "folders", *TRAIN[4:])),
    "train ILSVRC": ("train", ("--dataset", "ILSVRC", *TRAIN[:2], "--root", "csv", *TRAIN[4:])),
    "train --pretrained": ("train", (*TRAIN, "--pretrained", WEIGHTS)),
    "train --download": ("train", (*TRAIN[:2], "--root", "fetched", "--download", *TRAIN[4:])),
    "train --demo": ("train --demo", DEMO),
    "evaluate CUB": ("CUB/BAS_inference", (*INFER, "--data", "data")),
    "evaluate authors' CUB": ("CUB/BAS_inference", (*INFER, "--data", "authors")),
    "evaluate --images": ("CUB/BAS_inference", (*INFER, "--images", "pictures")),
    "evaluate --map-files": ("CUB/BAS_inference", (*INFER, "--data", "data", "--map-files", "maps")),
    "evaluate calibrated": ("CUB/BAS_inference", CALIBRATED),
    "evaluate --classes": ("CUB/BAS_inference", (*INFER, "--data", "data", "--classes", "names.txt")),
    "evaluate ILSVRC": ("ILSVRC/BAS_inference", (*INFER, "--data", "csv")),
    "evaluate ILSVRC's XML": ("ILSVRC/BAS_inference", (*INFER, "--data", "xml")),
    "evaluate authors' ILSVRC": ("ILSVRC/BAS_inference", (*INFER, "--data", "lists")),
    "evaluate class folders": ("CUB/BAS_inference", (*INFER, "--dataset-dir", "folders")),
    "evaluate metadata": ("CUB/BAS_inference", (*INFER, "--dataset-dir", "metadata")),
    "evaluate metadata's masks": ("CUB/BAS_inference", (*INFER, "--dataset-dir", "masked")),
    "figures": ("figures", (*DRAW, "--only", "accuracy")),
    "figures of results": ("figures", (*DRAW, "--only", "result", "growth")),
    "figures of a demo": ("figures", ("--run", "demo", *DRAW[4:], "--only", "accuracy")),
    "exploratory": ("exploratory", EXPLORE),
    "ablation": ("ablation", ("--save_path", "grid", "--seeds", "0", "--cells", "all")),
}
OPTIONS = {
    "train": "train",
    "train --demo": "train --demo",
    "evaluate CUB": "evaluate",
    "evaluate ILSVRC": "evaluate --sweep",
    "figures of results": "figures",
    "exploratory": "exploratory",
    "ablation": "ablation",
}


class Case(NamedTuple):
    """One call with bad input.

    Attributes:
        good: of GOOD, the call that it spoils.
        kind: of input, as the table counts it.
        name: what is bad.
        more: further arguments.
        spoil: what is done before to the file of this path below the case's folder.
        path: of that file.
        told: words of which the sentence has to hold one.
        codes: exit codes of a refusal.
    """

    good: str
    kind: str
    name: str
    more: tuple[str, ...] = ()
    spoil: Damage | None = None
    path: str = ""
    told: tuple[str, ...] = ()
    codes: tuple[int, ...] = (1,)

    @property
    def title(self) -> str:
        return f"{self.good} | {self.kind} | {self.name}"


# --- cases of options

NUMBERS = ("", "abc", "-1", "0", "nan", "inf", "1e20", "1e-400", "0.5", damage.HUGE)
WORDS = ("", "abc", "0", damage.HUGE, "\udcff")
ODD_PATHS = {
    "missing": "nowhere/at/all",
    "a folder": "odd/folder",
    "a file": "names.txt",
    "below a file": "names.txt/x",
    "empty file": "odd/empty",
    "random bytes": "odd/random",
    "a FIFO": "odd/fifo",
    "a device": "odd/zero",
    "a loop of links": "odd/loop",
    "a link to nowhere": "odd/dangling",
    "no permission": "odd/locked",
    "a folder without permission": "odd/locked_folder",
    "a full disk": "/dev/full",
    "a name that is no Unicode": "odd/\udcff",
    "a name that is too long": "a" * 5000,
    "a name": "abc",
    "empty": "",
}

LEADS_TO = {"a device": "/dev/zero"}  # which a message may name instead


def option_cases() -> Iterator[Case]:
    """Every option of every parser with values that are bad for its type."""
    for good, parser in OPTIONS.items():
        actions = options_of(PARSERS[parser])
        known = {name for action in actions for name in action.option_strings}
        for action in actions:
            names = tuple(action.option_strings)
            name = names[0]
            told = (*names, action.dest)
            if action.nargs == 0:
                kind, values = "flag", {value: value for value in ("", "1", "no")}
            elif action.choices is not None:
                kind, values = "choice", {value[:20]: value for value in WORDS}
            elif isinstance(action.type, Name | Place):
                kind, values = "path or name", ODD_PATHS
            else:
                # The demo's run of a value that is taken is a long one, and the parser is the same.
                numbers = NUMBERS if good != "train --demo" else NUMBERS[:3]
                kind, values = "number", {value[:20]: value for value in numbers}
            codes = (1, 2) if kind == "path or name" else (2,)
            for title, value in values.items():
                shown = f"{name}={title!r}"
                yield Case(
                    good,
                    f"option: {kind}",
                    shown,
                    (f"{name}={value}",),
                    told=(*told, value or name, LEADS_TO.get(title, name)),
                    codes=codes,
                )
            for other in names[1:]:
                yield Case(good, "option: alias", f"{other}=", (f"{other}=",), told=told, codes=(2,))
            if name[:-1] not in known:
                yield Case(good, "option: abbreviated", name[:-1], (name[:-1], "1"), told=(name[:-1],), codes=(2,))
            if action.nargs is None:
                yield Case(good, "option: without a value", name, (name,), told=told, codes=(2,))
            yield Case(good, "option: misspelt", f"{name}x", (f"{name}x", "1"), told=(f"{name}x",), codes=(2,))
            given = dict(zip(GOOD[good][1], GOOD[good][1][1:], strict=False))
            if name in given:
                yield Case(good, "option: twice", name, (name, given[name]), told=told, codes=(2,))
        for word in ("word", "-", "--", "-x", "--=", "--no-", "", "\udcff", "@names.txt"):
            yield Case(good, "argument", repr(word), (word,), told=(word or "''", "arguments"), codes=(2,))


CONTRADICTIONS: dict[str, list[str]] = {
    "train": [
        "--gpu 0",
        "--demo",
        "--top_ks 3",
        "--dataset-dir folders",
        "--resume unfinished --pretrained none",
        "--lr_steps 3 3",
        "--download --dataset ILSVRC",
        "--crop_size 64",
        "--warmup_epochs 1",
        "--warmup_epochs 5",
        "--cls_weight 0 --frg_weight 0 --bas_weight 0 --area_weight 0",
        "--tap nowhere",
        "--dataset ILSVRC",
        "--grad_accum 3",
        "--resume auto --resume new",
        "--device cuda",
        "--device meta",
        "--device cpu:7",
        "--amp fp16",
        "--sync_bn",
        "--num_workers 4 --prefetch 65",
        "--snapshot 1000000000",
        "--top_k 1000000000",
        "--lr 1e300",
        "--batch_size 1000000000",
        "--arch vgg --pretrained run/mobilenet/mobilenet0.pth.tar",
        "--recipe ijcv --dataset ILSVRC",
    ],
    "evaluate CUB": [
        "--dataset-dir folders",
        "--images pictures",
        "--compare bas bas",
        "--compare bas --map cam",
        "--vis 2 --map-files maps",
        "--select-on train --threshold 0.5",
        "--select-on val",
        "--top-ks 3",
        "--sweep --compare cam --top-ks 3",
        "--crop_size 64",
        "--arch vgg",
        "--arch resnet",
        "--amp",
        "--tap nowhere",
        "--classes names.txt --data csv",
        "--data csv",
        "--data xml",
        "--dataset-dir data --data data",
        "--json new --save new",
        "--save run",
        "--save-maps names.txt",
        "--json run",
        "--protocol wsolevaluation --select-on test",
        "--final_relu --no-final_relu",
        "--tencrop --no-tencrop",
        "--compare",
        "--map-files odd/folder",
    ],
    "figures of results": [
        "--only",
        "--only accuracy network",
        "--run demo --data csv",
        "--frames 1",
        "--run unfinished",
    ],
    "exploratory": [
        "--arch vgg",
        "--dataset CUB",
        "--examples nobody.jpg",
        "--examples 1 2 3 4 5 6 7 8 9",
        "--masks 2",
        "--images 0",
        "--run data",
        "--data csv",
        "--data folders",
    ],
    "ablation": [
        "-- --epochs",
        "-- --see 5",
        "-- --seed 5",
        "--seeds",
        "--seeds 1 1",
        "--cells",
        "-- word",
        "-- --lr nan",
    ],
    "train --resume": [
        "--batch_size 8",
        "--crop_size 40 --resize_size 48",
        "--arch vgg",
        "--epochs 1",
        "--lr 0.5",
        "--seed 9",
        "--root csv",
        "--root folders",
        "--dataset ILSVRC",
        "--snapshot 1",
        "--amp bf16",
        "--recipe ijcv",
        "--resume nowhere.pth.tar",
        f"--resume {WEIGHTS}",
        "--resume unfinished/mobilenet/states/index.json",
    ],
}


def contradiction_cases() -> Iterator[Case]:
    """Options that are good alone, and bad with the others or with the data."""
    for good, lines in CONTRADICTIONS.items():
        for line in lines:
            told = tuple(word for word in (*GOOD[good][1], *line.split()) if word.startswith("--") and word != "--")
            told += tuple(word for word in line.split() if not word.startswith("-") and not word.isdigit())
            yield Case(good, "options together", line, tuple(line.split()), told=told, codes=(1, 2))


# --- cases of files


def file_cases(home: Path) -> Iterator[Case]:
    """Every file that a command reads, damaged in every way of its kind."""
    lists = {
        "evaluate CUB": [f"data/{name}.txt" for name in CUB_LISTS],
        "train": [f"data/{name}.txt" for name in CUB_LISTS],
        "evaluate authors' CUB": ["authors/test_list.txt", "authors/test_gt.txt"],
        "evaluate ILSVRC": ["csv/LOC_val_solution.csv", "csv/LOC_synset_mapping.txt"],
        "evaluate authors' ILSVRC": ["lists/val_gt.txt", "lists/val_list.txt"],
        "evaluate ILSVRC's XML": [next((home / "xml/Annotations/val").iterdir()).relative_to(home).as_posix()],
        "evaluate class folders": ["folders/boxes.csv"],
        "evaluate metadata": [f"metadata/test/{name}.txt" for name in METADATA_LISTS] + ["metadata/classes.txt"],
        "evaluate metadata's masks": ["masked/test/localization.txt"],
        "evaluate --classes": ["names.txt"],
    }
    for good, paths in lists.items():
        for path in paths:
            kind = "XML" if path.endswith(".xml") else "list"
            codes = (1, 2) if good == "evaluate --classes" else (1,)
            ways = damage.NO_FILE | damage.TEXT | (damage.XML if kind == "XML" else {})
            # Where two lists contradict each other, either may be named.
            yield from spoilt(good, kind, path, ways, others=tuple(Path(other).name for other in paths), codes=codes)

    picture = {"evaluate CUB": "data/images/001.Class/9.jpg", "train": "data/images/001.Class/1.jpg"}
    picture |= {"evaluate --images": "pictures/a.jpg", "exploratory": picture["evaluate CUB"]}
    picture |= {"figures of results": picture["evaluate CUB"]}
    for good, path in picture.items():
        ways = damage.NO_FILE | damage.BITS | damage.BAD_PICTURES | damage.ODD_PICTURES
        yield from spoilt(good, "picture", path, ways)
    yield from spoilt("train", "bad picture", picture["train"], damage.BAD_PICTURES, ("--skip_bad_images",))
    masks = {"evaluate CUB": "data/segmentations/001.Class/9.png", "exploratory": "data/segmentations/001.Class/9.png"}
    masks |= {"evaluate metadata's masks": "masked/masks/object.png"}
    for good, path in masks.items():
        yield from spoilt(good, "mask", path, damage.NO_FILE | damage.BITS | damage.BAD_PICTURES | damage.MASKS)
    yield from spoilt("evaluate metadata's masks", "mask", "masked/masks/ignore.png", damage.NO_FILE | damage.MASKS)

    for good in ("evaluate CUB", "train --pretrained", "exploratory", "figures of results"):
        yield from spoilt(good, "weights", WEIGHTS, damage.NO_FILE | damage.BITS | damage.WEIGHTS)
    state = sorted((home / "unfinished/mobilenet/states").glob("*.tar"))[-1].relative_to(home).as_posix()
    ways, folder = damage.NO_FILE | damage.BITS, ("mobilenet/states",)
    yield from spoilt("train --resume", "state", state, ways | damage.STATES, others=folder)
    yield from spoilt("train --resume", "state, named", state, ways, ("--resume", state), ("--resume",))
    parts = dict(damage.state_damages(home / state))  # without a setting it is another run's, a matter of usage
    yield from spoilt("train --resume", "state's part", state, parts, others=("--resume",), codes=(1, 2))

    jsons = {
        "evaluate CUB": ["run/mobilenet/settings.json"],
        "exploratory": ["run/mobilenet/settings.json"],
        "train --resume": [
            f"unfinished/mobilenet/{name}" for name in ("states/index.json", "settings.json", "log.jsonl")
        ],
        "train --demo": ["demo/data/composition.json", "demo/mobilenet/settings.json"],
        "figures": ["run/mobilenet/evaluation.json"],
        "figures of a demo": ["demo/results.json"],
        "evaluate --map-files": ["maps/maps.json"],
        "evaluate calibrated": ["released/net.pth.tar.offsets.json"],
        "ablation": ["grid/all/seed_0/options.json", "grid/all/seed_0/results.json"],
    }
    for good, paths in jsons.items():
        for path in paths:
            # What is another run's, or another demo's, is a matter of usage.
            is_of_usage = path.endswith(("options.json", "run/mobilenet/settings.json")) or good == "train --demo"
            codes, others = (1, 2) if is_of_usage else (1,), ("--save_path", "runs failed, see above")
            ways = damage.NO_FILE | damage.BITS | damage.JSON
            yield from spoilt(good, "JSON", path, ways, others=others, codes=codes)
            if Path(path).stem != "composition":
                # A run that goes on all the same is long; of these files the first level alone is looked at.
                is_shallow = good.startswith(("train", "exploratory")) and path.endswith("settings.json")
                depth = 1 if is_shallow else 5
                yield from spoilt(
                    good, "JSON value", path, dict(damage.json_damages(home / path, depth)), others=others, codes=codes
                )

    yield from spoilt(
        "evaluate --map-files", "map", "maps/001.Class/9.jpg.npy", damage.NO_FILE | damage.BITS | damage.MAPS
    )
    snapshot = "run/mobilenet/snapshots/epoch_001.npz"
    ways = damage.NO_FILE | damage.BITS | dict(damage.npz_damages(home / snapshot))
    yield from spoilt("figures of results", "snapshot", snapshot, ways)
    archive = "fetched/CUB_200_2011.tgz"
    yield from spoilt("train --download", "archive", archive, damage.NO_FILE | damage.BITS | damage.ARCHIVES)


def spoilt(
    good: str,
    kind: str,
    path: str,
    ways: Mapping[str, Damage],
    more: tuple[str, ...] = (),
    others: tuple[str, ...] = (),
    codes: tuple[int, ...] = (1,),
) -> Iterator[Case]:
    """A file damaged in each of some ways."""
    for name, way in ways.items():
        yield Case(
            good,
            kind,
            f"{path}: {name}",
            more,
            way,
            path,
            told=(Path(path).name, Path(path).stem, *others),
            codes=(1, 2) if name == "a loop of links" else codes,  # an option that names it refuses it first
        )


# --- what is fine though it is not refused: (title, reason)

MADE = "the folder is made"
FINE: list[tuple[str, str]] = [
    (r"option: twice", "the last one holds, as with every program"),
    (r"--no-final_relu|--no-tencrop", "the last one holds, as with every program"),
    (r"option: number \| \S+='(0|1e-400|0\.5|1e20)'", "a number within the option's range; 1e-400 is read as 0"),
    (r"--(save|save_path|save-maps)='(missing|a name|a folder|a name that is no Unicode|a link to nowhere)'", MADE),
    (r"--json='(missing|a name|a name that is no Unicode|a link to nowhere)'", "the file is made"),
    (r"--json='(a file|empty file|random bytes)'", "a file that may be written is replaced, as by every program"),
    (r"--json='a device'", "a device is written into"),
    (r"--classes='a file'", "it holds names of classes"),
    (r"argument \| '--'", "nothing follows the mark that ends the options"),
    (r"--grad_accum 3", "a batch of 4 in parts of 2, 1 and 1"),
    (r"--device cpu:7", "torch takes all numbers for the one CPU"),
    (r"--amp fp16|--sync_bn", "slow on a CPU, or without effect on one process, but right"),
    (r"--(snapshot|top_k|batch_size) 1000000000", "as many as there are"),
    (r"--only network network|--seeds 1 1", "once is enough"),
    (r"--frames 1$", "one frame, as asked for"),
    (r"list \| \S+/(classes|LOC_synset_mapping)\.txt|list \| names\.txt", "any text is a name"),
    (r"(data/train_test_split|test/class_labels|LOC_val_solution)\.\w+: the number (0|1e-400)$", "another right value"),
    (r"train \| list \| data/bounding_boxes\.txt: (no first line|a line too few)", "training needs no boxes"),
    (rf"picture \| .*: ({'|'.join(damage.ODD_PICTURES)})$", "a picture that is read"),
    (r"--images \| picture \| .*: (missing|a folder)$", "the folder holds two more"),
    (r"state's part \| .*: progress\.sums\.", "sealed against damage; changes a mean in the log and nothing else"),
    (r"(settings|engine|settings\.json: recipe)\.\w+ is missing", "older runs lack it, and had its default"),
    (r"JSON.* \| \S*states/index\.json", "the states themselves tell what they are"),
    (r"--resume \| options together \| --snapshot 1$", "the run has as many"),
]


# --- data


READ = {"data", "authors", "folders", "metadata", "masked", "csv", "xml", "lists", "pictures", "names.txt"}
CUB_LISTS = ("images", "image_class_labels", "train_test_split", "bounding_boxes", "classes")
METADATA_LISTS = ("image_ids", "class_labels", "localization", "image_sizes")


def make_home(home: Path) -> None:
    """Every layout of data, finished and unfinished runs of it, a demo, a grid."""
    make_cub(home / "data", PICTURES, CLASSES)
    names = [f"{label + 1:03}.Class/{key}" for key, (label, *_) in enumerate(PICTURES, start=1)]
    tests = [(name, picture) for name, picture in zip(names, PICTURES, strict=True) if not picture[1]]
    mask = np.zeros((64, 64), np.uint8)
    mask[16:44, 20:50] = 255
    for name in names:
        save_mask(home / "data/segmentations" / f"{name}.png", mask)
    make_ilsvrc(home / "csv", PICTURES, CLASSES)
    make_other_layouts(home, names, tests)
    save_mask(home / "masked/masks/object.png", mask)
    save_mask(home / "masked/masks/ignore.png", np.roll(mask, 20, axis=0))
    for number, name in enumerate("abc"):
        save_noise(home / "pictures" / f"{name}.jpg", 90 + number)
    write_lines(home / "names.txt", ["wren", "gull", "owl"])
    make_odd_paths(home / "odd")
    make_runs(home)


def make_other_layouts(home: Path, names: list[str], tests: list) -> None:
    """The authors' lists, XML, class folders and metadata, of the same pictures."""
    for name, (_, is_train, _) in zip(names, PICTURES, strict=True):
        for root, part in (("authors", ""), ("folders", "")):
            copy = home / root / ("train" if is_train else "test") / part / f"{name}.jpg"
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(home / "data/images" / f"{name}.jpg", copy)
    boxes = {name: box for name, (_, _, box) in tests}
    write_lines(home / "authors/test_list.txt", [f"{name}.jpg;{picture[0]}" for name, picture in tests])
    write_lines(home / "authors/test_gt.txt", [f"{' '.join(map(str, box))} 64 64" for box in boxes.values()])
    rows = [f"{name}.jpg,{','.join(map(str, box))}" for name, box in boxes.items()]
    write_lines(home / "folders/boxes.csv", ["id,x0,y0,x1,y1", *rows])
    for root, truths in (
        ("metadata", rows),
        ("masked", [f"{name}.jpg,masks/object.png,masks/ignore.png" for name in boxes]),
    ):
        shutil.copytree(home / "data/images", home / root / "images")
        lists = home / root / "test"
        lists.mkdir()
        write_lines(lists / "image_ids.txt", [f"{name}.jpg" for name in boxes])
        write_lines(lists / "class_labels.txt", [f"{name}.jpg,{picture[0]}" for name, picture in tests])
        write_lines(lists / "image_sizes.txt", [f"{name}.jpg,64,64" for name in boxes])
        write_lines(lists / "localization.txt", truths)
        write_lines(home / root / "classes.txt", [f"{label + 1} bird {label}" for label in range(CLASSES)])
    shutil.copytree(home / "csv", home / "xml")
    shutil.copytree(home / "csv", home / "lists")
    solution = (home / "csv/LOC_val_solution.csv").read_text().splitlines()[1:]
    (home / "xml/Annotations/val").mkdir(parents=True)
    listed, given = [], []
    for line in solution:
        stem, _, words = line.partition(",")
        wnid, *box = words.split()
        sides = "".join(
            f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        )
        text = f"<annotation>\n<size><width>64</width><height>64</height></size>\n<object>\n<name>{wnid}</name>"
        (home / "xml/Annotations/val" / f"{stem}.xml").write_text(
            f"{text}<bndbox>{sides}</bndbox></object>\n</annotation>\n"
        )
        listed.append(f"{wnid}/{stem}.JPEG;{int(wnid[1:])}")
        given.append(rf"{wnid}\\{stem}.JPEG 64 64 ; {' '.join(box)}")
        (home / "lists/val" / wnid).mkdir(exist_ok=True)
        (home / "lists/val" / f"{stem}.JPEG").rename(home / "lists/val" / wnid / f"{stem}.JPEG")
    for root in ("xml", "lists"):
        (home / root / "LOC_val_solution.csv").unlink()
    write_lines(home / "lists/val_list.txt", listed)
    write_lines(home / "lists/val_gt.txt", given)


def save_mask(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


def make_odd_paths(folder: Path) -> None:
    """What options may be given to read or write."""
    (folder / "folder").mkdir(parents=True)
    (folder / "empty").touch()
    (folder / "random").write_bytes(np.random.default_rng(0).bytes(5000))
    (folder / "locked").touch()
    (folder / "locked_folder").mkdir()
    os.mkfifo(folder / "fifo")
    for name, target in (("zero", "/dev/zero"), ("loop", "loop"), ("dangling", "nowhere")):
        (folder / name).symlink_to(target)


def prepare(home: Path) -> None:
    """Makes the home in a process of its own, so that this one stays small to fork, and imports all that it needed."""

    def make() -> int:
        make_home(home)
        for name in READ:
            (home / name).chmod(0o500)
        (home / "modules.txt").write_text("\n".join(sys.modules))
        return 0

    ((_, outcome),) = run_isolated([(home, make)], workers=1, seconds=600)
    assert outcome.code == 0, outcome
    for name in (home / "modules.txt").read_text().split():
        with suppress(ImportError):
            importlib.import_module(name)


def make_runs(home: Path) -> None:
    """A finished run with all that commands leave in it, one that lacks its last epoch, a demo, a grid."""
    os.chdir(home)
    succeed("train", (*TRAIN, "--save_path", "run", "--snapshot", "2"))
    shutil.rmtree("run/mobilenet/states")
    Path(RELEASED).parent.mkdir()
    shutil.copyfile(WEIGHTS, RELEASED)
    succeed("CUB/BAS_inference", CALIBRATED)  # leaves the offsets beside it
    succeed(
        "train", (*TRAIN, "--save_path", "unfinished", "--epochs", "2", "--save_every_steps", "1", "--snapshot", "1")
    )
    unfinished = Path("unfinished/mobilenet")
    (unfinished / "mobilenet1.pth.tar").unlink()
    last, index = sorted((unfinished / "states").glob("*.tar"))[-1], unfinished / "states/index.json"
    last.unlink()
    index.write_text(json.dumps([row for row in json.loads(index.read_text()) if row["file"] != last.name]))
    succeed("train --demo", DEMO)
    shutil.rmtree("demo/mobilenet/states")
    succeed("CUB/BAS_inference", (*INFER, "--data", "data", "--save-maps", "maps", "--save", "report"))
    shutil.rmtree("report")
    succeed("ablation", GOOD["ablation"][1])
    Path("grid/data").mkdir(exist_ok=True)
    Path("fetched").mkdir()
    packed = shutil.make_archive("fetched/packed", "gztar", ".", "data")
    shutil.move("data", "CUB_200_2011")
    packed = shutil.make_archive("fetched/packed", "gztar", ".", "CUB_200_2011")
    shutil.move("CUB_200_2011", "data")
    Path(packed).rename("fetched/CUB_200_2011.tgz")
    for good in ("figures of results", "figures"):  # imports all that the cases need
        succeed(*GOOD[good])
    shutil.rmtree("drawn")


def succeed(command: str, argv: tuple[str, ...]) -> None:
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        code = call(lambda: MAINS[command](list(argv)))
    assert code == 0, (command, argv)


def copy_home(home: Path, folder: Path, words: Iterable[str], spoilt: str) -> None:
    """What the words of a call name: links to data that are only read, copies of what a command writes into or a case
    spoils."""
    for name in {Path(word).parts[0] for word in (*words, spoilt) if word} & {path.name for path in home.iterdir()}:
        if name in READ and not (spoilt and Path(spoilt).parts[0] == name):
            (folder / name).symlink_to(home / name)
        else:
            copy(home / name, folder / name, home, folder)
    if (folder / "odd").exists():
        for name in ("locked", "locked_folder"):
            (folder / "odd" / name).chmod(0)


def copy(source: Path, target: Path, home: Path, folder: Path) -> None:
    """A copy in which files may be replaced; large ones are links, and paths in JSON files lead into it."""
    if source.is_symlink():
        target.symlink_to(os.readlink(source))
    elif source.is_dir():
        target.mkdir()
        for path in source.iterdir():
            copy(path, target / path.name, home, folder)
    elif source.is_fifo():
        os.mkfifo(target)
    elif source.suffix == ".json":
        target.write_text(source.read_text().replace(str(home), str(folder)))
    elif source.stat().st_size > 1 << 18:
        os.link(source, target)
    else:
        shutil.copyfile(source, target)


# --- running and judging

# Lines that differ from those of good input and say what is amiss without the file's name.
TELLING = re.compile(r"(boxes|masks) for \d+ of \d+ images|cannot be their picture's|without a mask|counted as missed")


def run_case(home: Path, folder: Path, case: Case) -> int:
    """In a process of its own; `folder` is where it is."""
    command, argv = GOOD[case.good]
    if command == "ablation" and "--" in case.more:
        place = case.more.index("--")
        argv = (*case.more[:place], *argv, *case.more[place:])
    elif case.good == "train --resume" and "--resume" in case.more:
        argv = (*argv[:-1], *case.more)
    else:
        argv = (*argv, *case.more)
    copy_home(home, folder, (word.split("=")[-1] for word in argv), case.path)
    if case.spoil is not None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                case.spoil(folder / case.path)
        except Exception as error:
            print(f"the case could not be made: {type(error).__name__} {error}", file=sys.stderr)
            return UNCAUGHT
    obey_permissions()
    with patch.object(CUB.DataLoader, "download", download_in_place):
        return call(lambda: MAINS[command](list(argv)))


def download_in_place(root: Path) -> Path:
    """CUB's download, for which every archive is the published one, and nothing is fetched."""
    archive = Path(root) / f"{CUB.DataLoader.FOLDER}.tgz"
    md5 = calculate_md5(archive) if archive.is_file() and os.access(archive, os.R_OK) else "0" * 32
    return _download(root, "http://127.0.0.1:9/archive", md5)


_download = CUB.DataLoader.download


def normalised(text: str, folder: Path) -> str:
    """Without what differs from call to call."""
    # A link to data that are only read leads into the home.
    text = re.sub(rf"{re.escape(str(folder.parents[1]))}/(home|work/\d+)", "HERE", text)
    text = re.sub(r"[\d.e-]+ (s|img/s|seconds|MiB|%|a second)(?!\w)", r"# \1", text)
    return re.sub(r"(?m)^\s+|0x[0-9a-f]+| +(?= )", "", text)


def judge(case: Case, outcome: Outcome, folder: Path, good_output: str | None) -> tuple[str, str]:
    """The verdict, and the line that says most."""
    out, err = normalised(outcome.out, folder), normalised(outcome.err, folder)
    err = re.sub(r"(?m)^warning: .*\n", "", err)  # said besides, of a file that is not what it was
    lines = err.strip().splitlines()
    sentences = [line for line in lines if re.match(r"(\S+( -m \S+)?: )?error( in process \d+)?: ", line)]
    last = (sentences or lines or out.strip().splitlines()[-1:] or [""])[-1]
    if outcome.code is None:
        return "hang", last
    if outcome.code == UNCAUGHT or outcome.code < 0 or "Traceback (most recent" in err + out:
        return "traceback", f"{lines[-1] if lines else ''} (exit {outcome.code})"
    if outcome.code == 0:
        known = (good_output or "").splitlines()
        new = [line for line in (out + "\n" + err).splitlines() if line not in known]
        naming = [line for line in new if any(word and word in line for word in case.told) or TELLING.search(line)]
        reason = next((reason for title, reason in FINE if re.search(title, case.title)), "")
        if case.spoil is not None and out + err == good_output:
            return "same", ""
        if case.spoil is not None and naming:
            return "told", naming[0]
        return ("fine", reason) if reason else ("silent", (new or [""])[0])
    if outcome.code not in case.codes:
        return "code", f"exit {outcome.code}: {last}"
    usage = re.sub(r"(?s)^usage: .*?(?=^\S+( -m \S+)?: error: )", "", err.strip(), flags=re.MULTILINE)
    if len(sentences) != 1 or len(usage.splitlines()) != 1 or len(usage) > 1500:
        return "unnamed", f"{len(lines)} lines: {last[:300]}"
    named = any(word and (word in last or repr(word)[1:-1] in last) for word in case.told)
    in_lines = any(word and word in out for word in case.told) and "see the lines above" in last
    return ("refused", last) if named or in_lines else ("unnamed", last)


def run_all(home: Path, work: Path, cases: list[Case], workers: int) -> Iterator[tuple[Case, Path, Outcome]]:
    """Runs cases, each in a folder that goes afterwards."""
    folders: dict[int, Path] = {}

    def calls() -> Iterator[tuple[Path, Callable[[], int]]]:
        for number, case in enumerate(cases):
            folders[number] = work / f"{number:05}"
            folders[number].mkdir()
            yield folders[number], partial(run_case, home, folders[number], case)

    for number, outcome in run_isolated(calls(), workers):
        folder = folders.pop(number)
        yield cases[number], folder, outcome
        (folder / "odd/locked_folder").exists() and (folder / "odd/locked_folder").chmod(0o700)
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="REGEX", help="cases whose name it matches")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="cases at a time (default: %(default)s)"
    )
    parser.add_argument("--every", type=int, default=1, metavar="N", help="one case in N, for a quick look")
    parser.add_argument("--list", action="store_true", help="list the cases and run none")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="save every verdict there as soon as it is given, a JSON object a line",
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="bad_inputs.", dir=MEMORY if Path(MEMORY).is_dir() else None) as place:
        home, work = Path(place, "home").resolve(), Path(place, "work").resolve()
        work.mkdir()
        (home / "grid").mkdir(parents=True)
        script = Path(place, "stand_in.py")
        script.write_text(STAND_IN)
        small = partial(compose, size=64, train_per_class=2, test_per_class=2)
        with (
            patch.object(demo, "compose", small),
            patch.object(ablation, "compose", lambda folder: folder.mkdir(parents=True, exist_ok=True)),
            patch.object(ablation, "TRAIN", script),
            patch.object(ablation, "POLL_SECONDS", 0.02),
        ):
            prepare(home)
            cases = [*option_cases(), *contradiction_cases(), *file_cases(home)]
            cases = [case for case in cases if re.search(args.only, case.title)][:: args.every]
            if args.list:
                print(*(case.title for case in cases), sep="\n")
                return 0
            print(f"{len(cases)} cases; data made in {time.perf_counter() - begin:.0f} s", flush=True)
            with open(args.json or os.devnull, "w") as file:
                verdicts = judge_all(home, work, cases, args.workers, file)
    report(verdicts)
    print(f"{time.perf_counter() - begin:.0f} s")
    return int(any(verdict in ("traceback", "hang") for verdict, _ in verdicts.values()))


def judge_all(home: Path, work: Path, cases: list[Case], workers: int, file: TextIO) -> dict[Case, tuple[str, str]]:
    """Each case's verdict; of good calls first, with whose output the others' is compared."""
    spoilt = {(case.good, case.more) for case in cases if case.spoil is not None}
    controls = [Case(good, "control", "", more) for good, more in sorted(spoilt)]
    outputs: dict[tuple, str] = {}
    for case, folder, outcome in run_all(home, work, controls, workers):
        assert outcome.code == 0, (case, outcome)
        outputs[case.good, case.more] = normalised(outcome.out, folder) + normalised(outcome.err, folder)
    verdicts = {}
    for case, folder, outcome in run_all(home, work, cases, workers):
        verdicts[case] = judge(case, outcome, folder, outputs.get((case.good, case.more)))
        if (folder / "a file's code has run").exists():
            verdicts[case] = "traceback", "the file's code has run"
        print(json.dumps([case.title, *verdicts[case], round(outcome.seconds, 1)]), file=file, flush=True)
        assert Path(os.devnull).is_char_device(), f"{case.title} destroyed {os.devnull}"
    return {case: verdicts[case] for case in cases}


def report(verdicts: dict[Case, tuple[str, str]]) -> None:
    """The table, and what is not refused."""
    kinds = ("refused", "same", "told", "fine", "silent", "code", "unnamed", "hang", "traceback")
    counts = Counter((case.good, case.kind, verdict) for case, (verdict, _) in verdicts.items())
    rows = sorted({(good, kind) for good, kind, _ in counts})
    print(f"{'command':28}{'kind':26}{'cases':>7}" + "".join(f"{kind:>10}" for kind in kinds))
    for row in [*rows, None]:
        numbers = [
            sum(n for (good, kind, found), n in counts.items() if found == verdict and row in (None, (good, kind)))
            for verdict in kinds
        ]
        title = f"{row[0]:28}{row[1]:26}" if row else f"{'all':54}"
        print(f"{title}{sum(numbers):7}" + "".join(f"{number or '':>10}" for number in numbers))
    for verdict in kinds[1:]:
        of_kind = [(case, line) for case, (found, line) in verdicts.items() if found == verdict]
        print(f"\n{verdict}: {len(of_kind)}")
        for case, line in of_kind:
            print(f"  {case.title}" + (f"\n      {line[:300]}" if line else ""))


if __name__ == "__main__":
    sys.exit(main())
