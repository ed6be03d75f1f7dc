"""`python train.py --demo`: what is special about the demo, before and after the common training loop.

Its recipe differs from the paper's, because a dozen very different classes and a few hundred small pictures are learnt
in minutes instead of hours: see :func:`demo_recipe`.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from utils.data.split import Split, spread
from utils.demo.compose import RECORD, compose
from utils.distributed import is_main, wait_for_all
from utils.errors import UsageError
from utils.evaluation.maps import MapKind
from utils.evaluation.question import build_question
from utils.evaluation.records import Evaluation
from utils.evaluation.run import build_loader, evaluate
from utils.evaluation.selection import choose_thresholds, with_thresholds
from utils.evaluation.summary import cautions
from utils.files import sweep, write_text
from utils.gallery import save_gallery
from utils.inference.settings import SETTINGS_FILE, change_settings, run_settings
from utils.models.bas import BAS
from utils.models.fold import fold_batch_norm
from utils.models.recipe import Recipe, override
from utils.reporting import caution_lines, comparison_table
from utils.training.checkpoints import StateFolder
from utils.training.snapshots import list_snapshots

DEFAULT_FOLDER = "demo_run"
DEFAULT_ARCH = "mobilenet"
EVALUATION_BATCH = 32
GALLERY_PICTURES = 12
SNAPSHOT_PICTURES = 6
KINDS = ("bas", "cam", "center")
RESULTS = RESULTS_FILE, PICTURE_FILE = "results.json", "results.png"


def demo_recipe(recipe: Recipe) -> Recipe:
    """The demo's settings, tuned on such pictures.

    - Pictures of 96 pixels: minutes on two processor cores.
    - k = 8 of the 12 classes: over seeds, the mean of several classes' maps varies less than the map of a single one.
    - No final ReLU, as in the IJCV model: with it the class maps of a few hundred steps die, all logits 0.
    - Maps drawn where their cells look: at 96 pixels, being drawn 3.5 off costs MobileNetV1 every twelfth box.
    - Two first epochs on L_cls alone, then a lower rate, the generator's in proportion to the classes: what
      :mod:`utils.training.adaptation` says of few classes. At 0.6 and more boxes are better in the mean, but now and
      then a class's map dies.
    """
    return replace(
        recipe,
        frg_weight=0.5,
        area_weight=1.5,
        final_relu=False,
        warmup_epochs=2,
        generator_rate=0.45,
        threshold=0.1,
        top_k=8,
        align_maps=True,
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
    args.arch = args.arch or DEFAULT_ARCH
    args.root = folder / "data"
    if is_main():
        _refuse_what_is_not_the_demos(folder, folder / args.arch)
    print(f"demo: composing pictures of animals in places; everything it makes lies in {folder}")
    if is_main():
        sweep(folder)
        compose(args.root)
    wait_for_all()
    args.save_path = folder


def _refuse_what_is_not_the_demos(folder: Path, run: Path) -> None:
    """UsageError if the demo's files would take the place of another run's or of a report's."""
    data = folder / "data"  # several demos may share one, through links
    is_demos = (data / RECORD).is_file()
    is_demos_run = is_demos and run_settings(run).get("root") == str(data.resolve())
    others = [] if is_demos else [folder / name for name in RESULTS]
    if not is_demos_run:
        states = StateFolder(run)
        others += [run / SETTINGS_FILE, *(states.path / entry.file for entry in states.entries())]
        others += [*list_snapshots(run).values(), *run.glob("*.pth.tar")]
    for path in others:
        if os.path.lexists(path):
            raise UsageError(f"{path} is not the demo's; choose another --save_path")


