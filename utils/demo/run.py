"""`python train.py --demo`: what is special about the demo, before and after the common training loop."""

from __future__ import annotations

from dataclasses import replace

from utils.models.recipe import Recipe


def prepare(args, root):
    pass


def finish(*a):
    pass


def demo_recipe(recipe: Recipe) -> Recipe:
    return replace(
        recipe,
        top_k=1,
        epochs=6,
        lr_steps=(5,),
        batch_size=16,
        resize_size=112,
        crop_size=96,
        final_relu=False,
        warmup_epochs=2,
        area_weight=1.5,
        frg_weight=0.5,
        threshold=0.1,
    )
