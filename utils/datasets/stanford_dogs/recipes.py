"""Recipes for Stanford Dogs: defaults, not published ones."""

from utils.datasets.defaults import default_recipes
from utils.datasets.stanford_dogs import DATASET

BACKBONES = default_recipes(DATASET)
