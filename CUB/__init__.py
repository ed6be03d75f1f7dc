"""BAS on CUB-200-2011."""

from utils.data.dataset import Dataset

DATASET = Dataset(name="CUB", title="CUB-200-2011", package="CUB", num_classes=200)
