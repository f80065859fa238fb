"""infer/painting/steady.py: films of a real painting do not flicker, and show nothing that is no longer there."""

from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import shift
from skimage.data import astronaut

import shihua
from infer.painting.steady import STILL, Steady, find_move, overlap

SIDE = 96


@pytest.fixture(scope="module")
def painter() -> shihua.Painter:
    return shihua.Painter()


def photograph(side: int) -> np.ndarray:
    return np.array(Image.fromarray(astronaut()[:300, 60:360]).resize((side, side), Image.Resampling.BOX))


def film(step: float, frames: int, noise: float = 2) -> Iterator[np.ndarray]:
    """A camera that moves down and right by so many pixels a frame, and is as noisy as cameras are."""
    random = np.random.default_rng(0)
    scene = photograph(SIDE + 80).astype(np.float32)
    for number in range(frames):
        moved = shift(scene, (-number * step, -number * step, 0), order=1)[:SIDE, :SIDE]
        yield np.clip(moved + random.normal(0, noise, moved.shape), 0, 255).round().astype(np.uint8)


def flicker(paintings: list[np.ndarray], step: int) -> float:
    """By how many grey levels a painting changes where the picture only moves."""
    pairs = [overlap(a, b, (-step, -step)) for a, b in zip(paintings, paintings[1:], strict=False)]
    return float(np.mean([np.abs(a.astype(int) - b).mean() for a, b in pairs]))


@pytest.mark.parametrize("step", [0, 2])
def test_strokes_stay_and_are_as_strong(painter, step):
    steady = Steady()
    photos = list(film(step, 8))
    fresh = [np.asarray(painter.paint(photo, style="starry_night")) for photo in photos]
    kept = [steady(photo, painting) for photo, painting in zip(photos, fresh, strict=True)]
    assert flicker(kept, step) < 0.4 * flicker(fresh, step) and flicker(fresh, step) > 3
    assert np.mean([k.std() for k in kept]) > 0.97 * np.mean([f.std() for f in fresh])


def test_what_a_pan_brings_in_is_of_one_painting():
    """Numbered paintings: a place has the number of the frame that it stays from."""
    steady, moved = Steady(), 4
    for number, photo in enumerate(film(moved, 20, noise=0)):
        painting = steady(photo, np.full_like(photo, 10 * number))
    for side in (painting[4, :, 0], painting[:, 4, 0]):  # along a row and down a column
        assert (side[8:] == side[:-8]).mean() > 0.3  # not one painting for every 4 pixels
        assert side[0] == 0 and side[-1] == 190


def test_another_scene_is_painted_anew():
    steady, scene = Steady(), photograph(SIDE)
    steady(scene, np.full_like(scene, 10))
    cut = steady(255 - scene[::-1], np.full_like(scene, 200))
    assert (cut == 200).mean() > 0.97
    small = scene[:40, :50]  # another size: another film
    assert (steady(small, np.full_like(small, 90)) == 90).all()


def test_what_moves_before_a_camera_at_rest_is_painted_anew():
    """A square that moves: there the painting is that of the frame; all else stays as it was at first."""
    steady, scene = Steady(), photograph(SIDE)
    for number in range(STILL):
        photo = scene.copy()
        top = 10 + 5 * number
        photo[top : top + 12, 30:42] = 255 - scene[top : top + 12, 30:42] // 2
        painting = steady(photo, np.full_like(photo, 20 * number))
    assert (painting[top + 3 : top + 9, 33:39] == 20 * (STILL - 1)).mean() > 0.9
    assert (painting[:, 60:] == 0).all()


def test_what_changes_slowly_is_followed():
    """A day that darkens by a level a frame: what stays is never further than OTHER from what is there."""
    steady, scene = Steady(), photograph(SIDE) // 2 + 100
    for number in range(40):
        photo = scene - number
        painting = steady(photo, photo)
    assert np.abs(painting.astype(int) - photo).mean() < 8


@pytest.mark.parametrize("move", [(0, 0), (3, -7), (-20, 11)])
def test_a_move_is_found(move):
    scene = photograph(SIDE + 60)
    before = scene[30 : 30 + SIDE, 30 : 30 + SIDE]
    now = scene[30 - move[0] : 30 - move[0] + SIDE, 30 - move[1] : 30 - move[1] + SIDE]
    assert find_move(before, now) == move
    a, b = overlap(before, now, move)
    assert np.array_equal(a, b) and a.shape == (SIDE - abs(move[0]), SIDE - abs(move[1]), 3)
