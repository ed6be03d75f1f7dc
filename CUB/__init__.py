"""BAS on CUB-200-2011."""
