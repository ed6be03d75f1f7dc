"""`python BAS_inference.py`: figures for a test set, or boxes for pictures of one's own."""

from __future__ import annotations

from utils.inference import dataset, pictures
from utils.inference.arguments import parse_arguments
from utils.inference.loading import DatasetFolder, load


def run(folder: DatasetFolder, argv: list[str] | None = None) -> None:
    """Evaluates a checkpoint on a data set's test images, or localises the pictures of `--images`.

    Args:
        folder: the data set whose recipes and layout hold.
        argv: the command line; `sys.argv` if None.

    Raises:
        UserError: whatever the user can mend.
    """
    args = parse_arguments(folder.name, argv)
    if args.images:
        pictures.run(load(folder, args), args)
    else:
        dataset.run(folder, load(folder, args), args)
