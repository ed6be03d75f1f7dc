"""The diagram of the network: training with four losses above, inference below, in the paper's symbols (section 3).

One drawing gives the SVG and the PNG. Words stay text in the SVG; formulas become shapes, because browsers without the
font would pull them apart.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from utils.charts import new_page, save_figure, to_svg
from utils.files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from utils.figures.shapes import Diagram

WIDTH, HEIGHT, MARGIN = 880, 752, 12  # pixels at which a README shows it
SHARPNESS = 2  # of the PNG's dots to a pixel
HEADING, TOTAL = 17, 15  # sizes of type in pixels
RULE, FOUND = "#bbbbbb", "#d55e00"
SKY, BIRD, DARK, MIDDLE, LIGHT, WHITE = "#cfe3f2", "#5b4a3a", "#26323a", "#5a666e", "#8a949b", "#ffffff"

TITLE = "The network of Background Activation Suppression"
DESCRIPTION = (
    "Training: the image passes f1 to the feature map F. The generator turns F into the foreground map M_fg of the "
    "label y; the background map M_bg is its complement. f2 turns F into class maps A, whose global average gives the "
    "logits and L_cls; the global average of A times the pooled M_fg gives L_frg; F, through which no gradient passes, "
    "times M_bg gives S_bg by way of f2 with its weights held constant, and S_bg over S gives L_bas; the mean of M_fg "
    "gives L_ac. Inference: the foreground maps of the k best classes are averaged, normalised, upsampled and "
    "thresholded to a box; the mean softmax of ten crops gives the class."
)


def draw_network(folder: Path) -> list[Path]:
    """Draws the diagram as `network.svg`, for pages, and `network.png`, for viewers without SVG.

    Args:
        folder: where to, made if need be.

    Returns:
        The two files.

    Raises:
        UserError: matplotlib is missing, or a file cannot be written.
    """
    figure = build_network_figure()
    svg = write_text(folder / "network.svg", _describe(to_svg(figure, "network")))
    return [svg, save_figure(folder / "network.png", figure, SHARPNESS)]


def build_network_figure() -> Figure:
    """The diagram, not saved yet.

    Raises:
        UserError: matplotlib is missing.
    """
    figure = new_page(WIDTH, HEIGHT)
    from utils.figures.shapes import Diagram  # only now is matplotlib sure to be there

    diagram = Diagram(figure, (WIDTH, HEIGHT))
    _draw_training(diagram)
    _draw_legend(diagram)
    diagram.rule((24, 456), (WIDTH - MARGIN, 456), RULE, 1)
    _draw_inference(diagram)
    return figure


def _describe(svg: str) -> str:
    """An SVG in pixels, with a title and a description for screen readers."""
    head, root, body = svg.partition("<svg ")
    attributes, _, body = body.partition(">")
    attributes = attributes.replace("pt", "") + ' role="img" aria-labelledby="title desc"'
    names = f'\n <title id="title">{TITLE}</title>\n <desc id="desc">{DESCRIPTION}</desc>'
    return f"{head}{root}{attributes}>{names}{body}"


def _draw_training(diagram: Diagram) -> None:
    classify, guide, segment, complement, suppress = 88, 164, 258, 332, 402  # heights of the rows
    diagram.text((24, 34), "Training", HEADING, "left", weight="bold")
    diagram.text(
        (WIDTH - MARGIN, 34),
        r"$L = L_\mathrm{cls} + \alpha\,L_\mathrm{frg} + L_\mathrm{bas} + \beta\,L_\mathrm{ac}$",
        TOTAL,
        "right",
    )
    _draw_features(diagram, segment, "image")
    diagram.arrow((248, segment), (298, segment))
    diagram.arrow((272, segment), (272, classify), (298, classify))
    diagram.arrow((272, segment), (272, suppress), (442, suppress))
    diagram.stop((346, suppress))
    diagram.dot((272, segment))

    diagram.box((344, classify), (92, 40), "$f_2$", kind="network")
    diagram.arrow((390, classify), (412, classify))
    diagram.box((456, classify), (88, 46), "$A$", "class maps")
    diagram.arrow((500, classify), (526, classify))
    diagram.box((554, classify), (56, 32), "GAP")
    diagram.arrow((582, classify), (678, classify))
    diagram.box((716, classify), (76, 40), "logits")
    diagram.arrow((754, classify), (772, classify))
    diagram.box((820, classify), (96, 48), r"$L_\mathrm{cls}$", "cross-entropy", "loss")

    diagram.arrow((456, classify + 23), (456, guide - 13))
    diagram.operator((456, guide), "×")
    diagram.arrow((469, guide), (526, guide))
    diagram.box((554, guide), (56, 32), "GAP")
    diagram.arrow((582, guide), (600, guide))
    diagram.box((648, guide), (96, 48), r"$L_\mathrm{frg}$", "cross-entropy", "loss")

    diagram.box((344, segment), (92, 40), "generator", kind="generator")
    diagram.arrow((390, segment), (432, segment))
    diagram.bird((456, segment), DARK, WHITE)
    diagram.text((486, segment + 16), r"$M_\mathrm{fg}$, label $y$", align="left")
    diagram.arrow((456, segment - 24), (456, guide + 13))
    diagram.note((465, (segment + guide) / 2 - 5), "avgpool 2 × 2", "left")
    diagram.arrow((480, segment), (600, segment))
    diagram.note((540, segment - 9), "mean")
    diagram.box((648, segment), (96, 48), r"$L_\mathrm{ac}$", "area", "loss")

    diagram.arrow((456, segment + 24), (456, complement - 24))
    diagram.bird((456, complement), WHITE, DARK)
    diagram.text((486, complement), r"$M_\mathrm{bg} = 1 - M_\mathrm{fg}$", align="left")
    diagram.arrow((456, complement + 24), (456, suppress - 13))
    diagram.operator((456, suppress), "×")
    diagram.arrow((469, suppress), (492, suppress))
    diagram.box((535, suppress), (86, 46), "$f_2$", "frozen", "frozen")
    diagram.arrow((578, suppress), (596, suppress))
    diagram.box((640, suppress), (88, 46), r"$S_\mathrm{bg}$", "GAP, label $y$")
    diagram.arrow((684, suppress), (703, suppress))
    diagram.operator((716, suppress), "÷")
    diagram.arrow((729, suppress), (772, suppress))
    diagram.box((820, suppress), (96, 48), r"$L_\mathrm{bas}$", r"$S_\mathrm{bg}\,/\,S$", "loss", is_even=True)
    diagram.arrow((716, classify + 20), (716, suppress - 13))
    diagram.stop((716, 316), is_upright=True)
    diagram.text((728, 236), "$S$, the logit", align="left")
    diagram.text((728, 255), "of the label $y$", align="left")


def _draw_features(diagram: Diagram, y: float, name: str) -> None:
    """A picture on its way to F."""
    diagram.bird((50, y), SKY, BIRD)
    diagram.text((50, y + 38), name)
    diagram.arrow((74, y), (104, y))
    diagram.box((131, y), (54, 40), "$f_1$", kind="network")
    diagram.arrow((158, y), (184, y))
    diagram.box((216, y), (64, 50), "$F$", "28 × 28")


def _draw_legend(diagram: Diagram) -> None:
    entries = {"network": "backbone and classifier", "frozen": "the same, weights held constant"}
    for number, (kind, words) in enumerate(entries.items()):
        y = 384 + 24 * number
        diagram.box((38, y), (28, 16), kind=kind)
        diagram.note((60, y), words, "left")
    diagram.rule((24, 432), (52, 432))
    diagram.stop((38, 432))
    diagram.note((60, 432), "no gradient passes", "left")


def _draw_inference(diagram: Diagram) -> None:
    localize, choose, classify = 536, 620, 702
    diagram.text((24, 486), "Inference", HEADING, "left", weight="bold")
    _draw_features(diagram, localize, "centre crop")
    diagram.arrow((248, localize), (298, localize))
    diagram.arrow((272, localize), (272, choose), (298, choose))
    diagram.dot((272, localize))
    diagram.box((344, localize), (92, 40), "generator", kind="generator")
    diagram.arrow((390, localize), (426, localize))
    for shift, ground, ink in ((12, LIGHT, LIGHT), (6, MIDDLE, MIDDLE), (0, DARK, WHITE)):
        diagram.bird((450 + shift, localize + 6 - shift), ground, ink)
    diagram.arrow((486, localize), (512, localize))
    diagram.box((541, localize), (58, 34), "mean")
    diagram.arrow((570, localize), (592, localize))
    diagram.box((640, localize), (96, 46), "normalise,", "upsample", is_even=True)
    diagram.arrow((688, localize), (710, localize))
    diagram.box((752, localize), (84, 34), "threshold")
    diagram.arrow((794, localize), (816, localize))
    diagram.bird((840, localize), SKY, BIRD)
    diagram.rectangle((840, localize + 1), (44, 28), "none", FOUND)
    diagram.text((840, localize + 38), "box")

    diagram.box((344, choose), (92, 40), "$f_2$", kind="network")
    diagram.arrow((390, choose), (414, choose))
    diagram.box((456, choose), (84, 46), "GAP", "logits")
    diagram.arrow((456, choose - 23), (456, localize + 31))
    diagram.note((466, choose - 36), "maps of the $k$ best classes", "left")

    for shift in (12, 9, 6, 3, 0):
        diagram.rectangle((44 + shift, classify + 6 - shift), (40, 32), SKY)
    diagram.text((50, classify + 35), "ten crops")
    diagram.arrow((78, classify), (104, classify))
    diagram.box((131, classify), (54, 40), "$f_1$", kind="network")
    diagram.arrow((158, classify), (298, classify))
    diagram.box((344, classify), (92, 40), "$f_2$", kind="network")
    diagram.arrow((390, classify), (414, classify))
    diagram.box((456, classify), (84, 46), "GAP", "10 × logits")
    diagram.arrow((498, classify), (516, classify))
    diagram.box((556, classify), (80, 34), "softmax")
    diagram.arrow((596, classify), (614, classify))
    diagram.box((654, classify), (80, 46), "mean", "of the ten")
    diagram.arrow((694, classify), (730, classify))
    diagram.text((738, classify), "class", align="left")
