"""Protects training as a user does it: what a run leaves, going on with it, and one sentence for whatever is wrong.

Pictures and crops are tiny. Runs that are compared bit for bit are processes of their own, since libraries may round
otherwise in one that has done other work before; the rest calls the same functions here, which saves the imports.
"""

from __future__ import annotations

import io
import shutil
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

import train
from tests.commands import (
    AS_IN_THE_PAPER,
    AS_PUBLISHED,
    MAKE,
    PICTURES,
    ROOT,
    RUN_FILES,
    SMALL_HEADS,
    WHOLE,
    assert_one_sentence,
    make_cub,
    printed_scores,
    read_json,
    read_log,
    rounded,
    run_files,
    run_inference,
    run_training,
    shell,
)
from utils.runs.settings import Engine

TRAINING = {"CUB": [*AS_PUBLISHED, *SMALL_HEADS], "ILSVRC": AS_PUBLISHED}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data sets of both layouts and the runs on them; the runs' files are large, so they go when the tests are done."""
    folder = tmp_path_factory.mktemp("training")
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
        options += [*TRAINING[dataset], "--save_path", folder / f"runs_{dataset}"]
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
        weights = run / train.DATASETS[dataset].weights_name("mobilenet", epochs - 1)
        states = {f"states/epoch_{epoch:04}.pth.tar" for epoch in range(1, epochs + 1)}
        assert run_files(run) == RUN_FILES | states | {weights.name}
        settings = read_json(run / "settings.json")
        recipe = settings["recipe"]
        expected = {
            "dataset": dataset,
            "arch": "mobilenet",
            "num_classes": 3,
            "epochs": epochs,
            "batch_size": 4,
            "lr": 0.001,
        }
        expected |= {"resize_size": 64, "crop_size": 48, "frg_weight": 0.5, "area_weight": 1.5}
        expected |= (
            {"threshold": 0.15, "top_k": 200, "seed": 6, "final_relu": False, "plain_heads": True}
            if dataset == "CUB"
            else {"threshold": 0.5, "top_k": 1, "seed": 2, "final_relu": True, "plain_heads": False}
        )
        assert {name: recipe[name] for name in expected} == expected

        assert settings["weights"] == weights.name
        assert settings["engine"] == asdict(Engine())
        data = settings["data"]
        assert (data["train"]["pictures"], data["train"]["classes"], data["test"]["pictures"]) == (8, 3, 4)
        (start,) = settings["starts"]
        assert (start["after_epoch"], start["workers"], start["processes"]) == (0, 0, 1)
        assert start["versions"]["torch"] == torch.__version__
        assert dataset == "ILSVRC" or "train.py --dataset CUB --root" in start["command"]

        log = read_log(run)
        assert [entry["epoch"] for entry in log] == list(range(1, epochs + 1))
        for entry in log:
            total = entry["cls"] + 0.5 * entry["frg"] + entry["bas"] + 1.5 * entry["area"]
            assert entry["total"] == pytest.approx(total, rel=1e-5) and 0 < entry["area"] < 1
            assert entry["lr"] == 0.001 and entry["images_per_second"] > 0 and 0 <= entry["accuracy"] <= 100
            assert entry["seconds"] > 0 and 0 <= entry["data_wait"] <= 1 and entry["memory_mib"] > 100
            assert (entry["steps"], entry["replaced_pictures"]) == (2, 0)
        evaluation = read_json(run / "evaluation.json")
        assert evaluation["scores"] == log[-1]["test"] and evaluation["failures"] == []
        assert (evaluation["scores"]["images"], evaluation["scores"]["missed"]) == (4, 0)
        assert printed_scores(output) == rounded(evaluation["scores"])
        assert f"{dataset} train: 8 pictures, 3 classes" in output and f"{dataset} test: 4 pictures" in output
        assert "ImageNet weights: 135 tensors" in output and str(weights) in output


