"""BAS on CUB-200-2011."""

import utils  # noqa: F401 - before anything that a missing requirement could stop
