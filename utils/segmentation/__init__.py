"""From a network to segments (IJCV paper): maps at several scales, seeds cut out of them, their mean IoU.

`python -m utils.segmentation maps`, `seeds`, `evaluate`. What may follow seeds (CRF, IRN, a segmentation network) reads
the files: maps as npz or IRN's npy, seeds as PNG with VOC's palette.
"""