@pytest.mark.parametrize("dataset", ["CUB", "ILSVRC"])
def test_evaluation_repeats_the_trainings(runs, folder, capsys, dataset):
    """The command that training prints, as printed: same figures, with the run's own sizes and no other flags."""
    run, output = runs[dataset]
    command = output.splitlines()[-1].split(" && ")
    assert command[0].strip() == f"cd {dataset}"
    python, *arguments = command[1].split()
    assert python == "python"
    arguments += ["--num_workers", 0, "--json", folder / f"{dataset}.json"]
    if dataset == "CUB":
        result = shell(ROOT / dataset, *arguments)
        assert (result.returncode, result.stderr) == (0, "")
        printed = result.stdout
    else:
        capsys.readouterr()
        assert arguments[0] == "BAS_inference.py" and run_inference(dataset, *arguments[1:]) == 0
        printed = capsys.readouterr().out
    record = read_json(folder / f"{dataset}.json")
    assert record["scores"] == read_json(run / "evaluation.json")["scores"]
    assert printed_scores(printed) == rounded(record["scores"])
    expected = (0.15, 3) if dataset == "CUB" else (0.5, 1)  # all of the three classes, of CUB's 200
    settings = AS_IN_THE_PAPER | {"plain_heads": dataset == "CUB", "final_relu": dataset == "ILSVRC"}
    settings |= {"threshold": expected[0], "top_k": expected[1], "align_maps": "stretched"}
    settings |= {"resize_size": 64, "crop_size": 48}
    assert record["settings"] == settings
    assert (record["dataset"], record["arch"], record["ten_crops"]) == (dataset, "mobilenet", True)
    assert record["published"] is None  # three classes are not the paper's data set
    assert Path(record["checkpoint"]) == (
        run / train.DATASETS[dataset].weights_name("mobilenet", 1 if dataset == "CUB" else 0)
    )


# --- going on


def stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def last_state(run: Path, epochs: int = 2) -> dict:
    return torch.load(run / "states" / f"epoch_{epochs:04}.pth.tar", weights_only=True)


def test_resumed_run_equals_one_at_a_stretch(runs, folder):
    """Stopped after one epoch and resumed with more epochs and other workers: the bits of two epochs at a stretch."""
    options = [*TRAINING["CUB"], "--root", folder / "CUB", "--save_path", folder / "resumed"]
    result = shell(ROOT, "train.py", *options, "--epochs", 1, "--resume", "auto")  # there is nothing yet: it begins
    assert (result.returncode, result.stderr) == (0, "")
    run, (whole, _) = folder / "resumed" / "mobilenet", runs["CUB"]
    assert (run / "mobilenet0.pth.tar").is_file() and "resumed from" not in result.stdout
    before = torch.load(run / "mobilenet0.pth.tar", weights_only=True)
    free = ["--num_workers", 1, "--device", "cpu", "--show_step", 1, "--keep", 1, "--save_every_steps", 1]
    result = shell(ROOT, "train.py", *options, "--epochs", 2, *free, "--resume")
    assert (result.returncode, result.stderr) == (0, "")
    assert f"resumed from {run / 'states' / 'epoch_0001.pth.tar'} after 1 epochs" in result.stdout
    kept = {path.name for path in (run / "states").iterdir()}
    # The first epoch's was evaluated, too, and stays if it is the best one.
    assert {"index.json", "epoch_0002.pth.tar"} <= kept <= {"index.json", "epoch_0002.pth.tar", "epoch_0001.pth.tar"}

    ours, theirs = (torch.load(path / "mobilenet1.pth.tar", weights_only=True) for path in (run, whole))
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert not torch.equal(ours["classifier_loc.0.weight"], before["classifier_loc.0.weight"])
    ours, theirs = (last_state(path)["optimizer"]["state"] for path in (run, whole))
    assert all(torch.equal(ours[key]["momentum_buffer"], theirs[key]["momentum_buffer"]) for key in theirs)
    names = ("epoch", "cls", "frg", "bas", "area", "total", "accuracy", "lr", "steps")
    ours, theirs = ([[entry[name] for name in names] for entry in read_log(path)] for path in (run, whole))
    assert ours == theirs and len(ours) == 2
    assert read_json(run / "evaluation.json") == read_json(whole / "evaluation.json")
    starts = read_json(run / "settings.json")["starts"]
    assert [(start["after_epoch"], start["workers"]) for start in starts] == [(0, 0), (1, 1)]


