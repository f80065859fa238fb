"""The helpers that the cookbook names, against plain formulas: conversions, bilinear pooling, features by layer."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from models import LeNet
from models.features import layer_features
from models.perceptual import PerceptualLoss
from models.poet import Poet
from models.pooling import bilinear_pool
from models.resnet34 import ResNet34
from models.transformer_net import TransformerNet
from utils.errors import UserError
from utils.tensors import check_shape, one_hot, pil_to_tensor, tensor_to_pil

SHIPPED = Path(__file__).parents[1] / "checkpoints" / "dogcat.safetensors"


def test_pictures_of_every_mode_become_tensors():
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = Image.fromarray(rgb)
    for mode in ("RGB", "RGBA"):
        tensor = pil_to_tensor(image.convert(mode))
        assert tensor.is_contiguous() and tensor.dtype == torch.float32
        np.testing.assert_array_equal(tensor.numpy(), rgb.transpose(2, 0, 1) / np.float32(255))
    grey = pil_to_tensor(image.convert("L")).numpy()
    np.testing.assert_array_equal(grey, np.broadcast_to(np.asarray(image.convert("L")) / np.float32(255), (3, 5, 7)))


def test_tensors_become_pictures_and_come_back():
    rgb = torch.randint(0, 256, (3, 4, 6), generator=torch.Generator().manual_seed(0))
    for tensor in (rgb / 255, rgb[None] / 255):
        image = tensor_to_pil(tensor)
        assert (image.mode, image.size) == ("RGB", (6, 4))
        assert torch.equal((pil_to_tensor(image) * 255).round(), rgb.float())
    assert tensor_to_pil(torch.tensor([-1.0, 0.5, 2.0]).view(3, 1, 1)).getpixel((0, 0)) == (0, 128, 255)


def test_one_hot_has_a_one_at_each_number():
    labels = torch.tensor([[2, 0], [1, 2]])
    expected = torch.tensor([[[0.0, 0, 1], [1, 0, 0]], [[0, 1, 0], [0, 0, 1]]])
    assert torch.equal(one_hot(labels, 3), expected)
    assert one_hot(labels.to(torch.uint8), 4, torch.bfloat16).dtype == torch.bfloat16
    assert one_hot(torch.empty(0, dtype=torch.long), 3).shape == (0, 3)
    with pytest.raises(ValueError, match="label 3 is none of the classes 0 to 2"):
        one_hot(torch.tensor([0, 3]), 3)
    with pytest.raises(ValueError, match="label -1 is none"):
        one_hot(torch.tensor([0, -1]), 3)


def test_a_wrong_shape_is_told_with_the_right_one():
    image = torch.zeros(2, 3, 4, 5)
    check_shape(image, (None, 3, None, 5), "image")
    check_shape(torch.zeros(()), (), "loss")
    for shape, wanted in (((None, 1, None, None), "*, 1, *, *"), ((2, 3, 4), "2, 3, 4"), ((0, 3, 4, 5), "0, 3, 4, 5")):
        with pytest.raises(ValueError) as error:
            check_shape(image, shape, "image")
        assert str(error.value) == f"image has the shape (2, 3, 4, 5), expected ({wanted})"
    with pytest.raises(ValueError, match="maps has the shape"):
        bilinear_pool(torch.zeros(3, 4, 5))


def _perceptual() -> PerceptualLoss:
    return PerceptualLoss("classifier", [torch.rand(1, 3, 32, 32)], str(SHIPPED))


IDS, PHOTOS = torch.zeros(2, 5, dtype=torch.long), torch.rand(2, 3, 32, 32)


@pytest.mark.parametrize(
    "name, call",
    [
        ("style", lambda: TransformerNet(["a"], (4, 4, 4), 1)(PHOTOS, torch.eye(2)[:1])),
        ("style", lambda: TransformerNet(["a"], (4, 4, 4), 1)(PHOTOS[:1], torch.eye(2))),
        ("image", lambda: LeNet(["cat", "dog"])(PHOTOS[:, :1])),
        ("image", lambda: _perceptual().content(PHOTOS[:, :1])),
        ("content", lambda: _perceptual()(PHOTOS, torch.rand(1, 1, 1, 1), torch.tensor([0, 0]))),
        ("style", lambda: _perceptual()(PHOTOS, _perceptual().content(PHOTOS), torch.tensor([0]))),
        ("poem", lambda: Poet(["a", "b"], 4, 4, 1, attention=4)(IDS, poem=IDS[:1])),
        ("targets", lambda: Poet(["a", "b"], 4, 4, 1, attention=4)(IDS, targets=torch.zeros(2, dtype=torch.long))),
    ],
)
def test_what_would_broadcast_is_told(name, call):
    """Each of these would give numbers, and wrong ones."""
    with pytest.raises(ValueError, match=f"^{name} has the shape "):
        call()


def by_hand(maps: np.ndarray) -> np.ndarray:
    """The paper's formula, place by place."""
    rows = []
    for picture in maps.reshape(*maps.shape[:2], -1):  # (C, H * W)
        products = sum(np.outer(place, place) for place in picture.T).ravel()
        roots = np.sign(products) * np.sqrt(np.abs(products))
        rows.append(roots / np.sqrt((roots**2).sum()))
    return np.stack(rows)


