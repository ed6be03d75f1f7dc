"""The recipe for a data set of fewer classes: what changes, what the user's word leaves, nothing at the paper's K."""

from __future__ import annotations

from dataclasses import replace

import pytest

import CUB.Model
import ILSVRC.Model
from utils.models.registry import ARCHS
from utils.training.adaptation import adapt_recipe, explain_adaptation


@pytest.mark.parametrize("models", [CUB.Model, ILSVRC.Model])
@pytest.mark.parametrize("arch", ARCHS)
def test_nothing_changes_at_the_papers_classes(models, arch: str) -> None:
    """Protects the papers' recipes: with their number of classes, or more, all is as published."""
    for name in ("cvpr", "ijcv"):
        paper = models.recipe(arch, name)
        for more in (0, 50):
            classes = paper.num_classes + more
            adaptation = adapt_recipe(paper, classes, 5994, {})
            assert adaptation.recipe == replace(paper, num_classes=classes) and not adaptation.reasons
            assert explain_adaptation(adaptation, paper.num_classes, 5994) == ""


def test_few_classes() -> None:
    """Protects the defaults for ten classes of 300 pictures, each printed with its reason."""
    paper = CUB.Model.recipe("mobilenet")
    adaptation = adapt_recipe(paper, 10, 300, {"epochs": 20})
    expected = {"final_relu": False, "batch_size": 16, "warmup_epochs": 5, "lr_steps": (5, 16), "lr_decay": 0.4}
    expected |= {"generator_rate": 0.3721, "top_k": 10, "frozen_statistics": "whole", "align_maps": "geometric"}
    assert adaptation.recipe == replace(paper, num_classes=10, **expected)
    assert adaptation.reasons.keys() == expected.keys()
    lines = explain_adaptation(adaptation, 200, 300).splitlines()
    assert lines[0].startswith("recipe for 10 classes and 300 pictures instead of the paper's 200 classes")
    assert "--no-adapt_recipe" in lines[0]
    for line, (name, value) in zip(lines[1:], ((name, expected[name]) for name in adaptation.reasons), strict=True):
        assert line.startswith(f"  {name} {value}: ") and len(line) > len(f"  {name} {value}: ") + 10


def test_the_users_word_counts() -> None:
    """Protects given settings: they are left to the user, and what depends on them follows them."""
    paper = CUB.Model.recipe("vgg")
    given = {"epochs": 8, "batch_size": 32, "warmup_epochs": 1, "final_relu": True, "top_k": 3, "lr_decay": None}
    recipe, reasons = adapt_recipe(paper, 5, 100, given)
    expected = {"lr_steps", "lr_decay", "generator_rate", "max_grad_norm", "frozen_statistics", "align_maps"}
    assert reasons.keys() == expected
    assert (recipe.lr_steps, recipe.generator_rate) == ((1, 6), round(5 * 32 / 430, 4))
    assert (recipe.batch_size, recipe.final_relu, recipe.top_k) == (
        paper.batch_size,
        True,
        paper.top_k,
    )  # not yet given


@pytest.mark.parametrize(("epochs", "warmup", "falls"), [(1, 0, ()), (2, 0, ()), (4, 1, (1, 3)), (100, 10, (10, 80))])
def test_epochs(epochs: int, warmup: int, falls: tuple[int, ...]) -> None:
    """Protects short and long runs: the generator is trained in all of them, and each fall lies within the run."""
    recipe = adapt_recipe(CUB.Model.recipe("resnet"), 3, 90, {"epochs": epochs}).recipe
    assert (recipe.warmup_epochs, recipe.lr_steps) == (warmup, falls)


@pytest.mark.parametrize(
    ("pictures", "size"), [(2, 8), (60, 8), (255, 8), (256, 16), (511, 16), (512, 32), (10**6, 32)]
)
def test_batch_size(pictures: int, size: int) -> None:
    """Protects small data sets: some sixteen steps an epoch, never more than the paper's batch."""
    assert adapt_recipe(CUB.Model.recipe("vgg"), 3, pictures, {}).recipe.batch_size == size


def test_the_rate_follows_the_classes() -> None:
    """Protects the proportion, and that the generator is never faster than the head."""
    rates = [adapt_recipe(CUB.Model.recipe("vgg"), k, 10**6, {}).recipe.generator_rate for k in (2, 4, 199)]
    assert rates[1] == pytest.approx(2 * rates[0], abs=2e-4) and rates[2] == 1
