"""models/efficientnet.py: another project's EfficientNet-Lite0 is the oracle; what it knows besides its own classes."""

import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

from data.sights import classes_of, imagenet_classes, scenes
from models import BACKBONES, EfficientNetLite0
from models.efficientnet import IMAGENET, SCENES
from tests.test_classifier import random
from tests.test_loss_networks import randomise

PETS = ["cat", "dog"]


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    """Its weights and statistics are random."""
    torch.manual_seed(0)
    return randomise(EfficientNet.from_name("efficientnet-lite0")).eval()


@pytest.fixture(scope="module")
def ours(theirs, tmp_path_factory) -> EfficientNetLite0:
    path = tmp_path_factory.mktemp("weights") / "lite0.pth"
    torch.save(theirs.state_dict(), path)
    model = BACKBONES["efficientnet_lite0"](PETS)
    model.load_pretrained(str(path))
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
def test_the_network_is_the_published_one(ours, theirs, size):
    image = random(2, 3, *size)
    expected = theirs.extract_features((image * 255 - 127) / 128)
    maps = ours.feature_maps(image)
    torch.testing.assert_close(maps, expected, atol=1e-4, rtol=1e-4)
    assert expected.std() > 0.01 and maps.shape[2:] == (size[0] // 32, size[1] // 32)
    assert ours.feature_maps(random(1, 3, 33, 65)).shape == (1, 1280, 2, 3)
    logits = theirs((image * 255 - 127) / 128)
    torch.testing.assert_close(ours.recognise(maps)["imagenet"], logits, atol=1e-4, rtol=1e-4)


def test_what_it_knows_is_not_trained():
    model = EfficientNetLite0(PETS)
    names = [name for name, _ in model.named_parameters()]
    assert not any(name.startswith(("imagenet", "scene")) for name in names) and "classifier.weight" in names
    assert model.parameter_count() == 4_652_008 - 1000 * 1281 + 2 * 1281  # as published, but for the last layer


def test_the_tables_of_what_it_knows():
    assert (len(imagenet_classes()), len(scenes())) == (IMAGENET, SCENES)
    assert len({scene.name for scene in scenes()}) == SCENES
    assert (imagenet_classes()[277].name, imagenet_classes()[277].chinese) == ("red fox", "赤狐")
    assert classes_of("dog") == tuple(range(151, 269)) and classes_of("Cat") == tuple(range(281, 286))
    assert classes_of("tulip") == ()
    for sight in (*imagenet_classes(), *scenes()):
        assert sight.name and sight.kind and sight.chinese
        assert all(1 <= len(word) <= 2 for word in sight.words) and not set(sight.avoid) & set("".join(sight.words))
