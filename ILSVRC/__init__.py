"""BAS on ILSVRC (ImageNet-1k)."""
