"""`python train.py --demo`: what is special about the demo, before and after the common training loop.

Its recipe differs from the paper's, because a dozen very different classes and a few hundred small pictures are learnt
in minutes instead of hours: see :func:`demo_recipe`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.data.datasets import build_evaluation_loader
from utils.data.split import Split
from utils.demo.compose import compose
from utils.engine import Evaluation, evaluate
from utils.files import write_text
from utils.gallery import save_gallery
from utils.inference import save_settings
from utils.models.bas import BAS
from utils.models.recipe import Recipe, override
from utils.reporting import comparison_table

DEFAULT_FOLDER = "demo_run"
DEFAULT_ARCH = "mobilenet"
EVALUATION_BATCH = 32
GALLERY_PICTURES = 12
# Thresholds to choose from, on training pictures; of the centred box, its share of the picture's side.
MAP_THRESHOLDS = (0.01, 0.03, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6)
CENTRE_SHARES = (0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 1.0)
TITLES = {"bas": "BAS", "cam": "CAM", "centre": "centred box"}


def demo_recipe(recipe: Recipe) -> Recipe:
    """The demo's settings, tuned on such pictures.

    - Pictures of 96 pixels: minutes on two processor cores.
    - k = 1: averaging all classes' maps is for CUB's alike birds; here a class's own map is better.
    - No final ReLU, as in the IJCV model: with it the class maps of a few hundred steps die, all logits 0.
    - Two first epochs on L_cls alone: before the classes are learnt, L_ac and L_frg drive the generator to all zeros or
      all ones, from which its sigmoid does not return. Then a lower rate, at which single pictures cannot do so either.
    """
    return replace(
        recipe,
        frg_weight=0.5,
        area_weight=1.5,
        final_relu=False,
        warmup_epochs=2,
        threshold=0.1,
        top_k=1,
        epochs=8,
        lr_steps=(2, 7),
        lr_decay=0.4,
        batch_size=16,
        resize_size=112,
        crop_size=96,
    )


def prepare(args: argparse.Namespace, root: Path) -> None:
    """Composes the pictures and points the common training at them.

    Args:
        args: of `train.py`; `arch`, `root` and `save_path` are filled in.
        root: the repository, where the demo's folder is made unless `--save_path` names another.
    """
    folder = (args.save_path or root / DEFAULT_FOLDER).resolve()
    print(f"demo: composing pictures of animals in places; everything it makes lies in {folder}")
    args.arch = args.arch or DEFAULT_ARCH
    args.root = compose(folder / "data")
    args.save_path = folder


def finish(
    model: BAS,
    train_split: Split,
    test_split: Split,
    recipe: Recipe,
    device: torch.device,
    args: argparse.Namespace,
    weights: Path,
) -> None:
    """Compares BAS with the CAM of the same network and a centred box, and shows pictures and what to do next.

    All three go through the same evaluator; each one's threshold (the centred box's size) is the one that finds most
    boxes of the training pictures. A threshold that the user gave stays.
    """
    print("choosing thresholds on the training pictures and their boxes ...", flush=True)
    grid = {"bas": MAP_THRESHOLDS, "cam": MAP_THRESHOLDS, "centre": CENTRE_SHARES}
    if args.threshold is not None:
        grid["bas"] = (args.threshold,)
    found = _evaluate(model, train_split, recipe, device, args.num_workers, grid, "training pictures")
    chosen = {kind: values[found.best_index(kind)] for kind, values in grid.items()}
    recipe = override(recipe, {"threshold": chosen["bas"]})
    evaluation = _evaluate(
        model, test_split, recipe, device, args.num_workers, {kind: (value,) for kind, value in chosen.items()}, "test"
    )

    folder = args.save_path
    save_settings(weights, recipe, layout=train_split.layout, threshold_chosen_on="training pictures and their boxes")
    summaries = {kind: evaluation.scores(kind).summary() for kind in chosen}
    record = {"thresholds": chosen, "scores": summaries, "failures": evaluation.failures}
    results = write_text(folder / "results.json", json.dumps(record, indent=2) + "\n")
    good = np.flatnonzero(~evaluation.failed)
    indices = good[np.linspace(0, len(good) - 1, GALLERY_PICTURES).round().astype(int)].tolist()
    picture = save_gallery(folder / "results.png", model, test_split, indices, recipe, device, chosen["cam"])
    print(_report(summaries, chosen, len(test_split)))
    print(_next_steps(folder, args, results, picture))


def _evaluate(
    model: BAS,
    split: Split,
    recipe: Recipe,
    device: torch.device,
    num_workers: int,
    thresholds: Mapping[str, tuple[float, ...]],
    description: str,
) -> Evaluation:
    loader = build_evaluation_loader(split, recipe.resize_size, EVALUATION_BATCH, num_workers, device)
    return evaluate(model, loader, split, recipe, device, False, thresholds, description)


def _report(summaries: Mapping[str, Mapping[str, Any]], chosen: Mapping[str, float], images: int) -> str:
    titles = {kind: f"{TITLES[kind]} ({_what(kind)} {value:g})" for kind, value in chosen.items()}
    table = comparison_table({titles[kind]: summary for kind, summary in summaries.items()})
    scores = summaries["bas"]
    classified = f"Top-1 Cls {scores['top1_cls']['image_mean']:.2f}, Top-5 Cls {scores['top5_cls']['image_mean']:.2f}"
    return (
        f"\n{images} test pictures, in places that training never saw (centre crop, percent, mean over images)\n"
        f"{table}\nthe network's {classified}; thresholds and size chosen on the training pictures and their boxes"
    )


def _what(kind: str) -> str:
    return "share" if kind == "centre" else "threshold"


def _next_steps(folder: Path, args: argparse.Namespace, results: Path, picture: Path) -> str:
    return (
        f"\nlook at   {picture}\nfigures   {results}\nlog       {folder / args.arch / 'log.jsonl'}\n"
        f"\nnext, the same commands on CUB-200-2011:\n"
        f"  python train.py --arch vgg --root CUB/data --download\n"
        f"  cd CUB && python BAS_inference.py --arch vgg\n"
    )
