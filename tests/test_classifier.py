"""models/classifier.py and the networks on it: torchvision's networks are the oracle; which weights are taken over."""

import copy
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models import BACKBONES, Classifier, LeNet, MobileNetV2, ResNet34
from models.classifier import IMAGENET_MEAN, IMAGENET_STD, fold_batchnorm
from models.mobilenet_v2 import StridedDepthwise
from tests.test_loss_networks import randomise
from utils.errors import UserError

BUILDERS = {
    "mobilenet_v2": torchvision.models.mobilenet_v2,
    "squeezenet1_1": torchvision.models.squeezenet1_1,
    "resnet34": torchvision.models.resnet34,
}
PETS = ["cat", "dog"]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def theirs(name: str, classes: int = 5) -> nn.Module:
    """torchvision's network without dropout, its weights and statistics random."""
    torch.manual_seed(0)
    network = BUILDERS[name](weights=None, num_classes=classes)
    for module in randomise(network).modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.1)
    return network


def letters(count: int) -> list[str]:
    return [f"class {i}" for i in range(count)]


@pytest.fixture(scope="module")
def models() -> dict[str, Classifier]:
    """One of each, in eval mode; in training mode all that the last layer gets would be dropped."""
    torch.manual_seed(1)
    return {name: cls(PETS, dropout=1.0).eval() for name, cls in BACKBONES.items()}


@pytest.fixture(scope="module")
def mobilenet_file(tmp_path_factory) -> Path:
    """A bare state dict of MobileNetV2 for 5 classes."""
    path = tmp_path_factory.mktemp("weights") / "mobilenet.safetensors"
    save_file(theirs("mobilenet_v2").state_dict(), path)
    return path


# ------------------------------------------------------------------------------------------- the networks themselves


@pytest.mark.parametrize("name", BUILDERS)
def test_outputs_and_statistics_equal_torchvisions(name):
    reference = theirs(name)
    ours = BACKBONES[name](letters(5), dropout=0.0)
    ours.load_weights(reference.state_dict())
    image = random(3, 3, 39, 64)
    normalised = torchvision.transforms.functional.normalize(image, IMAGENET_MEAN, IMAGENET_STD)
    for mode in (True, False):
        logits = ours.train(mode)(image)["logits"]
        expected = reference.train(mode)(normalised)
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
        assert expected.std() > 0.01
    state = reference.state_dict()
    assert list(ours.state_dict()) == list(state)
    for key, value in ours.state_dict().items():  # the pass in train mode has moved the statistics
        torch.testing.assert_close(value, state[key], msg=lambda m, key=key: f"{key}: {m}")


def test_lenet_by_hand(models):
    """456 + 2,416 in the convolutions, 48,120 + 10,164 + 170 in the linear layers; and its output."""
    model = models["lenet"]
    assert model.parameter_count() == 61_326
    layers = [nn.ReLU(), nn.MaxPool2d(2)]
    plain = nn.Sequential(
        model.conv1, *layers, model.conv2, *layers, nn.AdaptiveAvgPool2d(5), nn.Flatten(),
        model.fc1, nn.ReLU(), model.fc2, nn.ReLU(), model.fc3,
    )  # fmt: skip
    image = random(2, 3, 50, 40)
    expected = plain(torchvision.transforms.functional.normalize(image, IMAGENET_MEAN, IMAGENET_STD))
    torch.testing.assert_close(model(image)["logits"], expected)


@pytest.mark.parametrize("name", BACKBONES)
@torch.no_grad()
def test_pooled_maps_are_all_that_classify_needs(models, name):
    model = models[name]
    assert model.arguments == {"classes": PETS, "dropout": 1.0}  # a file rebuilds it
    for size in ((32, 32), (33, 61)):
        image = random(2, 3, *size)
        maps = model.feature_maps(image)
        pooled = model.pool(maps)
        assert maps.shape[:2] == pooled.shape[:2] and pooled.numel() <= maps.numel()
        logits = model.classify(maps)
        assert logits.shape == (2, 2) and logits.isfinite().all() and not torch.equal(logits[0], logits[1])
        assert torch.equal(model.classify(pooled), logits)
        assert torch.equal(model(image)["logits"], logits) and torch.equal(model(maps=pooled)["logits"], logits)


@pytest.mark.parametrize("name", BACKBONES)
def test_dropout_is_before_the_last_layer_and_gradients_reach_every_parameter(models, name):
    """With all inputs dropped, only the last layer's bias is left."""
    model = copy.deepcopy(models[name])
    bias = next(p for n, p in model.named_parameters() if n.startswith(model.head) and n.endswith("bias"))
    nn.init.constant_(bias, 0.75)
    image = random(4, 3, 48, 48)
    assert (model.train()(image)["logits"] == 0.75).all() and (model.eval()(image)["logits"] != 0.75).all()
    for module in model.train().modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    model(image)["logits"].square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("cls", [ResNet34, LeNet])
