"""Protects the commands: train, evaluate and resume as a user does, and one sentence for whatever is wrong.

Pictures and crops are tiny. What a process of its own could show otherwise (exit codes, standard error, the path from
which a script is run) is shown in one; the rest calls the same functions here, which saves the imports.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import CUB.DataLoader
import CUB.Model
import ILSVRC.DataLoader
import ILSVRC.Model
import train
from tests.reference_weights import PAIRS, published_keys
from tests.test_checkpoints import STALE, save
from tests.test_cub_data import write_lines
from utils.checkpoint import checkpoint_name
from utils.errors import run_command
from utils.inference import command
from utils.inference.loading import DatasetFolder

ROOT = Path(__file__).parents[1]
DATASETS = {"CUB": CUB, "ILSVRC": ILSVRC}
SIZES = ["--resize_size", "64", "--crop_size", "48", "--num_workers", "0"]
TRAINING = ["--arch", "mobilenet", "--batch_size", "4", *SIZES]
AS_IN_THE_PAPER = {"name": "cvpr", "tap": None}
# class, is_train, box x0 y0 x1 y1 of the 64 x 64 pictures
WHOLE, SMALL = (0, 0, 63, 63), (20, 20, 30, 30)
PICTURES = [(label, True, WHOLE) for label in (0, 1, 2, 0, 1, 2, 0, 1)] + [(0, False, WHOLE), (1, False, SMALL)] * 2
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


def run_inference(dataset: str, *arguments: object, models: object = None) -> int:
    package = DATASETS[dataset]
    argv = [str(argument) for argument in arguments]
    folder = DatasetFolder(dataset, models or package.Model, package.DataLoader)
    return call(lambda: command.run(folder, argv))


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


def read_log(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


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


# --- training, then evaluation


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data sets of both layouts and the runs on them; the runs' files are large, so they go when the tests are done."""
    folder = tmp_path_factory.mktemp("commands")
    for dataset, make in MAKE.items():
        make(folder / dataset, PICTURES, 3)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def runs(folder):
    """Two epochs on CUB at a stretch, by the command, and one on ILSVRC: data set -> (run's folder, output)."""
    outputs = {}
    for dataset, epochs in (("CUB", 2), ("ILSVRC", 1)):
        options = ["--dataset", dataset, "--root", folder / dataset, "--epochs", epochs]
        options += [*TRAINING, "--save_path", folder / f"runs_{dataset}"]
        if dataset == "CUB":
            result = shell(ROOT, "train.py", *options)
            assert (result.returncode, result.stderr) == (0, "")
            outputs[dataset] = result.stdout
        else:
            with redirect_stdout(io.StringIO()) as output:
                assert run_training(*options) == 0
            outputs[dataset] = output.getvalue()
    return {dataset: (folder / f"runs_{dataset}" / "mobilenet", output) for dataset, output in outputs.items()}


def test_training_leaves_its_records(runs):
    """Settings, a line an epoch, the figures of the last evaluation, the published file name; each says the truth."""
    for dataset, epochs in (("CUB", 2), ("ILSVRC", 1)):
        run, output = runs[dataset]
        weights = run / checkpoint_name(dataset, "mobilenet", epochs - 1)
        kept = {weights.name, "last.pth.tar", "settings.json", "log.jsonl", "evaluation.json"}
        assert {file.name for file in run.iterdir()} == kept
        recipe = read_json(run / "settings.json")["recipe"]
        expected = {
            "dataset": dataset,
            "arch": "mobilenet",
            "num_classes": 3,
            "epochs": epochs,
            "batch_size": 4,
            "lr": 0.001,
        }
        expected |= {"resize_size": 64, "crop_size": 48, "frg_weight": 0.5, "area_weight": 1.5, "final_relu": True}
        expected |= (
            {"threshold": 0.15, "top_k": 200, "seed": 6}
            if dataset == "CUB"
            else {"threshold": 0.5, "top_k": 1, "seed": 2}
        )
        assert {name: recipe[name] for name in expected} == expected

        log = read_log(run)
        assert [entry["epoch"] for entry in log] == list(range(1, epochs + 1))
        for entry in log:
            total = entry["cls"] + 0.5 * entry["frg"] + entry["bas"] + 1.5 * entry["area"]
            assert entry["total"] == pytest.approx(total, rel=1e-5) and 0 < entry["area"] < 1
            assert entry["lr"] == 0.001 and entry["images_per_second"] > 0 and 0 <= entry["accuracy"] <= 100
        evaluation = read_json(run / "evaluation.json")
        assert evaluation["scores"] == log[-1]["test"] and evaluation["failures"] == []
        assert (evaluation["scores"]["images"], evaluation["scores"]["missed"]) == (4, 0)
        assert printed_scores(output) == rounded(evaluation["scores"])
        assert f"{dataset} train: 8 pictures, 3 classes" in output and f"{dataset} test: 4 pictures" in output
        assert "ImageNet weights: 135 tensors" in output and str(weights) in output


