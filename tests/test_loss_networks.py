"""models/loss_networks.py: torchvision's networks are the oracle for names and features; files, what is refused."""

import hashlib
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

import models.loss_networks
from models import MobileNetV2
from models.loss_networks import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    NETWORKS,
    SMALLEST,
    FeatureNetwork,
    NNPackConv2d,
    choose_network,
    layer_names,
)
from utils.errors import UserError

BUILDERS = {
    "vgg16": torchvision.models.vgg16,
    "vgg19": torchvision.models.vgg19,
    "squeezenet": torchvision.models.squeezenet1_1,
}
VGG = "VGG16_Weights"
FIRST = {"vgg16": "relu2_1", "vgg19": "relu3_4", "squeezenet": "fire5"}  # a layer to test with, not too deep


def torchvision_features(network: str, layer: str, seed: int = 0) -> nn.Sequential:
    """torchvision's own first layers up to `layer`, with random weights."""
    torch.manual_seed(seed)
    with torch.device("meta"):
        whole = BUILDERS[network](weights=None).features
    part = whole[: layer_names(network)[layer] + 1].to_empty(device="cpu")
    with torch.no_grad():
        for parameter in part.parameters():
            fan = parameter[0].numel() if parameter.ndim == 4 else 100
            parameter.copy_(torch.randn_like(parameter) * (2 / fan) ** 0.5)
    return part.eval()


def weight_file(folder: Path, network: str, layer: str = "", dtype: torch.dtype = torch.float32) -> tuple[Path, Any]:
    """(a file as torchvision would write it, up to `layer`, the network in it)."""
    part = torchvision_features(network, layer or FIRST[network])
    path = folder / f"{network}.safetensors"
    save_file({f"features.{k}": v.to(dtype) for k, v in part.state_dict().items()}, path)
    return path, part


def expected(part: nn.Sequential, image: Tensor, network: str) -> dict[str, Tensor]:
    """Every named layer's activations, by torchvision's own layers and normalisation."""
    x = torchvision.transforms.functional.normalize(image, IMAGENET_MEAN, IMAGENET_STD)
    names, result = {index: name for name, index in layer_names(network).items()}, {}
    for index, layer in enumerate(part):
        x = layer(x.clone())
        if index in names:
            result[names[index]] = x
    return result


# ------------------------------------------------------------------------------------------- names and indices


def test_names_are_torchvisions_relus_and_fires():
    for network in ("vgg16", "vgg19"):
        with torch.device("meta"):
            features = BUILDERS[network](weights=None).features
        block, number, names = 1, 0, {}
        for index, layer in enumerate(features):
            if isinstance(layer, nn.ReLU):
                number += 1
                names[f"relu{block}_{number}"] = index
            elif isinstance(layer, nn.MaxPool2d):
                block, number = block + 1, 0
        assert layer_names(network) == names
    with torch.device("meta"):
        features = torchvision.models.squeezenet1_1(weights=None).features
    fires = [i for i, layer in enumerate(features) if type(layer).__name__ == "Fire"]
    assert isinstance(features[1], nn.ReLU)
    assert layer_names("squeezenet") == {"relu1": 1, **{f"fire{n}": i for n, i in enumerate(fires, 2)}}


# ---------------------------------------------------------------------------------------------------- features


@pytest.mark.parametrize("network, dtype", [("vgg16", torch.half), ("vgg19", torch.float), ("squeezenet", torch.float)])
def test_features_equal_torchvisions(network, dtype, tmp_path):
    """In float32, also with weights of half precision."""
    path, part = weight_file(tmp_path, network, dtype=dtype)
    part.to(dtype).float()  # what the file holds
    image = torch.rand(2, 3, 41, 37)
    with torch.no_grad():
        theirs = expected(part, image, network)
        ours = FeatureNetwork(network, list(theirs), str(path))(image)
    assert list(ours) == list(theirs) and len(ours) >= 3
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, atol=1e-4, rtol=1e-4, msg=lambda m, name=name: f"{name}: {m}")
        assert value.std() > 0.01


