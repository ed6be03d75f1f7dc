"""`python train.py --demo`: what is special about the demo, before and after the loop of any other run.

Its recipe differs from the paper's, because a dozen very different classes and a few hundred small pictures are learnt
in minutes instead of hours: see :meth:`DemoDataset.recipe`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from utils.data.dataset import ROOT, Dataset
from utils.models.recipe import CALIBRATED, Recipe
from utils.models.registry import find_backbone
from utils.system.errors import UsageError

if TYPE_CHECKING:
    from utils.evaluation.records import Evaluation
    from utils.training.run import Run

DEFAULT_FOLDER = "demo_run"


@dataclass(frozen=True)
class DemoDataset(Dataset):
    """The demo: pictures composed in another data set's layout, which reads them and whose recipe is changed."""

    replaces_runs = True
    is_adapted = True
    default_arch = "mobilenet"
    snapshots = 6

    @property
    def shown(self) -> str:
        return "demo"

    def run_folder(self, save_path: Path | None, arch: str) -> Path:
        return (save_path or ROOT / DEFAULT_FOLDER).resolve() / arch

    def root_of(self, run: Path) -> Path:
        return run.parent / "data"

    def recipe(self, arch: str, name: str | None = None) -> Recipe:
        """The demo's settings, tuned on such pictures.

        - Pictures of 96 pixels: minutes on two processor cores.
        - k = 8 of the 12 classes: over seeds, the mean of several classes' maps varies less than a single one's.
        - No final ReLU, as in the IJCV model: with it the class maps of a few hundred steps die, all logits 0.
        - SAME padding, by which MobileNetV1's weights were trained, the mask of L_frg pooled where the class maps look,
          and maps drawn where they are found to look: at 96 pixels, a map that is drawn 7 off costs every fourth box.
        - Two first epochs on L_cls alone, then a lower rate, the generator's in proportion to the classes: what
          :mod:`utils.training.adaptation` says of few classes. At 0.6 and more boxes are better in the mean, but now
          and then a class's map dies.
        """
        return replace(
            super().recipe(arch, name),
            frg_weight=0.5,
            area_weight=1.5,
            final_relu=False,
            warmup_epochs=2,
            generator_rate=0.45,
            threshold=0.1,
            top_k=8,
            align_maps=CALIBRATED,
            mask_pooling="aligned",
            same_padding=find_backbone(arch).from_tensorflow,
            epochs=8,
            lr_steps=(2, 7),
            lr_decay=0.4,
            batch_size=16,
            resize_size=112,
            crop_size=96,
        )

    def prepare(self, run: Path) -> None:
        """Composes the pictures, where no other run's or report's files are in the way (UsageError)."""
        from utils.demo.compose import compose
        from utils.system.files import sweep

        folder = run.parent
        _refuse_what_is_not_the_demos(folder, run)
        print(f"demo: composing pictures of animals in places; everything it makes lies in {folder}")
        sweep(folder)
        compose(self.root_of(run))

    def finish(self, run: Run) -> Evaluation | None:
        from utils.demo.comparison import compare

        return compare(run)


def demo_of(datasets: Mapping[str, Dataset]) -> DemoDataset:
    """The demo in the layout, and on the recipes, of the first of the data sets."""
    return DemoDataset(**vars(next(iter(datasets.values()))))


def _refuse_what_is_not_the_demos(folder: Path, run: Path) -> None:
    from utils.demo.comparison import RESULTS
    from utils.demo.compose import RECORD
    from utils.runs.recorded import SETTINGS_FILE, run_settings
    from utils.runs.state_folder import StateFolder
    from utils.training.snapshots import list_snapshots

    data = folder / "data"  # several demos may share one, through links
    is_demos = (data / RECORD).is_file()
    is_demos_run = is_demos and run_settings(run).get("root") == str(data.resolve())
    others = [] if is_demos else [folder / name for name in RESULTS]
    if not is_demos_run:
        states = StateFolder(run)
        others += [run / SETTINGS_FILE, *(states.path / entry.file for entry in states.entries())]
        others += [*list_snapshots(run).values(), *run.glob("*.pth.tar")]
    for path in others:
        if os.path.lexists(path):
            raise UsageError(f"{path} is not the demo's; choose another --save_path")
