"""Everything that training needs to go on as if it had never stopped, between two epochs or within one."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from utils.data.split import Split
from utils.models.bas import BAS
from utils.models.checkpoint import differences, load_file
from utils.models.recipe import Recipe, as_of_today, marked
from utils.runs.settings import Engine
from utils.runs.state_check import MOMENTUM, PARTS, RATES, require_sound
from utils.runs.state_folder import StateFolder, damage_of_file
from utils.system.errors import UsageError, UserError, is_out_of_memory, reason_of
from utils.system.processes import broadcast_value, gather_everywhere, is_main, process_count, rank, restart_count

OTHER_STATE = "give another state, or none for the newest"
# A run may be prolonged, and how it is evaluated is free; what else differs in the recipe would make it another run.
MAY_CHANGE = set(marked("may_change"))
# Of the engine's settings, those that change the numbers by more than rounding or the batches of batch normalisation.
MUST_STAY = {"amp"}


@dataclass
class Progress:
    """How far a run has come, and what its unfinished epoch gave so far.

    Attributes:
        epoch: finished epochs.
        step: finished steps of the next one.
        sums: of its figures, by name, over `seen` pictures.
        seen: pictures.
        seconds, waited: its duration so far, and the part of it spent waiting for pictures.
        replaced: pictures that could not be read.
        extremes: (K, 2) of :func:`utils.metrics.extremes_by_class`; none where the generator was not yet trained.
    """

    epoch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    seen: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    replaced: int = 0
    extremes: list[list[float]] = field(default_factory=list)

    def means(self) -> dict[str, float]:
        """Of the unfinished epoch's figures so far, by name."""
        return {name: total / self.seen for name, total in self.sums.items()}

    def __str__(self) -> str:
        return f"{self.epoch} epochs" + (f" and {self.step} steps" if self.step else "")


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and torch on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def fingerprint(split: Split) -> dict[str, Any]:
    """What tells one set of training pictures from another: their number, their classes, a digest of ids and labels."""
    digest = hashlib.sha256("\n".join(split.ids).encode("utf-8", "surrogateescape"))
    digest.update(np.ascontiguousarray(split.labels, dtype=np.int64).tobytes())
    if split.positives is not None:
        digest.update(np.packbits(split.positives).tobytes())
    return {"pictures": len(split), "classes": len(split.class_names), "digest": digest.hexdigest()[:16]}


def random_state(device: torch.device) -> dict[str, Any]:
    """This process's random states: Python, NumPy, torch, and torch's of its CUDA device."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def set_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Restores what :func:`random_state` gave; CUDA's if both then and now there is one."""
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    kind, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)


def require_finite(model: BAS) -> None:
    """UserError if a weight or a running statistic is NaN or infinite, so that no state ever holds one."""
    values = [value for value in model.state_dict().values() if value.is_floating_point()]
    if not torch.stack([value.isfinite().all() for value in values]).all():
        raise UserError("the weights are not finite any more; start again with a lower --lr and another --save_path")


def training_state(
    model: BAS,
    optimizer: Optimizer,
    scheduler: LRScheduler,
    scaler: torch.amp.GradScaler,
    progress: Progress,
    random_states: list[dict[str, Any]],
    recipe: Recipe,
    engine: Engine,
    data: Mapping[str, Any],
) -> dict[str, Any]:
    """What is saved.

    Args:
        random_states: of :func:`random_state` in each process.
        data: of :func:`fingerprint`.
        model, optimizer, scheduler, scaler, progress, recipe, engine: the run's.
    """
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "scaler": scaler.state_dict(),
        "progress": asdict(progress),
        "random": random_states,
        "settings": asdict(recipe),
        "engine": asdict(engine),
        "data": dict(data),
    }


def find_training_state(choice: str | None, states: StateFolder) -> tuple[dict[str, Any], Path] | tuple[None, None]:
    """The state to go on from, and its file; (None, None) to start anew.

    The first process finds and reads it for all, since the others' machines may not see the folder. A run that torchrun
    has started anew goes on from its newest state, whatever its command says.

    Args:
        choice: of `--resume`: None, `last` (the newest intact state, which must be there), `auto` (the same if there is
            one) or a file.
        states: the run's.

    Raises:
        UserError: there is no such state, or it is damaged or no training state.
    """
    restarted = any(gather_everywhere(restart_count()))  # an agent whose own processes lived does not count
    path = _choose_state(choice, states, restarted) if is_main() else None
    return broadcast_value((None, None) if path is None else (read_training_state(path), path))


def _choose_state(choice: str | None, states: StateFolder, restarted: bool) -> Path | None:
    there = states.entries() if choice or restarted else []
    if restarted and (there or choice is None):
        choice = "auto"
    if choice is None or (choice == "auto" and not there):
        return None
    if choice in ("last", "auto"):
        path = states.newest_intact()
        if path is None:
            hint = (
                "give one of them as --resume FILE to go on from it as it is, or choose another --save_path"
                if there
                else "leave out --resume to start the run"
            )
            raise UserError(f"--resume: there is no intact state in {states.path}; {hint}")
        return path
    path = Path(choice)
    damage = damage_of_file(path)
    if damage:
        raise UserError(f"--resume: {path} is damaged ({damage}); {OTHER_STATE}")
    return path


