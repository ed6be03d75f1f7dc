"""`utils.localization.boxes` under its documented name."""

from utils.localization.boxes import crop_boxes_to_image, iou, scale_boxes_to_crop  # noqa: F401
