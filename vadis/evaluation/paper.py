"""The paper's figures as they are printed there: accuracy in percent, top-1 unless a name says top-5.

Source: Carreira & Zisserman, "Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset", CVPR 2017, tables
2 to 5. Three ways to a model: ``original`` trains on the dataset alone, ``fixed`` gives the Kinetics network a new last
layer, ``full`` trains that end to end.
"""

from typing import NamedTuple


class Start(NamedTuple):
    """Top-1 with ImageNet before everything else, and without it; None where the paper has no figure."""

    imagenet: float | None
    scratch: float | None


class Columns(NamedTuple):
    """Accuracy by the streams that were asked."""

    rgb: float | None
    flow: float | None
    both: float | None


MODES = ("original", "fixed", "full")

TABLE_2 = {
    ("lstm", "ucf101"): Columns(81.0, None, None),
    ("lstm", "hmdb51"): Columns(36.0, None, None),
    ("lstm", "kinetics"): Columns(63.3, None, None),
    ("c3d", "ucf101"): Columns(51.6, None, None),
    ("c3d", "hmdb51"): Columns(24.3, None, None),
    ("c3d", "kinetics"): Columns(56.1, None, None),
    ("two-stream", "ucf101"): Columns(83.6, 85.6, 91.2),
    ("two-stream", "hmdb51"): Columns(43.2, 56.3, 58.3),
    ("two-stream", "kinetics"): Columns(62.2, 52.4, 65.6),
    ("fused", "ucf101"): Columns(83.2, 85.8, 89.3),
    ("fused", "hmdb51"): Columns(49.2, 55.5, 56.8),
    ("fused", "kinetics"): Columns(None, None, 67.2),
    ("i3d", "ucf101"): Columns(84.5, 90.6, 93.4),
    ("i3d", "hmdb51"): Columns(49.8, 61.9, 66.4),
    ("i3d", "kinetics"): Columns(71.1, 63.4, 74.2),
}
"""Split 1, trained on the dataset alone; with ImageNet, but for the 3D-ConvNet, which starts from nothing."""

TABLE_3 = {
    "lstm": (Columns(63.3, None, None), Columns(53.9, None, None)),
    "c3d": (Columns(None, None, None), Columns(56.1, None, None)),
    "two-stream": (Columns(62.2, 52.4, 65.6), Columns(57.9, 49.6, 62.8)),
    "fused": (Columns(None, None, 67.2), Columns(None, None, 62.7)),
    "i3d": (Columns(71.1, 63.4, 74.2), Columns(68.4, 61.5, 71.6)),
}
"""Kinetics; with ImageNet and without it, in the order of ``Start``."""

TABLE_3_TOP5 = {"i3d": (Columns(89.3, 84.9, 91.3), Columns(88.0, 83.4, 90.0))}
"""The same, top-5: what the paper has in brackets."""

TABLE_4 = {
    ("lstm", "ucf101"): (Start(81.0, 54.2), Start(88.1, 82.6), Start(91.0, 86.8)),
    ("lstm", "hmdb51"): (Start(36.0, 18.3), Start(50.8, 47.1), Start(53.4, 49.7)),
    ("c3d", "ucf101"): (Start(None, 51.6), Start(None, 76.0), Start(None, 79.9)),
    ("c3d", "hmdb51"): (Start(None, 24.3), Start(None, 47.0), Start(None, 49.4)),
    ("two-stream", "ucf101"): (Start(91.2, 83.6), Start(93.9, 93.3), Start(94.2, 93.8)),
    ("two-stream", "hmdb51"): (Start(58.3, 47.1), Start(66.6, 65.9), Start(66.6, 64.3)),
    ("fused", "ucf101"): (Start(89.3, 69.5), Start(94.3, 89.8), Start(94.2, 91.5)),
    ("fused", "hmdb51"): (Start(56.8, 37.3), Start(69.9, 64.6), Start(71.0, 66.5)),
    ("i3d", "ucf101"): (Start(93.4, 88.8), Start(97.7, 97.4), Start(98.0, 97.6)),
    ("i3d", "hmdb51"): (Start(66.4, 62.2), Start(79.7, 78.6), Start(81.2, 81.3)),
}
"""Split 1; in the order of ``MODES``. Of RGB for the two architectures that have no flow, else of both streams."""

TABLE_5 = {
    "ucf101": (Start(95.6, 95.1), Start(96.7, 96.5), Start(98.0, 97.8)),
    "hmdb51": (Start(74.8, 74.3), Start(77.1, 77.3), Start(80.7, 80.9)),
}
"""I3D, ``full``, the mean of the three splits; of RGB, flow and both."""

RGB_ONLY = ("lstm", "c3d")


def paper_top1(
    architecture: str, dataset: str, split: int, mode: str, imagenet: bool, column: str = "both"
) -> float | None:
    """The paper's top-1 in [0, 1], or None where it has none.

    Args:
        architecture: a key of ``vadis.models.MODELS``.
        dataset: a key of ``vadis.datasets.DATASETS``.
        split: the paper gives split 1.
        mode: of ``MODES``.
        imagenet: whether the parameters began with ImageNet.
        column: "rgb", "flow" or "both".
    """
    if split != 1 or mode not in MODES or column not in Columns._fields:
        return None
    if dataset == "kinetics":
        return paper_kinetics(architecture, imagenet, column) if mode == "original" else None
    key = architecture, dataset
    if key not in TABLE_4:
        return None
    figures = TABLE_4[key][MODES.index(mode)]
    if column == ("rgb" if architecture in RGB_ONLY else "both"):
        return _share(figures.imagenet if imagenet else figures.scratch)
    if mode == "original" and imagenet:
        return _share(getattr(TABLE_2[key], column))
    return None


def paper_kinetics(architecture: str, imagenet: bool, column: str = "both", *, top5: bool = False) -> float | None:
    """The paper's accuracy on Kinetics in [0, 1], or None where it has none; arguments as above."""
    pair = (TABLE_3_TOP5 if top5 else TABLE_3).get(architecture)
    return None if pair is None else _share(getattr(pair[0 if imagenet else 1], column, None))


def paper_mean_top1(dataset: str, imagenet: bool, column: str = "both") -> float | None:
    """The paper's top-1 of I3D over the three splits, in [0, 1]: ``full`` after Kinetics. Arguments as above."""
    if dataset not in TABLE_5 or column not in Columns._fields:
        return None
    figures = TABLE_5[dataset][Columns._fields.index(column)]
    return _share(figures.imagenet if imagenet else figures.scratch)


def _share(percent: float | None) -> float | None:
    return None if percent is None else round(percent / 100, 3)
