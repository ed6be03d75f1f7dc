"""VGG16 on ILSVRC: recipes, published results, and the stages from picture to maps."""

from ILSVRC.Model.shared import ilsvrc_ijcv_recipe, ilsvrc_recipe
from utils.models.recipe import Published

RECIPE = ilsvrc_recipe(arch="vgg", frg_weight=0.05, area_weight=1.0, threshold=0.5, top_k=1)
IJCV_RECIPE = ilsvrc_ijcv_recipe(RECIPE, ratio_beyond_one="zero", batch_size=256, threshold=0.45)
PUBLISHED = Published(top1_loc=52.96, top5_loc=65.41, gt_known_loc=69.64)
PUBLISHED_CAM = Published(top1_loc=42.8, top5_loc=54.86, gt_known_loc=59.0)
IJCV_PUBLISHED = Published(top1_loc=52.94, top5_loc=65.38, gt_known_loc=69.66)
DRIVE_ID, IJCV_DRIVE_ID = "1BSaHxXnK0o-zem9IadrbwqafZnJQt8De", "1lqdTmRS89vaYtld4M86LD3pzF_-7KRu8"

# Layer -> output (channels, height, width) for a 224 x 224 picture.
STAGES = {
    "conv1_2": (64, 224, 224),
    "conv2_2": (128, 112, 112),
    "conv3_3": (256, 56, 56),
    "conv4_3": (512, 28, 28),  # F: f1 ends here
    "conv5_3": (512, 14, 14),
    "classifier_cls": (1000, 14, 14),  # class maps A
    "classifier_loc": (1000, 28, 28),  # the generator on F, one foreground map a class
}
