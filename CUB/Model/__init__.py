"""BAS on CUB-200-2011: `build` a model, look up its `recipe` and what the paper `published`, by backbone name."""

from CUB import DATASET

build, recipe = DATASET.build, DATASET.recipe
published, published_cam = DATASET.published, DATASET.published_cam
