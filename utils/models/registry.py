"""Looks backbones and their recipes up by name, with errors that list the names there are."""

from collections.abc import Mapping
from types import ModuleType

from utils.errors import UsageError
from utils.models.recipe import Recipe

ARCHS = ("vgg", "mobilenet", "resnet", "inception")
RECIPES = {"cvpr": "RECIPE", "ijcv": "IJCV_RECIPE"}  # by paper, as a backbone file calls them


def find_backbone(backbones: Mapping[str, ModuleType], arch: str) -> ModuleType:
    """The backbone module called `arch`; UsageError naming the choices if there is none."""
    try:
        return backbones[arch]
    except KeyError:
        raise UsageError(f"no backbone is called {arch!r}; choose one of {', '.join(backbones)}") from None


def find_recipe(backbone: ModuleType, name: str) -> Recipe:
    """The backbone's recipe of one paper; UsageError naming the choices if there is none."""
    if name not in RECIPES:
        raise UsageError(f"no recipe is called {name!r}; choose one of {', '.join(RECIPES)}")
    return getattr(backbone, RECIPES[name])
