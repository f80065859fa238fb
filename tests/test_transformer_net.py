"""models/transformer_net.py: layers against torch's, files of before, weights of pytorch/examples and pytorch-book."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from benchmarks.reference_style import ReferenceNet
from infer.painting.styles import load_painter
from models.basemodule import BaseModule, read_state_dict
from models.transformer_net import (
    EPS,
    BlockConv2d,
    BoundedNorm,
    InstanceNorm,
    ReflectConv,
    StyleNetworks,
    TransformerNet,
    from_examples,
    join_styles,
)
from utils.errors import UserError

LAYOUTS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
TINY = {"channels": (4, 6, 8), "blocks": 2}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def randomise(model: nn.Module, seed: int = 1, spread: float = 1.0) -> nn.Module:
    """Random scales and shifts of the normalisations, as after a training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, InstanceNorm | nn.InstanceNorm2d):
                for parameter in module.parameters():
                    parameter.add_(spread * torch.randn(parameter.shape, generator=generator))
    return model


def tiny(bound: float = 0.0) -> TransformerNet:
    torch.manual_seed(0)
    return randomise(TransformerNet(**TINY, bound=bound)).eval()


def painter(*names: str, seed: int = 0, **more) -> StyleNetworks:
    torch.manual_seed(seed)
    return randomise(StyleNetworks(dict.fromkeys(names, {**TINY, **more})), seed).eval()


# -------------------------------------------------------------------------------------------------- convolutions


