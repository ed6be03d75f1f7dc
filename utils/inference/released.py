"""Fetches the authors' released checkpoints from Google Drive."""

from __future__ import annotations

from pathlib import Path

from utils.data.dataset import Dataset
from utils.models.checkpoint import read_checkpoint
from utils.runs.recorded import made_weights
from utils.system.errors import UsageError, UserError, reason_of
from utils.system.files import write_atomically


def fetch_released(dataset: Dataset, arch: str, paper: str | None = None) -> Path:
    """The released file of a backbone, fetched by torchvision's helper unless it is there.

    Args:
        dataset: whose.
        arch: the backbone.
        paper: of :data:`utils.models.recipe.PAPERS`; the data set's first where None.

    Returns:
        The file, under the name by which the commands find it.

    Raises:
        UsageError: the authors released none, or a run has written a file of that name.
        UserError: Google Drive cannot be reached or sends something else, or the disk is full.
    """
    released = dataset.released(arch, paper)
    if released is None:
        there_are = [one for one in dataset.papers for known in dataset.archs if dataset.released(known, one)]
        hint = "choose another --recipe or --arch" if there_are else "train one"
        raise UsageError(f"the authors released no {arch} on {dataset.name} for this recipe; {hint}")
    if released.path in made_weights(released.path.parent):
        raise UsageError(
            f"{released.path} is of a run of yours, whose name the authors' file has, too; move the run away, or leave "
            "out --download"
        )
    if not released.path.exists():
        print(f"fetching {released.path} from {released.page}")
        by_hand = f"fetch it by hand from {released.page} (id {released.drive_id}) and put it at {released.path}"
        write_atomically(released.path, lambda temporary: _fetch(temporary, released.drive_id, by_hand))
    return released.path


def _fetch(temporary: Path, drive_id: str, by_hand: str) -> None:
    from torchvision.datasets.utils import download_file_from_google_drive  # here, since the import takes a second

    temporary.unlink(missing_ok=True)  # torchvision takes whatever lies there for the file
    try:
        download_file_from_google_drive(drive_id, temporary.parent, temporary.name)
    # gdown's and requests' errors have no common class but this; without gdown, torchvision's says how to get it.
    except Exception as error:
        raise UserError(f"cannot fetch the file from Google Drive: {reason_of(error)}; {by_hand}") from error
    try:
        read_checkpoint(temporary)
    except UserError as error:
        raise UserError(
            f"what Google Drive sent is no checkpoint, perhaps a page that asks to wait; {by_hand}"
        ) from error
