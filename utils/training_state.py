"""Everything that training needs to go on after a finished epoch as if it had never stopped."""

from __future__ import annotations

import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from utils.checkpoint import load_file
from utils.errors import UsageError, UserError
from utils.files import write_atomically
from utils.models.bas import BAS
from utils.models.recipe import Recipe

FILE_NAME = "last.pth.tar"
# A run may be prolonged, and how it is evaluated is free; what else differs would make it another run.
MAY_CHANGE = {"epochs", "threshold", "top_k", "align_maps"}


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and torch on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def save_training_state(
    path: Path,
    model: BAS,
    optimizer: Optimizer,
    scheduler: LRScheduler,
    generator: torch.Generator,
    finished_epochs: int,
    recipe: Recipe,
) -> None:
    """Writes model, optimiser, schedule, epoch and random states by write-then-rename."""
    python_state = random.getstate()
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    content = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "epoch": finished_epochs,
        "settings": asdict(recipe),
        "random": {
            "python": python_state,
            "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "loader": generator.get_state(),
        },
    }
    write_atomically(path, lambda file: torch.save(content, file))


def read_training_state(path: Path) -> dict[str, Any]:
    """Reads what :func:`save_training_state` wrote; its `settings` are those of the run, its `epoch` the finished ones.

    Raises:
        UserError: the file is missing, damaged, or no training state.
    """
    if not path.is_file():
        raise UserError(f"--resume: there is no {path}; leave out --resume to start the run, or give its {FILE_NAME}")
    content = load_file(path)
    parts = {"model", "optimizer", "scheduler", "epoch", "random", "settings"}
    if not isinstance(content, dict) or not parts <= content.keys():
        raise UserError(f"--resume: {path} is no training state; give the {FILE_NAME} of a run, not its weights")
    return content


def restore_training_state(
    content: dict[str, Any],
    model: BAS,
    optimizer: Optimizer,
    scheduler: LRScheduler,
    generator: torch.Generator,
    recipe: Recipe,
) -> int:
    """Restores what :func:`read_training_state` gave.

    Returns:
        The number of finished epochs.

    Raises:
        UsageError: settings were given that would falsify the run, or fewer epochs than are finished; lists them.
    """
    _require_same_settings(content["settings"], asdict(recipe))
    if content["epoch"] > recipe.epochs:
        raise UsageError(f"--resume: the run has {content['epoch']} finished epochs; give at least as many --epochs")
    model.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    scheduler.load_state_dict(content["scheduler"])
    _restore_random(content["random"], generator)
    return content["epoch"]


def _require_same_settings(before: dict[str, Any], now: dict[str, Any]) -> None:
    changed = [
        f"{name} was {before.get(name)}, is {value}"
        for name, value in now.items()
        if name not in MAY_CHANGE and before.get(name) != value
    ]
    if changed:
        raise UsageError(
            f"--resume: the run was started with other settings ({'; '.join(changed)}); give the same ones"
        )


def _restore_random(states: dict[str, Any], generator: torch.Generator) -> None:
    version, keys, gauss = states["python"]
    random.setstate((version, tuple(keys), gauss))
    kind, keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
    generator.set_state(states["loader"])
