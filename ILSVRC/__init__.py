"""BAS on ILSVRC."""

from utils.data.dataset import Dataset

DATASET = Dataset(
    name="ILSVRC",
    title="ILSVRC",
    package="ILSVRC",
    num_classes=1000,
    weights="{arch}{epoch}_final.pth.tar",
    released_epoch=8,
    how_to_get="it needs an account at https://www.image-net.org/",
)
