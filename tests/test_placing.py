"""`--align_maps calibrated` as a user meets it: found once for a checkpoint, kept with it, used wherever maps are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import CUB
import train
from tests import benchmark_calibration
from tests.commands import (
    NOISE,
    SIZES,
    TRAINING,
    assert_one_sentence,
    call,
    make_cub,
    read_json,
    run_inference,
    run_training,
    write_random_net,
)
from utils.inference.localizer import load_localizer
from utils.system.errors import UserError
from utils.training.arguments import parse_arguments

ONCE = "once for this checkpoint"
KEY = "BAS, k = 3 at 64/48"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_cub(tmp_path / "data", NOISE, 5)


def test_training_keeps_what_it_found(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects a run's figures: the offsets lie in its settings, and the evaluation that follows takes them from there;
    another kind of map is found once, then."""
    options = ["--root", data, "--epochs", 1, "--align_maps", "calibrated", "--top_k", 3]
    assert run_training(*TRAINING, *options, "--save_path", tmp_path / "runs") == 0
    run = tmp_path / "runs" / "mobilenet"
    kept = read_json(run / "settings.json")["map_offsets"]
    assert list(kept) == [KEY] and len(kept[KEY]["offset"]) == 2
    assert capsys.readouterr().out.count("of where its layers' geometry says") == 1
    common = ["--arch", "mobilenet", "--data", data, "--checkpoint", run / "mobilenet0.pth.tar", "--num_workers", 0]
    assert run_inference("CUB", *common, "--json", tmp_path / "r.json") == 0
    out = capsys.readouterr().out
    assert ONCE not in out and "calibrated maps" in out and "BAS, k = 3: drawn" in out
    assert read_json(tmp_path / "r.json")["scores"] == read_json(run / "evaluation.json")["scores"]
    for times in (1, 0):
        assert run_inference("CUB", *common, "--compare", "bas", "cam", "center") == 0
        assert capsys.readouterr().out.count(ONCE) == times
    assert list(read_json(run / "settings.json")["map_offsets"]) == [KEY, "CAM at 64/48"]

    settings = (run / "settings.json").read_text()
    for wrong in ({KEY: 5}, {KEY: {}}, [], {KEY: kept[KEY] | {"offset": ["x", 0]}}):
        (run / "settings.json").write_text(json.dumps(json.loads(settings) | {"map_offsets": wrong}))
        capsys.readouterr()
        assert run_inference("CUB", *common) == 1
        assert_one_sentence(capsys.readouterr().err, "settings.json holds no offsets of maps")
    (run / "settings.json").write_text(settings)

    command = ["tests.benchmark_calibration", "--run", run, "--pictures", 3, 5, "--gradients", 1]
    monkeypatch.setattr("sys.argv", list(map(str, command)))
    assert call(benchmark_calibration.main) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [sum(line.lstrip().startswith(name) for line in rows) for name in ("3 pictures", "pictures moved")] == [2, 8]


def test_released_files_keep_theirs_beside_them(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Protects released checkpoints: a file beside them, which is about this very file, and serves without the data."""
    weights = write_random_net(tmp_path / "net.pth.tar", 5)
    weights.with_name("settings.json").unlink()  # no run here wrote it
    common = ["--arch", "mobilenet", "--checkpoint", weights, *SIZES, "--align_maps", "calibrated", "--top_k", 3]
    for times in (1, 0):
        assert run_inference("CUB", *common, "--data", data) == 0
        assert capsys.readouterr().out.count(ONCE) == times
    beside = tmp_path / "net.pth.tar.offsets.json"
    record = read_json(beside)
    assert list(record["map_offsets"]) == [KEY]
    options = {"align_maps": "calibrated", "resize_size": 64, "crop_size": 48, "top_k": 3}
    (picture, *_) = sorted((data / "images").rglob("*.jpg"))
    placed = load_localizer(CUB.DATASET, "mobilenet", weights, **options)(picture)
    straight = load_localizer(CUB.DATASET, "mobilenet", weights, **options | {"align_maps": True})(picture)
    assert (placed.score_map != straight.score_map).any()
    assert run_inference("CUB", *common, "--images", picture) == 0

    state = torch.load(weights, weights_only=True)
    torch.save({name: value * 1.01 for name, value in state.items()}, weights)  # other weights under the name
    capsys.readouterr()
    assert run_inference("CUB", *common, "--data", data) == 0
    assert capsys.readouterr().out.count(ONCE) == 1 and read_json(beside)["sha256"] != record["sha256"]
    beside.write_text('{"sha256": ')
    assert run_inference("CUB", *common, "--data", data) == 1
    assert_one_sentence(
        capsys.readouterr().err, "net.pth.tar.offsets.json holds no offsets of maps", "take map_offsets out"
    )
    shutil.rmtree(data)
    beside.unlink()
    with pytest.raises(UserError, match="--align_maps calibrated needs training pictures, once for a checkpoint"):
        load_localizer(CUB.DATASET, "mobilenet", weights, **options)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ((), None),
        (("--align_maps",), "geometric"),
        (("--align_maps", "calibrated"), "calibrated"),
        (("--align_maps=stretched",), "stretched"),
        (("--no-align_maps",), "stretched"),
    ],
)
def test_the_option(argv: tuple[str, ...], expected: str | None) -> None:
    """Protects commands of before: `--align_maps` and `--no-align_maps` mean what they meant."""
    assert parse_arguments("", train.DATASETS, train.DEMO, list(argv)).given.get("align_maps") == expected


@pytest.mark.parametrize("argv", [("--no-align_maps", "calibrated"), ("--align_maps", "somewhere")])
def test_impossible_options(argv: tuple[str, ...], capsys: pytest.CaptureFixture) -> None:
    """Protects from a slip: one sentence that names the option."""
    assert call(lambda: parse_arguments("", train.DATASETS, train.DEMO, list(argv))) == 2
    assert argv[0] in capsys.readouterr().err
