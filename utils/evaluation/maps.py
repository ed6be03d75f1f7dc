"""The maps that are compared: the generator's (BAS), CAM, Grad-CAM and a centred Gaussian, from one pass of a network.

All are made for a known class, the label: GT-known Loc asks where that class is. Without labels it is the predicted
class. BAS with k > 1 is the mean of the maps of the k classes that the network finds likeliest, as in the paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from utils.evaluation.kinds import FILES, MapKind
from utils.metrics import map_extremes
from utils.models.bas import BAS, Encoding, rank_classes, select_class


def make_maps(model: BAS, encoding: Encoding, kinds: Sequence[MapKind], labels: Tensor | None) -> dict[MapKind, Tensor]:
    """Makes several kinds of maps of a batch; what they share is computed once, what none of them reads not at all.

    Args:
        model: gave the encoding.
        encoding: of :meth:`utils.models.bas.BAS.encode_crops`.
        kinds: which maps; those of files are passed over.
        labels: (B,) classes to localise; the predicted ones where None.

    Returns:
        kind -> (B, 1, h, w), each of its own size and range.
    """
    classes = rank_classes(encoding.scores, 1).squeeze(1) if labels is None else labels
    makers = {
        "cam": lambda: select_class(encoding.class_maps, classes),
        "gradcam": lambda: grad_cam(model, encoding.features, classes),
        "center": lambda: centred_gaussian(encoding.features),
    }
    top_ks = [kind.top_k for kind in kinds if kind.top_k is not None]
    fused = _foreground_maps(model, encoding, top_ks, labels) if top_ks else {}
    return {
        kind: makers[kind.kind]() if kind.top_k is None else fused[kind.top_k] for kind in kinds if kind.kind != FILES
    }


@torch.no_grad()
def label_map_extremes(model: BAS, encoding: Encoding, labels: Tensor, maps: Mapping[MapKind, Tensor]) -> Tensor | None:
    """The highest and lowest value of each label's own foreground map, which a mean of several classes' maps hides.

    Args:
        model, encoding: as for :func:`make_maps`.
        labels: (B,) true classes.
        maps: of :func:`make_maps`; without one of the generator's there is nothing to tell.

    Returns:
        (B, 2) of :func:`utils.metrics.map_extremes`, or None.
    """
    own = MapKind("bas", 1)
    if own in maps:  # k = 1 is the label's map
        return map_extremes(maps[own])
    if not any(kind.kind == "bas" for kind in maps):
        return None
    return map_extremes(model.foreground_maps(encoding.features, labels[:, None]))


@torch.no_grad()
def _foreground_maps(model: BAS, encoding: Encoding, top_ks: Sequence[int], labels: Tensor | None) -> dict[int, Tensor]:
    if len(top_ks) == 1:
        return {top_ks[0]: model.fuse_top_k(encoding.features, encoding.scores, top_ks[0], labels)}
    return model.fuse_each_top_k(encoding.features, encoding.scores, top_ks, labels)


def grad_cam(model: BAS, features: Tensor, classes: Tensor) -> Tensor:
    """Grad-CAM (Selvaraju et al., ICCV 2017) at the tap where the generator sits.

    Args:
        model: in evaluation mode; its weights receive no gradient.
        features: F (B, C, h, w).
        classes: (B,) the classes to explain.

    Returns:
        (B, 1, h, w), 0 or more; all 0 where the class's logit does not depend on F (a final ReLU that is shut).
    """
    # Never in half precision: most gradients of a mean over positions are too small for it.
    autocast = torch.autocast(features.device.type, enabled=False)
    with torch.inference_mode(False), torch.enable_grad(), autocast:
        # A copy: of what was made in inference mode nothing could be derived.
        features, classes = features.to(next(model.head.parameters()).dtype, copy=True).detach(), classes.clone()
        features.requires_grad_()
        # Pictures do not mix in evaluation mode, so one backward pass of the sum gives every picture its own gradient.
        logits = model.f2(features).mean(dim=(2, 3)).gather(1, classes[:, None]).sum()
        (gradient,) = torch.autograd.grad(logits, features)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return (weights * features.detach()).sum(dim=1, keepdim=True).relu()


def centred_gaussian(features: Tensor) -> Tensor:
    """A Gaussian in the middle of the picture: the baseline that looks at nothing.

    Its thresholds draw centred squares of any size. The standard deviation (a quarter of the side) only fixes which
    threshold gives which size.

    Args:
        features: (B, C, h, w) for batch, size and device.

    Returns:
        (B, 1, h, w) in [0, 1].
    """
    (height, width), device = features.shape[-2:], features.device
    y = torch.linspace(-1, 1, height, dtype=torch.float32, device=device)[:, None] * (height - 1) / height
    x = torch.linspace(-1, 1, width, dtype=torch.float32, device=device) * (width - 1) / width
    return torch.exp(-2 * (x**2 + y**2)).expand(len(features), 1, -1, -1)