@pytest.mark.parametrize("kernel, stride", [(9, 1), (3, 2), (3, 1)])
def test_the_padding_stays_in_the_precision_of_what_is_padded(kernel, stride):
    """Autocast makes float32 of it: a tenth of the time of a training step."""
    layer, seen = ReflectConv(4, 6, kernel, stride), []
    layer.conv2d.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].dtype))
    x = random(2, 4, 16, 13).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x.bfloat16())
    assert seen == [torch.bfloat16]
    pad = nn.ReflectionPad2d(kernel // 2)
    exact = F.conv2d(pad(x), layer.conv2d.weight, layer.conv2d.bias, stride)
    torch.testing.assert_close(y.float(), exact, atol=0.05, rtol=0.02)
    upstream = random(*y.shape, seed=3)
    got, want = (torch.autograd.grad(z, x, upstream)[0] for z in (y.float(), exact))
    assert (got - want).norm() < 0.02 * want.norm()


def test_a_convolution_by_four_pixels_at_a_time():
    conv, x = BlockConv2d(4, 3, 9), random(2, 4, 18, 22)
    torch.testing.assert_close(conv(x), F.conv2d(x, conv.weight, conv.bias))


# ------------------------------------------------------------------------------------------------- normalisation


def spiked(*shape: int) -> torch.Tensor:
    """Noise with a spot in two channels that is far beyond the rest."""
    x = random(*shape).double()
    x[0, 0, 2, 3], x[-1, 1, 1, 1] = 20, -15
    return x


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bound", [0.0, 4.0])
def test_the_norm_is_torchs_clamped(layout, bound):
    x = (spiked(2, 3, 9, 8).float() + 5).contiguous(memory_format=LAYOUTS[layout])
    scale, shift = random(3, seed=1) - 0.5, random(3, seed=2)
    y, excess = BoundedNorm.apply(x, scale, shift, bound)
    z = F.instance_norm(x, eps=EPS)
    assert z.abs().amax() > 6
    clamped = z.clamp(-bound, bound) if bound else z
    torch.testing.assert_close(y, clamped * scale[:, None, None] + shift[:, None, None], atol=1e-5, rtol=1e-5)
    # The excess is counted from a margin of 1 below the bound on.
    beyond = (z.abs() - 3).clamp(min=0).square().mean((1, 2, 3)) if bound else torch.zeros(2)
    torch.testing.assert_close(excess, beyond, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("bound", [0.0, 2.5, 50.0])
def test_the_norm_passes_gradcheck_in_double(bound):
    inputs = [spiked(2, 2, 4, 4), random(2, seed=1).double() - 0.5, random(2, seed=2).double()]
    inputs = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(lambda *values: BoundedNorm.apply(*values, bound), inputs)


def test_the_norm_refuses_a_second_derivative_rather_than_giving_a_wrong_one():
    x = random(1, 2, 3, 3).requires_grad_()
    y, _ = BoundedNorm.apply(x, *random(2, 2), 0.0)
    first = torch.autograd.grad(y.square().sum(), x, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_norm_is_exact_far_from_zero(layout):
    x = (100 + random(1, 4, 64, 64)).contiguous(memory_format=LAYOUTS[layout])
    exact = F.instance_norm(x.double(), eps=EPS).float()
    torch.testing.assert_close(InstanceNorm(4)(x), exact, atol=1e-3, rtol=0)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bound", [0.0, 1.2])
def test_bf16_is_close_in_both_directions(layout, bound):
    layer = randomise(InstanceNorm(6, bound))
    x = random(2, 6, 20, 20).contiguous(memory_format=LAYOUTS[layout])
    half, exact = x.bfloat16().requires_grad_(), x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(half)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer(exact), atol=0.05, rtol=0.02)
    upstream = random(*x.shape, seed=3)
    got, want = (torch.autograd.grad((z.float() * upstream).sum(), v)[0] for z, v in ((y, half), (layer(exact), exact)))
    assert (got.float() - want).norm() < 0.1 * want.norm()


# --------------------------------------------------------------------------------------------------- the network


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_batch_is_its_pictures_one_by_one(layout):
    """Of one style and of several."""
    model, image = painter("wave", "ink", "oil"), random(4, 3, 22, 19).contiguous(memory_format=LAYOUTS[layout])
    style = torch.tensor([2, 0, 2, 1])
    together = model(image, style)["image"]
    single = [model.networks[number](picture)["image"] for picture, number in zip(image.split(1), style, strict=True)]
    torch.testing.assert_close(together, torch.cat(single), atol=1e-5, rtol=1e-5)
    assert len({tuple(one.flatten().tolist()[:5]) for one in single}) == 4


def test_bf16_network_is_close_to_fp32():
    model, image = tiny(), random(1, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(image)["image"]
    assert half.dtype == torch.float32
    assert (half - model(image)["image"]).abs().mean() < 0.02


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_plain_pictures_give_finite_paintings_and_gradients(value):
    model = tiny()
    painting = model(torch.full((2, 3, 16, 16), value))["image"]
    painting.square().mean().backward()
    assert painting.isfinite().all() and all(p.grad.isfinite().all() for p in model.parameters())


def test_every_parameter_gets_a_gradient():
    model = StyleNetworks(dict.fromkeys(("wave", "ink"), TINY))  # random shifts would leave dead channels
    painting = model(random(2, 3, 16, 16), torch.arange(2))["image"]
    (painting * random(2, 3, 16, 16, seed=5)).sum().backward()
    rows = {n: p.grad.reshape(len(p), -1).abs().sum(1) for n, p in model.named_parameters()}  # or channels
    dead = [n for n, row in rows.items() if not row.all()]
    # A shift of a whole channel (of a convolution, of a block) is what the next normalisation takes away.
    assert [n for n in dead if not n.endswith(("conv2d.bias", "1.in2.bias", "2.in2.bias"))] == []


def test_the_excess_is_told_in_training_alone():
    """Also where only some of the networks have a bound."""
    image, style = random(3, 3, 16, 16), torch.tensor([1, 0, 1])
    model = join_styles([painter("wave"), painter("ink", bound=1.2)])
    assert set(model(image, style)) == {"image"}
    excess = model.train()(image, style)["excess"]
    assert excess.shape == (3,) and (excess > 0).tolist() == [True, False, True]


# ------------------------------------------------------------------------------------------------------- files


def test_save_and_load(tmp_path):
    model, image = painter("wave", "水墨.2"), random(1, 3, 20, 20)
    model.save(tmp_path / "m.safetensors")
    again = BaseModule.load(tmp_path / "m.safetensors")
    assert type(again) is StyleNetworks and again.styles == ["wave", "水墨.2"]
    assert torch.equal(again["水墨.2"](image)["image"], model["水墨.2"](image)["image"])


def test_painters_are_joined(tmp_path):
    """Of different networks; of a style that two have it is the last one's; nothing else changes."""
    first, second = painter("wave", "ink"), painter("ink", "oil", seed=3, blocks=1)
    first.metadata = {"loss_network": "vgg19", "style_pictures": {"wave": "w", "ink": "i"}}
    second.metadata = {"loss_network": "vgg16", "style_pictures": {"ink": "j", "oil": "o"}}
    joined = join_styles([first, second])
    assert joined.styles == ["wave", "ink", "oil"] and len(joined["ink"].blocks) == 1
    assert joined.metadata == {"loss_network": "vgg19", "style_pictures": {"wave": "w", "ink": "j", "oil": "o"}}
    joined.save(tmp_path / "joined.safetensors")
    joined, image = StyleNetworks.load(tmp_path / "joined.safetensors"), random(1, 3, 20, 20)
    for name, model in (("wave", first), ("ink", second), ("oil", second)):
        assert torch.equal(joined[name](image)["image"], model[name](image)["image"])


@pytest.mark.parametrize("own", [0, 1])
@pytest.mark.parametrize("identity", [True, False])
def test_files_with_all_styles_in_one_network_are_split(tmp_path, own, identity):
    """Shared convolutions, or one for each row in the last blocks and the decoder; a row for each style."""
    expected = painter("wave", "ink", bound=2.0)
    rows, tensors = [*expected.networks, *([painter("none")["none"]] if identity else [])], {}
    for key, tensor in rows[0].state_dict().items():
        has_own = own and key.startswith(("res2", "deconv")) and "conv2d" in key
        if has_own:
            name, part = key.split(".conv2d.")
            tensors |= {f"{name}.kernels.{i}.{part}": row.state_dict()[key] for i, row in enumerate(rows)}
        elif "conv2d" in key:
            tensors[key] = tensor
            expected["ink"].state_dict()[key].copy_(tensor)
        else:
            tensors[key] = torch.stack([row.state_dict()[key] for row in rows])
    arguments = {"styles": expected.styles, **TINY, "identity": identity, "own": own, "bound": 2.0}
    header = {"format": "shihua-1", "class": "TransformerNet", "arguments": json.dumps(arguments)}
    save_file(tensors, tmp_path / "old.safetensors", metadata=header)
    found = StyleNetworks.load(tmp_path / "old.safetensors")
    assert found.arguments == json.loads(json.dumps(expected.arguments))
    for key, tensor in found.state_dict().items():
        assert torch.equal(tensor, expected.state_dict()[key]), key


# ----------------------------------------------------------------------------------- weights of pytorch/examples


@torch.no_grad()
def examples(channels: tuple[int, int, int], blocks: int = 5) -> ReferenceNet:
    """A network like theirs with random weights, whose paintings go from about 0 to about 255."""
    torch.manual_seed(0)
    net = randomise(ReferenceNet(channels, blocks), 0, 0.2)
    std, mean = torch.std_mean(net(255 * random(1, 3, 64, 64)), (0, 2, 3))
    net.deconv3.conv2d.weight.mul_((60 / std).view(-1, 1, 1, 1))
    net.deconv3.conv2d.bias.sub_(mean).mul_(60 / std).add_(128)
    return net.eval()


@torch.no_grad()
def largest_difference(ours: TransformerNet, theirs: nn.Module, height: int, width: int, light: float = 1) -> float:
    """Of both paintings of a random photograph, in grey levels."""
    photo = light * random(1, 3, height, width, seed=9)
    expected = theirs(255 * photo)[:, :, :height, :width]
    assert expected.std() > 20  # a painting, not a grey wall
    return (255 * ours(photo)["image"] - expected).abs().max().item()


@pytest.mark.parametrize("channels, blocks", [((32, 64, 128), 5), ((5, 9, 13), 3)])
def test_examples_weights_give_the_same_picture(channels, blocks):
    """Of every size; also of an almost black one: its variance is small enough for the norm's epsilon to show."""
    theirs = examples(channels, blocks)
    ours = from_examples(theirs.state_dict(), "mosaic")
    assert ours.styles == ["mosaic"] and not ours.training
    assert ours.arguments["styles"]["mosaic"] == {"channels": list(channels), "blocks": blocks}
    for height, width, light in ((64, 64, 1), (33, 50, 1), (5, 40, 1), (32, 32, 4e-3), (32, 32, 4e-4)):
        assert largest_difference(ours["mosaic"], theirs, height, width, light) < 0.01


@pytest.mark.parametrize("form", ["of every age", "double", "half"])
def test_examples_files_of_every_age(tmp_path, form):
    """With InstanceNorm's statistics of before PyTorch 0.4, of DataParallel, in another dict."""
    theirs = examples((4, 6, 8), blocks=2)
    state = {key: tensor.half() if form == "half" else tensor.double() for key, tensor in theirs.state_dict().items()}
    theirs.load_state_dict(state)
    if form == "of every age":
        norms = [key.removesuffix("weight") for key in state if key.endswith("weight") and ".conv2d" not in key]
        state |= {
            f"{norm}running_{part}": torch.rand(len(state[f"{norm}bias"])) for norm in norms for part in ("mean", "var")
        }
        assert len(norms) == 5 + 2 * 2
        state = {"epoch": 2, "state_dict": {f"module.{key}": tensor for key, tensor in state.items()}}
    torch.save(state, tmp_path / "w.pth")
    from_examples(read_state_dict(tmp_path / "w.pth"), "w").save(tmp_path / "w.safetensors")
    assert largest_difference(StyleNetworks.load(tmp_path / "w.safetensors")["w"], theirs, 30, 29) < 0.01


def without(state: dict, key: str) -> dict:
    return {k: v for k, v in state.items() if k != key}


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda s: {"epoch": 3}, "w.pth holds no state dict"),
        (lambda s: without(s, "deconv3.conv2d.bias"), "it has no deconv3.conv2d.bias"),
        (lambda s: {**s, "conv1.conv2d.weight": torch.tensor(1.0)}, "it has no conv1.conv2d.weight"),
        (lambda s: without(s, "in4.weight"), "missing in4.weight"),
        (lambda s: {**s, "res7.conv1.conv2d.weight": torch.zeros(1)}, "unknown res7"),
        (lambda s: {**s, "conv2.conv2d.weight": torch.zeros(6, 4, 5, 5)}, r"conv2.conv2d.weight is \(6, 4, 5, 5\)"),
    ],
)
def test_files_of_other_networks_are_refused_in_one_line(spoil, message):
    with pytest.raises(UserError, match=message) as error:
        from_examples(spoil(examples((4, 6, 8), blocks=2).state_dict()), "w", "place/w.pth")
    assert str(error.value).startswith("place/w.pth ") and "\n" not in str(error.value)