def finish(
    model: BAS,
    train_split: Split,
    test_split: Split,
    recipe: Recipe,
    device: torch.device,
    args: argparse.Namespace,
    weights: Path,
) -> Evaluation:
    """Compares BAS with the CAM of the same network and a centred box, and shows pictures and what to do next.

    All three go through the same evaluator; each one's threshold (of the centred Gaussian it fixes the box's size) is
    the one that finds most boxes of the training pictures. A threshold that the user gave for BAS stays. So it is with
    the BAS maps of other k, where `--top_ks` asks for them; `results.json` then lists them as `top_k`.

    Returns:
        The records of the test pictures; the first process alone prints and writes.
    """
    print("choosing thresholds on the training pictures and their boxes ...", flush=True)
    model = fold_batch_norm(model.eval())
    question = build_question(recipe, kinds=KINDS, ten_crops=False, ignore_misfits=args.ignore_misfits)
    compared = tuple(question.thresholds)
    fused = {MapKind("bas", min(k, recipe.num_classes)): recipe.threshold for k in args.top_ks or ()}
    question = replace(question, thresholds={**question.thresholds, **fused})
    chosen = choose_thresholds(model, train_split, question, device, EVALUATION_BATCH, args.num_workers)
    if args.threshold is not None:
        chosen[question.main] = args.threshold
    question = with_thresholds(question, chosen)
    loader = build_loader(test_split, question, EVALUATION_BATCH, args.num_workers, device)
    evaluation = evaluate(model, loader, test_split, question, device, "test")
    if not is_main():
        return evaluation

    folder = args.save_path
    recipe = override(recipe, {"threshold": chosen[question.main]})
    change_settings(weights, recipe=asdict(recipe), threshold_chosen_on="training pictures and their boxes")
    summaries = {kind: evaluation.scores(kind).summary() for kind in question.thresholds}
    record = {
        "thresholds": {kind.kind: question.thresholds[kind] for kind in compared},
        "scores": {kind.kind: summaries[kind] for kind in compared},
        "cautions": cautions(evaluation, test_split.class_names),
        "failures": evaluation.failures,
    }
    if fused:
        kinds = sorted({question.main, *fused}, key=lambda kind: kind.top_k)
        record["top_k"] = [
            {"k": kind.top_k, "threshold": question.thresholds[kind], "scores": summaries[kind]} for kind in kinds
        ]
    results = write_text(folder / RESULTS_FILE, json.dumps(record, indent=2) + "\n")
    shown = replace(question, thresholds={kind: chosen[kind] for kind in compared if kind.kind != "center"})
    indices = spread(~evaluation.failed, GALLERY_PICTURES)
    picture = save_gallery(folder / PICTURE_FILE, model, test_split, indices, shown, device)
    print(_report(summaries, question.thresholds, len(test_split)))
    for line in caution_lines(record["cautions"]):
        print(line)
    print(_next_steps(folder, args, results, picture))
    return evaluation


def _report(summaries: Mapping[MapKind, Mapping[str, Any]], thresholds: Mapping[MapKind, float], images: int) -> str:
    rows = {f"{kind.title} (threshold {thresholds[kind]:g})": summary for kind, summary in summaries.items()}
    scores = next(iter(summaries.values()))
    classified = f"Top-1 Cls {scores['top1_cls']['image_mean']:.2f}, Top-5 Cls {scores['top5_cls']['image_mean']:.2f}"
    return (
        f"\n{images} test pictures, in places that training never saw (centre crop, percent)\n"
        f"{comparison_table(rows)}\nthe network's {classified}; thresholds chosen on the training pictures and their "
        "boxes;\nthat of the Gaussian fixes the size of a centred box"
    )


def _next_steps(folder: Path, args: argparse.Namespace, results: Path, picture: Path) -> str:
    return (
        f"\nlook at   {picture}\nfigures   {results}\nlog       {folder / args.arch / 'log.jsonl'}\n"
        f"\nnext, figures of the method and of this run, and how its maps grew:\n"
        f"  {shlex.join(['python', '-m', 'Img', '--run', str(folder), '--save', str(folder / 'figures')])}\n"
        f"then the same commands on CUB-200-2011:\n"
        f"  python train.py --arch vgg --root CUB/data --download\n"
        f"  cd CUB && python BAS_inference.py --arch vgg\n"
    )
