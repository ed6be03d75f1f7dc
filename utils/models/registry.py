"""Looks backbones up by name, with an error that lists the names there are."""

from collections.abc import Mapping
from types import ModuleType

from utils.errors import UsageError

ARCHS = ("vgg", "mobilenet", "resnet", "inception")


def find_backbone(backbones: Mapping[str, ModuleType], arch: str) -> ModuleType:
    """The backbone module called `arch`; UsageError naming the choices if there is none."""
    try:
        return backbones[arch]
    except KeyError:
        raise UsageError(f"no backbone is called {arch!r}; choose one of {', '.join(backbones)}") from None
