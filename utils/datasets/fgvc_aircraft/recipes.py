"""Recipes for FGVC-Aircraft: defaults, not published ones."""

from utils.datasets.fgvc_aircraft import DATASET
from utils.datasets.fine_grained import default_recipes

BACKBONES = default_recipes(DATASET)
