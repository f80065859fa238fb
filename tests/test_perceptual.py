"""models/perceptual.py: clouds of features and losses against plain formulas; what perfect and empty pictures cost."""

from math import pi, sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from models.loss_networks import FeatureNetwork
from models.perceptual import (
    CONTENT_FLOOR,
    CONTENT_LAYER,
    STYLE_LAYERS,
    PerceptualLoss,
    draw,
    sliced_wasserstein,
    spread_out,
    total_variation,
)
from tests.test_loss_networks import weight_file
from utils.errors import UserError

SHARED = Path(__file__).parents[2] / "shared" / "weights"


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def squeezenet(tmp_path_factory) -> str:
    """A file with random weights."""
    return str(weight_file(tmp_path_factory.mktemp("weights"), "squeezenet")[0])


@pytest.fixture(scope="module")
def loss(squeezenet) -> PerceptualLoss:
    """Against three style pictures of different sizes."""
    return PerceptualLoss("squeezenet", styles(), squeezenet)


def styles() -> list[Tensor]:
    return [random(1, 3, 40, 52, seed=1), random(1, 3, 33, 64, seed=2) ** 3, random(1, 3, 64, 64, seed=3) / 2]


# -------------------------------------------------------------------------------------------------------- clouds


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_one_pixel_is_drawn_of_each_part(layout):
    """Of 24 pixels, 8 drawn: one of the first three, one of the next three …; of 5, 100 drawn: each twenty times."""
    maps = torch.arange(2 * 3 * 24.0).view(2, 3, 4, 6).contiguous(memory_format=layout)
    drawn = draw(maps, spread_out(8))  # (B, N, C)
    assert drawn.shape == (2, 8, 3)
    assert torch.equal(drawn[..., 0] // 3, torch.arange(8).expand(2, 8) + torch.tensor([[0], [24]]))
    assert torch.equal(drawn - drawn[..., :1], torch.tensor([0.0, 24, 48]).expand(2, 8, 3))
    many = draw(torch.arange(5.0).view(1, 1, 1, 5), spread_out(100)).long()
    assert torch.bincount(many.flatten()).tolist() == [20] * 5
    assert draw(maps.half(), spread_out(8)).dtype == torch.float32


def test_pixels_of_some_places():
    """As often as the places say, which may be those of a picture of twice the size; never where they say 0."""
    maps = torch.arange(12.0).view(1, 1, 3, 4)
    places = torch.zeros(1, 1, 6, 8)
    places[..., 2:4, 2:6] = 1  # pixels 5 and 6
    places[..., 4, 6] = 1  # a quarter of pixel 11
    drawn = draw(maps, spread_out(9000), places)
    counts = torch.bincount(drawn.long().flatten(), minlength=12)
    assert counts.sum() == 9000 and counts.nonzero().flatten().tolist() == [5, 6, 11]
    assert counts[[5, 6, 11]].tolist() == pytest.approx([4000, 4000, 1000], abs=2)


def test_sliced_wasserstein_is_the_cheapest_way_to_move_points():
    """Along each direction by SciPy's solver of assignments; the order of the points does not matter."""
    x, y = random(2, 12, 3), 2 * random(2, 12, 3, seed=1)
    directions = F.normalize(random(3, 5, seed=2) - 0.5, dim=0)
    found = sliced_wasserstein(x, y[:, torch.randperm(12)], directions)
    for one, other, value in zip(x @ directions, y @ directions, found, strict=True):
        costs = [(a[:, None] - b[None]).square().numpy() for a, b in zip(one.T, other.T, strict=True)]
        assert value.item() == pytest.approx(np.mean([c[linear_sum_assignment(c)].mean() for c in costs]), rel=1e-5)
    assert sliced_wasserstein(x, x.flip(1), directions).tolist() == [0, 0]
    with pytest.raises(ValueError, match="two clouds"):
        sliced_wasserstein(x, y[:, 1:], directions)


def test_sliced_wasserstein_sees_what_covariances_do_not():
    """A cloud of -1 and 1, and a Gaussian one, have the same mean and variance: E(|z| - 1)² = 2 - 2 √(2/π)."""
    z = torch.distributions.Normal(0, 1).icdf((torch.arange(10000) + 0.5) / 10000)[None, :, None]  # (1, N, 1)
    assert z.var() == pytest.approx(1, abs=1e-3)
    found = sliced_wasserstein(z, torch.cat([z[:, :5000] * 0 - 1, z[:, 5000:] * 0 + 1], 1), torch.ones(1, 1))
    assert found.item() == pytest.approx(2 - 2 * sqrt(2 / pi), rel=1e-3)


def test_gradient_of_sliced_wasserstein():
    x, y = random(2, 6, 3).double().requires_grad_(), random(2, 6, 3, seed=1).double()
    directions = F.normalize(random(3, 4, seed=2).double() - 0.5, dim=0)
    assert torch.autograd.gradcheck(lambda points: sliced_wasserstein(points, y, directions), x)


# ------------------------------------------------------------------------------------------------------- losses


def layers_of(network: str) -> list[str]:
    return [CONTENT_LAYER[network], *(layer for layers in STYLE_LAYERS[network] for layer in layers)]


def plain_distance(ours: Tensor, target: Tensor) -> float:
    """Of all pixels (C, P) and (C, Q), along two thousand directions, in units of the target's variance."""
    directions = F.normalize(torch.randn(2000, len(ours), generator=torch.Generator().manual_seed(5)), dim=1)
    a, b = ((directions @ points).numpy() for points in (ours, target))  # (K, P), (K, Q)
    shares = (np.arange(3000) + 0.5) / 3000
    a, b = (np.quantile(points, shares, axis=1, method="inverted_cdf") for points in (a, b))
    return ((a - b) ** 2).mean() / target.var(1).mean().item()


def plain_loss(network: FeatureNetwork, picture: Tensor, photo: Tensor, style: Tensor) -> tuple[float, float]:
    """(content, style) of one picture, as the docstring says."""
    images = picture, photo, style
    halves, quarters = ([F.interpolate(x, scale_factor=1 / factor, mode="area") for x in images] for factor in (2, 4))
    quarters = [F.pad(x, (0, max(0, 17 - x.shape[3]), 0, max(0, 17 - x.shape[2])), mode="replicate") for x in quarters]
    ours, theirs = (network(x)[CONTENT_LAYER["squeezenet"]] for x in halves[:2])
    content = (ours - theirs).square().mean() / theirs.square().mean()
    distances, colours = [], []
    for layers, (ours, _, target) in zip(STYLE_LAYERS["squeezenet"], (images, halves, quarters), strict=True):
        features = network(ours), network(target)
        distances += [plain_distance(*(f[layer][0].flatten(1) for f in features)) for layer in layers]
        colours.append(plain_distance(ours[0].flatten(1), target[0].flatten(1)))
    return float(content), float(np.mean(distances) + np.mean(colours))


@torch.no_grad()
def test_losses_equal_the_plain_formulas(loss, squeezenet):
    """All pixels and many directions, and the mean of many draws."""
    network = FeatureNetwork("squeezenet", layers_of("squeezenet"), squeezenet)
    photos, pictures, numbers = random(3, 3, 48, 40, seed=5), random(3, 3, 48, 40, seed=6) ** 2, torch.tensor([2, 0, 2])
    content = loss.content(photos)
    losses = [loss(pictures, content, numbers, seed=seed) for seed in range(20)]
    for i, number in enumerate(numbers):
        content, style = plain_loss(network, pictures[i : i + 1], photos[i : i + 1], styles()[number])
        assert losses[0]["content"][i].item() == pytest.approx(content, rel=1e-3)
        assert np.mean([one["style"][i].item() for one in losses]) == pytest.approx(style, rel=0.03)
        assert content > 0.01 and style > 0.01


@torch.no_grad()
def test_draws_differ_and_those_of_a_seed_do_not(loss):
    picture, numbers = random(1, 3, 48, 40), torch.tensor([0])
    content = loss.content(picture)
    seeded, again, other, free = (loss(picture, content, numbers, seed=seed)["style"] for seed in (1, 1, 2, None))
    assert seeded == again and len({seeded.item(), other.item(), free.item()}) == 3


@torch.no_grad()
def test_perfect_pictures_cost_next_to_nothing(loss):
    photo = random(1, 3, 64, 48, seed=7)
    assert loss(photo, loss.content(photo), torch.tensor([0]))["content"].item() == 0
    for number, style in enumerate(styles()):
        content = loss.content(style)
        costs = [loss(style, content, torch.tensor([other]))["style"].item() for other in range(3)]
        assert costs[number] < 0.01 < 0.1 < min(costs[:number] + costs[number + 1 :])


@torch.no_grad()
def test_what_busy_places_look_like_is_nothing_to_the_calm_ones(loss):
    """A half that is the style itself costs nothing there, whatever the other half is; without calm places no word."""
    style, numbers = styles()[2], torch.tensor([2])
    picture = torch.cat([style, style[..., :32], random(1, 3, 64, 64, seed=4)], 3)
    left = torch.zeros(1, 1, 64, 160)
    left[..., :64] = 1
    content = loss.content(picture)
    whole, calm, busy = (loss(picture, content, numbers, places, seed=0) for places in (None, left, 1 - left))
    assert set(whole) == {"content", "style"} and calm["style"] == whole["style"]
    assert calm["calm"] < 0.1 * min(whole["style"], busy["calm"])


@torch.no_grad()
def test_distance_of_covariances(loss):
    """0 of a picture and itself, about 1 of an empty one."""
    style = styles()[0]
    assert loss.covariance_distance(style, style, 2).item() == 0
    even = torch.full_like(style, 0.5)
    assert loss.covariance_distance(even, style).item() == pytest.approx(1, abs=0.35)
    assert loss.covariance_distance(even, style, 4).isfinite()  # 10 x 13 pixels, continued


@torch.no_grad()
def test_losses_are_relative_to_the_targets(squeezenet, tmp_path):
    """A loss network with activations a hundred times as large judges alike: published scales differ by 57."""
    tensors = load_file(squeezenet)
    first = ("features.0.weight", "features.0.bias")
    bias = [k for k in tensors if k.endswith("bias") and k not in first]
    scaled = {k: v * 100 if k in (*first, *bias) else v for k, v in tensors.items()}
    save_file(scaled, tmp_path / "scaled.safetensors")
    photo, picture, numbers = random(1, 3, 40, 40, seed=8), random(1, 3, 40, 40, seed=9) ** 2, torch.tensor([1])
    results = []
    for path in (squeezenet, str(tmp_path / "scaled.safetensors")):
        judge = PerceptualLoss("squeezenet", styles(), path)
        results.append(judge(picture, judge.content(photo), numbers, seed=0))
        activations = judge.content(photo).abs().max()
    assert activations > 50
    torch.testing.assert_close(results[0], results[1], rtol=1e-3, atol=1e-6)


@torch.no_grad()
def test_a_plain_photograph_does_not_blow_up_the_content_loss(squeezenet):
    """Its features are next to nothing, or nothing; the loss is then relative to the style pictures'."""
    grey = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1).expand(1, 3, 40, 40)
    judge = PerceptualLoss("squeezenet", styles(), squeezenet)
    picture, content = styles()[0], torch.zeros_like(judge.content(styles()[0]))
    mean = sum(judge.content(style).square().mean() for style in styles()) / 3
    expected = judge.content(picture).square().mean() / (CONTENT_FLOOR * mean)
    torch.testing.assert_close(judge(picture, content, torch.tensor([0]))["content"], expected[None])
    assert judge(random(1, 3, 40, 40), judge.content(grey), torch.tensor([0]))["content"] < 10 / CONTENT_FLOOR


