"""Progress bars on long work, silent when nobody looks at a terminal."""

from collections.abc import Iterable

from tqdm import tqdm

from utils.system.processes import is_main


def progress_bar(items: Iterable, description: str) -> tqdm:
    """A bar on standard error that leaves no trace; of several processes the first one shows it."""
    return tqdm(items, desc=description, leave=False, disable=None if is_main() else True, dynamic_ncols=True)
