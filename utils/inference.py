"""The command `python BAS_inference.py` of both data sets: a checkpoint and a test set in, the five figures out."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from utils.arguments import add_common_options, choose_device
from utils.checkpoint import Checkpoint, apply_weights, find_checkpoint, read_checkpoint
from utils.data.datasets import build_evaluation_loader
from utils.data.split import Split
from utils.data.transforms import check_sizes
from utils.engine import evaluate
from utils.errors import UsageError, UserError
from utils.files import write_text
from utils.models.recipe import Recipe, override
from utils.reporting import failure_report, score_table

DEFAULT_BATCH_SIZE = 8
SETTINGS_FILE = "settings.json"
# What a run's own settings tell about evaluating its checkpoint, and what values fit; the rest concerns training.
EVALUATION_SETTINGS = {
    "final_relu": lambda value: isinstance(value, bool),
    "threshold": lambda value: isinstance(value, int | float) and 0 <= value <= 1,
    "top_k": lambda value: isinstance(value, int) and value >= 1,
    "resize_size": lambda value: isinstance(value, int) and value >= 1,
    "crop_size": lambda value: isinstance(value, int) and value >= 1,
}


def parse_arguments(dataset: str, argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line; `--help` explains every option."""
    parser = argparse.ArgumentParser(
        description=f"Evaluates a BAS checkpoint on {dataset}: Top-1 / Top-5 / GT-known Loc and Top-1 / Top-5 Cls.",
        epilog=f"Example: python BAS_inference.py --arch resnet --data /data/{dataset} --json result.json. "
        f"Settings that are not given come from the run's {SETTINGS_FILE} beside the checkpoint, else from the recipe.",
    )
    add_common_options(parser, batch_size_default=f"{DEFAULT_BATCH_SIZE}, of ten crops each")
    parser.set_defaults(arch="vgg")
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="default: the highest epoch in logs/<arch>/, the released name"
    )
    parser.add_argument(
        "--tencrop",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="class scores from ten crops, or from the centre crop alone (default: ten crops)",
    )
    parser.add_argument(
        "--final_relu",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="whether the class maps end in a ReLU: CVPR models do, IJCV models do not (default: by the file)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="save the figures and the settings there")
    return parser.parse_args(argv)


def run(dataset: str, models: Any, load_split: Callable[[Path, str], Split], argv: list[str] | None = None) -> None:
    """Evaluates a checkpoint on a data set's test images and prints the figures.

    Args:
        dataset: `CUB` or `ILSVRC`.
        models: the data set's `Model` package: `build`, `recipe`, `published`.
        load_split: the data set's loader.
        argv: the command line; `sys.argv` if None.

    Raises:
        UserError: whatever the user can mend.
    """
    args = parse_arguments(dataset, argv)
    if args.json and args.json.is_dir():
        raise UsageError(f"--json {args.json} is a folder; name a file")
    home = Path(models.__file__).parents[1]
    device = choose_device(args.device)
    checkpoint = read_checkpoint(args.checkpoint or find_checkpoint(home / "logs", dataset, args.arch))
    recipe = settle_recipe(models.recipe(args.arch), checkpoint, vars(args))
    check_sizes(recipe.resize_size, recipe.crop_size)
    require_arch(checkpoint, args.arch)
    split = load_split(args.root or home / "data", "test")
    require_same_classes(checkpoint, split)
    model = models.build(args.arch, checkpoint.num_classes, recipe.final_relu)
    apply_weights(model, checkpoint)
    print(checkpoint.summary)
    print(f"{dataset} test: {len(split)} pictures, {len(split.class_names)} classes; {split.layout}")
    shown = ", ".join(f"{name} {getattr(recipe, name)}" for name in EVALUATION_SETTINGS)
    print(f"settings: {shown}, {'ten crops' if args.tencrop else 'centre crop alone'}, {device}")

    model.to(device, memory_format=torch.channels_last)
    batch_size = args.batch_size or DEFAULT_BATCH_SIZE
    loader = build_evaluation_loader(split, recipe.resize_size, batch_size, args.num_workers, device)
    start = time.perf_counter()
    evaluation = evaluate(model, loader, split, recipe, device, ten_crops=args.tencrop)
    seconds = time.perf_counter() - start

    summary = evaluation.scores().summary()
    is_whole_dataset = model.num_classes == models.recipe(args.arch).num_classes
    published = models.published(args.arch) if is_whole_dataset else None
    print(score_table(summary, published))
    print(f"{len(split)} pictures in {seconds:.1f} s, {len(split) / seconds:.1f} a second")
    if evaluation.failures:
        print(failure_report(evaluation.failures))
    if args.json:
        record = {
            "dataset": dataset,
            "arch": args.arch,
            "checkpoint": str(checkpoint.path),
            "ten_crops": args.tencrop,
            "settings": {name: getattr(recipe, name) for name in EVALUATION_SETTINGS},
            "scores": summary,
            "published": asdict(published) if published else None,
            "failures": evaluation.failures,
        }
        write_text(args.json, json.dumps(record, indent=2) + "\n")
        print(f"figures saved in {args.json}")


def settle_recipe(recipe: Recipe, checkpoint: Checkpoint, given: dict[str, Any]) -> Recipe:
    """The recipe, overridden by the settings of the run that made the checkpoint, overridden by what the user gave."""
    path = checkpoint.path.with_name(SETTINGS_FILE)
    # A released file may lie in a run's folder: settings belong to the file that they name alone.
    stored = _read_settings(path, checkpoint.path.name)
    kept = {name: stored[name] for name in EVALUATION_SETTINGS if name in stored}
    if kept:
        print(f"settings of the run: {path}")
    if checkpoint.is_ijcv:
        kept["final_relu"] = False
    given = {name: given.get(name) for name in EVALUATION_SETTINGS}
    return override(override(recipe, kept), given)


def _read_settings(path: Path, weights_name: str) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["weights"] != weights_name:
            return {}
        settings = content["recipe"]
        wrong = [name for name, fits in EVALUATION_SETTINGS.items() if name in settings and not fits(settings[name])]
        if wrong:
            raise ValueError(f"{wrong[0]} is {settings[wrong[0]]!r}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no settings file of a run ({error}); move it away to use the recipe") from error
    return settings


def save_settings(weights: Path, recipe: Recipe, **more: Any) -> Path:
    """Writes the settings in force beside the run's weights, where inference finds them; they name that file."""
    content = {"weights": weights.name, "recipe": asdict(recipe), **more}
    return write_text(weights.with_name(SETTINGS_FILE), json.dumps(content, indent=2) + "\n")


def require_arch(checkpoint: Checkpoint, arch: str) -> None:
    """UserError if the file is another backbone's, or no BAS model's at all."""
    if checkpoint.arch is None or checkpoint.num_classes is None:
        raise UserError(f"{checkpoint.path} holds no BAS model; its keys belong to none of the four backbones")
    if checkpoint.arch != arch:
        mend = f"give --arch {checkpoint.arch} or another file"
        raise UserError(f"{checkpoint.path} holds {checkpoint.description}, not {arch}; {mend}")


def require_same_classes(checkpoint: Checkpoint, split: Split) -> None:
    """UserError if the checkpoint's classes cannot be the data set's: it was trained on another one."""
    if checkpoint.num_classes != len(split.class_names):
        raise UserError(
            f"{checkpoint.path} holds {checkpoint.description}, but the data set has {len(split.class_names)} classes "
            f"({split.layout}); give the checkpoint's own data set with --data, or another --checkpoint"
        )
