"""Where the generator can tap each backbone, in words for `--help`."""

from utils.models.inception import InceptionV3
from utils.models.mobilenet import MobileNetV1
from utils.models.resnet import ResNet50
from utils.models.vgg import VGG16


def taps_in_words() -> str:
    """`vgg: conv3_3, conv4_3*, conv5_3; ...`, the paper's marked."""
    models = (VGG16, MobileNetV1, ResNet50, InceptionV3)
    return "; ".join(
        f"{model.arch}: {', '.join(tap + '*' * (tap == model.paper_tap) for tap in model.taps)}" for model in models
    )
