"""Every number of both papers' recipes, and which recipe holds when."""

from __future__ import annotations

import argparse
from dataclasses import fields

import numpy as np
import pytest
import torch

import CUB.Model
import ILSVRC.Model
from tests.commands import SIZES, WHOLE, assert_one_sentence, make_cub, read_json, run_inference, write_random_net
from tests.reference_weights import PAIRS
from utils.models.recipe import Recipe, as_of_today
from utils.system.errors import UsageError
from utils.system.options import add_options, given, options_of, settle

DATASETS = {"CUB": CUB.Model, "ILSVRC": ILSVRC.Model}
SHARED = {
    "cls_weight": 1.0,
    "bas_weight": 1.0,
    "generator_loss": "activation",
    "frozen_f2": True,
    "frozen_statistics": "masked",
    "generator_rate": 1.0,
    "max_grad_norm": 0.0,
    "tap": None,
    "sync_bn": False,
    "warmup_epochs": 0,
    "align_maps": "stretched",
    "same_padding": False,
    "mask_pooling": "blocks",
    "coarse_features": False,
    "plain_heads": False,
    "constant_maps_in_frg": False,
    "nesterov": True,
    "train_biases": True,
    "poly_steps": 0,
    "drop_last": False,
    "resize": "bilinear",
    "lr_decay": 0.1,
    "lr": 0.001,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "resize_size": 256,
    "crop_size": 224,
}
OF_DATASET = {
    "CUB": {"num_classes": 200, "batch_size": 32, "seed": 6, "lr_steps": (80,)},
    "ILSVRC": {"num_classes": 1000, "seed": 2, "epochs": 9, "lr_steps": (3, 6), "ratio_compare": "gt", "top_k": 1},
}
OF_PAPER = {
    "cvpr": {"name": "cvpr", "final_relu": True, "ratio_beyond_one": "zero"},
    "ijcv": {"name": "ijcv", "final_relu": False, "ratio_compare": "gt"},
}
BOTH = {
    ("CUB", "cvpr"): {"epochs": 100, "ratio_compare": "ge"},
    ("CUB", "ijcv"): {"epochs": 120, "threshold": 0.1},
    ("ILSVRC", "cvpr"): {"batch_size": 128},
    ("ILSVRC", "ijcv"): {"sync_bn": True, "seed": 0},
}
# alpha, beta, threshold; for CUB top-k.
CVPR = {
    ("CUB", "vgg"): (0.0, 0.7, 0.15, 80),
    ("CUB", "mobilenet"): (0.5, 1.5, 0.15, 200),
    ("CUB", "resnet"): (0.5, 1.2, 0.15, 200),
    ("CUB", "inception"): (0.5, 1.0, 0.10, 200),
    ("ILSVRC", "vgg"): (0.05, 1.0, 0.50, 1),
    ("ILSVRC", "mobilenet"): (0.5, 1.5, 0.50, 1),
    ("ILSVRC", "resnet"): (1.0, 2.0, 0.45, 1),
    ("ILSVRC", "inception"): (1.0, 2.5, 0.30, 1),
}
# The same, then the constant beyond 1 and the batch size.
IJCV = {
    ("CUB", "vgg"): (0.0, 0.9, 0.1, 80, "zero", 32),
    ("CUB", "mobilenet"): (0.5, 1.9, 0.1, 80, "one", 32),
    ("CUB", "resnet"): (0.5, 1.5, 0.1, 200, "one", 32),
    ("CUB", "inception"): (0.5, 1.0, 0.1, 200, "one", 32),
    ("ILSVRC", "vgg"): (0.05, 1.0, 0.45, 1, "zero", 256),
    ("ILSVRC", "mobilenet"): (0.5, 1.5, 0.5, 1, "one", 128),
    ("ILSVRC", "resnet"): (1.0, 2.0, 0.25, 1, "one", 128),
    ("ILSVRC", "inception"): (1.0, 2.5, 0.25, 1, "one", 128),
}


