"""What a run tells of evaluating its files reaches every one of them, or a line says that it does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

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
    names = tmp_path / "data" / "classes.txt"
    names.unlink()
    names.write_text("1 003.Class\n2 002.Class\n3 001.Class\n")
    weights = run / "mobilenet1.pth.tar"
    assert run_inference("CUB", "--arch", "mobilenet", "--data", tmp_path / "data", "--checkpoint", weights) == 1
    assert_one_sentence(capsys.readouterr().err, "was trained with 001.Class as class 1, which is class 3")
    names.write_text("1 a bird\n2 002.Class\n3 003.Class\n")
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
