"""ResNet50 on ILSVRC: recipes, published results, and the stages from picture to maps."""

from ILSVRC.Model.shared import ilsvrc_ijcv_recipe, ilsvrc_recipe
from utils.models.recipe import Published

RECIPE = ilsvrc_recipe(arch="resnet", frg_weight=1.0, area_weight=2.0, threshold=0.45, top_k=1)
IJCV_RECIPE = ilsvrc_ijcv_recipe(RECIPE, threshold=0.25)
PUBLISHED = Published(top1_loc=57.18, top5_loc=68.44, gt_known_loc=71.77)
PUBLISHED_CAM = Published(top1_loc=38.99, top5_loc=49.47, gt_known_loc=51.86)
IJCV_PUBLISHED = Published(top1_loc=57.46, top5_loc=68.57, gt_known_loc=72.0)
DRIVE_ID, IJCV_DRIVE_ID = "1Zmu1IGPy9lp5PfhC2u_jAcwt1nouRnTb", "1CpeG6YTcU9Zj8_SbP0cRiPINztFzWC6z"

# Layer -> output (channels, height, width) for a 224 x 224 picture.
STAGES = {
    "conv1": (64, 112, 112),
    "layer1": (256, 56, 56),
    "layer2": (512, 28, 28),
    "layer3": (1024, 28, 28),  # F: f1 ends here
    "layer4": (2048, 14, 14),
    "classifier_cls": (1000, 14, 14),  # class maps A
    "classifier_loc": (1000, 28, 28),  # the generator on F, one foreground map a class
}
