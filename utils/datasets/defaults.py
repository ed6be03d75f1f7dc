"""What the second paper's code says where it has no numbers of a data set or backbone: the defaults of its options."""

from __future__ import annotations

from typing import Any

from utils.data.dataset import Dataset
from utils.models.recipe import Recipe
from utils.models.registry import ARCHS

MOST_TOP_K = 200  # the default of the authors' option, with which their code fails where there are fewer classes


def default_recipes(dataset: Dataset, **own: Any) -> dict[str, dict[str, Any]]:
    """`BACKBONES` of a `recipes.py`: the defaults for every backbone, k as large as the classes allow.

    Args:
        dataset: whose.
        own: settings that the data set has otherwise.
    """
    settings: dict[str, Any] = {
        "threshold": 0.1,
        "top_k": min(MOST_TOP_K, dataset.num_classes),
        "epochs": 120,
        "lr_steps": (80,),
        "batch_size": 32,
        "ratio_compare": "gt",
        "frg_weight": 0.5,
        "area_weight": 1.5,
        "seed": 6,
    }
    return {
        arch: {
            "IJCV_RECIPE": Recipe(
                dataset=dataset.name,
                arch=arch,
                num_classes=dataset.num_classes,
                name="ijcv",
                final_relu=False,
                **{"ratio_beyond_one": "zero" if arch == "vgg" else "one", **settings, **own},
            )
        }
        for arch in ARCHS
    }