def test_weights_by_type_of_layer(cls):
    """Standard deviations of He et al.; the last layer leaves all classes about as likely."""
    torch.manual_seed(0)
    model = cls(letters(4))
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            std = (2 / (module.out_channels * module.kernel_size[0] ** 2)) ** 0.5
        elif isinstance(module, nn.Linear):
            std = 0.01 if f"{name}." == model.head else (2 / module.in_features) ** 0.5
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and not module.bias.any()
            continue
        else:
            continue
        assert module.weight.std().item() == pytest.approx(std, rel=0.15), name
        assert module.bias is None or not module.bias.any()
    chances = model.train()(random(8, 3, 48, 48))["logits"].softmax(1)
    assert 0.1 < chances.min() and chances.max() < 0.5


# ------------------------------------------------------------------------------------------------ pretrained weights


def body_and_head(model: Classifier) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    state = {k: v.clone() for k, v in model.state_dict().items()}
    return tuple({k: v for k, v in state.items() if k.startswith(model.head) is head} for head in (False, True))


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(v, b[k]) for k, v in a.items())


@pytest.mark.parametrize("kind", ["another number of classes", "no last layer", "half precision, before 0.4.1"])
def test_files_of_others(mobilenet_file, tmp_path, kind):
    """All that fits is taken over, in float32; the last layer stays random where there is none for these classes."""
    tensors = load_file(mobilenet_file)
    if "half" in kind:
        tensors = {k: v.half() for k, v in tensors.items() if not k.endswith("num_batches_tracked")}
    elif kind == "no last layer":
        tensors = {k: v for k, v in tensors.items() if "classifier" not in k}
    save_file(tensors, tmp_path / "m.safetensors")
    model = MobileNetV2(PETS if kind == "another number of classes" else letters(5))
    _, before = body_and_head(model)
    model.load_pretrained(str(tmp_path / "m.safetensors"))
    body, head = body_and_head(model)
    assert all(torch.equal(body[k].to(v.dtype), v) for k, v in tensors.items() if k in body)
    assert all(v.dtype != torch.float16 for v in body.values())
    assert equal(head, before) is ("half" not in kind)


@pytest.mark.parametrize("classes, same", [(PETS, True), (PETS[::-1], False), (["cat", "dog", "bird"], False)])
def test_the_last_layer_of_a_file_of_ours_is_for_its_classes(tmp_path, classes, same):
    source, model = LeNet(PETS), LeNet(classes)
    source.save(tmp_path / "m.safetensors")
    model.load_pretrained(str(tmp_path / "m.safetensors"))
    body, head = body_and_head(model)
    assert equal(body, source.state_dict())
    assert (head["fc3.weight"].shape == source.fc3.weight.shape and equal(head, source.state_dict())) is same


def test_all_but_the_last_layer_must_be_there(mobilenet_file, tmp_path):
    tensors, lacking = load_file(mobilenet_file), "features.18.1.running_var"
    del tensors[lacking]
    save_file(tensors, tmp_path / "partial.safetensors")
    model = MobileNetV2(PETS)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(UserError, match=f"partial.safetensors does not fit MobileNetV2: missing {lacking}; give"):
        model.load_pretrained(str(tmp_path / "partial.safetensors"))
    assert equal(before, model.state_dict())


def test_files_that_do_not_fit(mobilenet_file):
    with pytest.raises(UserError, match="does not fit ResNet34: missing conv1.weight.*of ResNet34, or choose the back"):
        ResNet34(PETS).load_pretrained(str(mobilenet_file))
    with pytest.raises(UserError, match="LeNet to download; give a file, or none"):
        LeNet(PETS).load_pretrained()


# ------------------------------------------------------------------------------------------------------------ speed


def test_strided_depthwise_layers_train_under_autocast_as_without_it():
    """bf16 in and out, the gradient nearer to fp32's than bf16 alone would be."""
    torch.manual_seed(0)
    plain = nn.Conv2d(8, 8, 3, 2, 1, groups=8, bias=False)
    layer = StridedDepthwise(copy.deepcopy(plain))
    x = torch.randn(2, 8, 9, 9).bfloat16()
    target = x.float().requires_grad_()
    plain(target).square().sum().backward()
    own = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(own)
    assert y.dtype == torch.bfloat16
    y.float().square().sum().backward()
    torch.testing.assert_close(own.grad.float(), target.grad, rtol=0.02, atol=0.02)
    torch.testing.assert_close(layer.weight.grad, plain.weight.grad, rtol=0.01, atol=0.05)
    assert [m.stride for m in MobileNetV2(["cat", "dog"]).modules() if isinstance(m, StridedDepthwise)] == [(2, 2)] * 4


@pytest.mark.parametrize("name", BACKBONES)
def test_folding_batchnorm_changes_no_answer(models, name):
    torch.manual_seed(0)
    model = randomise(copy.deepcopy(models[name]))
    image = torch.rand(2, 3, 48, 48)
    with torch.no_grad():
        expected = model.eval()(image)["logits"]
        fold_batchnorm(model)
        assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
        torch.testing.assert_close(model(image)["logits"], expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
