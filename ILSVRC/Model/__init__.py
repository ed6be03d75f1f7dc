"""BAS models for ILSVRC: `build` a model, look up its `recipe` and the `published` result by backbone name."""

from types import ModuleType

from ILSVRC.Model import inception, mobilenet, resnet, vgg
from utils.models.bas import BAS
from utils.models.recipe import Published, Recipe
from utils.models.registry import find_backbone, find_recipe

BACKBONES: dict[str, ModuleType] = {"vgg": vgg, "mobilenet": mobilenet, "resnet": resnet, "inception": inception}


def build(arch: str, num_classes: int | None = None, final_relu: bool = True, tap: str | None = None) -> BAS:
    """Builds a BAS model with random weights and the published state-dict keys; nothing is downloaded.

    Args:
        arch: `vgg`, `mobilenet`, `resnet` or `inception`.
        num_classes: K; the data set's own count when not given.
        final_relu: whether the class maps end in a ReLU (CVPR, default) or not (IJCV).
        tap: the layer after which f1 ends, one of the backbone's `taps`; the paper's when not given.

    Returns:
        The model in training mode, on the CPU.

    Raises:
        UsageError: no such backbone or tap.
    """
    backbone = find_backbone(BACKBONES, arch)
    return backbone.build(num_classes or backbone.NUM_CLASSES, final_relu, tap)


def recipe(arch: str, name: str = "cvpr") -> Recipe:
    """The authors' settings for `arch` on ILSVRC, of the CVPR or the IJCV paper; UsageError if there are none."""
    return find_recipe(find_backbone(BACKBONES, arch), name)


def published(arch: str) -> Published:
    """The paper's result of `arch` on ILSVRC; UsageError if there is no such backbone."""
    return find_backbone(BACKBONES, arch).PUBLISHED


def published_cam(arch: str) -> Published:
    """The result of CAM with `arch` on ILSVRC in the paper's table; UsageError if there is no such backbone."""
    return find_backbone(BACKBONES, arch).PUBLISHED_CAM
