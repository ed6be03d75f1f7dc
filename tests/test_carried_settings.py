"""What a run tells of evaluating its files reaches every one of them, or a line says that it does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.commands import (
    NOISE,
    PICTURES,
    SIZES,
    TINY,
    assert_one_sentence,
    make_cub,
    read_json,
    run_inference,
    run_training,
    save_noise,
    write_random_net,
)

OWN = [*TINY, "--plain_heads", "--no-final_relu"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data set of three classes and a run on it, with its own recipe and threshold."""
    home = tmp_path_factory.mktemp("carried")
    data = make_cub(home / "data", PICTURES, 3)
    assert run_training("--root", data, "--save_path", home / "run", "--epochs", 2, *OWN) == 0
    return data, home / "run" / "mobilenet"


def evaluate(data: Path, weights: Path, *more: object) -> dict:
    path = weights.parent / "r.json"
    command = ["--arch", "mobilenet", "--data", data, "--checkpoint", weights, "--num_workers", 0, "--json", path]
    assert run_inference("CUB", *command, *more) == 0
    return read_json(path)


def test_a_training_state_is_evaluated_as_the_weights_of_its_run(trained, tmp_path, capsys) -> None:
    """Protects the best state that --keep keeps: its own recipe, and what its run found out in the end; alone, too."""
    data, run = trained
    expected = evaluate(data, run / "mobilenet1.pth.tar")
    state = run / "states" / "epoch_0002.pth.tar"
    found = evaluate(data, state)
    for name in ("scores", "settings"):
        assert found[name] == expected[name]
    shutil.copy(state, tmp_path / "alone.pth.tar")
    capsys.readouterr()
    alone = evaluate(data, tmp_path / "alone.pth.tar")["settings"]
    assert f"settings of the run: {tmp_path / 'alone.pth.tar'}" in capsys.readouterr().out
    assert {**alone, "threshold": expected["settings"]["threshold"]} == expected["settings"]
    (tmp_path / "states").mkdir()
    (tmp_path / "settings.json").write_text("of an editor")  # two levels up, and none of a run's
    shutil.copy(state, tmp_path / "states" / "alone.pth.tar")
    assert evaluate(data, tmp_path / "states" / "alone.pth.tar")["settings"] == alone
    (tmp_path / "settings.json").unlink()
    content = torch.load(state, weights_only=True)
    torch.save({**content, "settings": {**content["settings"], "top_k": -1}}, tmp_path / "bad.pth.tar")
    command = ["--arch", "mobilenet", "--data", data, "--checkpoint", tmp_path / "bad.pth.tar"]
    assert run_inference("CUB", *command) == 1
    assert_one_sentence(capsys.readouterr().err, "bad.pth.tar holds settings that cannot be", "top_k")


def test_weights_without_their_settings_are_told(trained, tmp_path, capsys) -> None:
    """Protects figures of one's own network from the paper's sizes, k and head, taken without a word."""
    data, run = trained
    own = ("--plain_heads", "--no-final_relu")  # else the file would not fit
    shutil.copy(run / "mobilenet1.pth.tar", tmp_path / "net.pth.tar")
    evaluate(data, tmp_path / "net.pth.tar", *own)
    assert f"warning: nothing tells how {tmp_path / 'net.pth.tar'} was trained (no settings" in capsys.readouterr().out
    renamed = run / "best.pth.tar"
    shutil.copy(run / "mobilenet1.pth.tar", renamed)
    evaluate(data, renamed, *own)
    assert "was trained (settings.json there is about mobilenet1.pth.tar)" in capsys.readouterr().out
    evaluate(data, run / "mobilenet1.pth.tar")
    assert "warning" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("first", "second", "threshold"),
    [
        (["--no-adapt_recipe"], [], 0.15),
        (["--threshold", 0.15], [], 0.15),  # the paper's as well
        ([], ["--threshold", 0.4, "--top_k", 1], 0.4),
    ],
    ids=["not adapted", "given", "given later"],
)
def test_a_resumed_run_keeps_how_it_is_evaluated(tmp_path, first, second, threshold) -> None:
    """Protects from --resume alone changing a finished run's threshold and k, though nothing was given."""
    data = make_cub(tmp_path / "data", PICTURES, 3)
    common = ["--root", data, "--save_path", tmp_path / "run", "--epochs", 1, *OWN, "--warmup_epochs", 0]
    assert run_training(*common, *first) == 0
    path = tmp_path / "run" / "mobilenet" / "settings.json"
    if second:
        assert run_training(*common, "--resume", *second) == 0
    before = read_json(path)["recipe"]
    assert before["threshold"] == threshold
    assert run_training(*common, "--resume") == 0
    assert read_json(path)["recipe"] == before
    path.write_text(json.dumps({**read_json(path), "recipe": {"threshold": "x"}}))  # changed by hand: the state's own
    assert run_training(*common, "--resume") == 0
    assert isinstance(read_json(path)["recipe"]["threshold"], float)


