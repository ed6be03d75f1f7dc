"""How a run computes, apart from its recipe: precision, memory layout, compiler, parts of a batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch

PRECISIONS = {"none": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Engine:
    """Settings that leave the method as it is.

    Attributes:
        amp: `none`, `bf16` or `fp16`: what convolutions compute in; losses, pooling and sigmoid stay in float32.
        grad_accum: parts that each process's batch goes through the network in, one after the other.
        channels_last: memory layout of the trunk.
        compile: whether torch.compile translates the step.
        winograd: whether wide 3 x 3 convolutions go by Winograd's algorithm (:mod:`utils.models.winograd`); on a CPU,
            in float32 and not compiled.
        skip_bad_images: see :class:`utils.data.training.TrainingImages`.
    """

    amp: str = "none"
    grad_accum: int = 1
    channels_last: bool = True
    compile: bool = False
    winograd: bool = True
    skip_bad_images: bool = False

    def uses_winograd(self, device: torch.device) -> bool:
        """Whether `winograd` is in force there."""
        return self.winograd and device.type == "cpu" and self.amp == "none" and not self.compile
