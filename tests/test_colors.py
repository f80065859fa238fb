"""infer/painting/colors.py: blending, keeping colours, masks, grading."""

import numpy as np
import pytest
import torch

import infer.painting.colors
from infer.painting.colors import blend, grade, stylize
from tests.painting import invert, noise


@pytest.mark.parametrize("weight", [0, 0.3, 0.5, 1])
def test_a_blend_is_rounded_and_exact_at_both_ends(weight):
    photo, painting = noise()[None], noise(seed=1)[None]
    expected = np.floor(photo + weight * (painting.astype(float) - photo) + 0.5)
    result = blend(photo, painting, weight)
    assert result is painting and np.abs(result - expected).max() <= (0 if weight in (0, 1) else 1)
    assert (result != expected).mean() < 0.01  # what is just a half may be rounded to either side


def test_keep_color_takes_brightness_alone_from_the_painting():
    photos = noise(40, 50, low=90, high=160)[None]  # nothing here is clipped
    painting = np.stack([noise(40, 50, 1)[..., :1] // 4 + 90] * 3, -1).reshape(1, 40, 50, 3).astype(np.uint8)
    result = stylize(photos, lambda rgb, progress: painting.copy(), keep_color=True)
    to_ycbcr = np.array(
        [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
    )  # JFIF 1.02, page 3
    of_result, of_photo, of_painting = (x[0].astype(float) @ to_ycbcr.T for x in (result, photos, painting))
    assert np.abs(of_result - of_photo)[..., 1:].max() <= 0.6 and np.ptp((of_result - of_painting)[..., 0]) <= 1.2
    assert abs((of_result - of_photo)[..., 0].mean()) <= 0.1  # as bright as the photograph


def test_keep_color_of_a_grey_photo_is_grey_and_clamps():
    photos = np.array([0, 128, 255], np.uint8).reshape(1, 1, 3, 1).repeat(3, 3)
    painting = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0]], np.uint8).reshape(1, 1, 3, 3)
    result = stylize(photos, lambda rgb, progress: painting.copy(), keep_color=True)
    assert result[0, 0].tolist() == [[17, 17, 17], [255, 255, 255], [93, 93, 93]]  # 17 brighter on average


def test_a_mask_keeps_what_is_black_pixel_for_pixel():
    photos = np.stack([noise(40, 60), noise(40, 60, 1)])
    mask = np.zeros((40, 60), np.uint8)
    mask[:, 20:40], mask[:, 40:] = 128, 255
    result = stylize(photos, invert, mask=mask)
    assert np.array_equal(result[:, :, :20], photos[:, :, :20])
    assert np.array_equal(result[:, :, 40:], 255 - photos[:, :, 40:])
    expected = photos[:, :, 20:40] * (127 / 255) + (255.0 - photos[:, :, 20:40]) * (128 / 255)
    assert np.abs(result[:, :, 20:40] - expected).max() <= 0.51


def test_strips_make_no_difference(monkeypatch):
    photos, mask = noise(50, 31)[None], noise(50, 31, 1)[..., 0]
    painting = noise(50, 31, 2)[None]
    whole = stylize(photos, lambda rgb, progress: painting.copy(), True, mask)
    monkeypatch.setattr(infer.painting.colors, "STRIP", 100)
    assert np.array_equal(stylize(photos, lambda rgb, progress: painting.copy(), True, mask), whole)


def test_a_graded_picture_has_all_the_brightness_and_stronger_colours():
    dull = 0.4 + 0.1 * torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    luma = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    for chroma in (0.0, 1.7):
        graded = grade(dull, chroma)
        grey, before = (graded * luma).sum(1), (dull * luma).sum(1)
        assert grey.quantile(0.01).item() == pytest.approx(0.06, abs=0.01)
        assert grey.quantile(0.99).item() == pytest.approx(0.95, abs=0.01)
        inside = ((graded > 0) & (graded < 1)).all(1)
        colours = (graded - grey[:, None]).abs().sum(1)[inside], (dull - before[:, None]).abs().sum(1)[inside]
        torch.testing.assert_close(colours[0], chroma * colours[1], atol=1e-4, rtol=1e-3)
