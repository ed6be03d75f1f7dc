"""A run of training, from a command to weights and figures: one folder, one loop."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from utils.data.dataset import ROOT
from utils.data.split import Split, classes_without_pictures
from utils.data.training import build_training_loader
from utils.evaluation.calibration import Calibration, calibrate, kinds_to_calibrate, offset_key, with_offsets
from utils.evaluation.misfits import OPTION
from utils.evaluation.protocols import find_protocol
from utils.evaluation.records import Evaluation
from utils.evaluation.run import build_loader, evaluate
from utils.evaluation.selection import choose_thresholds
from utils.evaluation.spec import EvaluationSpec, build_spec
from utils.evaluation.summary import cautions, evaluation_record, summarize_map
from utils.models.bas import BAS
from utils.models.checkpoint import save_weights
from utils.models.fold import fold_batch_norm
from utils.models.pretrained import load_imagenet
from utils.models.recipe import CALIBRATED, Recipe, as_of_today, marked
from utils.models.registry import build
from utils.models.winograd import use_winograd
from utils.results.tables import caution_lines, failure_report, pixel_lines, score_table, some_names
from utils.runs.common import by_device
from utils.runs.recorded import OFFSETS, change_settings, made_weights, run_settings
from utils.runs.settings import SNAPSHOTS, Engine
from utils.runs.state import (
    MAY_CHANGE,
    OTHER_STATE,
    find_training_state,
    fingerprint,
    require_same_data,
    require_same_run,
    restore_training_state,
    seed_everything,
)
from utils.runs.state_folder import StateFolder
from utils.system.errors import UsageError, UserError
from utils.system.files import alone_in, file_digest, sweep, write_json
from utils.system.options import check, settle
from utils.system.processes import broadcast_value, first_on_each_machine, is_main, process_count, wait_for_all
from utils.training.adaptation import adapt_recipe, explain_adaptation
from utils.training.arguments import TrainingCommand, settle_engine
from utils.training.engine import build_trainer, train_one_epoch
from utils.training.interruption import Interruption
from utils.training.record import RunRecord
from utils.training.saver import Saver
from utils.training.snapshots import Snapshots, list_snapshots

EVALUATION_BATCH = 8  # pictures, of ten crops each
# In settings.json: whether the threshold is to be found on training pictures in the end, and on what it was.
CHOOSES_THRESHOLD, THRESHOLD_CHOSEN_ON = "chooses_threshold", "threshold_chosen_on"
TOP_K_GIVEN = "top_k_given"  # there: whether k is the user's, also where the protocol has one of its own


def train(command: TrainingCommand, device: torch.device) -> None:
    """Trains what a command asks for, in a folder where nobody else writes meanwhile.

    Raises:
        UserError: whatever the user can put right.
    """
    arch = command.arch or command.dataset.default_arch
    folder = command.dataset.run_folder(command.settings.save_path, arch)
    if is_main():
        command.dataset.prepare(folder)
    wait_for_all()
    with alone_in(folder, "a run") if is_main() else nullcontext(), Interruption() as interruption:
        with interruption.at_once("nothing has been trained since this start; give the same command again"):
            run = Run(command, arch, folder, device)
        run.train(interruption)


@runtime_checkable
class Finishes(Protocol):
    """A data set that has something to be done after a run, as the demo's comparison."""

    def finish(self, run: Run) -> Evaluation | None:
        """What it returns takes the place of the evaluation; None lets the run evaluate itself."""


