"""Recipes for FGVC-Aircraft: defaults, not published ones."""

from utils.datasets.defaults import default_recipes
from utils.datasets.fgvc_aircraft import DATASET

BACKBONES = default_recipes(DATASET)