@pytest.mark.parametrize("dataset", ["CUB", "ILSVRC"])
def test_evaluation_repeats_the_trainings(runs, folder, dataset):
    """The command that training prints, as printed: same figures, with the run's own sizes and no other flags."""
    run, output = runs[dataset]
    command = output.splitlines()[-1].split(" && ")
    assert command[0].strip() == f"cd {dataset}"
    python, *arguments = command[1].split()
    assert python == "python"
    result = shell(ROOT / dataset, *arguments, "--num_workers", 0, "--json", folder / f"{dataset}.json")
    assert (result.returncode, result.stderr) == (0, "")
    record = read_json(folder / f"{dataset}.json")
    assert record["scores"] == read_json(run / "evaluation.json")["scores"]
    assert printed_scores(result.stdout) == rounded(record["scores"])
    expected = (0.15, 3) if dataset == "CUB" else (0.5, 1)  # all of the three classes, of CUB's 200
    settings = {"final_relu": True, "threshold": expected[0], "top_k": expected[1], "align_maps": False}
    settings |= {"resize_size": 64, "crop_size": 48, **AS_IN_THE_PAPER}
    assert record["settings"] == settings
    assert (record["dataset"], record["arch"], record["ten_crops"]) == (dataset, "mobilenet", True)
    assert record["published"] is None  # three classes are not the paper's data set
    assert Path(record["checkpoint"]) == (run / checkpoint_name(dataset, "mobilenet", 1 if dataset == "CUB" else 0))


def test_flags_win_over_the_runs_settings(runs, folder, capsys):
    """Flags override settings.json; what it lacks comes from the recipe, and all where it names another file."""
    run, _ = runs["CUB"]
    alone = folder / "alone"
    alone.mkdir()
    weights = shutil.copy(run / "mobilenet1.pth.tar", alone)
    arguments = ["--arch", "mobilenet", "--data", folder / "CUB", "--num_workers", "0", "--json", alone / "r.json"]
    arguments += ["--checkpoint", weights, "--no-tencrop"]

    def settings(*more: str) -> dict:
        assert run_inference("CUB", *arguments, *more) == 0
        record = read_json(alone / "r.json")
        assert record["ten_crops"] is False and "one crop" in capsys.readouterr().out
        return record["settings"]

    stored = {"final_relu": False, "threshold": 0.3, "align_maps": True, "resize_size": 80, "crop_size": 64}
    (alone / "settings.json").write_text(json.dumps({"weights": "mobilenet1.pth.tar", "recipe": stored}))
    assert settings() == {**stored, "top_k": 3, **AS_IN_THE_PAPER}
    flags = ["--threshold", "0", "--top_k", "2", "--resize_size", "64", "--crop_size", "32", "--final_relu"]
    flags.append("--no-align_maps")
    given = {"threshold": 0.0, "top_k": 2, "align_maps": False, "resize_size": 64, "crop_size": 32, "final_relu": True}
    assert settings(*flags) == {**given, **AS_IN_THE_PAPER}
    (alone / "settings.json").write_text(json.dumps({"weights": "mobilenet99.pth.tar", "recipe": stored}))
    sizes = {"align_maps": False, "resize_size": 64, "crop_size": 48, **AS_IN_THE_PAPER}
    assert settings(*SIZES) == {"final_relu": True, "threshold": 0.15, "top_k": 3, **sizes}
    own = '"weights": "mobilenet1.pth.tar", "recipe"'
    for text in ("{", "{}", f"{{{own}: 5}}", f'{{{own}: {{"threshold": "high"}}}}', f'{{{own}: {{"top_k": 0}}}}'):
        (alone / "settings.json").write_text(text)
        assert run_inference("CUB", *arguments) == 1
        assert_one_sentence(capsys.readouterr().err, str(alone / "settings.json"), "move it away")