@pytest.mark.parametrize("paper", ["cvpr", "ijcv"])
@pytest.mark.parametrize(("dataset", "arch"), PAIRS)
def test_every_number_of_both_papers(dataset: str, arch: str, paper: str) -> None:
    """Protects the recipes: no field of any of the sixteen is other than the papers and their code say."""
    head = "classifier" if (dataset, arch, paper) == ("CUB", "inception", "cvpr") else "classifier_cls"
    own = CVPR[dataset, arch] if paper == "cvpr" else IJCV[dataset, arch]
    names = ("frg_weight", "area_weight", "threshold", "top_k", "ratio_beyond_one", "batch_size")
    expected = {"dataset": dataset, "arch": arch, "head_name": head, **SHARED, **OF_DATASET[dataset], **OF_PAPER[paper]}
    expected |= {**BOTH[dataset, paper], **dict(zip(names, own, strict=False))}
    assert expected.keys() == {field.name for field in fields(Recipe)}
    assert DATASETS[dataset].recipe(arch, paper) == Recipe(**expected)
    assert DATASETS[dataset].recipe(arch) == DATASETS[dataset].recipe(arch, "cvpr")


@pytest.mark.parametrize("models", DATASETS.values(), ids=DATASETS)
def test_unknown_names_list_the_choices(models) -> None:
    """Protects against a slip in a name: the error says which there are."""
    with pytest.raises(UsageError, match=r"'iccv'; choose one of cvpr, ijcv$"):
        models.recipe("vgg", "iccv")
    with pytest.raises(UsageError, match=r"'vgg19'; choose one of vgg, mobilenet, resnet, inception$"):
        models.recipe("vgg19", "ijcv")


def parse(*argv: str) -> dict:
    parser = argparse.ArgumentParser()
    add_options(parser, Recipe)
    return given(Recipe, parser.parse_args(argv))


def test_training_options_set_the_recipe() -> None:
    """Protects --recipe and the ablations: nothing given changes nothing; every option arrives in its field."""
    recipe = CUB.Model.recipe("vgg", "ijcv")
    assert settle(recipe, parse()) == recipe and parse("--recipe", "ijcv") == {"name": "ijcv"}
    values = {
        "epochs": 7,
        "lr_decay": 0.3,
        "lr": 0.02,
        "weight_decay": 0.0,
        "momentum": 0.5,
        "frg_weight": 0.25,
        "area_weight": 3.0,
        "warmup_epochs": 2,
        "seed": 5,
        "cls_weight": 0.0,
        "bas_weight": 0.0,
        "ratio_beyond_one": "keep",
        "ratio_compare": "ge",
        "generator_loss": "cross_entropy",
        "tap": "conv3_3",
        "generator_rate": 0.5,
        "max_grad_norm": 2.0,
        "frozen_statistics": "whole",
        "batch_size": 48,
        "threshold": 0.7,
        "top_k": 3,
        "resize_size": 100,
        "crop_size": 90,
        "mask_pooling": "aligned",
        "poly_steps": 70,
        "resize": "bicubic",
    }
    argv = [text for name, value in values.items() for text in (f"--{name}", str(value))]
    flags = ["--lr_steps", "3", "5", "--no-frozen_f2", "--final_relu", "--sync_bn", "--align_maps", "--same_padding"]
    flags += ["--coarse_features", "--plain_heads", "--constant_maps_in_frg", "--no-nesterov", "--no-train_biases"]
    flags += ["--drop_last"]
    given = settle(recipe, parse(*argv, *flags))
    values |= {"lr_steps": (3, 5), "frozen_f2": False, "final_relu": True, "sync_bn": True}
    values |= {"align_maps": "geometric", "same_padding": True, "nesterov": False, "train_biases": False}
    values |= dict.fromkeys(("coarse_features", "plain_heads", "constant_maps_in_frg", "drop_last"), True)
    assert {name: getattr(given, name) for name in values} == values
    changed = {field.name for field in fields(Recipe) if getattr(given, field.name) != getattr(recipe, field.name)}
    assert changed == values.keys()
    assert set(options_of(Recipe)) - {"name"} == values.keys()
    assert settle(recipe, parse("--lr_steps")).lr_steps == ()


