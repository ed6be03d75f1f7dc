"""MobileNetV1 on ILSVRC: recipes, published results, and the stages from picture to maps."""

from ILSVRC.Model.shared import ilsvrc_ijcv_recipe, ilsvrc_recipe
from utils.models.recipe import Published

RECIPE = ilsvrc_recipe(arch="mobilenet", frg_weight=0.5, area_weight=1.5, threshold=0.5, top_k=1)
IJCV_RECIPE = ilsvrc_ijcv_recipe(RECIPE, threshold=0.5)
PUBLISHED = Published(top1_loc=52.97, top5_loc=66.59, gt_known_loc=72.0)
PUBLISHED_CAM = Published(top1_loc=43.35, top5_loc=54.44, gt_known_loc=58.97)
IJCV_PUBLISHED = Published(top1_loc=53.05, top5_loc=66.68, gt_known_loc=72.03)
DRIVE_ID, IJCV_DRIVE_ID = "13MSMH_bzSBXVmNoc0MnFb2pQI0ePquhD", "1S8Ws-vmyxInlNuRD-S7ivMYbluo8M-DL"

# Layer -> output (channels, height, width) for a 224 x 224 picture.
STAGES = {
    "model.0": (32, 112, 112),
    "model.2": (128, 56, 56),
    "model.4": (256, 28, 28),
    "model.11": (512, 28, 28),  # F: f1 ends here
    "model.13": (1024, 14, 14),
    "classifier_cls": (1000, 14, 14),  # class maps A
    "classifier_loc": (1000, 28, 28),  # the generator on F, one foreground map a class
}
