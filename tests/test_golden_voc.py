"""The second paper's segmentation network against the numbers that its authors' code gives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.reference_weights import REFERENCE, batch, fill
from tests.reference_weights import draw as draw_weight
from tests.test_golden import assert_gradient_norms, assert_statistics, state_norms
from tests.test_golden_ijcv import assert_losses
from train import DATASETS
from utils.metrics.segmentation import SeedScores
from utils.models.losses import bas_losses
from utils.models.registry import build
from utils.runs.settings import Engine
from utils.segmentation.kinds import SCALES, THRESHOLDS
from utils.segmentation.making import load_cam_network
from utils.segmentation.maps import add_mirrored, fuse, make_maps, merge_scales, mirrored_pair
from utils.training.engine import build_trainer
from utils.training.objective import training_pass

GOLDEN = json.loads((REFERENCE / "golden_ijcv" / "VOC_resnet50_bas.json").read_text())
RECIPE = DATASETS["VOC"].recipe("resnet")
CPU = torch.device("cpu")
# float32 and float64: statistics and losses, gradient norms.
PRECISION = {"float32": (torch.float32, 1e-4, 3e-2), "float64": (torch.float64, 1e-6, 1e-6)}


@pytest.fixture(autouse=True)
def threads_of_the_reference():
    """The reference was computed with one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def of_shape(expected: dict) -> dict:
    return {**expected, "shape": [int(np.prod(expected["dims"]))]}


@pytest.mark.parametrize("precision", PRECISION)
def test_maps_of_a_picture_and_its_mirror(precision: str) -> None:
    """Protects the network: F and A at 1/16, heads without biases, logits, class maps and the sum of the mirrored
    pair's foreground maps."""
    dtype, relative, _ = PRECISION[precision]
    model = fill(build(RECIPE)).to(dtype).eval()
    assert sum(parameter.numel() == 20 for parameter in model.parameters()) == 0  # no biases
    pictures = torch.from_numpy(np.random.RandomState(0).standard_normal((1, 3, 192, 160)).astype(np.float32)).to(dtype)
    with torch.no_grad():
        features = model.f1(torch.cat([pictures, pictures.flip(-1)]))
        class_maps = model.f2(features)
        generator_logits = model.classifier_loc[0](features)
    maps = generator_logits.sigmoid()
    found = {
        "maps": maps[0] + maps[1].flip(-1),
        "logits": class_maps.mean(dim=(2, 3)),
        "class_maps": class_maps,
        "generator_logits": generator_logits,
    }
    expected = GOLDEN["eval" if precision == "float32" else "eval_float64"]
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert list(value.shape) == expected[name]["dims"]
        assert_statistics(value, of_shape(expected[name]), relative)


@pytest.mark.parametrize("precision", PRECISION)
def test_first_step(precision: str) -> None:
    """Losses of four pictures of several labels, every gradient norm, the optimiser's two groups, the falling rate, and
    the state after one step."""
    dtype, relative, of_gradients = PRECISION[precision]
    expected = GOLDEN if precision == "float32" else GOLDEN["float64"]
    model = fill(build(RECIPE)).to(dtype).train()
    images, _ = batch(0, 20)
    positives = torch.zeros(4, 20, dtype=torch.bool)
    for row, classes in enumerate(GOLDEN["labels"]):
        positives[row, classes] = True
    labels = torch.tensor(GOLDEN["p_label"])
    losses = bas_losses(
        output := training_pass(model, images.to(dtype), labels, RECIPE), labels, RECIPE, positives=positives
    )
    losses.total.backward()
    assert_losses(output, losses, RECIPE.area_weight, expected["train"][0], relative)
    assert_gradient_norms(model, expected["grad_norm"], of_gradients)
    if precision == "float64":
        return
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    settings = {**vars(RECIPE), "poly_steps": GOLDEN["max_step"]}
    trainer = build_trainer(model, None, (), type(RECIPE)(**settings), Engine(), CPU)
    groups = GOLDEN["optimizer_groups"]
    for name, values in (("lr", "lrs"), ("momentum", "momentum"), ("weight_decay", "weight_decay")):
        assert [group[name] for group in trainer.optimizer.param_groups] == pytest.approx(groups[values])
    assert [group["nesterov"] for group in trainer.optimizer.param_groups] == groups["nesterov"]
    assert [len(group["params"]) for group in trainer.optimizer.param_groups] == groups["sizes"]
    for name, parameter in model.named_parameters():
        parameter.grad = gradients[name]
    rates = []
    for _ in GOLDEN["lr_of_step"]:
        rates.append([group["lr"] for group in trainer.optimizer.param_groups])
        trainer.optimizer.step()
        trainer.scheduler.step()
        if len(rates) == 1:
            norms = state_norms(model)
    assert np.array(rates) == pytest.approx(np.array(GOLDEN["lr_of_step"]))
    assert norms == pytest.approx(GOLDEN["param_norm_after_1"], rel=1e-3, abs=1e-4)


def test_rate_stays_at_its_last() -> None:
    """Protects runs that are longer than the rate's fall: it neither turns back nor becomes complex."""
    settings = {**vars(RECIPE), "poly_steps": 3}
    trainer = build_trainer(build(RECIPE), None, (), type(RECIPE)(**settings), Engine(), CPU)
    rates = []
    for _ in range(6):
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        trainer.optimizer.step()
        trainer.scheduler.step()
    assert rates == pytest.approx([0.005 * (1 - step / 3) ** 0.9 for step in (0, 1, 2, 2, 2, 2)])


