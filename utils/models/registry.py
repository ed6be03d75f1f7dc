"""The backbones: one row each. All that asks for "every backbone" asks here; nothing is imported before it is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from typing import TYPE_CHECKING

from utils.models.recipe import Recipe
from utils.models.taps import Grid, Tap
from utils.system.errors import UsageError

if TYPE_CHECKING:
    from utils.models.bas import BAS


@dataclass(frozen=True)
class Backbone:
    """One backbone.

    Attributes:
        arch: the name in `--arch`; `utils/models/<arch>.py` holds the model.
        title: the name in tables.
        model: the model's class in that module.
        taps: the layers after which f1 can end, by their names in the model's `stages`, in order.
        paper_tap: the one of the papers.
        class_grid: the centres of the receptive fields of the class maps' cells.
        landmark: a key that the weight files of this backbone alone hold.
        imagenet: where the ImageNet weights come from: torchvision's name, or a file in `utils/weights/`.
        from_tensorflow: whether they were trained with TensorFlow's SAME padding, so that the recipe may ask for it.
    """

    arch: str
    title: str
    model: str
    taps: Mapping[str, Tap]
    paper_tap: str
    class_grid: Grid
    landmark: str
    imagenet: str
    from_tensorflow: bool = False

    def model_class(self) -> type[BAS]:
        """The model's class; imports PyTorch."""
        return getattr(import_module(f"utils.models.{self.arch}"), self.model)


BACKBONES = {
    row.arch: row
    for row in (
        Backbone(
            arch="vgg",
            title="VGG16",
            model="VGG16",
            taps={
                "conv3_3": Tap(256, Grid(1.5, 4)),
                "conv4_3": Tap(512, Grid(3.5, 8)),
                "conv5_3": Tap(512, Grid(7.5, 16)),
            },
            paper_tap="conv4_3",
            class_grid=Grid(7.5, 16),
            landmark="conv1_1.weight",
            imagenet="VGG16_Weights.IMAGENET1K_V1",
        ),
        Backbone(
            arch="mobilenet",
            title="MobileNetV1",
            model="MobileNetV1",
            taps={
                "model.3": Tap(128, Grid(0, 4)),
                "model.5": Tap(256, Grid(0, 8)),
                "model.11": Tap(512, Grid(0, 8)),
                "model.13": Tap(1024, Grid(0, 16)),
            },
            paper_tap="model.11",
            class_grid=Grid(0, 16),
            landmark="model.0.0.weight",
            imagenet="mobilenet_v1_imagenet.pth",
            from_tensorflow=True,
        ),
        Backbone(
            arch="resnet",
            title="ResNet50",
            model="ResNet50",
            taps={
                "layer1": Tap(256, Grid(0, 4)),
                "layer2": Tap(512, Grid(0, 8)),
                "layer3": Tap(1024, Grid(0, 8)),
                "layer4": Tap(2048, Grid(4, 16)),
            },
            paper_tap="layer3",
            class_grid=Grid(4, 16),
            landmark="layer1.0.conv1.weight",
            imagenet="ResNet50_Weights.IMAGENET1K_V1",
        ),
        Backbone(
            arch="inception",
            title="InceptionV3",
            model="InceptionV3",
            taps={
                "Mixed_5d": Tap(288, Grid(6, 8)),
                "Mixed_6e": Tap(768, Grid(6, 8)),
                "Mixed_7c": Tap(2048, Grid(6, 16)),
            },
            paper_tap="Mixed_6e",
            class_grid=Grid(6, 16),
            landmark="Conv2d_1a_3x3.conv.weight",
            imagenet="Inception_V3_Weights.IMAGENET1K_V1",
        ),
    )
}
ARCHS = tuple(BACKBONES)


def find_backbone(arch: str) -> Backbone:
    """The row of `arch`; UsageError naming the choices if there is none."""
    try:
        return BACKBONES[arch]
    except KeyError:
        raise UsageError(f"no backbone is called {arch!r}; choose one of {', '.join(BACKBONES)}") from None


def build(recipe: Recipe) -> BAS:
    """Builds the model of a recipe with random weights and the published state-dict keys; nothing is downloaded.

    Returns:
        The model in training mode, on the CPU.

    Raises:
        UsageError: no such backbone, or it has no such tap.
    """
    heads = {field.name: getattr(recipe, field.name) for field in fields(recipe) if field.metadata.get("of_heads")}
    return find_backbone(recipe.arch).model_class()(recipe.num_classes, **heads)


def taps_in_words() -> str:
    """For help: `vgg: conv3_3, conv4_3*, conv5_3; ...`, the papers' marked."""
    return "; ".join(
        f"{row.arch}: {', '.join(tap + '*' * (tap == row.paper_tap) for tap in row.taps)}" for row in BACKBONES.values()
    )
