"""`utils.training.optim` under its documented name."""

from utils.training.optim import build_optimizer, build_scheduler  # noqa: F401