def test_resumed_run_equals_one_at_a_stretch(runs, folder):
    """Stopped after one epoch and resumed by command: bit for bit the weights, momenta and figures of two epochs."""
    options = [*TRAINING, "--root", folder / "CUB", "--save_path", folder / "resumed"]
    # A process of its own, as the other runs: libraries may round otherwise in one that has done other work before.
    result = shell(ROOT, "train.py", *options, "--epochs", 1)
    assert (result.returncode, result.stderr) == (0, "")
    run, (whole, _) = folder / "resumed" / "mobilenet", runs["CUB"]
    assert (run / "mobilenet0.pth.tar").is_file()
    result = shell(ROOT, "train.py", *options, "--epochs", 2, "--resume")
    assert (result.returncode, result.stderr) == (0, "")
    assert f"resumed from {run / 'last.pth.tar'} after epoch 1" in result.stdout

    ours, theirs = (torch.load(path / "mobilenet1.pth.tar", weights_only=True) for path in (run, whole))
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    before = torch.load(run / "mobilenet0.pth.tar", weights_only=True)
    assert not torch.equal(ours["classifier_loc.0.weight"], before["classifier_loc.0.weight"])
    ours, theirs = (torch.load(path / "last.pth.tar", weights_only=True)["optimizer"]["state"] for path in (run, whole))
    assert all(torch.equal(ours[key]["momentum_buffer"], theirs[key]["momentum_buffer"]) for key in theirs)
    names = ("epoch", "cls", "frg", "bas", "area", "total", "accuracy", "lr")
    ours, theirs = ([[entry[name] for name in names] for entry in read_log(path)] for path in (run, whole))
    assert ours == theirs and len(ours) == 2
    assert read_json(run / "evaluation.json") == read_json(whole / "evaluation.json")


def test_resuming_what_cannot_be_resumed(runs, folder, capsys):
    """Other settings, a finished run, no run, weights in place of a state, a damaged log: a sentence, nothing lost."""
    run, _ = runs["CUB"]
    options = [*TRAINING, "--root", folder / "CUB", "--save_path", run.parent]
    before = {file.name: file.stat().st_mtime_ns for file in run.iterdir()}
    cases = [
        (["--epochs", 3, "--lr", 0.01, "--resume"], 2, ["other settings (lr was 0.001, is 0.01); give the same ones"]),
        (["--epochs", 1, "--resume"], 2, ["has 2 finished epochs", "--epochs"]),
        (["--epochs", 3], 2, ["last.pth.tar is there already", "--resume", "--save_path"]),
        (["--resume", run / "mobilenet1.pth.tar"], 1, ["mobilenet1.pth.tar is no training state", "last.pth.tar"]),
        (["--resume", folder / "nowhere.pth.tar"], 1, ["--resume: there is no", "nowhere.pth.tar"]),
    ]
    for more, code, words in cases:
        assert run_training(*options, *more) == code
        assert_one_sentence(capsys.readouterr().err, *words)
    assert {file.name: file.stat().st_mtime_ns for file in run.iterdir()} == before
    (folder / "damaged" / "mobilenet").mkdir(parents=True)
    (folder / "damaged" / "mobilenet" / "log.jsonl").write_text('{"epoch": 1}\n{"epo')
    options[-1] = folder / "damaged"
    assert run_training(*options, "--epochs", 3, "--resume", run / "last.pth.tar") == 1
    assert_one_sentence(capsys.readouterr().err, "log.jsonl is no log of a run", "move it away")


# --- the released files


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


