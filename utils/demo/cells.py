"""The lines of the demo's ablation tables: with which options each is trained, and what is compared on its networks."""

from __future__ import annotations

from dataclasses import dataclass

from utils.models.recipe import ALIGNMENTS

TOP_KS = (1, 2, 4, 8, 12)


@dataclass(frozen=True)
class Cell:
    """One line of the table.

    Attributes:
        name: of its folder.
        title: in the table.
        options: of `train.py`.
        has_generator: whether any of its losses trains the generator; without, its map is noise and is not shown.
        top_ks: of the generator's maps that are compared besides, on the same networks.
        alignments: in which the maps are drawn besides, on the same networks; with some, the cell is a line of the
            table of drawing, not of that of losses.
    """

    name: str
    title: str
    options: tuple[str, ...] = ()
    has_generator: bool = True
    top_ks: tuple[int, ...] = ()
    alignments: tuple[str, ...] = ()


def _drawing(name: str, title: str, *options: str) -> Cell:
    return Cell(name, title, options, alignments=ALIGNMENTS)


CELLS = (
    Cell("cls", "L_cls", ("--frg_weight", "0", "--bas_weight", "0", "--area_weight", "0"), has_generator=False),
    Cell("cls_frg_ac", "L_cls + L_frg + L_ac", ("--bas_weight", "0")),
    Cell("cls_bas", "L_cls + L_bas", ("--frg_weight", "0", "--area_weight", "0")),
    Cell("all", "L_cls + L_frg + L_bas + L_ac", top_ks=TOP_KS),
    Cell("cross_entropy", "the same with cross-entropy for L_bas", ("--generator_loss", "cross_entropy")),
    _drawing("papers", "both sides, blocks", "--no-same_padding", "--mask_pooling", "blocks"),
    _drawing("aligned", "both sides, aligned", "--no-same_padding", "--mask_pooling", "aligned"),
    _drawing("same", "SAME, blocks", "--same_padding", "--mask_pooling", "blocks"),
    _drawing("same_aligned", "SAME, aligned", "--same_padding", "--mask_pooling", "aligned"),
)
