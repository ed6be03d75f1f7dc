"""Protects the commands: help, wrong usage, evaluation of released files as a user does it, one sentence for faults.

Pictures and crops are tiny. What a process of its own could show otherwise (exit codes, standard error, the path from
which a script is run) is shown in one; the rest calls the same functions here, which saves the imports. Training is in
test_training_command.py.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import train
from tests.commands import (
    AS_IN_THE_PAPER,
    BEST,
    MAKE,
    ROOT,
    SIZES,
    SMALL,
    WHOLE,
    assert_one_sentence,
    constant_state,
    make_cub,
    printed_scores,
    read_json,
    rounded,
    run_inference,
    run_training,
    shell,
    write_random_net,
)
from tests.reference_weights import PAIRS, published_keys
from tests.test_checkpoints import STALE, save
from utils.data.dataset import Dataset

THREE_CLASSES = [(0, True, WHOLE), (0, False, WHOLE), (2, False, SMALL)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data sets of three classes, of both layouts."""
    folder = tmp_path_factory.mktemp("commands")
    for dataset, make in MAKE.items():
        make(folder / dataset, THREE_CLASSES, 3)
    return folder


# --- the released files


# The net's five best classes, and four pictures: right; right class, small box; fifth class; none of the five.
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
    homes = {}
    for name, make in MAKE.items():
        home, dataset = tmp_path_factory.mktemp("homes") / name, train.DATASETS[name]
        make(home / "data", KNOWN, dataset.num_classes)
        homes[name] = replace(dataset, home=home)
    return homes


def release(home: Dataset, arch: str, content: object) -> Path:
    """Puts a file where the README says that the authors' file goes."""
    name = f"{arch}99.pth.tar" if home.name == "CUB" else f"{arch}8_final.pth.tar"
    path = home.folder / "logs" / arch / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return save(content, path)


@pytest.mark.parametrize(("dataset", "arch"), PAIRS)
def test_released_checkpoint_is_evaluated(homes, tmp_path, capsys, dataset, arch):
    """Released file and data in their places, only --arch given: figures known by hand, beside the paper's."""
    home = homes[dataset]
    scores = {label: 5.0 - rank for rank, label in enumerate(BEST)}
    path = release(home, arch, constant_state(dataset, arch, scores, 0.0))
    assert run_inference(home, "--arch", arch, *SIZES, "--json", tmp_path / "r.json") == 0
    output = capsys.readouterr().out
    record = read_json(tmp_path / "r.json")
    assert rounded(record["scores"]) == KNOWN_SCORES
    paper = PAPER[dataset, arch]
    shown = dict(zip(KNOWN_SCORES, [*([figure] for figure in paper), [], []], strict=True))
    assert printed_scores(output) == {metric: KNOWN_SCORES[metric] + shown[metric] for metric in KNOWN_SCORES}
    assert list(record["published"].values()) == paper
    threshold, top_k = RECIPES[dataset, arch]
    expected = {"final_relu": True, "threshold": threshold, "top_k": top_k, "align_maps": "stretched"}
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
    assert run_inference(homes["CUB"], *arguments) == 0
    record = read_json(tmp_path / "r.json")
    assert record["settings"]["final_relu"] is False and rounded(record["scores"]) == KNOWN_SCORES
    assert "IJCV checkpoint" in capsys.readouterr().out
    assert run_inference(homes["CUB"], *arguments, "--final_relu") == 0
    record = read_json(tmp_path / "r.json")
    assert record["settings"]["final_relu"] is True and rounded(record["scores"]) != KNOWN_SCORES


