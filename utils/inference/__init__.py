"""The commands `python BAS_inference.py` of a data set's folder and `python -m utils.inference --dataset NAME` of any,
and the same in Python: `load_localizer`.
"""