PIPELINE = json.loads((REFERENCE / "golden_ijcv" / "VOC_pipeline.json").read_text())


def given_maps() -> tuple[list[torch.Tensor], list[torch.Tensor], np.random.RandomState]:
    """The maps of two networks at four scales that the reference was given, and what draws on."""
    draw, sizes = np.random.RandomState(2000), ((6, 5), (3, 3), (9, 8), (12, 10))
    of_bas = [torch.from_numpy(draw.random_sample((20, *size)).astype(np.float32)) for size in sizes]
    of_cam = [torch.from_numpy((3 * draw.random_sample((20, *size))).astype(np.float32)) for size in sizes]
    return of_bas, of_cam, draw


def test_fusion_of_given_maps() -> None:
    """Protects the maps: scales, sizes, the two networks' sum, each brought to a highest value of 1."""
    of_bas, of_cam, _ = given_maps()
    expected = PIPELINE["fusion_of_given_maps"]
    chosen = [[one[expected["keys"]] for one in maps] for maps in (of_bas, of_cam)]
    small, large = fuse([merge_scales(maps, (91, 77)) for maps in chosen])
    for name, value in (("cam", small), ("high_res", large)):
        assert list(value.shape) == expected[name]["dims"]
        assert_statistics(value, of_shape(expected[name]), 1e-6)


def test_thresholds_of_seeds() -> None:
    """Protects the mean IoU: of all thresholds in one pass, what the authors' program gives at each."""
    draw = given_maps()[2]
    expected = PIPELINE["threshold_search"]
    score = np.kron(draw.random_sample((3, 13, 11)), np.ones((7, 7))).astype(np.float32)
    truth = np.kron(np.array([0, 3, 8, 15, -1])[draw.randint(0, 5, (13, 11))], np.ones((7, 7))).astype(np.int64)
    assert_statistics(torch.from_numpy(score), of_shape(expected["score"]), 1e-6)
    assert truth.sum() == expected["truth_sum"]
    scores = SeedScores(20, THRESHOLDS)
    scores.update(score, np.array([2, 7, 14]), np.where(truth < 0, 255, truth).astype(np.uint8))
    for percent, miou in expected["miou"].items():
        assert scores.confusion(int(percent) / 100).summary()["miou"] == pytest.approx(100 * miou, abs=1e-9)


def cam_file(path: Path) -> Path:
    """A file of IRN's network with the reference weights: every tensor of the trunk under several names."""
    own = build(RECIPE).state_dict()
    state = {
        f"resnet50.{key}": draw_weight(f"resnet50.{key}", tuple(value.shape))
        for key, value in own.items()
        if not key.startswith("classifier")
    }
    state |= {f"backbone.0.{number}": value for number, value in enumerate(list(state.values())[:5])}
    state["classifier.weight"] = draw_weight("classifier.weight", (20, 2048, 1, 1))
    state["newly_added.0.weight"] = state["classifier.weight"]
    torch.save({f"module.{key}": value for key, value in state.items()}, path)
    return path


def test_maps_of_both_networks(tmp_path: Path) -> None:
    """Protects make_cam as a whole: the pictures that the networks see, BAS and IRN's CAM at four scales, fused."""
    pixels = np.random.RandomState(0).randint(0, 256, (6, 5, 3)).astype(np.uint8)
    picture = Image.fromarray(pixels).resize((80, 96), Image.Resampling.BICUBIC)
    assert_statistics(torch.from_numpy(np.array(picture)), of_shape(PIPELINE["picture"]), 1e-6)
    for scale, expected in zip(SCALES, PIPELINE["inputs"], strict=True):
        pair = mirrored_pair(picture, scale, CPU, True)
        assert list(pair.shape) == expected["dims"]
        assert_statistics(pair.contiguous(), of_shape(expected), 1e-5)
    cam_model = load_cam_network(DATASETS["VOC"], cam_file(tmp_path / "res50_cam.pth.pth"), CPU)
    model = fill(build(RECIPE)).eval()
    maps = make_maps(model, picture, PIPELINE["label"], CPU, "fused", cam_model)
    for name, found in zip(("cam", "high_res"), maps, strict=True):
        assert list(found.shape) == PIPELINE["saved"][name]["dims"]
        assert_statistics(found, of_shape(PIPELINE["saved"][name]), 1e-4)


def test_class_maps_of_irns_network(tmp_path: Path) -> None:
    """Protects the fusion with a CAM: IRN's network under its file's names."""
    expected = json.loads((REFERENCE / "golden_ijcv" / "VOC_resnet50_cam.json").read_text())["eval"]
    model = load_cam_network(DATASETS["VOC"], cam_file(tmp_path / "cam.pth"), CPU)
    pictures = torch.from_numpy(np.random.RandomState(0).standard_normal((1, 3, 192, 160)).astype(np.float32))
    with torch.no_grad():
        class_maps = model.f2(model.f1(torch.cat([pictures, pictures.flip(-1)])))
    assert_statistics(class_maps.contiguous(), of_shape(expected["class_maps"]), 1e-4)
    assert_statistics(add_mirrored(class_maps.relu()).contiguous(), of_shape(expected["maps"]), 1e-4)