def test_bilinear_pooling_is_the_formula():
    maps = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(bilinear_pool(maps), by_hand(maps.double().numpy()), atol=1e-5)
    torch.testing.assert_close(bilinear_pool(20 * maps), bilinear_pool(maps), atol=1e-5, rtol=1e-4)


def test_bilinear_pooling_learns_and_bears_zeros():
    maps = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(1)).double()
    weights = torch.randn(2, 9, generator=torch.Generator().manual_seed(2))
    maps.requires_grad_()
    (bilinear_pool(maps) * weights).sum().backward()
    step = torch.zeros_like(maps)
    step[1, 2, 0, 1] = 1e-2
    with torch.no_grad():
        both = [(bilinear_pool(maps + sign * step) * weights).sum().item() for sign in (1, -1)]
    assert maps.grad[1, 2, 0, 1].item() == pytest.approx((both[0] - both[1]) / 2e-2, rel=1e-2)
    nothing = torch.zeros(1, 3, 2, 2, requires_grad=True)
    result = bilinear_pool(nothing)
    result.sum().backward()
    assert not result.any() and torch.isfinite(nothing.grad).all()


@pytest.fixture(scope="module")
def model() -> ResNet34:
    torch.manual_seed(0)
    return ResNet34(["cat", "dog"]).eval()


def test_features_are_those_of_a_forward_pass_by_hand(model):
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        found = layer_features(model, ["layer2", "bn1", "fc"], image)
        x = model.bn1(model.conv1(model.normalise(image)))
        assert list(found) == ["layer2", "bn1", "fc"]
        torch.testing.assert_close(found["bn1"], x)  # before the ReLU, though that works in place
        x = model.layer2(model.layer1(model.maxpool(x.relu())))
        torch.testing.assert_close(found["layer2"], x)
        torch.testing.assert_close(found["fc"], model(image=image)["logits"])
    assert not any(module._forward_hooks for module in model.modules())


def test_gradients_flow_through_features():
    network = nn.Sequential(nn.Linear(2, 3), nn.ReLU(inplace=True), nn.Linear(3, 1))
    x = torch.ones(1, 2, requires_grad=True)
    layer_features(network, ["0"], x)["0"].sum().backward()
    torch.testing.assert_close(x.grad, network[0].weight.sum(0, keepdim=True))


def test_a_wrong_name_is_named_and_no_hook_stays(model):
    with pytest.raises(UserError, match="ResNet34 has no layer 'layer22'; did you mean layer2?"):
        layer_features(model, ["layer1", "layer22"], torch.rand(1, 3, 64, 64))
    with pytest.raises(ValueError):
        layer_features(model, ["layer1"], torch.rand(1, 4, 64, 64))
    assert not any(module._forward_hooks for module in model.modules())


def test_outputs_that_are_no_tensors_come_as_they_are():
    lstm = nn.Sequential(nn.LSTM(2, 3))
    output, (hidden, _) = layer_features(lstm, ["0"], torch.rand(4, 2))["0"]
    assert output.shape == (4, 3) and hidden.shape == (1, 3)