class Run:
    """One run: what it is made of, then its loop.

    Args:
        command: what was asked for.
        arch: the backbone.
        folder: the run's.
        device: this process's.

    Attributes:
        command, dataset, folder, device: as given, and the command's data set.
        recipe: the settings in force; the threshold is settled after training.
        weights: the file that the run writes.
        train_split, test_split: the pictures; None where there is no test set.
        chooses_threshold: whether training pictures have the say on the threshold in the end.
        model, trainer, states, record, snapshots: of :mod:`utils.training`.
    """

    def __init__(self, command: TrainingCommand, arch: str, folder: Path, device: torch.device) -> None:
        self.command, self.dataset, self.folder, self.device = command, command.dataset, folder, device
        settings = command.settings
        self.states = StateFolder(folder, settings.keep)
        self._offsets: dict[int, dict[str, Calibration]] = {}  # of the maps, by epoch
        if is_main():
            for place in (folder, self.states.path, folder / SNAPSHOTS):
                sweep(place)
        state, state_path = find_training_state(settings.resume, self.states)
        is_own_state = state_path is not None and state_path.resolve().parent == self.states.path.resolve()
        earlier = broadcast_value(_earlier_settings(state_path, is_own_state))
        self.recipe = settle_recipe(command, arch, state, earlier)
        engine = settle_engine(command.engine, state["engine"] if state is not None else {})
        if state_path is not None:
            _require_possible(self.recipe, engine, state_path)
        self.weights = folder / self.dataset.weights_name(arch, self.recipe.epochs - 1)
        if is_main() and not is_own_state:
            if self.dataset.replaces_runs:
                self.states.clear()
            else:
                self._refuse_to_overwrite()
        seed_everything(self.recipe.seed)

        self._load_splits()
        classes = len(self.train_split.class_names), len(self.train_split)
        if settings.adapt_recipe and not self.dataset.is_adapted:
            adaptation = adapt_recipe(self.recipe, *classes, command.given)
            print(explain_adaptation(adaptation, self.recipe.num_classes, classes[1]), end="")
            self.recipe = adaptation.recipe
        self.recipe = replace(self.recipe, num_classes=classes[0])
        self.chooses_threshold = self._is_to_choose_threshold(earlier)
        self._is_top_k_given = "top_k" in command.given or bool(earlier.get(TOP_K_GIVEN))
        self.data = fingerprint(self.train_split)
        require_same_data({"train": self.data, "test": fingerprint(self.test_split) if self.test_split else None})
        if state is not None:
            require_same_run(state, self.recipe, engine, self.data)
        self._build(engine, state, state_path)

    def _build(self, engine: Engine, state: dict[str, Any] | None, state_path: Path | None) -> None:
        """Loader, network, optimiser and record, at the beginning or where the state stopped."""
        recipe, settings = self.recipe, self.command.settings
        loader = build_training_loader(
            self.train_split,
            recipe.resize_size,
            recipe.crop_size,
            _share_of(recipe.batch_size),
            settings.num_workers,
            recipe.seed,
            self.device,
            engine.skip_bad_images,
            settings.prefetch,
            recipe.drop_last,
            recipe.resize,
        )
        self.model = build(recipe)
        if state is None:
            with first_on_each_machine():
                print(load_imagenet(self.model, settings.pretrained))
        self.model.place(self.device, engine.channels_last)
        if not (recipe.frg_weight or recipe.bas_weight or recipe.area_weight):
            print(
                "no loss trains the generator: its maps, by which this run is scored, stay random; the class maps are "
                "scored by BAS_inference.py --map cam"
            )
        if engine.amp != "none" and self.device.type == "cpu":
            print(
                f"--amp {engine.amp} on a CPU: most compute it many times slower than float32; leave it out for speed"
            )
        if engine.uses_winograd(self.device):
            use_winograd(self.model)  # wide 3 x 3 convolutions, with 2.25 times fewer multiplications
        self.trainer = trainer = build_trainer(self.model, loader, self.train_split.paths, recipe, engine, self.device)
        if state is not None:
            parts = self.model, trainer.optimizer, trainer.scheduler, trainer.scaler
            trainer.progress = restore_training_state(state, *parts, name=state_path)
            print(f"resumed from {state_path} after {trainer.progress}")
        self.record = RunRecord(self.folder, trainer, self.states)
        source = {
            "root": str(self.root.resolve()),
            "is_own": self.dataset.is_own,
            CHOOSES_THRESHOLD: self.chooses_threshold,
            TOP_K_GIVEN: self._is_top_k_given,
        }
        self.record.begin(
            ROOT, self.weights, self.train_split, self.data, self.test_split, settings.num_workers, source
        )
        pictures = self.test_split or self.train_split
        self.snapshots = Snapshots(self.folder, trainer, pictures, settings.snapshot, self.dataset.snapshots)

    def train(self, interruption: Interruption) -> None:
        """The loop: look, evaluate, train, keep, epoch after epoch; then weights, threshold and figures.

        Args:
            interruption: entered.
        """
        settings = self.command.settings
        with closing(self.record):
            saver = Saver(self.trainer, self.states, self.data, interruption, settings.save_every_steps)
            while self.trainer.progress.epoch < self.recipe.epochs:
                self.snapshots.take()
                if self.test_split and self.record.lacks_scores(settings.eval_every):
                    with interruption.at_once(saver.saved):
                        evaluation = self.evaluate_test(self._threshold_for_now())
                    self.record.add_scores(evaluation)
                with self.record.of_failure():
                    figures = train_one_epoch(self.trainer, settings.show_step, saver.after_step)
                self.record.add_epoch(figures)
                saver.after_epoch()

            # What follows can be repeated: --resume on a run with all its epochs does it again.
            with interruption.at_once(saver.saved):
                if is_main():
                    print(f"model saved: {save_weights(self.model, self.weights)}")
                    change_settings(self.weights, sha256=file_digest(self.weights))
                self.snapshots.take()
                last = self.dataset.finish(self) if isinstance(self.dataset, Finishes) else None
                last = last or self._finish()
            if last is not None:
                self.record.add_scores(last)

    @property
    def root(self) -> Path:
        """Where the data set lies."""
        return self.command.settings.root or self.dataset.root_of(self.folder)

    def _finish(self) -> Evaluation | None:
        """Settles the threshold and evaluates the test set, where there is one."""
        self._settle_threshold()
        if self.test_split is None:
            return None
        evaluation = self.evaluate_test()
        self._report(evaluation, self.test_split.class_names)
        return evaluation

    def _load_splits(self) -> None:
        """The training split, and the test split if it is there; says which layout was recognised."""
        if self.command.settings.download:
            self.dataset.download(self.root)
        name = self.dataset.shown
        self.train_split = self.dataset.load_split(self.root, "train")
        counts = f"{len(self.train_split)} pictures, {len(self.train_split.class_names)} classes"
        print(f"{name} train: {counts}; {self.train_split.layout}")
        if without := classes_without_pictures(self.train_split):
            print(
                f"classes that nothing is learnt of, without a training picture: {len(without)}, {some_names(without)}"
            )
        self.test_split: Split | None = None
        try:
            self.test_split = self.dataset.load_split(self.root, "test")
        except UserError as error:
            print(f"no evaluation after training: {error}")
        else:
            print(f"{name} test: {len(self.test_split)} pictures; {self.test_split.layout}")

    def _refuse_to_overwrite(self) -> None:
        """UsageError if a run, or weights of the name that this one will write, are in the folder already.

        A run that ended before its first state has left nothing that is worth keeping.
        """
        grown = (path for epoch, path in list_snapshots(self.folder).items() if epoch)
        states = (self.states.path / entry.file for entry in self.states.entries())
        for path in (*states, self.weights, *made_weights(self.folder), *grown):
            if path.exists():
                raise UsageError(f"{path} is there already; go on with --resume, or choose another --save_path")

    def _settle_threshold(self) -> None:
        """Puts the threshold that training pictures ask for into force, where they have the say."""
        threshold = self._find_threshold()
        if threshold is not None:
            self.set_threshold(threshold)

    def _threshold_for_now(self) -> float | None:
        """As in the end; where none can be found, the recipe's, since training is worth more than a figure."""
        try:
            return self._find_threshold()
        except UserError as error:
            print(f"evaluated at the recipe's threshold: {error}")
            return None

    def _find_threshold(self) -> float | None:
        """For an adapted recipe without a threshold of the user's, the one that finds most boxes of the training
        pictures. The paper's belongs to maps of the paper's classes; where the pictures have no boxes it stays."""
        split, settings = self.train_split, self.command.settings
        if not (self.chooses_threshold and (split.boxes or split.masks)):
            return None
        spec = self._build_spec(split, ten_crops=False)
        model = self.inference_model()
        spec = self.place_maps(model, spec)
        reading = EVALUATION_BATCH, settings.num_workers, by_device(settings.scorers, self.device)
        chosen = choose_thresholds(model, split, spec, self.device, *reading).get(spec.main)
        if chosen is None:
            return None
        finds = "finds most boxes" if split.boxes else "has the highest pixel IoU with the masks"
        paper = self.dataset.recipe(self.recipe.arch, self.recipe.name)
        print(f"threshold {chosen:g} {finds} of the training pictures (the paper's is {paper.threshold:g})")
        return chosen

    def _is_to_choose_threshold(self, earlier: Mapping[str, Any]) -> bool:
        """As the run to resume has it, unless a threshold is given now; of a new run, where the recipe is adapted."""
        if earlier.get(CHOOSES_THRESHOLD) and not (self.command.settings.adapt_recipe or self.dataset.is_adapted):
            raise UsageError(
                "--no-adapt_recipe: the recipe of the run to resume was adapted when it began; leave the option out, "
                "or begin anew in another --save_path"
            )
        if "threshold" in self.command.given:
            return False
        recipe, paper = self.recipe, self.dataset.recipe(self.recipe.arch, self.recipe.name)
        has_fewer_classes = recipe.num_classes < paper.num_classes
        is_adapted = self.dataset.is_adapted or (self.command.settings.adapt_recipe and has_fewer_classes)
        guess = THRESHOLD_CHOSEN_ON in earlier or (is_adapted and recipe.threshold == paper.threshold)
        return bool(earlier.get(CHOOSES_THRESHOLD, guess))

    def set_threshold(self, threshold: float) -> None:
        """Puts a threshold that was chosen on the training pictures into force, and into the run's settings."""
        self.recipe = replace(self.recipe, threshold=threshold)
        if is_main():
            chosen_on = f"training pictures and their {'boxes' if self.train_split.boxes else 'masks'}"
            change_settings(self.weights, recipe=asdict(self.recipe), **{THRESHOLD_CHOSEN_ON: chosen_on})

    def inference_model(self) -> BAS:
        """A copy of the network as `BAS_inference.py` runs it: folded, in its memory layout."""
        return fold_batch_norm(self.model.eval()).place(self.device)

    def place_maps(self, model: BAS, spec: EvaluationSpec) -> EvaluationSpec:
        """The spec with the offsets of its maps, if it wants them, by training pictures; at the run's end they are kept
        in its settings."""
        if spec.align != CALIBRATED:
            return spec
        epoch, workers = self.trainer.progress.epoch, self.command.settings.num_workers
        wanted = {offset_key(kind, spec): kind for kind in kinds_to_calibrate(model, spec)}
        known = self._offsets.get(epoch, {})
        missing = [kind for key, kind in wanted.items() if key not in known]
        found = calibrate(model, self.train_split, spec, missing, self.device, EVALUATION_BATCH, workers)
        found = broadcast_value(found)
        for kind, one in found.items():
            print(one.line(kind.title))
        known |= {offset_key(kind, spec): one for kind, one in found.items()}
        self._offsets = {epoch: known}
        if epoch == self.recipe.epochs and found and is_main():
            change_settings(self.weights, **{OFFSETS: {key: one.record() for key, one in known.items()}})
        return with_offsets(spec, {kind: known[key] for key, kind in wanted.items()})

    def _build_spec(self, split: Split, **more: Any) -> EvaluationSpec:
        """How a split is scored: by its boxes; where it has masks alone, by these."""
        protocol, has_masks_alone = find_protocol(self.dataset.protocol), bool(split.masks) and not split.boxes
        if has_masks_alone:
            protocol = protocol.for_masks()
        more |= {"with_masks": has_masks_alone, "ignore_misfits": self.command.settings.ignore_misfits}
        return build_spec(self.recipe, protocol, top_k=self.recipe.top_k if self._is_top_k_given else None, **more)

    def evaluate_test(self, threshold: float | None = None) -> Evaluation:
        """Evaluates the test split, at the recipe's threshold or at another one, as BAS_inference.py does, and prints
        the table."""
        settings, split = self.command.settings, self.test_split
        assert split is not None  # there is nothing to evaluate without
        model = self.inference_model()
        spec = self.place_maps(model, self._build_spec(split, threshold=threshold))
        loader = build_loader(split, spec, EVALUATION_BATCH, settings.num_workers, self.device)
        scorers = by_device(settings.scorers, self.device)
        evaluation = evaluate(model, loader, split, spec, self.device, scorers=scorers)
        pixel_figures = pixel_lines(summarize_map(evaluation, spec.main))
        print("\n".join([*pixel_figures, score_table(evaluation.scores().summary())]))
        for line in caution_lines(cautions(evaluation, split.class_names)):
            print(line)
        return evaluation

    def _report(self, evaluation: Evaluation, class_names: Sequence[str]) -> None:
        """Saves the last evaluation beside the weights and says how to repeat it."""
        if not is_main():
            return
        record = evaluation_record(evaluation, class_names)
        path = write_json(self.weights.with_name("evaluation.json"), record)
        if evaluation.failures:
            print(failure_report(evaluation.failures))
        print(f"figures saved in {path}; to repeat the evaluation:")
        option = "--dataset-dir" if self.dataset.is_own else "--data"
        paths = ["--arch", self.recipe.arch, option, self.root.resolve(), "--checkpoint", self.weights.resolve()]
        paths += [OPTION] if self.command.settings.ignore_misfits else []
        paths += ["--top_k", self.recipe.top_k] if self._is_top_k_given else []
        if self.command.settings.tf32 is not None:
            paths.append("--tf32" if self.command.settings.tf32 else "--no-tf32")
        print(f"  {self.dataset.command} {shlex.join(map(str, paths))}")


