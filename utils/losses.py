"""`utils.models.losses` under its documented name."""

from utils.models.losses import BASLosses, bas_losses  # noqa: F401
