"""BAS on PASCAL VOC 2012, whose pictures have several classes: segmentation (IJCV paper)."""

from utils.data.dataset import Dataset

DATASET = Dataset(
    name="VOC",
    title="PASCAL VOC 2012",
    package="utils.datasets.voc",
    num_classes=20,
    papers=("ijcv",),
    segments=True,
    protocol="ijcv",
)
