"""Progress bars on long work, silent when nobody looks at a terminal."""

from collections.abc import Iterable

from tqdm import tqdm


def progress_bar(items: Iterable, description: str) -> tqdm:
    """A bar on standard error that leaves no trace."""
    return tqdm(items, desc=description, leave=False, disable=None, dynamic_ncols=True)