# The net's five best classes, and four pictures: right; right class, small box; fifth class; none of the five.
BEST = (30, 10, 40, 50, 90)
KNOWN = [(30, False, WHOLE), (30, False, SMALL), (90, False, WHOLE), (7, False, WHOLE)]
# By hand: a flat map's box is the whole crop. Mean over the classes 30, 90 and 7, and mean over the pictures.
KNOWN_SCORES = {
    "top1_loc": [16.67, 25.0],
    "top5_loc": [50.0, 50.0],
    "gt_known_loc": [83.33, 75.0],
    "top1_cls": [33.33, 50.0],
    "top5_cls": [66.67, 75.0],
}
PAPER = {
    ("CUB", "vgg"): [71.33, 85.33, 91.07],
    ("CUB", "mobilenet"): [69.77, 86.0, 92.35],
    ("CUB", "resnet"): [77.25, 90.08, 95.13],
    ("CUB", "inception"): [73.29, 86.31, 92.24],
    ("ILSVRC", "vgg"): [52.96, 65.41, 69.64],
    ("ILSVRC", "mobilenet"): [52.97, 66.59, 72.0],
    ("ILSVRC", "resnet"): [57.18, 68.44, 71.77],
    ("ILSVRC", "inception"): [58.51, 69.0, 71.93],
}
RECIPES = {
    ("CUB", "vgg"): (0.15, 80),
    ("CUB", "mobilenet"): (0.15, 200),
    ("CUB", "resnet"): (0.15, 200),
    ("CUB", "inception"): (0.10, 200),
    ("ILSVRC", "vgg"): (0.5, 1),
    ("ILSVRC", "mobilenet"): (0.5, 1),
    ("ILSVRC", "resnet"): (0.45, 1),
    ("ILSVRC", "inception"): (0.3, 1),
}


@pytest.fixture(scope="module")
def homes(tmp_path_factory):
    """A data set's folder as users fill it, data/ and logs/ beside Model/: data set -> its `Model` package there."""
    models = {}
    for dataset, num_classes in (("CUB", 200), ("ILSVRC", 1000)):
        home = tmp_path_factory.mktemp("homes") / dataset
        MAKE[dataset](home / "data", KNOWN, num_classes)
        package = DATASETS[dataset].Model
        models[dataset] = SimpleNamespace(
            __file__=str(home / "Model" / "__init__.py"),
            build=package.build,
            recipe=package.recipe,
            published=package.published,
        )
    return models


def home_of(models: SimpleNamespace) -> Path:
    return Path(models.__file__).parents[1]


def release(models: SimpleNamespace, dataset: str, arch: str, content: object) -> Path:
    """Puts a file where the README says that the authors' file goes."""
    name = f"{arch}99.pth.tar" if dataset == "CUB" else f"{arch}8_final.pth.tar"
    path = home_of(models) / "logs" / arch / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return save(content, path)


@pytest.mark.parametrize(("dataset", "arch"), PAIRS)
def test_released_checkpoint_is_evaluated(homes, tmp_path, capsys, dataset, arch):
    """Released file and data in their places, only --arch given: figures known by hand, beside the paper's."""
    models = homes[dataset]
    scores = {label: 5.0 - rank for rank, label in enumerate(BEST)}
    path = release(models, dataset, arch, constant_state(dataset, arch, scores, 0.0))
    assert run_inference(dataset, "--arch", arch, *SIZES, "--json", tmp_path / "r.json", models=models) == 0
    output = capsys.readouterr().out
    record = read_json(tmp_path / "r.json")
    assert rounded(record["scores"]) == KNOWN_SCORES
    paper = PAPER[dataset, arch]
    shown = dict(zip(KNOWN_SCORES, [*([figure] for figure in paper), [], []], strict=True))
    assert printed_scores(output) == {metric: KNOWN_SCORES[metric] + shown[metric] for metric in KNOWN_SCORES}
    assert list(record["published"].values()) == paper
    threshold, top_k = RECIPES[dataset, arch]
    expected = {"final_relu": True, "threshold": threshold, "top_k": top_k, "align_maps": False}
    expected |= {"resize_size": 64, "crop_size": 48, **AS_IN_THE_PAPER}
    assert record["settings"] == expected and record["failures"] == []
    assert record["checkpoint"] == str(path)
    stale = sum(key.startswith(STALE) for key in published_keys(dataset, arch))
    assert (f"{stale} stale copies" in output) if stale else ("stale" not in output)


def test_ijcv_checkpoint_is_evaluated_without_final_relu(homes, tmp_path, capsys):
    """Scores below zero, which a final ReLU would make equal, rank the classes; --final_relu still has its way."""
    state = constant_state("CUB", "mobilenet", {label: -1.0 - rank for rank, label in enumerate(BEST)}, -9.0)
    path = save({"model": state, "best_thr": np.float64(0.4), "epoch": 70}, tmp_path / "ijcv.pth.tar", legacy=False)
    arguments = ["--arch", "mobilenet", "--checkpoint", path, *SIZES, "--json", tmp_path / "r.json"]
    assert run_inference("CUB", *arguments, models=homes["CUB"]) == 0
    record = read_json(tmp_path / "r.json")
    assert record["settings"]["final_relu"] is False and rounded(record["scores"]) == KNOWN_SCORES
    assert "IJCV checkpoint" in capsys.readouterr().out
    assert run_inference("CUB", *arguments, "--final_relu", models=homes["CUB"]) == 0
    record = read_json(tmp_path / "r.json")
    assert record["settings"]["final_relu"] is True and rounded(record["scores"]) != KNOWN_SCORES


