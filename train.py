"""Trains BAS: `python train.py --arch vgg` for CUB-200-2011, `--dataset ILSVRC`, or `--demo` with no data set at all.

Every default is the authors' recipe for the data set and backbone (CUB/Model/<arch>.py, ILSVRC/Model/<arch>.py).
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import CUB
import CUB.DataLoader
import CUB.Model
import ILSVRC
import ILSVRC.DataLoader
import ILSVRC.Model
from utils.arguments import choose_device
from utils.checkpoint import checkpoint_name, save_weights
from utils.data import any_folder
from utils.data.split import Split
from utils.data.training import build_training_loader
from utils.demo import run as demo
from utils.distributed import (
    first_on_each_machine,
    is_main,
    process_count,
    process_group,
)
from utils.errors import UsageError, UserError, run_command
from utils.evaluation.misfits import OPTION
from utils.evaluation.question import build_question
from utils.evaluation.records import Evaluation
from utils.evaluation.run import build_loader, evaluate
from utils.evaluation.selection import choose_thresholds
from utils.evaluation.summary import cautions
from utils.files import alone_in, file_digest, sweep, write_text
from utils.inference.arguments import DEFAULT_BATCH_SIZE
from utils.inference.settings import change_settings, made_weights
from utils.models.bas import BAS
from utils.models.fold import fold_batch_norm
from utils.models.pretrained import load_imagenet
from utils.models.recipe import Recipe, override
from utils.reporting import caution_lines, failure_report, score_table
from utils.training.adaptation import adapt_recipe, explain_adaptation
from utils.training.arguments import parse_arguments, require_possible, settle_engine
from utils.training.checkpoints import StateFolder
from utils.training.engine import build_trainer, train_one_epoch
from utils.training.interruption import Interruption
from utils.training.provenance import set_tf32
from utils.training.record import RunRecord
from utils.training.saver import Saver
from utils.training.settings import Engine
from utils.training.snapshots import FOLDER as SNAPSHOTS
from utils.training.snapshots import Snapshots, list_snapshots
from utils.training.state import (
    OTHER_STATE,
    find_training_state,
    fingerprint,
    require_same_data,
    require_same_run,
    restore_training_state,
    seed_everything,
)

if TYPE_CHECKING:
    import torch

DATASETS = {"CUB": CUB, "ILSVRC": ILSVRC}
ROOT = Path(__file__).resolve().parent


def main(argv: list[str] | None = None) -> None:
    """Arguments, device, processes."""
    args = parse_arguments(__doc__, DATASETS, argv)
    if args.tf32 is not None:
        set_tf32(args.tf32)
    device = choose_device(args.device)
    with process_group(device, args.timeout, mend="go on with --resume"):
        train(args, device)


def train(args: argparse.Namespace, device: torch.device) -> None:
    """The run's folder."""
    if args.demo:
        demo.prepare(args, ROOT)
    args.arch = args.arch or "vgg"
    folder = (args.save_path or (args.dataset_dir or ROOT / args.dataset) / "logs") / args.arch
    with alone_in(folder, "a run") if is_main() else nullcontext():
        train_in(folder, args, device)


