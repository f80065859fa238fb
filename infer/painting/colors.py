"""Colours of paintings: blending, keeping those of the photograph, grading dull scans.

Shapes: N pictures, H x W pixels.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image
from torch import Tensor

from utils.errors import UserError

Progress = Callable[[float], object]  # is told the share of the work that is done
Paint = Callable[[np.ndarray, Progress], np.ndarray]  # (N, H, W, 3) uint8 -> the same, painted
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of R, G, B (ITU-R BT.601, the Y of JPEG)
GRADED = 0.06, 0.95  # brightness of the darkest and the lightest places of a graded picture
STRIP = 1 << 20  # pixels to work on at a time: the copies of a strip are small


def ignore(share: float) -> None:
    """Progress that nobody asks for."""


def part_of(progress: Progress, start: int, whole: int, size: int = 1) -> Progress:
    """The progress of a part of the work: `size` units of the `whole`, after the first `start`."""
    return lambda share: progress((start + share * size) / whole)


def stylize(
    rgb: np.ndarray,
    paint: Paint,
    keep_color: bool = False,
    mask: np.ndarray | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Paints pictures (N, H, W, 3) uint8 -> (N, H, W, 3) uint8.

    `keep_color` takes the luminance from the painting, its mean and the colours from the photograph (Gatys et al. 2016,
    Preserving Color in Neural Artistic Style Transfer, section 4). `mask` (h, w) uint8, resized to the picture, is the
    painting's share: where it is 0 the photograph stays as it is. Raises UserError if there is not enough memory.
    """
    try:
        painting = paint(rgb, progress or ignore)
    except (MemoryError, RuntimeError) as error:
        if "memory" not in str(error) and not isinstance(error, MemoryError):
            raise
        size = f"{rgb.shape[2]} x {rgb.shape[1]}"
        raise UserError(f"out of memory at {size} pixels: give a smaller memory_limit, or max_side") from error
    if keep_color:
        keep_colors(rgb, painting)
    if mask is not None:
        mask = np.asarray(Image.fromarray(mask).resize(rgb.shape[2:0:-1], Image.Resampling.BILINEAR))  # (H, W)
        blend(rgb, painting, mask.astype(np.float32) / 255)
    return painting


def blend(photo: np.ndarray, painting: np.ndarray, weight: float | np.ndarray) -> np.ndarray:
    """photo + weight (painting - photo), written into `painting`; both (N, H, W, 3) uint8; exact at weights 0 and 1.

    `weight` is in 0..1: a number, or (H, W).
    """
    if isinstance(weight, float | int) and weight == 1:
        return painting
    weight = np.broadcast_to(np.float32(weight), photo.shape[1:3])
    for one, other, strip in _strips(photo, painting):
        other[:] = one + weight[strip, :, None] * (other.astype(np.float32) - one) + np.float32(0.5)
    return painting


def keep_colors(photo: np.ndarray, painting: np.ndarray) -> None:
    """Gives the painting the photograph's Cb and Cr, and its mean Y, in place; both (N, H, W, 3) uint8.

    Cb and Cr are multiples of B - Y and R - Y, so all three channels of the photograph move by the difference in Y.
    """
    for number in range(len(photo)):
        pair = photo[number : number + 1], painting[number : number + 1]
        brighter = sum((other.astype(np.float64) - one).sum((0, 1)) @ LUMA for one, other, _ in _strips(*pair))
        brighter = np.float32(brighter / photo[number, ..., 0].size)
        for one, other, _ in _strips(*pair):
            difference = other @ LUMA - one @ LUMA - brighter  # (h, W)
            other[:] = np.clip(one + difference[..., None] + 0.5, 0, 255)


def _strips(photo: np.ndarray, painting: np.ndarray):
    """(part of a photograph, that of its painting, which rows it has) of each strip of each picture."""
    rows = max(1, STRIP // photo.shape[2])
    for one, other in zip(photo, painting, strict=True):
        for y in range(0, len(one), rows):
            strip = slice(y, y + rows)
            yield one[strip], other[strip], strip


def grade(picture: Tensor, chroma: float = 1.0) -> Tensor:
    """(1, 3, H, W) in 0..1 -> the same, brightness stretched to GRADED, colours `chroma` times as strong.

    For dull scans: what has little contrast itself teaches a painter grey on grey.
    """
    brightness = (picture * picture.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    low, high = brightness.quantile(picture.new_tensor([0.01, 0.99]))
    (darkest, lightest), colours = GRADED, picture - brightness
    stretch = (lightest - darkest) / (high - low).clamp(min=1e-3)
    return (darkest + (brightness - low) * stretch + chroma * colours).clamp(0, 1)