def test_order_of_the_layers_and_last(tmp_path):
    path, _ = weight_file(tmp_path, "vgg16")
    network, image = FeatureNetwork("vgg16", ["relu2_1", "relu1_1", "relu1_2"], str(path)), torch.rand(1, 3, 20, 20)
    whole = network(image)
    assert set(whole) == {"relu1_1", "relu1_2", "relu2_1"}
    until = network(image, last="relu1_2")
    assert set(until) == {"relu1_1", "relu1_2"}
    assert all(torch.equal(until[k], whole[k]) for k in until)


def test_frozen_and_always_in_eval_mode(tmp_path):
    path, _ = weight_file(tmp_path, "vgg16")
    before = torch.get_rng_state()
    network = FeatureNetwork("vgg16", ["relu2_1"], str(path))
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(p.requires_grad for p in network.parameters())
    outer = nn.Sequential(network).train()
    assert outer.training and not any(m.training for m in network.modules())
    image = torch.rand(1, 3, 20, 20, requires_grad=True)
    network(image)["relu2_1"].sum().backward()
    assert image.grad.abs().sum() > 0


@pytest.mark.parametrize("network", ["vgg16", "squeezenet"])
def test_smallest_picture(network, tmp_path):
    deepest = list(layer_names(network))[-1]
    path, _ = weight_file(tmp_path, network, deepest)
    features = FeatureNetwork(network, [deepest], str(path))
    assert features(torch.rand(1, 3, SMALLEST, 40))[deepest].numel() > 0
    with pytest.raises(UserError, match=f"a picture of 40 x {SMALLEST - 1} pixels is too small"):
        features(torch.rand(1, 3, SMALLEST - 1, 40))


# ---------------------------------------------------------------------------------------------- the classifier


