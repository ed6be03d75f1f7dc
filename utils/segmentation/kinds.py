"""What maps are made of, and from which scales; and the thresholds that seeds are searched at."""

SCALES = (1.0, 0.5, 1.5, 2.0)
KINDS = BAS_MAPS, CAM, FUSED = "bas", "cam", "fused"
TITLES = {BAS_MAPS: "BAS", CAM: "CAM", FUSED: "BAS and CAM"}
THRESHOLDS = tuple(round(0.01 * step, 2) for step in range(100))  # of the background