@pytest.mark.parametrize(("before", "now"), [(True, "geometric"), (False, "stretched"), ("calibrated", "calibrated")])
def test_settings_of_older_runs(before: bool | str, now: str) -> None:
    """Protects finished runs: what could not be chosen then is as it was, whatever today's recipe has."""
    older = {"same_padding": False, "mask_pooling": "blocks", "lr": 0.5}
    assert as_of_today({"lr": 0.5, "align_maps": before}) == older | {"align_maps": now}
    assert as_of_today({"same_padding": True})["same_padding"] is True


@pytest.mark.parametrize(
    "argv",
    [
        ("--recipe", "iccv"),
        ("--ratio_beyond_one", "half"),
        ("--ratio_compare", "lt"),
        ("--generator_loss", "mse"),
        ("--bas_weight", "-1"),
        ("--cls_weight", "nan"),
    ],
)
def test_wrong_options_end_the_command(argv: tuple[str, str], capsys: pytest.CaptureFixture) -> None:
    """Protects against values that no ablation has: exit code 2, and the option is named."""
    with pytest.raises(SystemExit) as stopped:
        parse(*argv)
    assert stopped.value.code == 2 and argv[0] in capsys.readouterr().err


def test_recipe_of_a_checkpoint(tmp_path, capsys) -> None:
    """Protects --recipe at inference: IJCV for an IJCV file, else CVPR; options and the run's settings win."""
    data = make_cub(tmp_path / "data", [(3, False, WHOLE)], 5)
    for folder in ("run", "bare"):
        (tmp_path / folder).mkdir()
    plain = write_random_net(tmp_path / "run" / "mobilenet0.pth.tar", 5)
    bare, ijcv = tmp_path / "bare" / "cvpr.pth.tar", tmp_path / "bare" / "ijcv.pth.tar"
    state = torch.load(plain, weights_only=True)
    torch.save(state, bare)
    torch.save({"model": state, "best_thr": np.float64(0.4), "epoch": 70}, ijcv)

    def settings(path, *more: str) -> list:
        options = ["--arch", "mobilenet", "--data", data, "--checkpoint", path, "--no-tencrop", *SIZES, *more]
        assert run_inference("CUB", *options, "--json", tmp_path / "r.json") == 0
        found = read_json(tmp_path / "r.json")["settings"]
        return [found[name] for name in ("name", "threshold", "final_relu")]

    assert settings(bare) == ["cvpr", 0.15, True]
    assert settings(bare, "--recipe", "ijcv") == ["ijcv", 0.1, False]
    assert settings(bare, "--recipe", "ijcv", "--threshold", "0.3", "--final_relu") == ["ijcv", 0.3, True]
    assert settings(ijcv) == ["ijcv", 0.1, False]
    # The head is the file's own, whatever threshold it is evaluated with.
    assert settings(ijcv, "--recipe", "cvpr") == ["cvpr", 0.15, False]
    assert settings(ijcv, "--protocol", "ijcv") == ["ijcv", 0.4, False]
    assert settings(plain, "--recipe", "ijcv") == ["ijcv", 0.6, False]  # 0.6 of the run's settings
    content = read_json(plain.with_name("settings.json"))
    content["recipe"]["name"] = ["ijcv"]
    capsys.readouterr()
    plain.with_name("settings.json").write_text(str(content).replace("'", '"').replace("False", "false"))
    assert run_inference("CUB", "--arch", "mobilenet", "--data", data, "--checkpoint", plain) == 1
    assert_one_sentence(capsys.readouterr().err, "settings.json", "move it away")
