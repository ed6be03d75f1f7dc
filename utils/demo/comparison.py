"""The end of the demo: BAS beside the CAM of the same network and a centred box, in figures and pictures."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from utils.data.split import spread
from utils.demo.dataset import EVALUATION_BATCH, GALLERY_PICTURES, KINDS, PICTURE_FILE, RESULTS_FILE
from utils.evaluation.gallery import save_gallery
from utils.evaluation.kinds import MapKind
from utils.evaluation.records import Evaluation
from utils.evaluation.run import build_loader, evaluate
from utils.evaluation.selection import choose_thresholds, with_thresholds
from utils.evaluation.spec import build_question
from utils.evaluation.summary import cautions
from utils.models.fold import fold_batch_norm
from utils.results.tables import caution_lines, comparison_table
from utils.system.files import write_text
from utils.system.processes import is_main
from utils.training.run import Run


def compare(run: Run) -> Evaluation | None:
    """Compares BAS with CAM and a centred box, and shows pictures and what to do next.

    All three go through the same evaluator; each one's threshold (of the centred Gaussian it fixes the box's size) is
    the one that finds most boxes of the training pictures. A threshold that the user gave for BAS stays. So it is with
    the BAS maps of other k, where `--top_ks` asks for them; `results.json` then lists them as `top_k`.

    Returns:
        The records of the test pictures, None where they are gone; the first process alone prints and writes.
    """
    recipe, settings, split, device = run.recipe, run.command.settings, run.test_split, run.device
    if split is None:
        return None
    print("choosing thresholds on the training pictures and their boxes ...", flush=True)
    model = fold_batch_norm(run.model.eval())
    question = build_question(recipe, kinds=KINDS, ten_crops=False, ignore_misfits=settings.ignore_misfits)
    compared = tuple(question.thresholds)
    fused = {MapKind("bas", min(k, recipe.num_classes)): recipe.threshold for k in settings.top_ks}
    question = replace(question, thresholds={**question.thresholds, **fused})
    chosen = choose_thresholds(model, run.train_split, question, device, EVALUATION_BATCH, settings.num_workers)
    if "threshold" in run.command.given:
        chosen[question.main] = run.command.given["threshold"]
    question = with_thresholds(question, chosen)
    loader = build_loader(split, question, EVALUATION_BATCH, settings.num_workers, device)
    evaluation = evaluate(model, loader, split, question, device, "test")
    run.set_threshold(chosen[question.main])
    if not is_main():
        return evaluation

    folder = run.folder.parent
    summaries = {kind: evaluation.scores(kind).summary() for kind in question.thresholds}
    record: dict[str, Any] = {
        "thresholds": {kind.kind: question.thresholds[kind] for kind in compared},
        "scores": {kind.kind: summaries[kind] for kind in compared},
        "cautions": cautions(evaluation, split.class_names),
        "failures": evaluation.failures,
    }
    if fused:
        kinds = sorted({question.main, *fused}, key=lambda kind: kind.top_k or 0)
        record["top_k"] = [
            {"k": kind.top_k, "threshold": question.thresholds[kind], "scores": summaries[kind]} for kind in kinds
        ]
    results = write_text(folder / RESULTS_FILE, json.dumps(record, indent=2) + "\n")
    shown = replace(question, thresholds={kind: chosen[kind] for kind in compared if kind.kind != "center"})
    indices = spread(~evaluation.failed, GALLERY_PICTURES)
    picture = save_gallery(folder / PICTURE_FILE, model, split, indices, shown, device)
    print(_report(summaries, question.thresholds, len(split)))
    for line in caution_lines(record["cautions"]):
        print(line)
    print(_next_steps(run, results, picture))
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


def _next_steps(run: Run, results: Path, picture: Path) -> str:
    folder = run.folder.parent
    return (
        f"\nlook at   {picture}\nfigures   {results}\nlog       {run.folder / 'log.jsonl'}\n"
        f"\nnext, figures of the method and of this run, and how its maps grew:\n"
        f"  {shlex.join(['python', '-m', 'Img', '--run', str(folder), '--save', str(folder / 'figures')])}\n"
        f"then the same commands on {run.dataset.title}:\n"
        f"  python train.py --arch vgg --root {run.dataset.package}/data --download\n"
        f"  cd {run.dataset.package} && python BAS_inference.py --arch vgg\n"
    )