def read_training_state(path: Path) -> dict[str, Any]:
    """Reads what :func:`training_state` gave.

    Raises:
        UserError: the file is missing, damaged, or no training state.
    """
    content = load_file(path, hint="leave out --resume to start the run, or give one of its states")
    if not isinstance(content, dict) or not content.keys() >= set(PARTS):
        raise UserError(f"--resume: {path} is no training state; give a file of the run's states/, not its weights")
    if isinstance(content["settings"], dict):
        content["settings"] = as_of_today(content["settings"])
    try:
        require_sound(content, Progress)
    except ValueError as error:
        raise UserError(f"--resume: {path} {error}; {OTHER_STATE}") from error
    return content


def restore_training_state(
    content: Mapping[str, Any],
    model: BAS,
    optimizer: Optimizer,
    scheduler: LRScheduler,
    scaler: torch.amp.GradScaler,
    name: object = "the state",
) -> Progress:
    """Restores what :func:`find_training_state` gave; the random states only where there are as many processes.

    Args:
        content: the state.
        model, optimizer, scheduler, scaler: newly built, for the same settings.
        name: of the file, for the message.

    Raises:
        UserError: it is another network's, or nothing that could be restored.
    """
    if wrong := differences(model.state_dict(), content["model"]):
        raise UserError(f"--resume: {name} does not fit the network: {wrong}; {OTHER_STATE}")
    try:
        model.load_state_dict(content["model"])
        _restore_optimizer(content["optimizer"], optimizer)
        # All else that a scheduler knows follows from the recipe and how often it was stepped.
        count = content["scheduler"]["last_epoch"]
        rates = [group["lr"] for group in optimizer.param_groups]
        vars(scheduler).update(last_epoch=count, _step_count=count + 1, _last_lr=rates)
        if content["scaler"]:
            scaler.load_state_dict(content["scaler"])
        if len(content["random"]) == process_count():
            set_random_state(content["random"][rank()], next(model.parameters()).device)
    except Exception as error:  # torch, NumPy and Python's random each stumble in their own way over what is no state
        if is_out_of_memory(error):
            raise
        raise UserError(f"--resume: {name} cannot be restored ({reason_of(error)[:200]}); {OTHER_STATE}") from error
    return Progress(**content["progress"])


def _restore_optimizer(content: dict[str, Any], optimizer: Optimizer) -> None:
    # All but the rates and the momenta follows from the recipe and the device.
    built = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    started_with = list(optimizer.state)
    optimizer.load_state_dict(content)
    for group, options in zip(optimizer.param_groups, built, strict=True):
        group.update({name: value for name, value in options.items() if name not in RATES})
    missing = sum(optimizer.state.get(parameter, {}).get(MOMENTUM) is None for parameter in started_with)
    if missing:  # the fused kernel would stumble over it, or a momentum begin anew in the middle of the run
        raise ValueError(f"the momenta of {missing} of {len(started_with)} parameters are missing")
    for parameter, values in optimizer.state.items():  # in the memory layout of this device and of --channels_last
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                if value.shape != parameter.shape:
                    raise ValueError(f"a momentum of {list(value.shape)} for weights of {list(parameter.shape)}")
                values[name] = torch.empty_like(parameter, requires_grad=False).copy_(value)


def require_same_data(data: Mapping[str, Any]) -> None:
    """UserError in all processes if one of them sees other pictures than the first.

    Args:
        data: of :func:`fingerprint`, of every split.
    """
    everyones = gather_everywhere(data)
    for number, other in enumerate(everyones):
        changed = _differences(everyones[0], other, lambda name: True)
        if changed:
            raise UserError(
                f"process {number} sees other pictures than process 0 ({'; '.join(changed)}); give all machines the "
                "same data set"
            )


def require_same_run(content: Mapping[str, Any], recipe: Recipe, engine: Engine, data: Mapping[str, Any]) -> None:
    """UsageError if going on with these settings or pictures would falsify the run; shows the differences."""
    # A setting that is younger than the run had its default, which changes nothing.
    defaults = {field.name: field.default for field in fields(Recipe) if field.default is not MISSING}
    settings = {**defaults, **content["settings"]}
    changed = _differences(settings, asdict(recipe), lambda name: name not in MAY_CHANGE)
    changed += _differences(content["engine"], asdict(engine), MUST_STAY.__contains__)
    if changed:
        raise UsageError(
            f"--resume: the run was started with other settings ({'; '.join(changed)}); give the same ones"
        )
    other_data = _differences(content["data"], data, lambda name: True)
    if other_data:
        raise UsageError(f"--resume: the run had other training pictures ({'; '.join(other_data)}); give the same data")
    progress = Progress(**content["progress"])
    if progress.step * recipe.batch_size >= data["pictures"] + 2 * recipe.batch_size:
        raise UserError(f"--resume: the state has {progress.step} steps of an epoch that is shorter; {OTHER_STATE}")
    finished = progress.epoch + (progress.step > 0)
    if finished > recipe.epochs:
        raise UsageError(f"--resume: the run has begun epoch {finished}; give at least as many --epochs")


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], counts: Any) -> list[str]:
    return [
        f"{name} was {before.get(name)}, is {value}"
        for name, value in now.items()
        if counts(name) and before.get(name) != value
    ]