def train_in(folder: Path, args: argparse.Namespace, device: torch.device) -> None:
    """Recipe, data, model, optimiser, loop; nobody else writes into the run's folder."""
    states = StateFolder(folder, args.keep)
    if is_main():
        for place in (folder, states.path, folder / SNAPSHOTS):
            sweep(place)
    state, state_path = find_training_state(args.resume, states)
    recipe = settle_recipe(args, state)
    engine = settle_engine(args, state["engine"] if state is not None else {})
    if state is not None:
        require_possible_run(recipe, engine, state_path)
    weights = folder / checkpoint_name(args.dataset, args.arch, recipe.epochs - 1)
    if is_main() and (state is None or state_path.resolve().parent != states.path.resolve()):
        if args.demo:
            states.clear()
        else:
            refuse_to_overwrite(folder, states, weights)
    seed_everything(recipe.seed)

    train_split, test_split = load_splits(args)
    recipe = suit_recipe(recipe, train_split, args)
    data = fingerprint(train_split)
    require_same_data({"train": data, "test": fingerprint(test_split) if test_split else None})
    if state is not None:
        require_same_run(state, recipe, engine, data)
    loader = build_training_loader(
        train_split,
        recipe.resize_size,
        recipe.crop_size,
        share_of(recipe.batch_size),
        args.num_workers,
        recipe.seed,
        device,
        engine.skip_bad_images,
        args.prefetch,
    )

    model = DATASETS[args.dataset].Model.build(args.arch, recipe.num_classes, recipe.final_relu, recipe.tap)
    if state is None:
        with first_on_each_machine():
            print(load_imagenet(model, args.pretrained))
    model.place(device, engine.channels_last)
    trainer = build_trainer(model, loader, train_split.paths, recipe, engine, device)
    if state is not None:
        parts = model, trainer.optimizer, trainer.scheduler, trainer.scaler
        trainer.progress = restore_training_state(state, *parts, name=state_path)
        print(f"resumed from {state_path} after {trainer.progress}")
        del state  # as large as the network and its momenta
    record = RunRecord(folder, trainer, states)
    source = {"root": str(data_folder(args).resolve()), "is_own": args.dataset_dir is not None}
    record.begin(ROOT, weights, train_split, data, test_split, args.num_workers, source)
    default = demo.SNAPSHOT_PICTURES if args.demo else 0
    snapshots = Snapshots(folder, trainer, test_split or train_split, args.snapshot, default)

    with Interruption() as interruption:
        saver = Saver(trainer, states, data, interruption, args.save_every_steps)
        while trainer.progress.epoch < recipe.epochs:
            snapshots.take()
            if test_split and record.lacks_scores(args.eval_every):
                with interruption.at_once(saver.whereabouts):
                    evaluation = evaluate_test(model, test_split, recipe, device, args)
                record.add_scores(evaluation)
            with record.of_failure():
                figures = train_one_epoch(trainer, args.show_step, saver.after_step)
            record.add_epoch(figures)
            saver.after_epoch()

        # What follows can be repeated: --resume on a run with all its epochs does it again.
        with interruption.at_once(saver.whereabouts):
            if is_main():
                print(f"model saved: {save_weights(model, weights)}")
                change_settings(weights, sha256=file_digest(weights))
            snapshots.take()
            if args.demo:
                evaluation = demo.finish(model, train_split, test_split, recipe, device, args, weights)
            else:
                recipe = settle_threshold(model, train_split, recipe, device, args, weights)
            if test_split and not args.demo:
                evaluation = evaluate_test(model, test_split, recipe, device, args)
                report(evaluation, test_split, weights, args)
        if test_split:
            record.add_scores(evaluation)


def settle_recipe(args: argparse.Namespace, state: dict | None) -> Recipe:
    """The data set's recipe (or the demo's), under the settings of the run to resume, under what the user gave."""
    stored = state["settings"] if state is not None else {}
    name = args.recipe or stored.get("name") or "cvpr"
    recipe = DATASETS[args.dataset].Model.recipe(args.arch, name)
    if args.demo:
        recipe = demo.demo_recipe(recipe)
    recipe = override(override(recipe, stored), {**vars(args), "name": name})
    if not any((recipe.cls_weight, recipe.frg_weight, recipe.bas_weight, recipe.area_weight)):
        raise UsageError("all four losses have the weight 0; leave one of --cls_weight, --bas_weight, ... as it is")
    if recipe.warmup_epochs >= recipe.epochs:
        raise UsageError(
            f"--warmup_epochs {recipe.warmup_epochs} leaves none of {recipe.epochs} epochs to train the generator"
        )
    return recipe


def require_possible_run(recipe: Recipe, engine: Engine, state_path: Path) -> None:
    """UserError if the settings of a state to resume from are none that a run could have been started with."""
    try:
        require_possible(recipe, engine, DATASETS)
    except UsageError as error:
        raise UserError(f"--resume: {state_path} holds settings that cannot be: {error}; {OTHER_STATE}") from error


def suit_recipe(recipe: Recipe, train_split: Split, args: argparse.Namespace) -> Recipe:
    """The recipe for the classes of these pictures; says what it changes besides their number, and why.

    A run that is resumed has its own number of classes in its settings, so nothing changes.
    """
    classes, pictures = len(train_split.class_names), len(train_split)
    if args.demo or not args.adapt_recipe:
        return replace(recipe, num_classes=classes)
    adaptation = adapt_recipe(recipe, classes, pictures, vars(args))
    if adaptation.reasons:
        print(explain_adaptation(adaptation, recipe.num_classes, pictures))
    return adaptation.recipe


def share_of(batch_size: int) -> int:
    """This process's part of a batch.

    Raises:
        UsageError: the batch cannot be shared out evenly.
    """
    share, rest = divmod(batch_size, process_count())
    if rest:
        raise UsageError(
            f"a batch of {batch_size} cannot be shared out among {process_count()} processes; choose a multiple as "
            "--batch_size, or another number of processes"
        )
    return share


