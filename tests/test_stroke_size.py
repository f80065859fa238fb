"""How large strokes are: sizes against a painter that is only a measure of the size it is given."""

import numpy as np
import pytest
from PIL import Image

from infer.painting.colors import ignore
from infer.painting.stroke_size import MARGIN, MEDIUM, add_enlarged, choose_stroke, paint_with_strokes, resize
from utils.errors import UserError


def picture(height: int, width: int, count: int = 1) -> np.ndarray:
    """Smooth random pictures (count, height, width, 3)."""
    noise = np.random.default_rng(0).integers(0, 256, (count, 9, 12, 3), np.uint8)
    return resize(noise, (width, height))


@pytest.mark.parametrize("text, size", [("fine", 0.5), ("medium", 1), ("large", 1.6), ("0", 0), ("2.5", 2.5)])
def test_strokes_are_named_or_numbers(text, size):
    assert choose_stroke(text) == size


@pytest.mark.parametrize("text, words", [("medum", "did you mean medium"), ("-1", "between 0"), ("nan", "between 0")])
def test_other_strokes_are_refused(text, words):
    with pytest.raises(UserError, match=words) as error:
        choose_stroke(text)
    assert error.value.argument == "stroke"


@pytest.mark.parametrize(
    "side, stroke, sides",
    [
        (512, 0.0, [512]),
        (MEDIUM, 1.0, [MEDIUM]),
        (600, 1.0, [600]),  # nearly that
        (160, 1.0, [MEDIUM]),
        (1280, 1.0, [MEDIUM, 1280]),
        (1280, 0.5, [1280]),
        (1280, 2.0, [MEDIUM / 2, 1280]),
    ],
)
def test_a_picture_is_painted_at_the_size_of_the_strokes(side, stroke, sides):
    seen, shares = [], []

    def paint(rgb, progress):
        seen.append(max(rgb.shape[1:3]) - (2 * MARGIN if stroke else 0))
        progress(0.5), progress(1.0)
        return rgb.copy()

    rgb = picture(side // 2, side)
    painting = paint_with_strokes(rgb, paint, stroke, shares.append)
    assert seen == sides and painting.shape == rgb.shape
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1)
    assert np.abs(painting.astype(int) - rgb).max() <= 2  # paints nothing: the picture itself comes out


def test_forms_come_from_the_reduced_painting_and_detail_from_the_whole_one():
    """Coarse stripes that only the painting of the reduced picture has, fine ones that only the other one has."""
    x = np.arange(1280)
    coarse, fine = 40 * np.sin(x / 2 * 2 * np.pi / 80), 40 * np.sin(x * 2 * np.pi / 3)

    def paint(rgb, progress):
        width = rgb.shape[2]
        stripes = coarse[::2] if width == MEDIUM + 2 * MARGIN else fine
        return np.broadcast_to(128 + np.pad(stripes, MARGIN)[None, None, :, None], rgb.shape).astype(np.uint8)

    grey = np.full((1, 64, 1280, 3), 128, np.uint8)
    row = paint_with_strokes(grey, paint, 1.0, ignore)[0, 32, :, 0].astype(float) - 128
    expected = np.interp(x, x[::2] + 0.5, coarse[::2]) + fine
    assert np.corrcoef(row, expected)[0, 1] > 0.98


@pytest.mark.parametrize("size", [(37, 53), (300, 401), (2100, 900)])
def test_a_change_is_enlarged_without_seams(monkeypatch, size):
    """In strips what Pillow gives in one piece."""
    monkeypatch.setattr("infer.painting.stroke_size.STRIP", 5000)
    change = np.random.default_rng(1).normal(0, 9, (23, 31, 3)).astype(np.float32)
    rgb = np.full((*size, 3), 128, np.uint8)
    add_enlarged(rgb, change)
    for c in range(3):
        whole = np.asarray(Image.fromarray(change[..., c].copy()).resize(size[::-1], Image.Resampling.BICUBIC))
        assert np.abs(rgb[..., c] - np.clip(128 + whole, 0, 255)).max() <= 0.51


@pytest.mark.parametrize("size", [(1, 1), (3, 700), (640, 2)])
def test_the_edges_are_painted_as_the_rest(size):
    """A painter that spoils what is near its edges spoils nothing that is left, in the thinnest pictures, too."""

    def paint(rgb, progress):
        painting = np.zeros_like(rgb)
        painting[:, MARGIN:-MARGIN, MARGIN:-MARGIN] = 200
        return painting

    assert (paint_with_strokes(np.zeros((1, *size, 3), np.uint8), paint, 1.0, ignore) == 200).all()