# ----------------------------------------------------------------------------------------- weights of pytorch-book


# By hand: what the layers of pytorch-book's style chapter are called, and what those of the examples.
BOOK = {
    "initial_layers.0": "conv1", "initial_layers.1": "in1", "initial_layers.3": "conv2", "initial_layers.4": "in2",
    "initial_layers.6": "conv3", "initial_layers.7": "in3", "res_layers.0": "res1", "res_layers.1": "res2",
    "res_layers.2": "res3", "upsample_layers.0": "deconv1", "upsample_layers.1": "in4", "upsample_layers.3": "deconv2",
    "upsample_layers.4": "in5", "upsample_layers.6": "deconv3",
}  # fmt: skip


def test_the_books_weights_paint_what_its_network_paints(tmp_path):
    """Its layers are the same, under other names."""
    theirs = examples((5, 9, 13), blocks=3)
    names = {ours: book for book, ours in BOOK.items()}
    split = [(key.partition("."), tensor) for key, tensor in theirs.state_dict().items()]
    state = {f"{names[layer]}.{rest}": tensor for (layer, _, rest), tensor in split}
    torch.save(state, tmp_path / "book.pth")
    ours = load_painter(tmp_path / "book.pth")
    assert ours.styles == ["book"] and len(ours["book"].blocks) == 3
    assert largest_difference(ours["book"], theirs, 36, 29) < 0.01
    with pytest.raises(UserError, match="place/book.pth does not fit TransformerNet: missing res2.in2.bias"):
        from_examples(without(state, "res_layers.1.in2.bias"), "book", "place/book.pth")


def test_the_reference_has_the_layers_of_the_published_files():
    """Names and shapes by hand, so that the oracle cannot drift along with our network."""
    shapes = {
        "conv1.conv2d.weight": (32, 3, 9, 9),
        "in3.bias": (128,),
        "res5.in2.weight": (128,),
        "deconv1.conv2d.weight": (64, 128, 3, 3),
        "in5.bias": (32,),
        "deconv3.conv2d.weight": (3, 32, 9, 9),
    }
    state = ReferenceNet().state_dict()
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    assert len(state) == 2 * (6 + 5) + 8 * 5 and sum(p.numel() for p in state.values()) == 1_679_235