def _earlier_settings(state_path: Path | None, is_own: bool) -> dict[str, Any]:
    """The settings.json of the run to resume; of one that goes on in another folder, who chooses what in the end."""
    if state_path is None:
        return {}
    settings = run_settings(state_path.resolve().parent.parent)
    kept = settings.keys() if is_own else settings.keys() & {CHOOSES_THRESHOLD, TOP_K_GIVEN}
    return {name: settings[name] for name in kept}


def settle_recipe(
    command: TrainingCommand, arch: str, state: dict[str, Any] | None, earlier: Mapping[str, Any]
) -> Recipe:
    """The data set's recipe, under the settings of the run to resume, under what the user gave.

    Args:
        command: what was given.
        arch: the backbone.
        state: of the run to resume.
        earlier: the settings.json of the run's folder, where a run is resumed: what of the evaluation was chosen or
            given after the state was written is there alone.
    """
    names = set(Recipe.__dataclass_fields__)
    stored = {name: value for name, value in (state["settings"] if state else {}).items() if name in names}
    stored |= _changed_since(earlier)
    name = command.given.get("name") or stored.get("name") or command.dataset.papers[0]
    recipe = command.dataset.recipe(arch, name)
    own = {"dataset": recipe.dataset, "arch": arch, "name": name}
    given = {**command.given, **own}
    if "lr_steps" in given:  # instead of a fall at every step
        given = {"poly_steps": 0, **given}
    recipe = settle(settle(recipe, stored), given)
    if not any((recipe.cls_weight, recipe.frg_weight, recipe.bas_weight, recipe.area_weight)):
        raise UsageError("all four losses have the weight 0; leave one of --cls_weight, --bas_weight, ... as it is")
    if recipe.warmup_epochs >= recipe.epochs:
        raise UsageError(
            f"--warmup_epochs {recipe.warmup_epochs} leaves none of {recipe.epochs} epochs to train the generator"
        )
    return recipe


