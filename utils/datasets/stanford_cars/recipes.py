"""Recipes for Stanford Cars: defaults, not published ones."""

from utils.datasets.defaults import default_recipes
from utils.datasets.stanford_cars import DATASET

BACKBONES = default_recipes(DATASET)
