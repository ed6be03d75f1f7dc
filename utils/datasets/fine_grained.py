"""What the second paper's code says of Stanford Dogs, Stanford Cars and FGVC-Aircraft: no recipe of their own, so the
defaults of its options hold, and no result is published."""

from __future__ import annotations

from typing import Any

from utils.data.dataset import Dataset
from utils.models.recipe import Recipe
from utils.models.registry import ARCHS

MOST_TOP_K = 200  # the default of the authors' option, with which their code fails where there are fewer classes


def default_recipes(dataset: Dataset) -> dict[str, dict[str, Any]]:
    """`BACKBONES` of a `recipes.py`: the defaults for every backbone, k as large as the classes allow."""
    return {
        arch: {
            "IJCV_RECIPE": Recipe(
                dataset=dataset.name,
                arch=arch,
                num_classes=dataset.num_classes,
                name="ijcv",
                final_relu=False,
                ratio_compare="gt",
                ratio_beyond_one="zero" if arch == "vgg" else "one",
                frg_weight=0.5,
                area_weight=1.5,
                threshold=0.1,
                top_k=min(MOST_TOP_K, dataset.num_classes),
                epochs=120,
                lr_steps=(80,),
                batch_size=32,
                seed=6,
            )
        }
        for arch in ARCHS
    }