def test_classes_in_another_order_are_refused(trained, tmp_path, capsys) -> None:
    """Protects from a score of nothing: the same names for other labels are an error, other names are told."""
    data, run = trained
    (tmp_path / "data").mkdir()
    for path in data.iterdir():
        (tmp_path / "data" / path.name).symlink_to(path)
    names, labels = tmp_path / "data" / "classes.txt", tmp_path / "data" / "image_class_labels.txt"
    rows = [line.split() for line in labels.read_text().splitlines()]
    for path in (names, labels):
        path.unlink()
    names.write_text("1 003.Class\n2 002.Class\n3 001.Class\n")
    labels.write_text("".join(f"{key} {4 - int(label)}\n" for key, label in rows))
    weights = run / "mobilenet1.pth.tar"
    assert run_inference("CUB", "--arch", "mobilenet", "--data", tmp_path / "data", "--checkpoint", weights) == 1
    assert_one_sentence(capsys.readouterr().err, "was trained with 001.Class as class 1, which is class 3")
    names.write_text("1 a bird\n2 002.Class\n3 003.Class\n")
    labels.write_text("".join(f"{key} {label}\n" for key, label in rows))
    evaluate(tmp_path / "data", weights)
    assert "warning: the classes have other names than in training, a bird instead of 001" in capsys.readouterr().out


def test_no_threshold_finds_anything(tmp_path, capsys) -> None:
    """Protects a recipe's threshold from a choice among equals, which was 0: every box the whole crop from then on."""
    corner = (0, 0, 2, 2)  # smaller than what any map of these pictures marks, and outside the crop
    data = make_cub(tmp_path / "data", [(label, is_train, corner) for label, is_train, _ in NOISE], 5)
    weights = write_random_net(tmp_path / "net.pth.tar", 5)
    common = ["--arch", "mobilenet", "--data", data, "--checkpoint", weights, *SIZES, "--no-tencrop"]
    assert run_inference("CUB", *common, "--select-on", "train", "--json", tmp_path / "r.json") == 0
    assert read_json(tmp_path / "r.json")["settings"]["threshold"] == 0.6
    printed = capsys.readouterr().out
    assert "no threshold of BAS, k = 2 finds a box on the train split; 0.6 stays" in printed
    assert "thresholds with the highest" not in printed


def test_saved_maps_are_not_mixed_with_others(tmp_path, capsys) -> None:
    """Protects scores of saved maps: a folder has those of one kind, network and size; again the same is no harm."""
    data = make_cub(tmp_path / "data", NOISE, 5)
    weights = write_random_net(tmp_path / "net.pth.tar", 5)
    common = ["--arch", "mobilenet", "--data", data, "--checkpoint", weights, "--num_workers", 0, "--no-tencrop"]
    for _ in range(2):
        assert run_inference("CUB", *common, "--save-maps", tmp_path / "maps") == 0
    before = read_json(tmp_path / "maps" / "maps.json")
    assert run_inference("CUB", *common, "--map", "center", "--save-maps", tmp_path / "maps") == 1
    assert_one_sentence(capsys.readouterr().err, "--save-maps", "holds maps with map BAS, k = 2", "another folder")
    assert read_json(tmp_path / "maps" / "maps.json") == before
    assert run_inference("CUB", *common, "--align_maps", "--save-maps", tmp_path / "maps") == 1
    assert_one_sentence(capsys.readouterr().err, "holds maps with align_maps stretched")
    (tmp_path / "maps" / "maps.json").unlink()
    assert run_inference("CUB", *common, "--save-maps", tmp_path / "maps") == 1
    assert_one_sentence(capsys.readouterr().err, "holds maps of unknown origin")


def test_places_of_maps_belong_to_the_network_as_it_is_built(trained, capsys) -> None:
    """Protects calibrated maps: another padding is calibrated anew, as are weights exchanged under the name."""
    data, run = trained
    weights = run / "mobilenet1.pth.tar"
    once = "once for this checkpoint"
    for more, times in (((), 1), (("--same_padding",), 1), (("--same_padding",), 0), ((), 0)):
        evaluate(data, weights, "--align_maps", "calibrated", *more)
        assert capsys.readouterr().out.count(once) == times
    plain, padded = read_json(run / "settings.json")["map_offsets"]
    assert padded == f"{plain}, same_padding True"
    original, settings = weights.read_bytes(), (run / "settings.json").read_text()
    state = torch.load(weights, weights_only=True)
    torch.save({name: value * 1.01 for name, value in state.items()}, weights)
    evaluate(data, weights, "--align_maps", "calibrated")
    assert capsys.readouterr().out.count(once) == 1
    assert (run / "settings.json").read_text() == settings
    weights.write_bytes(original)