def test_finished_run_is_evaluated_again(runs, folder, capsys):
    """Protects what comes after the last epoch: --resume FILE of a run with all its epochs repeats it elsewhere."""
    run, _ = runs["CUB"]
    state = run / "states" / "epoch_0002.pth.tar"
    options = [*TRAINING["CUB"], "--root", folder / "CUB", "--save_path", folder / "again", "--resume", state]
    before = stamps(run)
    assert run_training(*options) == 0
    output = capsys.readouterr().out
    assert f"resumed from {state} after 2 epochs" in output and "epoch   " not in output
    again = folder / "again" / "mobilenet"
    assert read_json(again / "evaluation.json")["scores"]["images"] == 4
    ours, theirs = (torch.load(path / "mobilenet1.pth.tar", weights_only=True) for path in (again, run))
    assert all(torch.equal(ours[key], value) for key, value in theirs.items())
    assert stamps(run) == before


def test_resuming_another_run_is_refused(runs, folder, tmp_path, capsys):
    """Protects runs from other settings or pictures: exit code 2, the difference is shown, nothing on disk changes."""
    run, _ = runs["CUB"]
    options = [*TRAINING["CUB"], "--root", folder / "CUB", "--save_path", run.parent, "--resume"]
    state = run / "states" / "epoch_0002.pth.tar"
    more_pictures = make_cub(tmp_path / "more", [(2, True, WHOLE), *PICTURES], 3)
    same_number = make_cub(tmp_path / "other", [(1, True, WHOLE), *PICTURES[1:]], 3)
    cases = [
        (["--epochs", 3, "--lr", 0.01], "other settings (lr was 0.001, is 0.01); give the same ones"),
        (["--amp"], "other settings (amp was none, is bf16); give the same ones"),
        ([state, "--arch", "resnet"], "other settings (arch was mobilenet, is resnet)"),
        ([state, "--dataset", "ILSVRC", "--root", folder / "ILSVRC"], "dataset was CUB, is ILSVRC"),
        (["--recipe", "ijcv"], "name was cvpr, is ijcv"),
        (["--crop_size", 32, "--seed", 1], "seed was 6, is 1; crop_size was 48, is 32"),
        (["--root", more_pictures], "other training pictures (pictures was 8, is 9; digest was "),
        (["--root", same_number], "other training pictures (digest was "),
        (["--epochs", 1], "the run has begun epoch 2; give at least as many --epochs"),
        (["--pretrained", "none"], "--resume takes the weights of the run; leave out --pretrained"),
    ]
    before = stamps(run.parent)
    for more, words in cases:
        assert run_training(*options, *more) == 2, more
        err = capsys.readouterr().err
        assert words in err and "Traceback" not in err, (more, err)
        assert stamps(run.parent) == before, more


