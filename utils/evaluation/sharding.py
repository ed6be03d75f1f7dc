"""Who of a run's processes scores which pictures of a split.

Batch b belongs to process b modulo their number and holds the very pictures that it holds in a single process: batches
of another composition may be computed by other kernels, which round otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np

from utils.system.processes import gather_everywhere, process_count, rank


def own_pictures(count: int, batch_size: int) -> np.ndarray:
    """The positions (n,), ascending, of this process's pictures among `count`; those of each batch stay together."""
    indices = np.arange(count)
    return indices[indices // batch_size % process_count() == rank()]


def count_rounds(count: int, batch_size: int) -> int:
    """The number of batches that the first process has; each of the others has as many, or one less."""
    return math.ceil(count / (batch_size * process_count()))


def gather_round(own: Iterable[Any]) -> Iterator[Any]:
    """What the processes have to say of their batches of one round, in the split's order.

    Args:
        own: this process's values, which can be pickled; none where it has no batch in this round. A process alone
            passes them on one by one, as they come.
    """
    # The batches of a round follow one another in the split as their processes do.
    return iter(own) if process_count() == 1 else chain.from_iterable(gather_everywhere(list(own)))
