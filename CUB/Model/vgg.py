"""VGG16 on CUB-200-2011: recipes, published results, and the stages from picture to maps."""

from CUB.Model.shared import cub_ijcv_recipe, cub_recipe
from utils.models.recipe import Published

RECIPE = cub_recipe(arch="vgg", frg_weight=0.0, area_weight=0.7, threshold=0.15, top_k=80)
IJCV_RECIPE = cub_ijcv_recipe(RECIPE, area_weight=0.9, ratio_beyond_one="zero", top_k=80)
PUBLISHED = Published(top1_loc=71.33, top5_loc=85.33, gt_known_loc=91.07)
PUBLISHED_CAM = Published(top1_loc=41.06, top5_loc=50.66, gt_known_loc=55.1)
IJCV_PUBLISHED = Published(top1_loc=70.9, top5_loc=85.36, gt_known_loc=91.04)
DRIVE_ID, IJCV_DRIVE_ID = "1c3okqQWJNEv-riAuEKzm9pFAvMtm6ISk", "1-1SJTaUsbSRgpV_XuBeKwfefh9cc_I8r"

# Layer -> output (channels, height, width) for a 224 x 224 picture.
STAGES = {
    "conv1_2": (64, 224, 224),
    "conv2_2": (128, 112, 112),
    "conv3_3": (256, 56, 56),
    "conv4_3": (512, 28, 28),  # F: f1 ends here
    "conv5_3": (512, 14, 14),
    "classifier_cls": (200, 14, 14),  # class maps A
    "classifier_loc": (200, 28, 28),  # the generator on F, one foreground map a class
}