def test_resuming_what_is_no_state(runs, folder, capsys):
    """No run, a run in the way, weights in place of a state, a damaged log: a sentence, nothing lost."""
    run, _ = runs["CUB"]
    options = [*TRAINING["CUB"], "--root", folder / "CUB", "--save_path", run.parent]
    cases = [
        (["--epochs", 3], 2, ["states/epoch_0001.pth.tar is there already", "--resume", "--save_path"]),
        (["--resume", run / "mobilenet1.pth.tar"], 1, ["mobilenet1.pth.tar is no training state", "states/"]),
        (["--resume", folder / "nowhere.pth.tar"], 1, ["nowhere.pth.tar", "leave out --resume"]),
        (["--save_path", folder / "none", "--resume"], 1, ["no intact state in", "leave out --resume"]),
    ]
    before = stamps(run.parent)
    for more, code, words in cases:
        assert run_training(*options, *more) == code, more
        assert_one_sentence(capsys.readouterr().err, *words)
        assert stamps(run.parent) == before and not (folder / "none").exists()
    damaged = folder / "damaged" / "mobilenet"
    (damaged / "states").mkdir(parents=True)
    options[-1] = damaged.parent
    (damaged / "log.jsonl").write_text('{"epoch": 1}\n{"epo')
    assert run_training(*options, "--epochs", 3, "--resume", run / "states" / "epoch_0002.pth.tar") == 1
    assert_one_sentence(capsys.readouterr().err, "log.jsonl is no log of a run", "move it away")


def test_going_on_from_a_model_with_other_classes(runs, folder, tmp_path, capsys):
    """Protects fine-tuning as a user does it: weights of a run, or its state, start one on the same or on less data."""
    run, _ = runs["CUB"]
    fewer = make_cub(tmp_path / "fewer", [(number % 2, True, WHOLE) for number in range(4)], 2)
    options = [*TRAINING["CUB"], "--epochs", 1, "--pretrained"]
    for root, source, words in (
        (folder / "CUB", run / "mobilenet1.pth.tar", "; kept: classifier head, generator\n"),
        (fewer, run / "states" / "epoch_0002.pth.tar", "(its 'model'), mobilenet for 3 classes; at random, for the "),
    ):
        assert run_training(*options, source, "--root", root, "--save_path", tmp_path / root.name) == 0
        output = capsys.readouterr().out
        assert f"BAS weights: 135 tensors of the trunk from {source}" in output and words in output
        shutil.rmtree(tmp_path / root.name / "mobilenet")


# --- what goes wrong


@pytest.mark.parametrize(("dataset", "hint"), [("CUB", "--download"), ("ILSVRC", "--root")])
def test_training_without_data(tmp_path, capsys, dataset, hint):
    """A folder that is not there ends the command at once: exit code 1, the folder, the hint, nothing written."""
    options = ["--dataset", dataset, "--root", tmp_path / "nowhere", "--save_path", tmp_path / "runs"]
    assert run_training(*AS_PUBLISHED, *options) == 1
    assert_one_sentence(capsys.readouterr().err, str(tmp_path / "nowhere"), hint)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--lr", "0"], "argument --lr: 0 must be greater than 0"),
        (["--lr", "inf"], "argument --lr: inf must be"),
        (["--epochs", "2", "--warmup_epochs", "2"], "--warmup_epochs 2 leaves none of 2 epochs"),
        (["--epochs", "0"], "argument --epochs: 0 must be at least 1"),
        (["--gpu", "0", "--device", "cpu"], "give --gpu or --device, not both"),
        (["--dataset", "ILSVRC", "--download"], "--download cannot fetch ILSVRC; it needs an account"),
        (["--grad_accum", "0"], "argument --grad_accum: 0 must be at least 1"),
        (["--amp", "fp8"], "argument --amp: invalid choice: 'fp8'"),
    ],
)
def test_wrong_options_of_training(capsys, arguments, words):
    """Options that cannot work end before anything is read or written."""
    assert run_training(*arguments) == 2
    assert words in capsys.readouterr().err


def test_backbone_weights_that_do_not_fit(folder, tmp_path, capsys):
    """--pretrained of another backbone: one sentence, nothing written."""
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "resnet.pth")
    options = ["--root", folder / "CUB", "--save_path", tmp_path / "runs", "--pretrained", tmp_path / "resnet.pth"]
    assert run_training(*AS_PUBLISHED, *options) == 1
    assert_one_sentence(capsys.readouterr().err, "resnet.pth does not fit this backbone", "conv1.weight")
    assert not (tmp_path / "runs").exists()
