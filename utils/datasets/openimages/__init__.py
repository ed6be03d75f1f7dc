"""BAS on OpenImages30k, whose masks are scored by PxAP (IJCV paper)."""

from utils.data.dataset import Dataset

DATASET = Dataset(
    name="OpenImages",
    title="OpenImages30k",
    package="utils.datasets.openimages",
    num_classes=100,
    how_to_get="its owners keep it on Google Drive: see utils/datasets/README.md",
    papers=("ijcv",),
    protocol="ijcv",
)