def test_gradients_reach_the_picture_alone(loss):
    photo, picture = random(2, 3, 32, 32), random(2, 3, 32, 32, seed=1).requires_grad_()
    content = loss.content(photo.requires_grad_())
    assert not content.requires_grad
    sum(v.sum() for v in loss(picture, content, torch.tensor([0, 1])).values()).backward()
    assert picture.grad.abs().sum() > 0 and photo.grad is None
    assert not any(p.requires_grad for p in loss.parameters())


@torch.no_grad()
def test_bf16_is_close(loss):
    photo, picture, numbers = random(1, 3, 64, 64), random(1, 3, 64, 64, seed=1) ** 2, torch.tensor([0])
    exact = loss(picture, loss.content(photo), numbers, seed=0)
    with torch.autocast("cpu", torch.bfloat16):
        half = loss(picture, loss.content(photo), numbers, seed=0)
    torch.testing.assert_close(half, exact, rtol=0.05, atol=0.01)


def test_too_small_a_style_picture_is_refused(squeezenet):
    with pytest.raises(UserError, match="a picture of 8 x 30 pixels is too small"):
        PerceptualLoss("squeezenet", [random(1, 3, 30, 8)], squeezenet)


# ------------------------------------------------------------------------------------------------ total variation


def test_total_variation_by_hand():
    """Two rows 0 1 3 / 0 2 2: down 0, 1, 1 and to the right 1, 4 / 4, 0."""
    channel = torch.tensor([[0.0, 1, 3], [0, 2, 2]])
    picture = torch.stack([torch.stack([channel] * 3), torch.zeros(3, 2, 3)])
    assert total_variation(picture).tolist() == pytest.approx([2 / 3 + 9 / 4, 0])