def refuse_to_overwrite(folder: Path, states: StateFolder, weights: Path) -> None:
    """UsageError if a run, or weights of the name that this one will write, are in the folder already.

    A run that ended before its first state has left nothing that is worth keeping.
    """
    grown = (path for epoch, path in list_snapshots(folder).items() if epoch)
    for path in (*(states.path / entry.file for entry in states.entries()), weights, *made_weights(folder), *grown):
        if path.exists():
            raise UsageError(f"{path} is there already; go on with --resume, or choose another --save_path")


def load_splits(args: argparse.Namespace) -> tuple[Split, Split | None]:
    """The training split, and the test split if it is there; says which layout was recognised."""
    reader = any_folder if args.dataset_dir else DATASETS[args.dataset].DataLoader
    name = args.dataset_dir or args.dataset
    root = data_folder(args)
    if args.download:
        CUB.DataLoader.download(root)
    train_split = reader.load_split(root, "train")
    counts = f"{len(train_split)} pictures, {len(train_split.class_names)} classes"
    print(f"{name} train: {counts}; {train_split.layout}")
    try:
        test_split = reader.load_split(root, "test")
    except UserError as error:
        print(f"no evaluation after training: {error}")
        return train_split, None
    print(f"{name} test: {len(test_split)} pictures; {test_split.layout}")
    return train_split, test_split


def data_folder(args: argparse.Namespace) -> Path:
    """Where the data set lies."""
    return args.dataset_dir or args.root or ROOT / args.dataset / "data"


def settle_threshold(
    model: BAS, split: Split, recipe: Recipe, device: torch.device, args: argparse.Namespace, weights: Path
) -> Recipe:
    """For an adapted recipe without a threshold of the user's, the one that finds most boxes of the training pictures.

    The paper's belongs to maps of the paper's classes. Where the training pictures have no boxes it stays.
    """
    paper = DATASETS[args.dataset].Model.recipe(args.arch, recipe.name)
    is_adapted = args.adapt_recipe and recipe.num_classes < paper.num_classes
    if not (is_adapted and args.threshold is None and recipe.threshold == paper.threshold and split.boxes):
        return recipe
    question = build_question(recipe, ten_crops=False, ignore_misfits=args.ignore_misfits)
    folded = fold_batch_norm(model.eval())
    chosen = choose_thresholds(folded, split, question, device, DEFAULT_BATCH_SIZE, args.num_workers)[question.main]
    print(f"threshold {chosen:g} finds most boxes of the training pictures (the paper's is {paper.threshold:g})")
    recipe = replace(recipe, threshold=chosen)
    if is_main():
        change_settings(weights, recipe=asdict(recipe), threshold_chosen_on="training pictures and their boxes")
    return recipe


def evaluate_test(
    model: BAS, split: Split, recipe: Recipe, device: torch.device, args: argparse.Namespace
) -> Evaluation:
    """Evaluates the test split as BAS_inference.py does, and prints the table."""
    question = build_question(recipe, ignore_misfits=args.ignore_misfits)
    loader = build_loader(split, question, DEFAULT_BATCH_SIZE, args.num_workers, device)
    evaluation = evaluate(fold_batch_norm(model.eval()), loader, split, question, device)
    print(score_table(evaluation.scores().summary()))
    for line in caution_lines(cautions(evaluation, split.class_names)):
        print(line)
    return evaluation


def report(evaluation: Evaluation, split: Split, weights: Path, args: argparse.Namespace) -> None:
    """Saves the last evaluation beside the weights and says how to repeat it."""
    if not is_main():
        return
    record = {
        "scores": evaluation.scores().summary(),
        "cautions": cautions(evaluation, split.class_names),
        "failures": evaluation.failures,
    }
    path = write_text(weights.with_name("evaluation.json"), json.dumps(record, indent=2) + "\n")
    if evaluation.failures:
        print(failure_report(evaluation.failures))
    print(f"figures saved in {path}; to repeat the evaluation:")
    option = "--dataset-dir" if args.dataset_dir else "--data"
    paths = [option, data_folder(args).resolve(), "--checkpoint", weights.resolve()]
    paths += [OPTION] if args.ignore_misfits else []
    command = shlex.join(["python", "BAS_inference.py", "--arch", args.arch, *map(str, paths)])
    print(f"  cd {args.dataset} && {command}")


if __name__ == "__main__":
    sys.exit(run_command(main))
