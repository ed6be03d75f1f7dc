"""Trains one epoch; evaluation is in `utils.evaluation.run`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.optim.sgd import SGD

from utils.data.training import TrainingBatch, TrainingLoader
from utils.data.transforms import normalize
from utils.metrics import extremes_by_class, find_dead_maps
from utils.models.bas import BAS
from utils.models.recipe import Recipe
from utils.runs.settings import Engine
from utils.runs.state import Progress
from utils.system.errors import UsageError, UserError
from utils.system.memory import forget_peak_memory
from utils.system.processes import gather_everywhere, host_group, process_count
from utils.system.progress import progress_bar
from utils.training.objective import Objective, prepare
from utils.training.optim import build_optimizer, build_scheduler


@dataclass
class Trainer:
    """What a run trains with, and how far it has come.

    Attributes:
        model: on `device`.
        loader: of this process's share of the training pictures.
        paths: of all training pictures, for messages.
        optimizer, scheduler, scaler: the scaler does nothing but under fp16.
        recipe, engine, device: settings.
        progress: how far.
        replacements: sentences about pictures of this epoch that could not be read, of this process.
    """

    model: BAS
    loader: TrainingLoader
    paths: Sequence[object]
    optimizer: SGD
    scheduler: LRScheduler
    scaler: torch.amp.GradScaler
    recipe: Recipe
    engine: Engine
    device: torch.device
    progress: Progress = field(default_factory=Progress)
    replacements: list[str] = field(default_factory=list)
    _step: tuple[bool, nn.Module] | None = None  # whether it is the warm-up's, and the module

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return self.loader.batch_sampler.steps

    def objective(self) -> nn.Module:
        """The module to call in the epoch that follows; made anew only where the warm-up ends."""
        warmup = self.progress.epoch < self.recipe.warmup_epochs
        if self._step is None or self._step[0] != warmup:
            self._step = None  # lets go of the old one's hooks first
            self._step = warmup, prepare(Objective(self.model, self.recipe, warmup, self.engine.amp), self.engine)
        return self._step[1]


def build_trainer(
    model: BAS, loader: TrainingLoader, paths: Sequence[object], recipe: Recipe, engine: Engine, device: torch.device
) -> Trainer:
    """Builds optimiser, schedule and scaler for a network on its device.

    Args:
        model, loader, paths, recipe, engine, device: as for :class:`Trainer`.

    Raises:
        UsageError: batch normalisation cannot be synchronised there, or not with this recipe.
    """
    # Started alone, a process sees the whole batch anyway.
    if recipe.sync_bn and process_count() > 1:
        if device.type != "cuda":
            raise UsageError(f"--sync_bn needs CUDA and the device is {device}; give --no-sync_bn")
        if recipe.frozen_statistics == "whole":
            raise UsageError(
                "--sync_bn does not go with --frozen_statistics whole; give --no-sync_bn or --frozen_statistics masked"
            )
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    # The fused kernel takes a third of the time; under fp16 it alone passes over a step of infinite gradients without
    # asking the device first.
    fused = device.type in ("cpu", "cuda") or None
    if not recipe.train_biases:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not name.endswith("bias"))
    optimizer = build_optimizer(
        model, recipe.lr, recipe.momentum, recipe.weight_decay, fused, recipe.generator_rate, recipe.nesterov
    )
    if recipe.momentum:
        # The fused kernel wants the momenta of all of a group's parameters or of none, which the end of a warm-up does
        # not give it, and leaves them unwritten in a first step of infinite gradients. From 0 a first step is the same.
        for parameter in (parameter for group in optimizer.param_groups for parameter in group["params"]):
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    scheduler = build_scheduler(optimizer, recipe.lr_steps, recipe.lr_decay, recipe.poly_steps)
    scaler = torch.amp.GradScaler(device.type, enabled=engine.amp == "fp16")
    return Trainer(model, loader, paths, optimizer, scheduler, scaler, recipe, engine, device)


def first_rate(trainer: Trainer) -> float:
    """The trunk weights' rate at the epoch's first step, also where the epoch is resumed in its middle."""
    scheduler = trainer.scheduler
    if not isinstance(scheduler, LambdaLR):  # it steps once an epoch
        return trainer.optimizer.param_groups[0]["lr"]
    return float(scheduler.base_lrs[0]) * scheduler.lr_lambdas[0](scheduler.last_epoch - trainer.progress.step)


def train_one_epoch(
    trainer: Trainer, show_step: int = 20, after_step: Callable[[Callable[[], None]], None] | None = None
) -> dict[str, Any]:
    """One pass over the training pictures, or the rest of one.

    The figures of each step stay on the device and are read every `show_step` steps only, so that the host never waits
    for the device in between.

    Args:
        trainer: at `progress.step` of epoch `progress.epoch`; both are moved on, the epoch when this returns.
        show_step: steps between two readings of the figures.
        after_step: called after every step but the last with a function that reads what is not yet read; may save the
            trainer then, and may raise to stop.

    Returns:
        Means over the epoch's pictures, of all processes: the losses by name as far as they are computed, and
        `accuracy` in percent; `lr`, `seconds`, `images_per_second`, `data_wait` (the share of the time that was spent
        waiting for pictures), `steps`, `replaced_pictures`; and `dead_maps`, a :class:`utils.metrics.DeadMaps`, where
        the generator was trained.

    Raises:
        UserError: a loss is NaN or infinite; names the step, the losses and the pictures.
    """
    trainer.model.train()
    forget_peak_memory(trainer.device)
    progress, objective, lr = trainer.progress, trainer.objective(), first_rate(trainer)
    readings = _Readings(trainer)
    trainer.loader.batch_sampler.start_at(progress.epoch, progress.step)
    trainer.replacements.clear()
    title = f"epoch {progress.epoch + 1}/{trainer.recipe.epochs}"
    clock = _Clock(progress)

    def catch_up() -> None:
        readings.read()
        clock.note()

    bar = progress_bar(clock.watch(trainer.loader), title)
    bar.total, bar.n = trainer.steps, progress.step
    for batch in bar:
        progress.step += 1
        trainer.replacements += batch.replaced
        for row in _step(trainer, objective, batch):
            readings.add(row)
        is_last = progress.step == trainer.steps
        if progress.step % show_step == 0 or is_last:
            readings.read()
            bar.set_postfix({name: f"{value:.3f}" for name, value in progress.means().items() if name != "total"})
        if after_step is not None and not is_last:
            after_step(catch_up)
    clock.note()
    figures: dict[str, Any] = progress.means()
    figures["accuracy"] *= 100
    figures |= {
        "lr": lr,
        "seconds": progress.seconds,
        "images_per_second": progress.seen / progress.seconds,
        "data_wait": progress.waited / progress.seconds,
        "steps": progress.step,
        "replaced_pictures": progress.replaced,
    }
    if progress.extremes:
        figures["dead_maps"] = find_dead_maps(np.array(progress.extremes))
    if not trainer.recipe.poly_steps:
        trainer.scheduler.step()
    trainer.progress = Progress(epoch=progress.epoch + 1)
    return figures


class _Row(NamedTuple):
    """What is remembered of a part until it is read."""

    step: int  # counted from 1
    pictures: int
    replaced: int
    indices: Tensor
    labels: Tensor  # on the host
    shown: dict[str, Tensor]
    extremes: Tensor | None


def _step(trainer: Trainer, objective: nn.Module, batch: TrainingBatch) -> list[_Row]:
    """One step of the optimiser; the figures of the batch's parts."""
    device, parts = trainer.device, min(trainer.engine.grad_accum, len(batch.labels))
    is_cuda = device.type == "cuda"  # elsewhere memory is not pinned: a copy is waited for
    of_all = batch.images, batch.labels, batch.indices
    split = [torch.tensor_split(values, parts) for values in of_all]
    positives = [()] * parts if batch.positives is None else [(part,) for part in batch.positives.tensor_split(parts)]
    rows = []
    trainer.optimizer.zero_grad(set_to_none=True)
    for number, (images, labels, indices, more) in enumerate(zip(*split, positives, strict=True)):
        images, on_device, *more = (values.to(device, non_blocking=is_cuda) for values in (images, labels, *more))
        images = normalize(images, trainer.model.channels_last)
        with ExitStack() as stack:
            if number < parts - 1 and isinstance(objective, DistributedDataParallel):
                stack.enter_context(objective.no_sync())  # the last part's pass averages what all of them gave
            total, shown, extremes = objective(images, on_device, *more)
            if parts > 1:
                total = total * (len(labels) / len(batch.labels))
            trainer.scaler.scale(total).backward()
        replaced = len(batch.replaced) if number == 0 else 0
        rows.append(_Row(trainer.progress.step, len(labels), replaced, indices, labels, shown, extremes))
    if trainer.recipe.max_grad_norm:
        trainer.scaler.unscale_(trainer.optimizer)
        nn.utils.clip_grad_norm_(trainer.model.parameters(), trainer.recipe.max_grad_norm)
    trainer.scaler.step(trainer.optimizer)
    trainer.scaler.update()
    if trainer.recipe.poly_steps:
        trainer.scheduler.step()
    return rows


