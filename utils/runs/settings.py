"""How a run computes and what it keeps, apart from its recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from utils.models.recipe import ALIGNMENTS
from utils.runs.common import Common
from utils.system.options import FLAG, NAME, NATURAL, POSITIVE, Choice, Name, Number, Several, option, place, switch

if TYPE_CHECKING:
    import torch

PRECISIONS = {"none": "float32", "bf16": "bfloat16", "fp16": "float16"}  # torch's names
MOST_PREFETCH = 64
LONGEST_TIMEOUT = 30 * 86400  # seconds
STATES, SNAPSHOTS = "states", "snapshots"  # folders in a run's
EXIT_CODE = 75  # of a run that was stopped, saved: sysexits.h's "temporary failure, try again"

SURVIVAL, SPEED = "interruptions", "speed and scale"
GROUPS = {
    SURVIVAL: f"A run saves its state after every epoch in <run>/{STATES}/, with length and checksum.",
    SPEED: "torchrun --nproc_per_node=N train.py ... trains on N devices; --batch_size is shared out.",
}


@dataclass(frozen=True, kw_only=True)
class Engine:
    """How a run computes: settings that leave the method as it is, stored with its states."""

    amp: str = option(
        "convolutions in half precision; losses, pooling and sigmoid stay in float32; bare: bf16",
        Choice(PRECISIONS, bare="bf16"),
        default="none",
        group=SPEED,
    )
    grad_accum: int = option(
        "pass each process's batch through the network in N parts; less memory, and batch statistics of the parts",
        POSITIVE,
        default=1,
        group=SPEED,
        metavar="N",
    )
    channels_last: bool | None = option(
        "memory layout of the trunk in training: channels last",
        FLAG,
        default=None,
        words="on CPUs and on CUDA",
        group=SPEED,
    )
    compile: bool = option("translate the training step with torch.compile", FLAG, default=False, group=SPEED)
    winograd: bool = option(
        "on a CPU, without --amp and --compile: train wide 3 x 3 convolutions by Winograd's algorithm, with 2.25 times "
        "fewer multiplications; results are the same but for rounding, some 4e-7 of their size instead of 2e-7",
        FLAG,
        default=True,
        group=SPEED,
    )
    skip_bad_images: bool = option(
        "put the next picture in the place of one that cannot be read, and say so, instead of stopping",
        FLAG,
        default=False,
        group=SURVIVAL,
    )

    def uses_winograd(self, device: torch.device) -> bool:
        """Whether `winograd` is in force there."""
        return self.winograd and device.type == "cpu" and self.amp == "none" and not self.compile


@dataclass(frozen=True, kw_only=True)
class RunSettings(Common):
    """What a run reads, keeps and shows; nothing here changes what is learnt."""

    download: bool = switch("fetch the data set (CUB-200-2011) into --root first")
    top_ks: tuple[int, ...] = option(
        "with --demo: compare the maps of these k as well", Several(POSITIVE), default=(), metavar="K"
    )
    alignments: tuple[str, ...] = option(
        "with --demo: evaluate the maps drawn in these ways as well, see --align_maps",
        Several(Choice(ALIGNMENTS)),
        default=(),
        metavar="HOW",
    )
    pretrained: str = option(
        "weights to start from: ImageNet's, by torchvision (MobileNetV1: the shipped ones), none, or a local file of "
        "them or of a BAS model, whose heads are kept where they fit",
        NAME,
        default="auto",
        metavar="auto|none|FILE",
    )
    adapt_recipe: bool = option(
        "with fewer classes than the paper's, take defaults that suit them (head, warm-up, rates, batch size, top-k, a "
        "threshold chosen on training boxes); they are printed with the reason",
        FLAG,
        default=True,
        group="recipe",
    )
    show_step: int = option("steps between two readings of the losses", POSITIVE, default=20)
    eval_every: int = option("evaluate every N epochs", NATURAL, default=0, words="after the last only")
    snapshot: int | None = option(
        "save the foreground maps of N test pictures, or training pictures where there is no test set, before the "
        f"first epoch and after each in <run>/{SNAPSHOTS}/, for the figures; --resume goes on with those of the run, "
        "and 0 ends them",
        NATURAL,
        default=None,
        words="0, --demo 6",
        metavar="N",
    )
    save_path: Path | None = place(
        "runs go to <save_path>/<arch>/", words="logs in the data set's folder, <dataset> or --dataset-dir"
    )

    resume: str | None = option(
        "go on from the run's newest intact state, or from FILE; auto: begin if there is none yet",
        Name(bare="last"),
        default=None,
        group=SURVIVAL,
        metavar="auto|FILE",
    )
    save_every_steps: int = option(
        "save within epochs, too, every N steps; 0: at their ends only",
        NATURAL,
        default=1000,
        group=SURVIVAL,
        metavar="N",
    )
    keep: int = option(
        "how many of the newest states to keep, besides the one of the best GT-known Loc (without boxes PxAP)",
        POSITIVE,
        default=2,
        group=SURVIVAL,
        metavar="N",
    )

    prefetch: int = option(
        "batches that each reading process keeps ready",
        Number(int, 1, MOST_PREFETCH),
        default=2,
        group=SPEED,
        metavar="N",
    )
    timeout: float = option(
        "seconds that a process waits for the others before it gives up",
        Number(float, 0, LONGEST_TIMEOUT, open_low=True),
        default=600.0,
        group=SPEED,
        metavar="SECONDS",
    )