def randomise(model: nn.Module) -> nn.Module:
    """Gives its normalisations weights and statistics as after a training."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                nn.init.uniform_(tensor, -0.3, 0.3)
    return model


def random_classifier() -> MobileNetV2:
    torch.manual_seed(0)
    return randomise(MobileNetV2(["cat", "dog"])).eval()


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> str:
    """A model file of this project."""
    path = tmp_path_factory.mktemp("weights") / "classifier.safetensors"
    random_classifier().save(path)
    return str(path)


def test_classifier_names_are_the_blocks_that_begin_wide():
    features = random_classifier().features
    wide = [0] + [i for i, block in enumerate(features) if hasattr(block, "conv") and len(block.conv) == 4]
    assert layer_names("classifier") == {f"relu{i}": i for i in wide}
    assert set(NETWORKS) == {*BUILDERS, "classifier"}


@torch.no_grad()
def test_features_of_a_classifier_equal_its_own_first_convolutions_normalised(classifier):
    """Seen by hooks in the network itself, which is given the enlarged picture."""
    model, names, seen = random_classifier(), layer_names("classifier"), {}
    for name, index in names.items():
        block = model.features[index]
        conv, norm = list(block.conv[0] if index else block)[:2]

        def look(module: nn.Module, inputs: Any, output: Tensor, name: str = name, norm: nn.Module = norm) -> None:
            mean, std = norm.running_mean.view(1, -1, 1, 1), (norm.running_var + norm.eps).sqrt().view(1, -1, 1, 1)
            seen[name] = ((output - mean) / std).clamp(min=0)

        conv.register_forward_hook(look)
    image = torch.rand(2, 3, 41, 37)
    model(F.interpolate(image, scale_factor=2, mode="bilinear"))
    ours = FeatureNetwork("classifier", list(names), classifier)(image)
    assert list(ours) == list(names) == list(seen)
    for name, value in seen.items():
        torch.testing.assert_close(ours[name], value, atol=1e-4, rtol=1e-4, msg=lambda m, name=name: f"{name}: {m}")
        assert value.std() > 0.01
    until = FeatureNetwork("classifier", ["relu0", "relu2", "relu4"], classifier)(image, last="relu2")
    assert list(until) == ["relu0", "relu2"] and all(torch.equal(until[k], ours[k]) for k in until)


def test_a_classifier_is_frozen_and_can_be_moved_and_judges_small_pictures(classifier):
    network = FeatureNetwork("classifier", ["relu0", "relu7"], classifier).double().train()
    assert not any(p.requires_grad or p.is_meta for p in (*network.parameters(), *network.buffers()))
    assert not any(m.training or isinstance(m, nn.BatchNorm2d) for m in network.modules())
    deepest = FeatureNetwork("classifier", ["relu17"], classifier)
    assert deepest(torch.rand(1, 3, SMALLEST, 40))["relu17"].numel() > 0


def test_files_of_a_classifier(classifier, tmp_path):
    bare = {k: v.half() for k, v in load_file(classifier).items() if not k.endswith("num_batches_tracked")}
    save_file(bare, tmp_path / "bare.safetensors")
    image = torch.rand(1, 3, 24, 24)
    a, b = (FeatureNetwork("classifier", ["relu2"], str(p))(image) for p in (classifier, tmp_path / "bare.safetensors"))
    torch.testing.assert_close(a["relu2"], b["relu2"], atol=0.02, rtol=0.02)
    lost = "features.2.conv.0.1.running_var"
    save_file({k: v for k, v in bare.items() if k != lost}, tmp_path / "bare.safetensors")
    with pytest.raises(UserError, match=f"does not hold classifier up to relu2: {lost} is miss"):
        FeatureNetwork("classifier", ["relu2"], str(tmp_path / "bare.safetensors"))


@pytest.mark.parametrize(
    "wanted, path, there, downloaded, expected",
    [
        ("auto", "", True, False, ("classifier", "C")),
        ("auto", "", True, True, ("vgg16", "")),
        ("auto", "my.pth", True, False, ("vgg16", "my.pth")),
        ("auto", "", False, False, ("vgg16", "")),
        ("classifier", "", True, True, ("classifier", "C")),
        ("classifier", "", False, True, ("classifier", "")),
        ("vgg19", "my.pth", True, True, ("vgg19", "my.pth")),
    ],
)
def test_choice_of_the_network(monkeypatch, tmp_path, wanted, path, there, downloaded, expected):
    kept = download_from(monkeypatch, VGG, "http://127.0.0.1:9/vgg16-397923af.pth", tmp_path)
    shipped = tmp_path / "C"
    if downloaded:
        kept.touch()
    if there:
        shipped.touch()
    network, file, why = choose_network(wanted, path, str(shipped))
    assert (network, file.replace(str(shipped), "C")) == expected and why


# ------------------------------------------------------------------------------------------ what is not possible


def test_files_and_layers_that_do_not_fit(tmp_path):
    weight_file(tmp_path, "vgg19", "relu2_1")
    weight_file(tmp_path, "squeezenet")
    large = {"features.0.weight": torch.zeros(64, 3, 5, 5), "features.0.bias": torch.zeros(64)}
    save_file(large, tmp_path / "large.safetensors")
    for network, layer, file, message in (
        ("vgg16", "relu3_4", "any", "vgg16 has no layer relu3_4: it has relu1_1, .*; did you mean relu3_"),
        ("vgg19", "relu2_2", "vgg19", "does not hold vgg19 up to relu2_2: features.7.weight is missing"),
        ("vgg16", "relu2_1", "squeezenet", "does not hold vgg16 up to relu2_1: features.2.weight .*loss_network"),
        ("vgg16", "relu1_1", "large", "does not hold vgg16 up to relu1_1: features.0.weight is missing or of another"),
        ("vgg16", "relu1_1", "nothing", "cannot read .*nothing.safetensors"),
    ):
        with pytest.raises(UserError, match=message):
            FeatureNetwork(network, [layer], str(tmp_path / f"{file}.safetensors"))


def download_from(monkeypatch, name: str, url: str, home: Path) -> Path:
    """torchvision's weights of this name are to come from `url`; the place in `home` where they are kept."""
    weights = getattr(torchvision.models, name).DEFAULT
    monkeypatch.setattr(weights, "_value_", type(weights.value)(url, weights.value.transforms, weights.value.meta))
    monkeypatch.setenv("TORCH_HOME", str(home))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    kept = home / "hub" / "checkpoints" / url.split("/")[-1]
    kept.parent.mkdir(parents=True, exist_ok=True)
    return kept


