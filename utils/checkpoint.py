"""`utils.models.checkpoint` under its documented name."""

from utils.models.checkpoint import load_weights, read_checkpoint, save_weights  # noqa: F401
