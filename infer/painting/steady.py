"""Films whose strokes stay: what the camera's picture shows again is painted again as it was, not anew.

A network paints each frame by itself, and its strokes are not tied to what they lie on: a picture that moves by a pixel
gets others, and the film flickers. So a frame takes over the painting of the one before, moved as the picture has moved
(a pan; zooms and turns are painted anew), wherever it shows what that painting was made from. Optical flow would follow
more (Ruder et al. 2016), at many times the cost.

Shapes: H x W pixels; pictures are uint8 (H, W, 3).
"""

import numpy as np
import torch
from PIL import Image, ImageFilter

SAME, OTHER = 3, 8  # grey levels: up to the first a place has not changed, from the second on it has
NEAR = 2  # pixels around a place that have a say: noise is not a change
STRIP = 32  # pixels: what a pan brings in is painted anew with each frame until it is so wide. Lines of many paintings,
# each a pixel or two, would be no strokes.
STILL = 12  # frames of a camera at rest, after which what has changed stays as it is painted then
SEAM = 8  # pixels in which what stays goes over into what is new


class Steady:
    """Gives each frame's painting what is still true of the ones before. Called with one frame after the other."""

    def __init__(self):
        self.photo: np.ndarray | None = None  # what the last painting is a painting of: it may come from many frames
        self.painting: np.ndarray | None = None

    def _begin(self) -> None:
        """From now on all places stay."""
        self.stays = np.ones(self.photo.shape[:2], bool)  # the places that are not painted anew
        self.moved, self.frames = np.zeros(2, int), 0  # since then: rows and columns; frames

    def __call__(self, photo: np.ndarray, painting: np.ndarray) -> np.ndarray:
        """The painting (H, W, 3) of a frame (H, W, 3), with the strokes that stay."""
        if self.photo is None or self.photo.shape != photo.shape:
            self.photo, self.painting = photo, painting
            self._begin()
            return painting
        moves = {(0, 0), find_move(self.photo, photo)}
        by_move = {move: same(*overlap(self.photo, photo, move)) for move in moves}
        move, unchanged = max(by_move.items(), key=lambda item: item[1].sum())  # unchanged (h, w)
        stays = np.zeros(photo.shape[:2], bool)
        old, new = overlap(self.stays, stays, move)
        new[:] = old & (unchanged > 0.5)
        inside = np.asarray(Image.fromarray(old.astype(np.uint8) * 255).filter(ImageFilter.BoxBlur(SEAM)))
        share = unchanged * np.clip(inside / 127.5 - 1, 0, 1, dtype=np.float32)
        self.stays = stays
        # The photograph too: what changes slowly would never be painted anew.
        self.photo = _mix(self.photo, photo, move, share)
        self.painting = _mix(self.painting, painting, move, share)
        self.moved, self.frames = self.moved + move, self.frames + 1
        if abs(self.moved).max() >= STRIP or (self.frames >= STILL and not self.moved.any()):
            self._begin()
        return self.painting


def _mix(before: np.ndarray, now: np.ndarray, move: tuple[int, int], share: np.ndarray) -> np.ndarray:
    """`now` (H, W, 3) with a share (h, w) of what `before` has, moved."""
    result = now.copy()
    old, new = overlap(before, result, move)
    new[:] = new + share[..., None] * (old.astype(np.float32) - new) + 0.5  # rounded when cut off
    return result


def find_move(before: np.ndarray, now: np.ndarray) -> tuple[int, int]:
    """By how many rows and columns a picture (H, W, 3) has moved: phase correlation (Kuglin & Hines 1975)."""
    height, width = now.shape[:2]
    # Without the window the edges would be seen, which do not move.
    window = torch.hann_window(height)[:, None] * torch.hann_window(width)  # (H, W)
    greys = [torch.from_numpy(picture.mean(2, dtype=np.float32)) for picture in (before, now)]
    was, has = (torch.fft.rfft2((grey - grey.mean()) * window) for grey in greys)  # (H, W / 2 + 1)
    cross = has * was.conj()
    found = torch.fft.irfft2(cross / cross.abs().clamp(min=1e-6), (height, width))
    down, right = divmod(int(found.argmax()), width)
    return down - height * (2 * down > height), right - width * (2 * right > width)


def overlap(before: np.ndarray, now: np.ndarray, move: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Views of the part of two pictures that both show, if the second one has moved by so many rows and columns."""
    sides = list(zip(move, now.shape, strict=False))
    was = tuple(slice(max(0, -m), side - max(0, m)) for m, side in sides)
    has = tuple(slice(max(0, m), side - max(0, -m)) for m, side in sides)
    return before[was], now[has]


def same(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """(H, W) from 0, where two pictures differ, to 1, where they are the same but for noise."""
    difference = np.abs(before.astype(np.int16) - now).mean(2).astype(np.uint8)
    difference = np.asarray(Image.fromarray(difference).filter(ImageFilter.BoxBlur(NEAR)))
    table = np.clip((OTHER - np.arange(256, dtype=np.float32)) / (OTHER - SAME), 0, 1)
    return table[difference]
