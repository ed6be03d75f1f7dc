"""BAS on Stanford Cars."""

from utils.data.dataset import Dataset

DATASET = Dataset(
    name="StanfordCars",
    title="Stanford Cars",
    package="utils.datasets.stanford_cars",
    num_classes=196,
    how_to_get="fetch its archives by hand: see utils/datasets/README.md",
    papers=("ijcv",),
    protocol="ijcv",
)
