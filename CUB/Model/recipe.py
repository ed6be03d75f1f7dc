"""What the four CUB-200-2011 recipes share (paper section 4.1 and the authors' CUB code)."""

from functools import partial

from utils.models.recipe import Recipe

NUM_CLASSES = 200

cub_recipe = partial(
    Recipe,
    dataset="CUB",
    num_classes=NUM_CLASSES,
    zero_ratio_at_equality=True,
    epochs=100,
    lr_steps=(80,),
    batch_size=32,
    seed=6,
)