def test_flags_win_over_the_runs_settings(tmp_path, capsys):
    """Flags override settings.json; what it lacks comes from the recipe, and all where it names another file."""
    data, alone = make_cub(tmp_path / "data", KNOWN, 200), tmp_path / "run"
    alone.mkdir()
    weights = save(constant_state("CUB", "mobilenet", {}, 0.0), alone / "mobilenet1.pth.tar")
    arguments = ["--arch", "mobilenet", "--data", data, "--num_workers", "0", "--json", alone / "r.json"]
    arguments += ["--checkpoint", weights, "--no-tencrop"]

    def settings(*more: str) -> dict:
        assert run_inference("CUB", *arguments, *more) == 0
        record = read_json(alone / "r.json")
        assert record["ten_crops"] is False and "one crop" in capsys.readouterr().out
        return record["settings"]

    # As runs wrote it before there was another place to draw maps in than stretched and geometric.
    stored = {"final_relu": False, "threshold": 0.3, "align_maps": True, "resize_size": 80, "crop_size": 64}
    (alone / "settings.json").write_text(json.dumps({"weights": "mobilenet1.pth.tar", "recipe": stored}))
    assert settings() == {**stored, "align_maps": "geometric", "top_k": 200, **AS_IN_THE_PAPER}
    flags = ["--threshold", "0", "--top_k", "2", "--resize_size", "64", "--crop_size", "32", "--final_relu"]
    flags.append("--no-align_maps")
    given = {
        "threshold": 0.0,
        "top_k": 2,
        "align_maps": "stretched",
        "resize_size": 64,
        "crop_size": 32,
        "final_relu": True,
    }
    assert settings(*flags) == {**given, **AS_IN_THE_PAPER}
    (alone / "settings.json").write_text(json.dumps({"weights": "mobilenet99.pth.tar", "recipe": stored}))
    sizes = {"align_maps": "stretched", "resize_size": 64, "crop_size": 48, **AS_IN_THE_PAPER}
    assert settings(*SIZES) == {"final_relu": True, "threshold": 0.15, "top_k": 200, **sizes}
    own = '"weights": "mobilenet1.pth.tar", "recipe"'
    for text in ("{", "{}", f"{{{own}: 5}}", f'{{{own}: {{"threshold": "high"}}}}', f'{{{own}: {{"top_k": 0}}}}'):
        (alone / "settings.json").write_text(text)
        assert run_inference("CUB", *arguments) == 1
        assert_one_sentence(capsys.readouterr().err, str(alone / "settings.json"), "move it away")


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
    home = homes["CUB"]
    path = release(home, "mobilenet", constant_state("CUB", "mobilenet", {}, 0.0))
    data = home.folder / "data"
    result = shell(ROOT / "CUB", "BAS_inference.py", "--arch", "resnet", "--data", data, "--checkpoint", path)
    assert result.returncode == 1
    assert_one_sentence(result.stderr, str(path), "mobilenet for 200 classes, not resnet", "--arch mobilenet")


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
        (["--device", "abacus"], "--device abacus is not available on this machine; there are: cpu"),
        (["--resize_size", "32", "--crop_size", "48"], "a crop of 48 pixels does not fit into a picture of 32"),
    ],
)
def test_wrong_options(folder, homes, capsys, command, arguments, words):
    """Exit code 2, the option and its range, from both commands."""
    if command == "train":
        code = run_training("--root", folder / "CUB", "--save_path", folder / "never", *arguments)
    else:
        home = homes["CUB"]
        release(home, "vgg", constant_state("CUB", "vgg", {}, 0.0))
        code = run_inference(home, *arguments)
    err = capsys.readouterr().err
    assert code == 2 and words in err and "Traceback" not in err
    assert not (folder / "never").exists()


@pytest.mark.parametrize("dataset", ["CUB", "ILSVRC"])
def test_evaluation_without_what_it_needs(homes, folder, tmp_path, capsys, dataset):
    """No checkpoint, no data, or the two of different class counts: exit code 1 and where to get or how to give it."""
    home = homes[dataset]
    shutil.rmtree(home.folder / "logs", ignore_errors=True)
    assert run_inference(home, "--arch", "mobilenet") == 1
    assert_one_sentence(capsys.readouterr().err, "there is no checkpoint", "mobilenet", "--checkpoint FILE")
    assert run_inference(home, "--arch", "mobilenet", "--checkpoint", tmp_path / "no.pth.tar") == 1
    assert_one_sentence(capsys.readouterr().err, str(tmp_path / "no.pth.tar"))

    release(home, "mobilenet", constant_state(dataset, "mobilenet", {}, 0.0))
    assert run_inference(home, "--arch", "mobilenet", "--data", tmp_path / "nowhere") == 1
    assert_one_sentence(capsys.readouterr().err, str(tmp_path / "nowhere"))
    assert run_inference(home, "--arch", "mobilenet", "--data", folder / dataset) == 1
    assert_one_sentence(capsys.readouterr().err, "classes, but the data set has 3 classes", "--checkpoint")


def test_weights_of_another_network_beside_a_runs_settings(tmp_path, capsys):
    """Protects from advice that does not help: the weights are at fault, not the settings that know their classes."""
    weights = write_random_net(tmp_path / "net.pth.tar", 3)
    torch.save(torch.nn.Linear(2, 2).state_dict(), weights)
    assert run_inference("CUB", "--arch", "mobilenet", "--checkpoint", weights, "--device", "cpu") == 1
    assert_one_sentence(capsys.readouterr().err, f"{weights} holds no BAS model")


def test_corrupt_picture_does_not_end_an_evaluation(homes, tmp_path, capsys):
    """It counts as a miss, is listed in the output and the JSON file, and all others are scored."""
    home = homes["CUB"]
    scores = {label: 5.0 - rank for rank, label in enumerate(BEST)}
    release(home, "mobilenet", constant_state("CUB", "mobilenet", scores, 0.0))
    data = shutil.copytree(home.folder / "data", tmp_path / "data")
    broken = data / "images" / "031.Class" / "1.jpg"  # the only picture that is right in Top-1 Loc
    broken.write_bytes(broken.read_bytes()[:100])
    arguments = ["--arch", "mobilenet", "--data", data, *SIZES, "--batch_size", "3", "--json", tmp_path / "r.json"]
    assert run_inference(home, *arguments) == 0
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