def test_evaluations_within_a_run_follow_its_last_ones_rule(tmp_path) -> None:
    """Protects curves and the best state from one epoch at the paper's threshold and the next at a chosen one."""
    data = make_cub(tmp_path / "data", PICTURES, 3)
    common = ["--root", data, "--save_path", tmp_path / "run", *OWN, "--warmup_epochs", 0, "--epochs", 2]
    assert run_training(*common, "--eval_every", 1, "--keep", 3) == 0
    run = tmp_path / "run" / "mobilenet"
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    command = ["--arch", "mobilenet", "--data", data, "--num_workers", 0, "--json", tmp_path / "r.json"]
    for epoch, entry in enumerate(log, start=1):
        state = shutil.copy(run / "states" / f"epoch_000{epoch}.pth.tar", tmp_path / f"{epoch}.pth.tar")
        assert run_inference("CUB", *command, "--checkpoint", state, "--select-on", "train") == 0
        alone = read_json(tmp_path / "r.json")
        assert (entry["threshold"], entry["test"]) == (alone["settings"]["threshold"], alone["scores"])


def test_a_run_that_goes_on_elsewhere_keeps_its_choices(tmp_path, capsys) -> None:
    """Protects a run on the paper's recipe from another threshold, when it goes on from a state in another folder."""
    data = make_cub(tmp_path / "data", PICTURES, 3)
    common = ["--root", data, "--epochs", 2, *OWN, "--warmup_epochs", 0]
    assert run_training(*common, "--save_path", tmp_path / "a", "--no-adapt_recipe", "--keep", 2) == 0
    state = tmp_path / "a" / "mobilenet" / "states" / "epoch_0001.pth.tar"
    assert run_training(*common, "--save_path", tmp_path / "b", "--resume", state) == 0
    first, second = (read_json(tmp_path / name / "mobilenet" / "settings.json") for name in "ab")
    assert first["chooses_threshold"] is second["chooses_threshold"] is False and first["recipe"] == second["recipe"]
    assert run_training(*common, "--save_path", tmp_path / "c") == 0
    capsys.readouterr()
    assert run_training(*common, "--save_path", tmp_path / "c", "--resume", "--no-adapt_recipe") == 2
    assert_one_sentence(capsys.readouterr().err, "--no-adapt_recipe: the recipe of the run to resume was adapted")


def test_weights_of_a_run_that_was_prolonged(trained, tmp_path, capsys) -> None:
    """Protects the weights that a run ended with before it went on: they are evaluated as before, by their recipe and
    threshold then, and not taken for what their name says if they are another file."""
    data, finished = trained
    run = shutil.copytree(finished.parent, tmp_path / "run") / "mobilenet"
    before = evaluate(data, run / "mobilenet1.pth.tar")
    common = ["--root", data, "--save_path", tmp_path / "run", *OWN, "--resume"]
    assert run_training(*common, "--epochs", 3, "--threshold", 0.9) == 0
    assert run_training(*common, "--epochs", 4) == 0
    capsys.readouterr()
    after = evaluate(data, run / "mobilenet1.pth.tar")
    assert "warning" not in capsys.readouterr().out
    assert (after["scores"], after["settings"]) == (before["scores"], before["settings"])
    assert evaluate(data, run / "mobilenet2.pth.tar")["settings"]["threshold"] == 0.9
    shutil.copy(run / "mobilenet3.pth.tar", run / "mobilenet1.pth.tar")
    evaluate(data, run / "mobilenet1.pth.tar", "--plain_heads", "--no-final_relu")
    assert "warning: nothing tells how" in capsys.readouterr().out


def test_k_that_was_given_stays(tmp_path, capsys) -> None:
    """Protects data with masks alone, for which the protocol has a k of its own: the user's stays in force in the run,
    after --resume, and in the command that repeats the evaluation."""
    for split in ("train", "test"):
        for seed in range(4):
            save_noise(tmp_path / "data" / split / f"c{seed % 2}" / f"{split}{seed}.png", seed)
            mask = np.zeros((64, 64), np.uint8)
            mask[10:40, 20:50] = 255
            path = tmp_path / "data" / "masks" / split / f"c{seed % 2}" / f"{split}{seed}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(path)
    common = ["--dataset", "OpenImages", "--dataset-dir", tmp_path / "data", "--save_path", tmp_path / "run", *OWN]
    assert run_training(*common, "--epochs", 1, "--top_k", 2) == 0
    printed, run = capsys.readouterr().out, tmp_path / "run" / "mobilenet"
    before = read_json(run / "evaluation.json")
    assert before["map"] == "BAS, k = 2" and "--top_k 2" in printed.splitlines()[-1]
    assert run_training(*common, "--epochs", 1, "--resume") == 0
    assert read_json(run / "evaluation.json") == before


def test_a_generator_that_nothing_trains_is_told(tmp_path, capsys) -> None:
    """Protects a run of CAM alone from being judged by maps that nothing has trained, without a word; and from classes
    without a training picture, as of labels that count from 1."""
    data = make_cub(tmp_path / "data", PICTURES, 4)
    none = ["--frg_weight", 0, "--bas_weight", 0, "--area_weight", 0]
    assert run_training("--root", data, "--save_path", tmp_path / "run", "--epochs", 1, *OWN, *none) == 0
    printed = capsys.readouterr().out
    assert "no loss trains the generator" in printed
    assert "classes that nothing is learnt of, without a training picture: 1, 004.Class" in printed
