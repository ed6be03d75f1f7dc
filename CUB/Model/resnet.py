"""ResNet50 on CUB-200-2011: recipes, published results, and the stages from picture to maps."""

from CUB.Model.shared import cub_ijcv_recipe, cub_recipe
from utils.models.recipe import Published

RECIPE = cub_recipe(arch="resnet", frg_weight=0.5, area_weight=1.2, threshold=0.15, top_k=200)
IJCV_RECIPE = cub_ijcv_recipe(RECIPE, area_weight=1.5, top_k=200)
PUBLISHED = Published(top1_loc=77.25, top5_loc=90.08, gt_known_loc=95.13)
PUBLISHED_CAM = Published(top1_loc=46.71, top5_loc=54.44, gt_known_loc=57.35)
IJCV_PUBLISHED = Published(top1_loc=76.75, top5_loc=90.04, gt_known_loc=95.41)
DRIVE_ID, IJCV_DRIVE_ID = "13qPalet2zTRosFz9PJOP1GrLYyEb4NNF", "1M9rSe6nwGUMqUFz5195jpA7ddnk3EjTl"

# Layer -> output (channels, height, width) for a 224 x 224 picture.
STAGES = {
    "conv1": (64, 112, 112),
    "layer1": (256, 56, 56),
    "layer2": (512, 28, 28),
    "layer3": (1024, 28, 28),  # F: f1 ends here
    "layer4": (2048, 14, 14),
    "classifier_cls": (200, 14, 14),  # class maps A
    "classifier_loc": (200, 28, 28),  # the generator on F, one foreground map a class
}
