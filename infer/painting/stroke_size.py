"""How large the strokes of a painting are, whatever the size of the picture.

A network's strokes have a size in pixels: they are large in a small picture and a fine pattern in a large one. So a
picture is painted at the size that gives the strokes wanted, and once more at its own, which has the finest detail.
Shapes: N pictures, H x W pixels.
"""

import numpy as np
from PIL import Image

from infer.painting.colors import STRIP, Paint, Progress
from utils.errors import UserError, did_you_mean

MEDIUM = 640  # pixels: longer side at which the strokes are of medium size
NAMED = {"fine": 0.5, "medium": 1.0, "large": 1.6}
LARGEST = 4.0
ALIKE = 1.1  # by how much a picture may be larger or smaller than wanted, to be painted as it is
MARGIN = 24  # pixels that a picture is continued by before it is painted: at its edges networks paint dots and bars


def choose_stroke(text: str) -> float:
    """The size of the strokes by that of medium ones, of "fine", "medium", "large" or a number.

    Raises UserError for another word, and for a number beyond 0, the picture's own size, to LARGEST.
    """
    try:
        size = NAMED[text] if text in NAMED else float(text)
    except ValueError:
        known = f"{', '.join(NAMED)}, or a number by which strokes are larger than medium ones"
        raise UserError(f"must be {known}{did_you_mean(text, NAMED)}", stroke=text) from None
    if not 0 <= size <= LARGEST:
        raise UserError(f"must lie between 0, the strokes of the picture's own size, and {LARGEST:g}", stroke=text)
    return size


def paint_with_strokes(rgb: np.ndarray, paint: Paint, stroke: float, progress: Progress) -> np.ndarray:
    """(N, H, W, 3) uint8 -> the same, painted with strokes `stroke` times as large as medium ones.

    0 paints as the network does, edges included. A smaller picture is enlarged, painted and reduced. A larger one is
    painted twice: from the painting of the reduced picture come all forms that there is room for in it, from that of
    the picture itself what is finer.
    """
    if not stroke:
        return paint(rgb, progress)
    height, width = rgb.shape[1:3]
    factor = MEDIUM / stroke / max(height, width)
    if 1 / ALIKE <= factor <= ALIKE:
        return _with_margin(rgb, paint, progress)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    if factor > 1:
        return resize(_with_margin(resize(rgb, size), paint, progress), (width, height))
    coarse_share = factor**2 / (1 + factor**2)  # of the work
    coarse = _with_margin(resize(rgb, size), paint, lambda share: progress(coarse_share * share))
    fine = _with_margin(rgb, paint, lambda share: progress(coarse_share + (1 - coarse_share) * share))
    difference = coarse.astype(np.float32) - resize(fine, size)
    for picture, change in zip(fine, difference, strict=True):
        add_enlarged(picture, change)
    return fine


def _with_margin(rgb: np.ndarray, paint: Paint, progress: Progress) -> np.ndarray:
    sides = ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0))
    return paint(np.pad(rgb, sides, mode="symmetric"), progress)[:, MARGIN:-MARGIN, MARGIN:-MARGIN]


def resize(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(N, H, W, 3) uint8 -> (N, h, w, 3) uint8 for the size (w, h)."""
    return np.stack([np.asarray(Image.fromarray(one).resize(size, Image.Resampling.LANCZOS)) for one in rgb])


def add_enlarged(picture: np.ndarray, change: np.ndarray) -> None:
    """Adds `change` (h, w, 3) float32, enlarged bicubically, to the `picture` (H, W, 3) uint8, in place."""
    height, width = picture.shape[:2]
    rows = max(1, STRIP // width)
    channels = [Image.fromarray(np.ascontiguousarray(change[..., c])) for c in range(3)]
    for top in range(0, height, rows):
        strip = picture[top : top + rows]
        bottom = top + len(strip)
        box = (0, top * change.shape[0] / height, change.shape[1], bottom * change.shape[0] / height)
        for c, channel in enumerate(channels):
            more = np.asarray(channel.resize((width, len(strip)), Image.Resampling.BICUBIC, box))
            strip[..., c] = np.clip(strip[..., c] + more + 0.5, 0, 255)