def _changed_since(earlier: Mapping[str, Any]) -> dict[str, Any]:
    """What of a run's settings.json holds though its state says otherwise; {} where that cannot be read."""
    try:
        recipe = as_of_today(earlier.get("recipe", {}))
        kept = {name: recipe[name] for name in MAY_CHANGE & set(marked("evaluates")) & recipe.keys()}
        check(Recipe, kept)
    except (TypeError, UsageError):  # changed by hand
        return {}
    if earlier.get(CHOOSES_THRESHOLD, THRESHOLD_CHOSEN_ON in earlier):  # anew, in the end
        kept.pop("threshold", None)
    return kept


def _require_possible(recipe: Recipe, engine: Engine, state_path: Path) -> None:
    """UserError if the settings of a state to resume from are none that a run could have been started with."""
    try:
        for settings in (recipe, engine):
            check(type(settings), vars(settings))
        if len(set(recipe.lr_steps)) < len(recipe.lr_steps):
            raise UsageError("--lr_steps names an epoch twice")
    except UsageError as error:
        raise UserError(f"--resume: {state_path} holds settings that cannot be: {error}; {OTHER_STATE}") from error


def _share_of(batch_size: int) -> int:
    """This process's part of a batch; UsageError if the batch cannot be shared out evenly."""
    share, rest = divmod(batch_size, process_count())
    if rest:
        raise UsageError(
            f"a batch of {batch_size} cannot be shared out among {process_count()} processes; choose a multiple as "
            "--batch_size, or another number of processes"
        )
    return share