# --- what goes wrong


@pytest.mark.parametrize("script", ["train.py", "CUB/BAS_inference.py", "ILSVRC/BAS_inference.py"])
def test_help(script):
    """Each script explains itself from its own folder."""
    path = ROOT / script
    result = shell(path.parent, path.name, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    for option in ("--arch", "--root", "--threshold", "--crop_size"):
        assert option in result.stdout


def test_failure_of_a_whole_process(homes):
    """Another backbone's checkpoint: what the script itself leaves on standard error is one sentence, its code 1."""
    models = homes["CUB"]
    path = release(models, "CUB", "mobilenet", constant_state("CUB", "mobilenet", {}, 0.0))
    data = home_of(models) / "data"
    result = shell(ROOT / "CUB", "BAS_inference.py", "--arch", "resnet", "--data", data, "--checkpoint", path)
    assert result.returncode == 1
    assert_one_sentence(result.stderr, str(path), "mobilenet for 200 classes (CUB), not resnet", "--arch mobilenet")


@pytest.mark.parametrize(("dataset", "mend"), [("CUB", "--download"), ("ILSVRC", "--root")])
def test_training_without_data(tmp_path, capsys, dataset, mend):
    """A folder that is not there ends the command at once: exit code 1, the folder, the mend, nothing written."""
    options = ["--dataset", dataset, "--root", tmp_path / "nowhere", "--save_path", tmp_path / "runs"]
    assert run_training(*TRAINING, *options) == 1
    assert_one_sentence(capsys.readouterr().err, str(tmp_path / "nowhere"), mend)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("command", ["train", "evaluate"])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--arch", "alexnet"], "argument --arch: invalid choice: 'alexnet' (choose from"),
        (["--threshold", "2"], "argument --threshold: 2 must be at least 0 and at most 1"),
        (["--threshold", "nan"], "argument --threshold: nan must be at least 0 and at most 1"),
        (["--threshold", "half"], "argument --threshold: 'half' is not a number"),
        (["--batch_size", "0"], "argument --batch_size: 0 must be at least 1"),
        (["--batch_size", "2.5"], "argument --batch_size: '2.5' is not a number"),
        (["--top_k", "-1"], "argument --top_k: -1 must be at least 1"),
        (["--num_workers", "-1"], "argument --num_workers: -1 must be at least 0"),
        (["--device", "abacus"], "--device abacus is not to be had on this machine; there are: cpu"),
        (["--resize_size", "32", "--crop_size", "48"], "a crop of 48 pixels does not fit into a picture of 32"),
    ],
)
def test_wrong_options(folder, homes, capsys, command, arguments, words):
    """Exit code 2, the option and its range, from both commands."""
    if command == "train":
        code = run_training("--root", folder / "CUB", "--save_path", folder / "never", *arguments)
    else:
        models = homes["CUB"]
        release(models, "CUB", "vgg", constant_state("CUB", "vgg", {}, 0.0))
        code = run_inference("CUB", *arguments, models=models)
    err = capsys.readouterr().err
    assert code == 2 and words in err and "Traceback" not in err
    assert not (folder / "never").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--lr", "0"], "argument --lr: 0 must be greater than 0"),
        (["--lr", "inf"], "argument --lr: inf must be"),
        (["--epochs", "2", "--warmup_epochs", "2"], "--warmup_epochs 2 leaves none of 2 epochs"),
        (["--epochs", "0"], "argument --epochs: 0 must be at least 1"),
        (["--gpu", "0", "--device", "cpu"], "give --gpu or --device, not both"),
        (["--dataset", "ILSVRC", "--download"], "--download fetches CUB-200-2011 alone"),
    ],
)
def test_wrong_options_of_training(capsys, arguments, words):
    """Options that cannot work end before anything is read or written."""
    assert run_training(*arguments) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("dataset", ["CUB", "ILSVRC"])
