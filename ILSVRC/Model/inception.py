"""InceptionV3 on ILSVRC: recipes, published results, and the stages from picture to maps."""

from ILSVRC.Model.shared import ilsvrc_ijcv_recipe, ilsvrc_recipe
from utils.models.recipe import Published

RECIPE = ilsvrc_recipe(arch="inception", frg_weight=1.0, area_weight=2.5, threshold=0.3, top_k=1)
IJCV_RECIPE = ilsvrc_ijcv_recipe(RECIPE, threshold=0.25)
PUBLISHED = Published(top1_loc=58.51, top5_loc=69.0, gt_known_loc=71.93)
PUBLISHED_CAM = Published(top1_loc=46.29, top5_loc=58.19, gt_known_loc=62.68)
IJCV_PUBLISHED = Published(top1_loc=58.5, top5_loc=69.03, gt_known_loc=72.07)
DRIVE_ID, IJCV_DRIVE_ID = "1xq9AOS-vxGtDVBqDvggANlyQuraS6_Is", "1TwcP2GNSo9Lv7V9fAb-8cieQhYJ1lhll"

# Layer -> output (channels, height, width) for a 224 x 224 picture.
STAGES = {
    "Conv2d_2b_3x3": (64, 110, 110),
    "Conv2d_4a_3x3": (192, 54, 54),
    "Mixed_5d": (288, 28, 28),
    "Mixed_6a": (768, 28, 28),
    "Mixed_6e": (768, 28, 28),  # F: f1 ends here
    "Mixed_7a": (1280, 14, 14),
    "Mixed_7c": (2048, 14, 14),
    "classifier_cls": (1000, 14, 14),  # class maps A
    "classifier_loc": (1000, 28, 28),  # the generator on F, one foreground map a class
}
