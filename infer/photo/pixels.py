"""What the pixels of a photograph tell without a network: its colours, its horizon."""

import numpy as np
from PIL import Image

SHARE = 0.15  # of the pixels, that a colour needs to be named
HUES = ((15, "red"), (40, "orange"), (70, "yellow"), (165, "green"), (260, "blue"), (300, "purple"), (345, "pink"))
SIDE, REACH = 96, 3  # the horizon: side of the reduced picture, and how many of its rows are compared
HIGHEST, LOWEST = 1 / 8, 0.7  # where it may be; what is lower is the edge of a beach, a lawn, a pavement
STEP = 0.1  # in colour, from above to below (RGB, 0..1)


def main_colors(rgb: np.ndarray, most: int = 3) -> list[str]:
    """The names of the colours that fill a good part of a picture (H, W, 3) uint8, the most frequent first."""
    small = Image.fromarray(rgb).resize((64, 64), Image.Resampling.BOX).convert("HSV")
    hue, saturation, value = np.moveaxis(np.array(small, np.float32) / 255, 2, 0)  # (64, 64) each
    names = np.full(hue.shape, "red", "U6")  # also what is above the last hue
    for limit, name in reversed(HUES):
        names[hue * 360 < limit] = name
    names[saturation < 0.15] = "grey"
    names[(saturation < 0.15) & (value > 0.8)] = "white"
    names[value < 0.2] = "black"
    found, counts = np.unique(names, return_counts=True)
    ranked = sorted(zip(counts.tolist(), found.tolist(), strict=True), reverse=True)
    return [name for count, name in ranked if count >= SHARE * hue.size][:most]


def horizon(rgb: np.ndarray) -> float:
    """How much of the width of a picture (H, W, 3) uint8 agrees on a level line where the colour changes; 0: none.

    Columns agree if the step from above the line to below it differs from the mean step by less than half of that.
    """
    small = np.asarray(Image.fromarray(rgb).resize((SIDE, SIDE), Image.Resampling.BOX), np.float32) / 255
    sums = np.concatenate([np.zeros_like(small[:1]), small.cumsum(0)])  # (SIDE + 1, SIDE, 3)
    rows = np.arange(round(HIGHEST * SIDE), round(LOWEST * SIDE) + 1)
    steps = (2 * sums[rows] - sums[rows - REACH] - sums[rows + REACH]) / REACH  # (rows, SIDE, 3)
    mean = steps.mean(1, keepdims=True)
    size = np.linalg.norm(mean, axis=2)  # (rows, 1)
    agree = (np.linalg.norm(steps - mean, axis=2) < size / 2).mean(1)  # (rows)
    return float(np.where(size[:, 0] > STEP, agree, 0).max())