def test_evaluation_without_what_it_needs(homes, folder, tmp_path, capsys, dataset):
    """No checkpoint, no data, or the two of different class counts: exit code 1 and where to get or how to give it."""
    models = homes[dataset]
    shutil.rmtree(home_of(models) / "logs", ignore_errors=True)
    assert run_inference(dataset, "--arch", "mobilenet", models=models) == 1
    assert_one_sentence(capsys.readouterr().err, "there is no checkpoint", "mobilenet", "--checkpoint FILE")
    assert run_inference(dataset, "--arch", "mobilenet", "--checkpoint", tmp_path / "no.pth.tar", models=models) == 1
    assert_one_sentence(capsys.readouterr().err, str(tmp_path / "no.pth.tar"))

    release(models, dataset, "mobilenet", constant_state(dataset, "mobilenet", {}, 0.0))
    assert run_inference(dataset, "--arch", "mobilenet", "--data", tmp_path / "nowhere", models=models) == 1
    assert_one_sentence(capsys.readouterr().err, str(tmp_path / "nowhere"))
    assert run_inference(dataset, "--arch", "mobilenet", "--data", folder / dataset, models=models) == 1
    assert_one_sentence(capsys.readouterr().err, f"({dataset}), but the data set has 3 classes", "--checkpoint")


def test_corrupt_picture_does_not_end_an_evaluation(homes, tmp_path, capsys):
    """It counts as a miss, is listed in the output and the JSON file, and all others are scored."""
    models = homes["CUB"]
    scores = {label: 5.0 - rank for rank, label in enumerate(BEST)}
    release(models, "CUB", "mobilenet", constant_state("CUB", "mobilenet", scores, 0.0))
    data = shutil.copytree(home_of(models) / "data", tmp_path / "data")
    broken = data / "images" / "031.Class" / "1.jpg"  # the only picture that is right in Top-1 Loc
    broken.write_bytes(broken.read_bytes()[:100])
    arguments = ["--arch", "mobilenet", "--data", data, *SIZES, "--batch_size", "3", "--json", tmp_path / "r.json"]
    assert run_inference("CUB", *arguments, models=models) == 0
    out, err = capsys.readouterr()
    record = read_json(tmp_path / "r.json")
    assert [record["scores"]["images"], record["scores"]["missed"]] == [4, 1]
    assert rounded(record["scores"]) == {
        "top1_loc": [0.0, 0.0],
        "top5_loc": [33.33, 25.0],
        "gt_known_loc": [66.67, 50.0],
        "top1_cls": [16.67, 25.0],
        "top5_cls": [50.0, 50.0],
    }
    assert len(record["failures"]) == 1 and str(broken) in record["failures"][0]
    assert record["failures"][0] in out and "as a miss" in out and err == ""


def test_corrupt_picture_ends_a_training(folder, tmp_path, capsys):
    """Training does not go on without a picture: one sentence names it, and no checkpoint is left."""
    data = shutil.copytree(folder / "CUB", tmp_path / "data")
    broken = data / "images" / "002.Class" / "2.jpg"
    broken.write_bytes(b"no picture")
    options = ["--root", data, "--save_path", tmp_path / "runs", "--epochs", 1]
    assert run_training(*TRAINING, *options) == 1
    assert_one_sentence(capsys.readouterr().err, f"cannot read the picture {broken}", "replace it")
    assert not list((tmp_path / "runs").rglob("*.pth.tar"))


def test_diverging_training_ends(folder, tmp_path, capsys):
    """A loss that is NaN or infinite ends the run with the losses and the mend, and no checkpoint is left."""
    options = ["--root", folder / "CUB", "--save_path", tmp_path / "runs", "--epochs", 1, "--lr", "1e30"]
    assert run_training(*TRAINING, *options) == 1
    assert_one_sentence(capsys.readouterr().err, "loss is not finite at epoch 1, step 2 (cls ", "try a lower --lr")
    assert not list((tmp_path / "runs").rglob("*.pth.tar"))


def test_backbone_weights_that_do_not_fit(folder, tmp_path, capsys):
    """--pretrained of another backbone: one sentence, nothing written."""
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "resnet.pth")
    options = ["--root", folder / "CUB", "--save_path", tmp_path / "runs", "--pretrained", tmp_path / "resnet.pth"]
    assert run_training(*TRAINING, *options) == 1
    assert_one_sentence(capsys.readouterr().err, "resnet.pth does not fit this backbone", "conv1.weight")
    assert not (tmp_path / "runs").exists()
