"""BAS on FGVC-Aircraft."""

from utils.data.dataset import Dataset

DATASET = Dataset(
    name="FGVCAircraft",
    title="FGVC-Aircraft",
    package="utils.datasets.fgvc_aircraft",
    num_classes=100,
    how_to_get="fetch its archives by hand: see utils/datasets/README.md",
    papers=("ijcv",),
    protocol="ijcv",
)
