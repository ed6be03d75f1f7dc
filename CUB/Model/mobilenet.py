"""MobileNetV1 on CUB-200-2011: recipes, published results, and the stages from picture to maps."""

from CUB.Model.shared import cub_ijcv_recipe, cub_recipe
from utils.models.recipe import Published

RECIPE = cub_recipe(arch="mobilenet", frg_weight=0.5, area_weight=1.5, threshold=0.15, top_k=200)
IJCV_RECIPE = cub_ijcv_recipe(RECIPE, area_weight=1.9, top_k=80)
PUBLISHED = Published(top1_loc=69.77, top5_loc=86.0, gt_known_loc=92.35)
PUBLISHED_CAM = Published(top1_loc=48.07, top5_loc=59.2, gt_known_loc=63.3)
IJCV_PUBLISHED = Published(top1_loc=70.54, top5_loc=86.71, gt_known_loc=93.04)
DRIVE_ID, IJCV_DRIVE_ID = "1_i1XEO9bSlietnrgFnVoBlOaRGhPnPh2", "1y6U7Hhxvq8IqoRLOmnnuFFE7UUbyPvIK"

# Layer -> output (channels, height, width) for a 224 x 224 picture.
STAGES = {
    "model.0": (32, 112, 112),
    "model.2": (128, 56, 56),
    "model.4": (256, 28, 28),
    "model.11": (512, 28, 28),  # F: f1 ends here
    "model.13": (1024, 14, 14),
    "classifier_cls": (200, 14, 14),  # class maps A
    "classifier_loc": (200, 28, 28),  # the generator on F, one foreground map a class
}
