"""What the four CUB-200-2011 recipes of each paper share (paper section 4.1 and the authors' CUB code)."""

from functools import partial

from CUB import DATASET
from utils.models.recipe import Recipe, ijcv_recipe

cub_recipe = partial(
    Recipe,
    dataset=DATASET.name,
    num_classes=DATASET.num_classes,
    ratio_compare="ge",
    epochs=100,
    lr_steps=(80,),
    batch_size=32,
    seed=6,
)

# What the four of the IJCV paper share; the rest is as above.
cub_ijcv_recipe = partial(ijcv_recipe, epochs=120, lr_steps=(80,), threshold=0.1)
