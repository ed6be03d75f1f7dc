"""The end of the demo: BAS beside the CAM of the same network and a centred box, in figures and pictures."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from utils.data.split import spread
from utils.evaluation.gallery import save_gallery
from utils.evaluation.kinds import MapKind
from utils.evaluation.records import Evaluation
from utils.evaluation.run import build_loader, evaluate
from utils.evaluation.selection import choose_thresholds, with_thresholds
from utils.evaluation.spec import EvaluationSpec, build_spec, threshold_grid
from utils.evaluation.summary import evaluation_record
from utils.models.bas import BAS
from utils.results.tables import caution_lines, comparison_table
from utils.runs.common import by_device
from utils.system.files import write_json
from utils.system.processes import is_main
from utils.training.run import Run

EVALUATION_BATCH = 32
GALLERY_PICTURES = 12
KINDS = ("bas", "cam", "center")
RESULTS = RESULTS_FILE, PICTURE_FILE = "results.json", "results.png"


def compare(run: Run) -> Evaluation | None:
    """Compares BAS with CAM and a centred box, and shows pictures and what to do next.

    All three go through the same evaluator; each one's threshold (of the centred Gaussian it fixes the box's size) is
    the one that finds most boxes of the training pictures. A threshold that the user gave for BAS stays. So it is with
    the BAS maps of other k, where `--top_ks` asks for them. Where `--alignments` does,
    all is done again for maps that are drawn in other places.

    Returns:
        The records of the test pictures, None where they are gone; the first process alone prints and writes.
    """
    recipe, settings, split = run.recipe, run.command.settings, run.test_split
    if split is None:
        return None
    print("choosing thresholds on the training pictures and their boxes ...", flush=True)
    model = run.inference_model()
    spec = build_spec(recipe, kinds=KINDS, ten_crops=False, ignore_misfits=settings.ignore_misfits)
    spec = replace(spec, contour_grid=threshold_grid(), with_masks=True)
    compared = tuple(spec.thresholds)
    fused = {MapKind("bas", min(k, recipe.num_classes)): recipe.threshold for k in settings.top_ks}
    spec = replace(spec, thresholds={**spec.thresholds, **fused})
    evaluation = _evaluate(run, model, spec)
    others = [how for how in dict.fromkeys(settings.alignments) if how != recipe.align_maps]
    drawn = {how: _evaluate(run, model, replace(spec, align=how)) for how in others}
    spec = evaluation.spec
    if run.chooses_threshold:
        run.set_threshold(spec.thresholds[spec.main])
    if not is_main():
        return evaluation

    folder = run.folder.parent
    record = evaluation_record(evaluation, split.class_names)
    if drawn:
        record["alignments"] = {how: evaluation_record(one, split.class_names) for how, one in drawn.items()}
    results = write_json(folder / RESULTS_FILE, record)
    shown = replace(spec, thresholds={kind: spec.thresholds[kind] for kind in compared if kind.kind != "center"})
    indices = spread(~evaluation.failed, GALLERY_PICTURES)
    picture = save_gallery(folder / PICTURE_FILE, model, split, indices, shown, run.device)
    print(_report(record, len(split)))
    for line in caution_lines(record["cautions"]):
        print(line)
    print(_next_steps(run, results, picture))
    return evaluation


def _evaluate(run: Run, model: BAS, spec: EvaluationSpec) -> Evaluation:
    """The test pictures' records, with the maps' places and thresholds found on the training pictures."""
    split, device, reading = run.test_split, run.device, (EVALUATION_BATCH, run.command.settings.num_workers)
    assert split is not None  # the caller has seen to it
    spec = run.place_maps(model, spec)
    scorers = by_device(run.command.settings.scorers, device)
    chosen = choose_thresholds(model, run.train_split, spec, device, *reading, scorers)
    if not run.chooses_threshold:
        chosen[spec.main] = run.recipe.threshold
    spec = with_thresholds(spec, chosen)
    loader = build_loader(split, spec, *reading, device)
    return evaluate(model, loader, split, spec, device, "test", scorers=scorers)


def _report(record: Mapping[str, Any], images: int) -> str:
    rows = {f"{title} (threshold {one['threshold']:g})": one for title, one in record["maps"].items()}
    scores = record["scores"]
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
