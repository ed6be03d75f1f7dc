"""Trains BAS: `python train.py --arch vgg` for CUB-200-2011, `--dataset ILSVRC`, or `--demo` with no data set at all.

Every default is the authors' recipe for the data set and backbone (CUB/Model/<arch>.py, ILSVRC/Model/<arch>.py).
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path

import CUB
import CUB.DataLoader
import CUB.Model
import ILSVRC
import ILSVRC.DataLoader
import ILSVRC.Model
from utils.arguments import (
    DEFAULT_WORKERS,
    add_common_options,
    choose_device,
    natural,
    non_negative_float,
    positive_float,
    positive_int,
    seed,
)
from utils.checkpoint import checkpoint_name, save_weights
from utils.data import any_folder
from utils.data.datasets import build_training_loader
from utils.data.split import Split
from utils.demo import run as demo
from utils.engine import train_one_epoch
from utils.errors import UsageError, UserError, run_command
from utils.evaluation.question import build_question
from utils.evaluation.run import Evaluation, build_loader, evaluate
from utils.files import write_text
from utils.inference.arguments import DEFAULT_BATCH_SIZE
from utils.inference.settings import save_settings
from utils.models.bas import BAS
from utils.models.fold import fold_batch_norm
from utils.models.pretrained import load_imagenet
from utils.models.recipe import Recipe, explain, override
from utils.optim import build_optimizer, build_scheduler
from utils.reporting import RunLog, epoch_line, failure_report, score_table
from utils.training_state import (
    FILE_NAME,
    read_training_state,
    restore_training_state,
    save_training_state,
    seed_everything,
)

DATASETS = {"CUB": CUB, "ILSVRC": ILSVRC}
ROOT = Path(__file__).resolve().parent


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line; `--help` explains every option."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  python train.py --demo                                  see it work in minutes, no data set needed\n"
        "  python train.py --arch vgg --root /data --download      fetch CUB-200-2011 and train VGG16 on it\n"
        "  python train.py --dataset ILSVRC --arch resnet --root /data/ILSVRC2012 --batch_size 64\n"
        "  python train.py --arch vgg --root /data --resume        go on after the last finished epoch",
    )
    parser.add_argument("--dataset", choices=DATASETS, default="CUB", help="default: %(default)s")
    add_common_options(parser, batch_size_default="the recipe's, CUB 32, ILSVRC 128")
    parser.add_argument("--demo", action="store_true", help="compose a small set of real photographs and train on it")
    parser.add_argument(
        "--dataset-dir",
        "--dataset_dir",
        type=Path,
        metavar="FOLDER",
        help="a data set of your own, under --dataset's recipe: wsolevaluation's metadata, or train/ and test/ with a "
        "folder per class",
    )
    parser.add_argument("--download", action="store_true", help="fetch CUB-200-2011 into --root first")
    parser.add_argument(
        "--pretrained",
        default="auto",
        metavar="auto|none|FILE",
        help="ImageNet weights: torchvision's (MobileNetV1: the shipped ones), none, or a local file (default: auto)",
    )
    parser.add_argument("--epochs", type=positive_int, help="default: the recipe's, CUB 100, ILSVRC 9")
    parser.add_argument("--lr_steps", type=natural, nargs="*", help="epochs at which the rate falls")
    parser.add_argument("--lr_decay", type=positive_float, help="to this share of itself (default: 0.1)")
    parser.add_argument("--lr", type=positive_float, help="base rate; biases x2, heads x10 (default: 0.001)")
    parser.add_argument("--weight_decay", type=non_negative_float, help="default: 0.0005")
    parser.add_argument("--momentum", type=non_negative_float, help="Nesterov momentum (default: 0.9)")
    parser.add_argument("--frg_weight", type=non_negative_float, help="alpha, of L_frg (default: the recipe's)")
    parser.add_argument("--area_weight", type=non_negative_float, help="beta, of L_ac (default: the recipe's)")
    parser.add_argument("--warmup_epochs", type=natural, help="first epochs on L_cls alone (default: 0)")
    parser.add_argument(
        "--final_relu",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="end the class maps in a ReLU, as the CVPR model does, or not, as the IJCV model (default: ReLU)",
    )
    parser.add_argument("--seed", type=seed, help="default: CUB 6, ILSVRC 2")
    parser.add_argument("--show_step", type=positive_int, default=20, help="steps between two readings of the losses")
    parser.add_argument(
        "--eval_every", type=natural, default=0, help="evaluate every N epochs (default: after the last only)"
    )
    parser.add_argument("--gpu", type=natural, metavar="N", help="the same as --device cuda:N")
    parser.add_argument(
        "--save_path",
        type=Path,
        help="runs go to <save_path>/<arch>/ (default: logs in the data set's folder, <dataset> or --dataset-dir)",
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="FILE",
        help=f"go on after the last finished epoch, from the run's {FILE_NAME} or from FILE",
    )
    args = parser.parse_args(argv)
    if args.gpu is not None:
        if args.device is not None:
            parser.error("give --gpu or --device, not both")
        args.device = f"cuda:{args.gpu}"
    if args.lr_steps is not None:
        args.lr_steps = tuple(args.lr_steps)
    if args.demo and (args.dataset != "CUB" or args.root or args.dataset_dir or args.download or args.eval_every):
        left_out = "--dataset, --root, --dataset-dir, --download and --eval_every"
        parser.error(f"--demo composes its own data set; leave out {left_out}")
    if args.dataset_dir and (args.root or args.download):
        parser.error("--dataset-dir names the data set; leave out --root and --download")
    if args.resume and args.pretrained != "auto":
        parser.error("--resume takes the weights of the run; leave out --pretrained")
    if args.download and args.dataset != "CUB":
        parser.error("--download fetches CUB-200-2011 alone; ILSVRC needs an account at https://www.image-net.org/")
    if args.num_workers is None:
        args.num_workers = DEFAULT_WORKERS
    return args


def main(argv: list[str] | None = None) -> None:
    """Arguments, recipe, data, model, optimiser, loop."""
    args = parse_arguments(argv)
    if args.demo:
        demo.prepare(args, ROOT)
    args.arch = args.arch or "vgg"
    dataset = DATASETS[args.dataset]
    folder = (args.save_path or (args.dataset_dir or ROOT / args.dataset) / "logs") / args.arch
    state_path = folder / FILE_NAME if args.resume in (None, "auto") else Path(args.resume)
    state = read_training_state(state_path) if args.resume else None
    recipe = settle_recipe(args, dataset.Model.recipe(args.arch), state)
    weights = folder / checkpoint_name(args.dataset, args.arch, recipe.epochs - 1)
    if not args.resume and not args.demo:
        refuse_to_overwrite(state_path, weights)
    device = choose_device(args.device)
    seed_everything(recipe.seed)

    train_split, test_split = load_splits(args)
    recipe = override(recipe, {"num_classes": len(train_split.class_names)})
    loader = build_training_loader(
        train_split, recipe.resize_size, recipe.crop_size, recipe.batch_size, args.num_workers, recipe.seed, device
    )

    model = dataset.Model.build(args.arch, recipe.num_classes, recipe.final_relu)
    if state is None:
        print(load_imagenet(model, args.pretrained))
    model.place(device)
    optimizer = build_optimizer(model, recipe.lr, recipe.momentum, recipe.weight_decay)
    scheduler = build_scheduler(optimizer, recipe.lr_steps, recipe.lr_decay)
    start = 0
    if state is not None:
        start = restore_training_state(state, model, optimizer, scheduler, loader.generator, recipe)
        print(f"resumed from {state_path} after epoch {start}")
    print(f"settings: {explain(recipe)}; {device}, {args.num_workers} workers")
    names = train_split.class_names
    save_settings(weights, recipe, layout=train_split.layout, class_names=names, command=sys.argv)

    log = RunLog(folder / "log.jsonl", start)
    for epoch in range(start, recipe.epochs):
        figures = train_timed(model, loader, optimizer, recipe, device, epoch, args.show_step)
        scheduler.step()
        print(epoch_line(epoch, recipe.epochs, figures), flush=True)
        log.add({"epoch": epoch + 1, **figures})
        save_training_state(folder / FILE_NAME, model, optimizer, scheduler, loader.generator, epoch + 1, recipe)
        if test_split and args.eval_every and (epoch + 1) % args.eval_every == 0 and epoch + 1 < recipe.epochs:
            evaluation = evaluate_test(model, test_split, recipe, device, args.num_workers)
            log.amend(test=evaluation.scores().summary())

    # What follows can be repeated: --resume on a run with all its epochs does it again.
    print(f"model saved: {save_weights(model, weights)}")
    if args.demo:
        demo.finish(model, train_split, test_split, recipe, device, args, weights)
    elif test_split:
        evaluation = evaluate_test(model, test_split, recipe, device, args.num_workers)
        log.amend(test=evaluation.scores().summary())
        report(evaluation, weights, args)


def settle_recipe(args: argparse.Namespace, recipe: Recipe, state: dict | None) -> Recipe:
    """The data set's recipe (or the demo's), under the settings of the run to resume, under what the user gave."""
    if args.demo:
        recipe = demo.demo_recipe(recipe)
    if state is not None:
        recipe = override(recipe, state["settings"])
    recipe = override(recipe, vars(args))
    if recipe.warmup_epochs >= recipe.epochs:
        raise UsageError(
            f"--warmup_epochs {recipe.warmup_epochs} leaves none of {recipe.epochs} epochs to train the generator"
        )
    return recipe


def refuse_to_overwrite(state_path: Path, weights: Path) -> None:
    """UsageError if a run, or weights of the name that this one will write, are in the folder already."""
    for path in (state_path, weights):
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


def train_timed(model: BAS, loader, optimizer, recipe: Recipe, device, epoch: int, show_step: int) -> dict[str, float]:
    """One epoch, with its rates: the figures of :func:`utils.engine.train_one_epoch`, lr and images_per_second."""
    lr = optimizer.param_groups[0]["lr"]
    begin = time.perf_counter()
    figures = train_one_epoch(model, loader, optimizer, recipe, device, epoch, show_step)
    seconds = time.perf_counter() - begin
    return {**figures, "lr": lr, "seconds": seconds, "images_per_second": len(loader.dataset) / seconds}


def evaluate_test(model: BAS, split: Split, recipe: Recipe, device, num_workers: int) -> Evaluation:
    """Evaluates the test split as BAS_inference.py does, and prints the table."""
    question = build_question(recipe)
    loader = build_loader(split, question, DEFAULT_BATCH_SIZE, num_workers, device)
    evaluation = evaluate(fold_batch_norm(model.eval()), loader, split, question, device)
    print(score_table(evaluation.scores().summary()))
    return evaluation


def report(evaluation: Evaluation, weights: Path, args: argparse.Namespace) -> None:
    """Saves the last evaluation beside the weights and says how to repeat it."""
    record = {"scores": evaluation.scores().summary(), "failures": evaluation.failures}
    path = write_text(weights.with_name("evaluation.json"), json.dumps(record, indent=2) + "\n")
    if evaluation.failures:
        print(failure_report(evaluation.failures))
    print(f"figures saved in {path}; to repeat the evaluation:")
    option = "--dataset-dir" if args.dataset_dir else "--data"
    paths = [option, data_folder(args).resolve(), "--checkpoint", weights.resolve()]
    command = shlex.join(["python", "BAS_inference.py", "--arch", args.arch, *map(str, paths)])
    print(f"  cd {args.dataset} && {command}")


if __name__ == "__main__":
    sys.exit(run_command(main))
