"""What a run leaves for its reader: settings.json, the log, the lines on the screen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from utils.data.split import Split
from utils.evaluation.records import Evaluation
from utils.evaluation.summary import cautions, summarize_map
from utils.models.recipe import explain
from utils.results.tables import dead_map_line
from utils.runs.provenance import describe_run
from utils.runs.recorded import EARLIER, earlier_weights, run_settings, save_settings
from utils.runs.state_folder import StateFolder
from utils.system.files import write_json
from utils.system.memory import peak_memory_mib
from utils.system.processes import broadcast_value, gather_everywhere, is_main, process_count
from utils.training.engine import NotFiniteError, Trainer
from utils.training.log import LOG_FILE, RunLog, epoch_line, waiting_line

NOT_FINITE_FILE = "not_finite.json"
SHOWN_REPLACEMENTS = 5


class RunRecord:
    """Writes and prints; every process calls it, the first one does it.

    Args:
        folder: the run's.
        trainer: what is trained.
        states: whose best one the evaluations tell.
    """

    def __init__(self, folder: Path, trainer: Trainer, states: StateFolder) -> None:
        self._folder, self._trainer, self._states = folder, trainer, states
        self._class_names: Sequence[str] = ()
        self._log = RunLog(folder / LOG_FILE, trainer.progress.epoch) if is_main() else None

    def begin(
        self,
        root: Path,
        weights: Path,
        train_split: Split,
        data: Mapping[str, Any],
        test_split: Split | None,
        workers: int,
        source: Mapping[str, Any],
    ) -> None:
        """Writes settings.json, all that is needed to repeat the run, and says what is in force.

        Args:
            root: the repository.
            weights: the file that the run will write.
            train_split, test_split: the data.
            data: of :func:`utils.runs.state.fingerprint`.
            workers: processes that read pictures.
            source: what else is kept: where the data lie, `root` and `is_own`; whether the threshold is still to be
                chosen on them.
        """
        trainer, self._class_names = self._trainer, train_split.class_names
        engine = asdict(trainer.engine)
        in_force = {
            **engine,
            "channels_last": trainer.model.channels_last,
            "winograd": trainer.engine.uses_winograd(trainer.device),
        }
        computing = ", ".join(f"{name} {value}" for name, value in in_force.items())
        where = f"{trainer.device}, {process_count()} processes, {workers} workers each"
        print(f"settings: {explain(trainer.recipe)}\ncomputing: {computing}; {where}")
        if is_main():
            settings = self._settings_so_far()
            earlier, now = _starts(settings), describe_run(root)
            for name in ("tf32", "deterministic"):
                if earlier and earlier[-1].get(name, now[name]) != now[name]:
                    print(f"this start computes with {name} {now[name]}, the one before with {earlier[-1][name]}")
            test = {"pictures": len(test_split), "layout": test_split.layout} if test_split else None
            save_settings(
                weights,
                trainer.recipe,
                engine=engine,
                layout=train_split.layout,
                **source,
                data={"train": dict(data), "test": test},
                class_names=train_split.class_names,
                **{EARLIER: earlier_weights(settings, weights.name)},
                starts=[
                    *earlier,
                    {"after_epoch": trainer.progress.epoch, "workers": workers, **now},
                ],
            )

    def _settings_so_far(self) -> dict[str, Any]:
        """Of the run that goes on; {} at its beginning, or where they were moved away."""
        progress = self._trainer.progress
        return run_settings(self._folder) if progress.epoch or progress.step else {}

    def add_epoch(self, figures: Mapping[str, Any]) -> None:
        """Prints and logs an epoch; figures of :func:`utils.training.engine.train_one_epoch`."""
        trainer = self._trainer
        replacements = gather_everywhere(trainer.replacements) if figures["replaced_pictures"] else []
        if self._log is None:
            return
        finished = trainer.progress.epoch
        figures = {**figures, "memory_mib": peak_memory_mib(trainer.device)}
        if "dead_maps" in figures:
            figures["dead_maps"] = figures["dead_maps"].summary(self._class_names)
        print(epoch_line(finished - 1, trainer.recipe.epochs, figures), flush=True)
        if "dead_maps" in figures and figures["dead_maps"]["count"]:
            print(dead_map_line(figures["dead_maps"]), flush=True)
        if advice := waiting_line(figures, trainer.loader.num_workers):
            print(advice, flush=True)
        sentences = sorted({sentence for one in replacements for sentence in one})
        print(*sentences[:SHOWN_REPLACEMENTS], sep="\n", end="\n" if sentences else "")
        self._log.add({"epoch": finished, **figures})

    def close(self) -> None:
        """To be called when a run ends, however it ends."""
        if self._log is not None:
            self._log.close()

    def lacks_scores(self, every: int) -> bool:
        """Whether the last finished epoch, of an unfinished run, is one of those to be evaluated and was not yet."""
        progress = self._trainer.progress
        if not every or progress.step or not progress.epoch or progress.epoch % every:
            return False
        entries = self._log.entries if self._log is not None else []
        return broadcast_value(not (entries and entries[-1]["epoch"] == progress.epoch and "test" in entries[-1]))

    @contextmanager
    def of_failure(self) -> Iterator[None]:
        """A block in which a loss that is not finite leaves `not_finite.json`: step, losses, the batch's files."""
        try:
            yield
        except NotFiniteError as error:
            if is_main():
                write_json(self._folder / NOT_FINITE_FILE, error.record)
            raise

    def add_scores(self, evaluation: Evaluation) -> None:
        """Adds a test set's figures to the last epoch, and lets the best state be kept."""
        if self._log is None:
            return
        figures = summarize_map(evaluation, evaluation.spec.main)
        test, pixels = dict(figures["scores"]), figures["pixels"]
        score = test["gt_known_loc"][evaluation.spec.protocol.mean]
        if not test["boxed"] and pixels:
            test["pixels"], score = pixels, pixels["px_ap"]
        self._log.amend(test=test, threshold=figures["threshold"], cautions=cautions(evaluation, self._class_names))
        self._states.note_score(self._trainer.progress.epoch, score)


def _starts(settings: Mapping[str, Any]) -> list[Any]:
    """The starts so far; what was changed by hand is passed over."""
    starts = settings.get("starts")
    return [one for one in starts if isinstance(one, dict)] if isinstance(starts, list) else []
