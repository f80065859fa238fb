"""models/perceptual.py: covariances and losses against plain formulas; what perfect and empty pictures cost."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from models.loss_networks import FeatureNetwork
from models.perceptual import (
    CONTENT_FLOOR,
    CONTENT_LAYER,
    STYLE_LAYERS,
    PerceptualLoss,
    mean_and_covariance,
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


# --------------------------------------------------------------------------------------------------- covariances


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_mean_and_covariance_and_their_gradient_are_torchs(layout):
    x = (1 + random(2, 5, 4, 6)).contiguous(memory_format=layout).requires_grad_()
    mean, covariance = mean_and_covariance(x)
    pixels = x.permute(0, 2, 3, 1).flatten(1, 2)  # (B, H * W, C)
    plain = pixels.mean(1), torch.stack([torch.cov(one.T, correction=0) for one in pixels])
    torch.testing.assert_close((mean, covariance), plain)
    upstream = torch.randn(2, 5), torch.randn(2, 5, 5)  # not symmetric
    ours, theirs = (torch.autograd.grad(values, x, upstream)[0] for values in ((mean, covariance), plain))
    torch.testing.assert_close(ours, theirs)


def test_mean_and_covariance_of_some_places_are_those_of_their_pixels():
    x, places = random(2, 5, 4, 6), random(2, 1, 4, 6, seed=1) < 0.4
    for one, mean, covariance, there in zip(x, *mean_and_covariance(x, places), places[:, 0], strict=True):
        pixels = one[:, there]  # (C, P)
        torch.testing.assert_close((mean, covariance), (pixels.mean(1), pixels.cov(correction=0)))
    even = torch.ones(2, 1, 8, 12)  # of a picture of twice the size
    torch.testing.assert_close(mean_and_covariance(x, even), mean_and_covariance(x))


def test_covariances_of_half_precision_are_summed_in_float32():
    x = (300 * random(1, 4, 32, 32)).half().requires_grad_()  # squares of 9e4: more than float16 can hold
    with torch.autocast("cpu", torch.bfloat16):
        mean, covariance = mean_and_covariance(x)
    assert mean.dtype == covariance.dtype == torch.float32
    torch.testing.assert_close(covariance, mean_and_covariance(x.float())[1], rtol=1e-4, atol=0)
    (1e-3 * covariance.sum() + mean.sum()).backward()
    assert x.grad.dtype == torch.float16 and x.grad.isfinite().all()


# ------------------------------------------------------------------------------------------------------- losses


def layers_of(network: str) -> list[str]:
    return [CONTENT_LAYER[network], *(layer for layers in STYLE_LAYERS[network] for layer in layers)]


def plain_loss(network: FeatureNetwork, picture: Tensor, photo: Tensor, style: Tensor) -> tuple[float, float]:
    """(content, style) of one picture, as the docstring says."""
    images = picture, photo, style
    halves, quarters = ([F.interpolate(x, scale_factor=1 / factor, mode="area") for x in images] for factor in (2, 4))
    quarters = [F.pad(x, (0, max(0, 17 - x.shape[3]), 0, max(0, 17 - x.shape[2])), mode="replicate") for x in quarters]
    ours, theirs = (network(x)[CONTENT_LAYER["squeezenet"]] for x in halves[:2])
    content = (ours - theirs).square().mean() / theirs.square().mean()
    distances = []
    for layers, (ours, _, target) in zip(STYLE_LAYERS["squeezenet"], (images, halves, quarters), strict=True):
        features = network(ours), network(target)
        for layer in layers:
            a, b = (f[layer][0].flatten(1) for f in features)  # (C, H * W)
            for p, q in ((a.mean(1), b.mean(1)), (a.cov(correction=0), b.cov(correction=0))):
                distances.append(((p - q).norm() / q.norm()) ** 2)
    return float(content), float(sum(distances) / 6)


@torch.no_grad()
def test_losses_equal_the_plain_formulas(loss, squeezenet):
    network = FeatureNetwork("squeezenet", layers_of("squeezenet"), squeezenet)
    photos, pictures, numbers = random(3, 3, 48, 40, seed=5), random(3, 3, 48, 40, seed=6) ** 2, torch.tensor([2, 0, 2])
    losses = loss(pictures, loss.content(photos), numbers)  # the styles' pictures have other sizes
    for i, number in enumerate(numbers):
        content, style = plain_loss(network, pictures[i : i + 1], photos[i : i + 1], styles()[number])
        assert losses["content"][i].item() == pytest.approx(content, rel=1e-3)
        assert losses["style"][i].item() == pytest.approx(style, rel=1e-3)
        assert content > 0.01 and style > 0.01


@torch.no_grad()
def test_perfect_pictures_cost_nothing(loss):
    photo = random(1, 3, 64, 48, seed=7)
    assert loss(photo, loss.content(photo), torch.tensor([0]))["content"].item() == 0
    for number, style in enumerate(styles()):
        content = loss.content(style)
        costs = [loss(style, content, torch.tensor([other]))["style"].item() for other in range(3)]
        assert costs[number] < 1e-10 and min(costs[:number] + costs[number + 1 :]) > 1e-3


@torch.no_grad()
def test_what_busy_places_look_like_is_nothing_to_the_calm_ones(loss):
    """A half that is the style itself costs nothing there, whatever the other half is; without calm places no word."""
    style, numbers = styles()[2], torch.tensor([2])
    picture = torch.cat([style, style[..., :32], random(1, 3, 64, 64, seed=4)], 3)
    left = torch.zeros(1, 1, 64, 160)
    left[..., :64] = 1
    content = loss.content(picture)
    whole, calm, busy = (loss(picture, content, numbers, places) for places in (None, left, 1 - left))
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
        results.append(judge(picture, judge.content(photo), numbers))
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
    exact = loss(picture, loss.content(photo), numbers)
    with torch.autocast("cpu", torch.bfloat16):
        half = loss(picture, loss.content(photo), numbers)
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
