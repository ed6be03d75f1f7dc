"""BAS on ILSVRC (ImageNet-1k)."""

import utils  # noqa: F401 - before anything that a missing requirement could stop
