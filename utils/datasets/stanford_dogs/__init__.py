"""BAS on Stanford Dogs."""

from utils.data.dataset import Dataset

DATASET = Dataset(
    name="StanfordDogs",
    title="Stanford Dogs",
    package="utils.datasets.stanford_dogs",
    num_classes=120,
    how_to_get="fetch its archives by hand: see utils/datasets/README.md",
    papers=("ijcv",),
    protocol="ijcv",
)
