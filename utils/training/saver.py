"""When a run is saved, and how it ends when it is asked to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from utils.runs.state import random_state, require_finite, training_state
from utils.runs.state_folder import StateFolder
from utils.system.processes import broadcast_buffers, gather_everywhere, is_main, wait_for_all
from utils.training.engine import Trainer
from utils.training.interruption import Interrupted, Interruption


class Saver:
    """Saves a trainer after every epoch, every so many steps, and before it stops.

    Args:
        trainer: of this process; the first process writes.
        states: the run's.
        data: of :func:`utils.runs.state.fingerprint`.
        interruption: tells when to stop.
        every: steps between two states within an epoch; 0 saves none there.
    """

    def __init__(
        self, trainer: Trainer, states: StateFolder, data: Mapping[str, Any], interruption: Interruption, every: int
    ) -> None:
        self._trainer, self._states, self._data = trainer, states, data
        self._interruption = interruption
        self._every = every

    def after_step(self, read: Callable[[], None]) -> None:
        """To be called after every step but an epoch's last; `read` brings the trainer's progress up to date.

        Raises:
            Interrupted: a stop was asked for, and all is saved.
        """
        stopping = self._interruption.agreed()
        if stopping or (self._every and self._trainer.progress.step % self._every == 0):
            read()
            self._save()
        if stopping:
            self._end()

    def after_epoch(self) -> None:
        """To be called when an epoch is finished.

        Raises:
            Interrupted: a stop was asked for, and all is saved.
        """
        self._save()
        if self._interruption.agreed():
            self._end()

    @property
    def saved(self) -> str:
        """What is saved, for a message."""
        progress = self._trainer.progress
        return f"{progress} are saved in {self._states.path_of(progress.epoch, progress.step)}; go on with --resume"

    def _save(self) -> None:
        trainer = self._trainer
        # The first process's running statistics are the model's. With them everywhere, all see what is not finite.
        broadcast_buffers(trainer.model)
        require_finite(trainer.model)
        random_states = gather_everywhere(random_state(trainer.device))
        if is_main():
            content = training_state(
                trainer.model,
                trainer.optimizer,
                trainer.scheduler,
                trainer.scaler,
                trainer.progress,
                random_states,
                trainer.recipe,
                trainer.engine,
                self._data,
            )
            progress = trainer.progress
            self._states.save(progress.epoch, progress.step, lambda file: torch.save(content, file))

    def _end(self) -> None:
        wait_for_all()  # the first process is still writing, and would be ended with the others
        raise Interrupted(f"stopped by {self._interruption.reason}; {self.saved}")