@pytest.mark.parametrize(
    "name, weights, option, use",
    [
        ("vgg16", VGG, "vgg", lambda: FeatureNetwork("vgg16", ["relu1_1"])),
        ("MobileNetV2", MobileNetV2.imagenet, "pretrained", lambda: MobileNetV2(["cat"]).load_pretrained()),
    ],
)
def test_no_connection_is_one_line_that_says_what_to_do(monkeypatch, tmp_path, name, weights, option, use):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens: connections are refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/weights-397923af.pth"
        kept = download_from(monkeypatch, weights, url, tmp_path)
        with pytest.raises(UserError) as error:
            use()
    message = str(error.value)
    assert message.startswith(f"cannot download {name} from {url}") and "\n" not in message
    assert f"{option}=FILE" in message and str(kept) in message


def test_a_download_is_kept_if_its_hash_is_right_and_used_from_then_on(monkeypatch, tmp_path):
    path, part = weight_file(tmp_path, "vgg16")
    data, image = path.read_bytes(), torch.rand(1, 3, 20, 20)
    served = path.rename(tmp_path / f"vgg16-{hashlib.sha256(data).hexdigest()[:8]}.pth")
    kept = download_from(monkeypatch, VGG, served.as_uri(), tmp_path / "home")
    for _ in range(2):
        ours = FeatureNetwork("vgg16", ["relu1_1"])(image)["relu1_1"]
        torch.testing.assert_close(ours, expected(part, image, "vgg16")["relu1_1"], atol=1e-4, rtol=1e-4)
        assert kept.read_bytes() == data
        served.unlink(missing_ok=True)
    kept.write_bytes(data[:1000])
    with pytest.raises(UserError, match=f"{kept.name} is not a readable weight file"):
        FeatureNetwork("vgg16", ["relu1_1"])
    (tmp_path / "vgg16-00000000.pth").write_bytes(data)
    kept = download_from(monkeypatch, VGG, (tmp_path / "vgg16-00000000.pth").as_uri(), tmp_path / "home")
    with pytest.raises(UserError, match="cannot download vgg16 .*hash"):
        FeatureNetwork("vgg16", ["relu1_1"])
    assert not kept.exists()


@pytest.mark.skipif(not torch.backends.nnpack.is_available(), reason="NNPACK knows no such processor")
def test_nnpack_gives_the_same_features_and_gradients(tmp_path, monkeypatch):
    path, _ = weight_file(tmp_path, "vgg16")
    results = []
    for faster in (True, False):
        monkeypatch.setattr(models.loss_networks, "nnpack_is_faster", lambda faster=faster: faster)
        network = FeatureNetwork("vgg16", ["relu1_2", "relu2_1"], str(path))
        assert sum(isinstance(layer, NNPackConv2d) for layer in network.features) == 2 * faster
        for size in ((64, 40), (32, 20)):  # the second is left to oneDNN
            image = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)).requires_grad_()
            features = network(image)
            loss = sum((f * torch.linspace(-1, 1, f.numel()).view(f.shape)).sum() for f in features.values())
            results.append((*features.values(), torch.autograd.grad(loss, image)[0]))
    for ours, theirs in zip(results[:2], results[2:], strict=True):
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * b.abs().max().item())