class _Readings:
    """The figures that the host has not yet asked the device for; reading adds them to the trainer's progress."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._names: tuple[str, ...] = ()
        self._pending: list[_Row] = []

    def add(self, row: _Row) -> None:
        """Remembers a part."""
        self._names = tuple(row.shown)
        self._pending.append(row)

    def read(self) -> None:
        """Waits for the device and adds up, over all processes; ends the run at a figure that is not finite."""
        if not self._pending:
            return
        shown = torch.stack([value.float() for row in self._pending for value in row.shown.values()])
        figures = shown.cpu().double().view(len(self._pending), len(self._names))
        counts = torch.tensor([(row.pictures, row.replaced) for row in self._pending], dtype=torch.float64)
        rows = _gather_rows(torch.cat([counts, figures], dim=1))
        if not rows.isfinite().all():
            self._refuse(figures, rows)
        progress = self._trainer.progress
        sums = [progress.sums.get(name, 0.0) for name in self._names]
        # One after the other: then the sums do not depend on how often they are read.
        for count, replaced, *values in rows.flatten(0, 1).tolist():
            sums = [total + count * value for total, value in zip(sums, values, strict=True)]
            progress.seen += int(count)
            progress.replaced += int(replaced)
        progress.sums = dict(zip(self._names, sums, strict=True))
        self._read_extremes()
        self._pending.clear()

    def _read_extremes(self) -> None:
        """Adds those of the pending rows to the progress; all rows have some, or none has."""
        extremes = [row.extremes for row in self._pending if row.extremes is not None]
        if not extremes:
            return
        num_classes = self._trainer.model.num_classes
        values = torch.cat(extremes).cpu().double().numpy()
        labels = torch.cat([row.labels for row in self._pending]).numpy()
        if self._trainer.progress.extremes:
            values = np.concatenate([values, np.array(self._trainer.progress.extremes)])
            labels = np.concatenate([labels, np.arange(num_classes)])
        own = extremes_by_class(labels, values, num_classes)
        everyones = _gather_rows(torch.from_numpy(own)).flatten(0, 1).numpy()  # class by class, in each every process
        by_class = extremes_by_class(np.repeat(np.arange(num_classes), process_count()), everyones, num_classes)
        self._trainer.progress.extremes = by_class.tolist()

    def _refuse(self, figures: Tensor, rows: Tensor) -> None:
        # The first bad step, in whichever process; each of them that is bad there tells its pictures.
        bad = int((~rows.isfinite()).any(dim=2).any(dim=1).nonzero()[0])
        mine = [] if figures[bad].isfinite().all() else self._pending[bad].indices.tolist()
        everyones = gather_everywhere((mine, figures[bad].tolist()))
        indices, values = next(one for one in everyones if one[0])
        losses = {name: value for name, value in zip(self._names, values, strict=True) if name != "accuracy"}
        names = [str(self._trainer.paths[index]) for indices, _ in everyones for index in indices]
        raise NotFiniteError(self._trainer.progress.epoch + 1, self._pending[bad].step, losses, names)


class NotFiniteError(UserError):
    """A loss is NaN or infinite.

    Attributes:
        record: epoch, step, losses by name, and the files of the batch's pictures.
    """

    is_shared = True

    def __init__(self, epoch: int, step: int, losses: dict[str, float], files: list[str]) -> None:
        listed = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
        more = f" and {len(files) - 2} more" if len(files) > 2 else ""
        super().__init__(
            f"the loss is not finite at epoch {epoch}, step {step} ({listed}) on {', '.join(files[:2])}{more}; look "
            "at them, or start again with a lower --lr and another --save_path"
        )
        written = {name: value if math.isfinite(value) else str(value) for name, value in losses.items()}
        self.record = {"epoch": epoch, "step": step, "losses": written, "files": files}


def _gather_rows(rows: Tensor) -> Tensor:
    """(n, m) of every process -> (n, processes, m)."""
    if process_count() == 1:
        return rows.unsqueeze(1)
    everyones = [torch.empty_like(rows) for _ in range(process_count())]
    dist.all_gather(everyones, rows, group=host_group())
    return torch.stack(everyones, dim=1)


class _Clock:
    """Adds an epoch's duration, and the time it waits for pictures, to its progress."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._noted = time.perf_counter()

    def watch(self, batches: Iterable[TrainingBatch]) -> Iterator[TrainingBatch]:
        """Passes batches on."""
        begin = time.perf_counter()
        for batch in batches:
            self._progress.waited += time.perf_counter() - begin
            yield batch
            begin = time.perf_counter()

    def note(self) -> None:
        """Adds what has passed since the last time."""
        now = time.perf_counter()
        self._progress.seconds += now - self._noted
        self._noted = now
