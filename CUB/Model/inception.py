"""InceptionV3 on CUB-200-2011: recipes, published results, and the stages from picture to maps."""

from CUB.Model.shared import cub_ijcv_recipe, cub_recipe
from utils.models.recipe import Published

RECIPE = cub_recipe(arch="inception", head_name="classifier", frg_weight=0.5, area_weight=1.0, threshold=0.1, top_k=200)
IJCV_RECIPE = cub_ijcv_recipe(RECIPE, head_name="classifier_cls", area_weight=1.0, top_k=200)
PUBLISHED = Published(top1_loc=73.29, top5_loc=86.31, gt_known_loc=92.24)
PUBLISHED_CAM = Published(top1_loc=41.06, top5_loc=50.66, gt_known_loc=55.1)
IJCV_PUBLISHED = Published(top1_loc=72.09, top5_loc=88.11, gt_known_loc=94.63)
DRIVE_ID, IJCV_DRIVE_ID = "1hZOjU5kqpdZZK1WO-bi5zICPpFj6Bi7d", "16UUx2t6Ga7f0TZZVm7e5awUOQmdE_fQj"

# Layer -> output (channels, height, width) for a 224 x 224 picture.
STAGES = {
    "Conv2d_2b_3x3": (64, 110, 110),
    "Conv2d_4a_3x3": (192, 54, 54),
    "Mixed_5d": (288, 28, 28),
    "Mixed_6a": (768, 28, 28),
    "Mixed_6e": (768, 28, 28),  # F: f1 ends here
    "Mixed_7a": (1280, 14, 14),
    "Mixed_7c": (2048, 14, 14),
    "classifier": (200, 14, 14),  # class maps A
    "classifier_loc": (200, 28, 28),  # the generator on F, one foreground map a class
}
