"""What the four ILSVRC recipes of each paper share (paper section 4.1 and the authors' ILSVRC code)."""

from functools import partial

from ILSVRC import DATASET
from utils.models.recipe import Recipe, ijcv_recipe

ilsvrc_recipe = partial(
    Recipe,
    dataset=DATASET.name,
    num_classes=DATASET.num_classes,
    ratio_compare="gt",
    epochs=9,
    lr_steps=(3, 6),
    batch_size=128,  # 4 GPUs x 32 in the authors' runs, batch statistics per GPU
    seed=2,
)

# What the four of the IJCV paper share; the rest is as above.
ilsvrc_ijcv_recipe = partial(ijcv_recipe, sync_bn=True, seed=0)
