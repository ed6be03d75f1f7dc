"""The README's figures, drawn by `python -m utils.figures`."""
