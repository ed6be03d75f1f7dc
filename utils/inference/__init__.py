"""The command `python BAS_inference.py` of both data sets, and the same in Python: `load_localizer`."""
