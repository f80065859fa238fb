"""models/strokes.py: what the eye sees in a painting, on pictures of which the answer is known."""

import math

import pytest
import torch
from torch import Tensor, nn

from models.strokes import (
    band,
    blur,
    calm_places,
    correlation,
    flicker,
    largest_normalised,
    likeness,
    same_texture,
    strokes,
)
from models.transformer_net import InstanceNorm, TransformerNet


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def waves(height: int, width: int, period: float, strength: float = 0.2) -> Tensor:
    """(1, 3, H, W), grey stripes."""
    columns = torch.arange(width) * 2 * math.pi / period
    return (0.5 + strength * columns.sin()).expand(1, 3, height, width).clone()


def test_a_blurred_point_is_a_gaussian():
    picture = torch.zeros(1, 1, 41, 41)
    picture[0, 0, 20, 20] = 1
    blurred = blur(picture, 2.0)[0, 0]
    assert blurred.sum().item() == pytest.approx(1, abs=1e-5)
    assert blurred[20, 20].item() == pytest.approx(1 / (2 * math.pi * 4), rel=0.02)
    assert blurred[20, 22].item() == pytest.approx(blurred[20, 20].item() * math.exp(-0.5), rel=1e-3)
    torch.testing.assert_close(blurred, blurred.T)


@pytest.mark.parametrize("size", [(5, 9), (64, 40)])
def test_what_is_even_stays_as_it_is(size):
    """At the edges, too, and where the picture is smaller than the Gaussian."""
    even = torch.full((2, 3, *size), 0.3)
    torch.testing.assert_close(blur(even, 8.0), even)
    assert band(even, 4, 8).abs().max() < 1e-6


def test_a_band_holds_waves_of_its_size():
    """A wave of frequency w is exp(-(w s)^2 / 2) as strong after a blur by s."""
    period = 20.0
    wave, frequency = waves(60, 200, period), 2 * math.pi / period
    expected = math.exp(-((2 * frequency) ** 2) / 2) - math.exp(-((4 * frequency) ** 2) / 2)
    inside = band(wave, 2, 4)[..., 40:160]
    assert inside.max().item() == pytest.approx(0.2 * expected, rel=0.02)


def test_the_calm_third_is_the_one_without_detail():
    photo = 0.5 + 0.4 * (noise(1, 3, 90, 120) - 0.5)
    photo[..., :44] = torch.linspace(0.45, 0.55, 90)[:, None]  # a sky: light and shade, but no detail
    places = calm_places(photo)
    assert places.shape == (90, 120) and places.float().mean().item() == pytest.approx(1 / 3, abs=0.01)
    assert places[20:-20, :20].all() and places[:, 60:].float().mean() < 0.02


def test_strokes_are_counted_in_calm_places_and_by_those_of_the_style():
    style, places = noise(1, 3, 80, 80), torch.zeros(80, 80, dtype=torch.bool)
    places[:, :40] = True
    half = 0.5 + (style - 0.5) / 2
    assert strokes(style, torch.ones_like(places), style) == pytest.approx([1, 1, 1, 1])
    assert strokes(half, torch.ones_like(places), style) == pytest.approx([0.5] * 4, rel=1e-4)
    half[..., 40:] = 0.5  # there it does not matter
    outside = strokes(half, places, style)
    assert outside[0] == pytest.approx(0.5, rel=0.05)
    assert strokes(torch.full_like(style, 0.5), places, style) == pytest.approx([0] * 4, abs=1e-4)


def test_correlation_by_hand():
    """Deviations (-1, 0, 1) and (-1, 1, 0): 1 / 2."""
    assert correlation(torch.tensor([1.0, 2, 3]), torch.tensor([4.0, 6, 5])) == pytest.approx(0.5)
    assert correlation(torch.ones(3), torch.tensor([1.0, 2, 3])) == 0


def test_likeness_is_of_forms_alone():
    photo = blur(noise(1, 3, 96, 96), 5)
    photo = 0.5 + 4 * (photo - 0.5)
    assert likeness(photo, photo) == pytest.approx(1)
    assert likeness(1 - photo, photo) == pytest.approx(-1)
    assert likeness(0.3 * photo + 0.02 * noise(1, 3, 96, 96, seed=1), photo) > 0.95  # darker, duller, with a fine hatch
    assert abs(likeness(blur(noise(1, 3, 96, 96, seed=2), 5), photo)) < 0.4


def test_paintings_with_the_same_hatch_are_found_out():
    hatch, places = noise(1, 3, 64, 64), torch.ones(64, 64, dtype=torch.bool)
    red = torch.tensor([0.9, 0.2, 0.1]).view(1, 3, 1, 1) + 0.2 * hatch
    blue = torch.tensor([0.1, 0.2, 0.9]).view(1, 3, 1, 1) + 0.4 * hatch
    other = torch.tensor([0.1, 0.2, 0.9]).view(1, 3, 1, 1) + 0.4 * noise(1, 3, 64, 64, seed=3)
    (_, alike, unlike), *_ = same_texture([red, blue, other], places)
    assert alike == pytest.approx(1, abs=1e-4) and abs(unlike) < 0.1


class Fixed(nn.Module):
    """Paints by one rule, and has normalisations to look at."""

    def __init__(self, rule):
        super().__init__()
        self.rule, self.norm = rule, InstanceNorm(3)

    @property
    def norms(self):
        return [self.norm]

    def forward(self, image):
        self.norm(image)
        return {"image": self.rule(image)}


def test_flicker_is_what_does_not_move_with_the_photograph():
    photo = noise(1, 3, 32, 40)
    negative = Fixed(lambda image: 1 - image)
    assert flicker(negative, photo, 1 - photo) == pytest.approx(0, abs=1e-4)
    columns = (torch.arange(40) % 4 < 2).float()  # stripes that stay where they are: a move of 2 turns them over
    striped = Fixed(lambda image: columns[: image.shape[3]].expand_as(image))
    assert flicker(striped, photo, columns.expand_as(photo)) == pytest.approx(255)


def test_the_largest_normalised_value_is_that_of_a_spot():
    """One of n pixels is (n - 1) / sqrt(n - 1) standard deviations from the mean of what is even otherwise."""
    photo = torch.zeros(1, 3, 10, 10)
    photo[0, 1, 4, 4] = 1
    assert largest_normalised(Fixed(lambda image: image), photo) == pytest.approx(99**0.5, rel=1e-3)
    torch.manual_seed(0)
    model = TransformerNet((4, 6, 8), blocks=1)
    with torch.no_grad():
        before = model(noise(1, 3, 32, 32))["image"]
        assert 2 < largest_normalised(model, noise(1, 3, 32, 32)) < 40
        assert torch.equal(before, model(noise(1, 3, 32, 32))["image"])  # the hooks are gone
