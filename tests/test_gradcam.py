"""infer/photo/explain.py against Grad-CAM by hooks on torchvision's network, and against maps whose heat is known."""

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from infer.photo.explain import OPACITY, grad_cam, overlay
from models.classifier import Classifier
from models.mobilenet_v2 import MobileNetV2
from models.squeezenet import SqueezeNet

CLASSES = ["cat", "dog", "bird"]


def blocks(count: int, height: int = 96, width: int = 96, seed: int = 1) -> Tensor:
    """(count, 3, height, width) in 0..1: blocks of any colour, 16 pixels a side, so that the places differ."""
    image = torch.rand(count, 3, height // 16, width // 16, generator=torch.Generator().manual_seed(seed))
    return image.repeat_interleave(16, 2).repeat_interleave(16, 3)


@pytest.fixture(scope="module")
def model() -> Classifier:
    """A random network whose maps are of some strength, as if it had learnt: BatchNorm has seen pictures."""
    torch.manual_seed(0)
    model = MobileNetV2(CLASSES)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias, std=0.3)
            module.momentum = 1.0
    nn.init.normal_(model.classifier[1].weight)
    with torch.no_grad():
        model.feature_maps(blocks(3))
    return model.eval()


def by_hooks(network: nn.Module, model: Classifier, image: Tensor, target: Tensor) -> Tensor:
    """(B, H, W): Grad-CAM as it is told in the paper, picture by picture, on torchvision's own `network`."""
    network.eval().load_state_dict(model.state_dict())
    kept = []
    network.features.register_forward_hook(lambda module, inputs, output: kept.append(output) or output.retain_grad())
    transforms, heats = torchvision.transforms, []
    for picture, k in zip(image, target.tolist(), strict=True):
        normalised = transforms.functional.normalize(picture, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        network(normalised[None])[0, k].backward()
        maps, gradient = kept[-1][0].detach(), kept[-1].grad[0]  # (C, h, w)
        heat = torch.zeros(maps.shape[1:])
        for channel in range(len(maps)):
            heat += gradient[channel].mean() * maps[channel]
        heat = transforms.functional.resize(heat.clamp(min=0)[None], list(picture.shape[1:]), antialias=False)[0]
        heats.append(heat / heat.max())
    return torch.stack(heats)


@pytest.mark.parametrize("name", ["mobilenet_v2", "squeezenet1_1"])
def test_equals_hooks_on_torchvisions_network(model, name):
    if name == "squeezenet1_1":  # its head pools after a ReLU: the gradient differs from place to place
        torch.manual_seed(0)
        model = SqueezeNet(CLASSES).eval()
        nn.init.normal_(model.classifier[1].weight)
    image, target = blocks(3, 144, 112), torch.tensor([0, 2, 1])
    heat = grad_cam(model, image, target)
    assert heat.shape == (3, 144, 112) and heat.dtype == torch.float32
    assert heat.amax((1, 2)).tolist() == [1, 1, 1] and heat.min() >= 0 and heat.std() > 0.1  # something is to be seen
    network = getattr(torchvision.models, name)(num_classes=3)
    torch.testing.assert_close(heat, by_hooks(network, model, image, target), rtol=1e-4, atol=1e-5)


def test_works_where_no_gradient_is_kept_and_leaves_no_trace_in_the_model(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first, *others = model.parameters()
    first.grad = torch.ones_like(first)
    image, target = blocks(2), torch.tensor([0, 1])
    expected = grad_cam(model, image, target)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            heat = grad_cam(model, image * 1, target * 1)  # made in this mode
            assert not torch.is_grad_enabled()
        assert torch.equal(heat, expected) and not heat.requires_grad
    assert torch.equal(first.grad, torch.ones_like(first)) and all(p.grad is None for p in others)
    assert all(p.requires_grad for p in model.parameters()) and not image.requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    first.grad = None


def test_overlay():
    """No heat, half of it and all of it, with inferno's colours there."""
    rgb = np.random.default_rng(0).integers(0, 256, (6, 7, 3), np.uint8)
    assert np.array_equal(overlay(rgb, np.zeros((6, 7))), rgb)
    for heat, colour in ((0.5, [0.735683, 0.215906, 0.330245]), (1, [0.988362, 0.998364, 0.644924])):
        hot = overlay(rgb, np.full((6, 7), heat, np.float32))
        assert hot.dtype == np.uint8 and hot.shape == rgb.shape
        expected = (1 - OPACITY * heat) * rgb + OPACITY * heat * 255 * np.array(colour)
        assert np.abs(hot - expected).max() <= 1.2
