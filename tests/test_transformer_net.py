"""models/transformer_net.py against torch's own normalisation and a plain pytorch/examples network; what it refuses."""

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from benchmarks.reference_style import ReferenceNet
from infer.painting.files import load_network
from models.basemodule import BaseModule, read_state_dict
from models.transformer_net import (
    EPS,
    STANDARD_MEAN,
    STANDARD_STD,
    BoundedInstanceNorm,
    ConditionalInstanceNorm,
    InstanceNorm,
    ReflectConv,
    TransformerNet,
    colours_back,
    from_examples,
)
from utils.errors import UserError

LAYOUTS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def randomise(model: nn.Module) -> nn.Module:
    """Random rows of the normalisations, as after a training, and a painting with contrast."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "in" in name.split(".")[-2]:
                parameter.uniform_(-1, 1, generator=generator)
    return model


def norm(rows: int, channels: int) -> ConditionalInstanceNorm:
    return randomise(nn.ModuleDict({"in": ConditionalInstanceNorm(rows, channels)}))["in"]


def tiny(styles: int = 2, identity: bool = True, own: int = 0, bound: float = 0.0) -> TransformerNet:
    names = ["wave", "starry", "ink", "scream"][:styles]
    return randomise(TransformerNet(names, (4, 6, 8), blocks=2, identity=identity, own=own, bound=bound)).eval()


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


# ------------------------------------------------------------------------------------------------------ strength


def test_beyond_the_style_the_last_normalisation_stays_with_it():
    model = tiny(styles=3)
    mix = {"wave": 0.3, "ink": 0.7}
    for strength in (0, 0.25, 1):
        row = model.mixture(mix, strength)
        assert torch.equal(model.within(row), row)
    for strength in (1.2, 1.5, 3):
        torch.testing.assert_close(model.within(model.mixture(mix, strength)), model.mixture(mix, 1))
    rows = torch.cat([model.mixture(mix, 0.5), model.mixture(mix, 2.0)])
    torch.testing.assert_close(model.within(rows), torch.cat([rows[:1], model.mixture(mix, 1)]))
    plain = tiny(identity=False)
    assert torch.equal(plain.within(torch.tensor([[0.5, 0.5]])), torch.tensor([[0.5, 0.5]]))


# ------------------------------------------------------------------------------------------------- normalisation


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [(1, 3, 5, 7), (3, 8, 16, 9), (2, 1, 2, 2)])
def test_instance_norm_forward_and_backward_equal_torchs(layout, size):
    x = (4 * random(*size) + 1).contiguous(memory_format=LAYOUTS[layout]).requires_grad_()
    scale, shift = (random(*size[:2], seed=s).requires_grad_() for s in (1, 2))
    upstream = random(*size, seed=3)
    ours = InstanceNorm.apply(x, scale, shift)
    theirs = F.instance_norm(x, eps=EPS) * scale[:, :, None, None] + shift[:, :, None, None]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    ours_back = torch.autograd.grad(ours, (x, scale, shift), upstream)
    theirs_back = torch.autograd.grad(theirs, (x, scale, shift), upstream)
    torch.testing.assert_close(ours_back, theirs_back, atol=1e-4, rtol=1e-4)


def test_instance_norm_passes_gradcheck_in_double():
    inputs = [random(2, 3, 4, 5).double(), random(2, 3, seed=1).double(), random(2, 3, seed=2).double()]
    assert torch.autograd.gradcheck(InstanceNorm.apply, [x.requires_grad_() for x in inputs])


def spiked(*shape: int) -> torch.Tensor:
    """Noise with a spot in two channels that is far beyond the rest."""
    x = random(*shape).double()
    x[0, 0, 2, 3], x[-1, 1, 1, 1] = 20, -15
    return x


@pytest.mark.parametrize("bound", [2.5, 50.0])
def test_bounded_norm_passes_gradcheck_in_double(bound):
    inputs = [spiked(2, 3, 6, 5), random(2, 3, seed=1).double() - 0.5, random(2, 3, seed=2).double()]
    assert torch.autograd.gradcheck(
        lambda *values: BoundedInstanceNorm.apply(*values, bound), [x.requires_grad_() for x in inputs]
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bounded_norm_clamps_what_is_normalised_and_says_by_how_much_it_is_beyond(layout):
    x, scale, shift = spiked(2, 3, 9, 8).float(), random(2, 3, seed=1) - 0.5, random(2, 3, seed=2)
    y, excess = BoundedInstanceNorm.apply(x.contiguous(memory_format=LAYOUTS[layout]), scale, shift, 4.0)
    z = F.instance_norm(x, eps=EPS)
    assert z.abs().amax() > 6
    expected = z.clamp(-4, 4) * scale[:, :, None, None] + shift[:, :, None, None]
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)
    beyond = (z.abs() - 3).clamp(min=0).square().mean((1, 2, 3))  # from a margin of 1 below the bound on
    torch.testing.assert_close(excess, beyond, atol=1e-5, rtol=1e-4)


def test_a_bounded_network_tells_its_excess_in_training_alone():
    model = tiny(bound=1.2)
    assert set(model(random(2, 3, 16, 16), torch.eye(3)[:2])) == {"image"}
    excess = model.train()(random(2, 3, 16, 16), torch.eye(3)[:2])["excess"]
    assert excess.shape == (2,) and (excess > 0).all()


def test_instance_norm_refuses_a_second_derivative_rather_than_giving_a_wrong_one():
    x = random(1, 2, 3, 3).requires_grad_()
    first = torch.autograd.grad(InstanceNorm.apply(x, *random(2, 1, 2)).square().sum(), x, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_instance_norm_is_exact_far_from_zero(layout):
    x = (100 + random(1, 4, 64, 64)).contiguous(memory_format=LAYOUTS[layout])
    ours = InstanceNorm.apply(x, torch.ones(1, 4), torch.zeros(1, 4))
    exact = F.instance_norm(x.double(), eps=EPS).float()
    torch.testing.assert_close(ours, exact, atol=1e-3, rtol=0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bf16_is_close(layout):
    layer = norm(2, 6)
    x, style = random(2, 6, 20, 20).contiguous(memory_format=LAYOUTS[layout]), torch.eye(2)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x.bfloat16(), style)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer(x, style), atol=0.05, rtol=0.02)


def test_one_row_is_torchs_affine_layer():
    ours, theirs = norm(1, 5), nn.InstanceNorm2d(5, affine=True)
    theirs.load_state_dict({"weight": ours.weight[0].detach(), "bias": ours.bias[0].detach()})
    x = random(2, 5, 9, 8)
    torch.testing.assert_close(ours(x, torch.ones(2, 1)), theirs(x), atol=1e-5, rtol=1e-5)


def test_rows_mix_linearly():
    layer = norm(3, 4)
    x, shares = random(1, 4, 8, 8), torch.tensor([[0.7, -0.2, 0.5]])
    alone = [layer(x, row[None]) for row in torch.eye(3)]
    mixed = sum(share * y for share, y in zip(shares[0], alone, strict=True))
    torch.testing.assert_close(layer(x, shares), mixed, atol=1e-5, rtol=1e-5)


# --------------------------------------------------------------------------------------------------- the network


@pytest.mark.parametrize("height, width", [(5, 5), (5, 40), (16, 16), (17, 18), (30, 31)])
def test_output_has_the_size_of_the_input(height, width):
    assert tiny()(random(2, 3, height, width), torch.eye(3)[:2])["image"].shape == (2, 3, height, width)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_batch_is_its_pictures_one_by_one(layout):
    model, image = tiny(), random(3, 3, 22, 19).contiguous(memory_format=LAYOUTS[layout])
    style = torch.tensor([[1, 0, 0], [0.3, 0.3, 0.4], [0, 1.5, -0.5]])
    together = model(image, style)["image"]
    single = torch.cat([model(image[i : i + 1], style[i : i + 1])["image"] for i in range(3)])
    torch.testing.assert_close(together, single, atol=1e-5, rtol=1e-5)


def test_bf16_network_is_close_to_fp32():
    model, image, style = tiny(identity=False), random(1, 3, 32, 32), torch.eye(2)[:1]
    with torch.autocast("cpu", torch.bfloat16):
        half = model(image, style)["image"]
    assert half.dtype == torch.float32
    assert (half - model(image, style)["image"]).abs().mean() < 0.02


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_plain_pictures_give_finite_paintings_and_gradients(value):
    model = tiny()
    painting = model(torch.full((2, 3, 16, 16), value), torch.tensor([[1.0, 0, 0], [0, 0, 1]]))["image"]
    painting.square().mean().backward()
    assert painting.isfinite().all() and all(p.grad.isfinite().all() for p in model.parameters())


def test_every_parameter_gets_a_gradient():
    model = tiny()
    painting = model(random(3, 3, 16, 16), torch.eye(3))["image"]
    (painting * random(3, 3, 16, 16, seed=5)).sum().backward()
    rows = {n: p.grad.reshape(len(p), -1).abs().sum(1) for n, p in model.named_parameters()}  # or channels
    dead = [n for n, row in rows.items() if not row.all()]
    # A shift of a whole channel is what the next normalisation takes away.
    assert [n for n in dead if not n.endswith("conv2d.bias")] == []


def test_styles_with_layers_of_their_own():
    """Each has its kernels, of which a mixture is one of kernels; what it does not use gets no gradient."""
    model, image = tiny(own=1), random(3, 3, 16, 17)
    assert model.shared_convolutions == ["conv1", "conv2", "conv3", "res1.conv1", "res1.conv2"]
    style = torch.tensor([[1.0, 0, 0], [0.25, 0.5, 0.25], [0, 1.5, -0.5]])
    together = model(image, style)["image"]
    for i, row in enumerate(style):
        plain = tiny()  # all kernels shared: those that the row comes to
        state = {k: v for k, v in model.state_dict().items() if ".kernels." not in k}
        for name, conv in model.named_modules():
            if isinstance(conv, ReflectConv) and conv.rows:
                shares = model.within(row[None])[0] if name == "deconv3" else row
                for part in ("weight", "bias"):
                    kernels = torch.stack([getattr(kernel, part) for kernel in conv.kernels])
                    state[f"{name}.conv2d.{part}"] = torch.einsum("s,s...->...", shares, kernels)
        plain.load_state_dict(state)
        expected = plain(image[i : i + 1], row[None])["image"]
        torch.testing.assert_close(together[i : i + 1], expected, atol=1e-5, rtol=1e-5)
    model(image[:1], torch.eye(3)[1:2])["image"].sum().backward()
    touched = [name for name, p in model.named_parameters() if ".kernels." in name and p.grad is not None]
    assert {name.split(".kernels.")[1].split(".")[0] for name in touched} == {"1"}


def test_a_new_style_starts_as_the_identity_with_its_kernels():
    model, image = TransformerNet(["wave", "ink"], (4, 6, 8), blocks=2, own=1), random(1, 3, 16, 16)
    for norm_ in model.norms:
        norm_.weight.data[-1] += 0.2
    assert model.untrained_styles() == [0, 1]
    model.styles_from_identity()
    ink, identity = (model.res2(model.conv3(model.conv2(model.conv1(image))), row) for row in torch.eye(3)[1:, None])
    torch.testing.assert_close(ink, identity)


def test_files_of_before_there_were_own_layers_load(tmp_path):
    model = tiny()
    model.arguments = {k: v for k, v in model.arguments.items() if k not in ("own", "bound")}
    model.save(tmp_path / "old.safetensors")
    again = TransformerNet.load(tmp_path / "old.safetensors")
    image, style = random(1, 3, 16, 16), torch.eye(3)[:1]
    assert torch.equal(again(image, style)["image"], model(image, style)["image"])


def test_each_style_depends_on_its_own_rows_alone():
    model, image = tiny(), random(1, 3, 16, 16)
    changed = copy.deepcopy(model)
    for name, parameter in changed.named_parameters():
        if "in" in name.split(".")[-2]:
            parameter.data[1] += 1
    before, after = (m(image.expand(3, -1, -1, -1), torch.eye(3))["image"] for m in (model, changed))
    assert torch.equal(before[[0, 2]], after[[0, 2]]) and not torch.equal(before[1], after[1])


def test_save_and_load(tmp_path):
    model, image, style = tiny(), random(1, 3, 20, 20), torch.eye(3)[1:2]
    model.save(tmp_path / "m.safetensors")
    again = BaseModule.load(tmp_path / "m.safetensors")
    assert type(again) is TransformerNet and again.styles == model.styles and again.identity
    assert torch.equal(again(image, style)["image"], model(image, style)["image"])


# --------------------------------------------------------------------------------------- identity, strength, mixture


class Standardised(nn.Module):
    """In the place of the last convolution: the photograph at standard mean and contrast, whatever comes in."""

    def __init__(self, photo: torch.Tensor):
        super().__init__()
        std, mean = torch.std_mean(photo, (2, 3), keepdim=True, correction=0)
        self.picture = (photo - mean) / std * STANDARD_STD + STANDARD_MEAN

    def forward(self, x, style):
        return self.picture


def test_the_identity_gets_the_colours_of_the_photograph_back():
    photo = random(2, 3, 12, 14) * torch.tensor([0.1, 0.5, 1.0]).view(1, 3, 1, 1) + 0.05
    model = tiny()
    model.deconv3 = Standardised(photo)
    identity = model.mixture({"wave": 1}, strength=0).expand(2, -1)
    torch.testing.assert_close(model(photo, identity)["image"], photo, atol=1e-6, rtol=0)


def test_a_style_paints_its_own_colours():
    for share in (0.0, -0.5):  # a strength of 1, and of 1.5
        scale, shift = colours_back(random(1, 3, 8, 8), torch.tensor([[1 - share, share]]))
        assert scale.eq(1).all() and shift.eq(0).all()


def test_mixture_gives_the_row_of_shares():
    model = tiny(3)
    assert model.mixture({"starry": 1}).tolist() == [[0, 1, 0, 0]]
    torch.testing.assert_close(model.mixture({"wave": 3, "ink": 1}), torch.tensor([[0.75, 0, 0.25, 0]]))
    torch.testing.assert_close(model.mixture({"wave": 3, "ink": 1}, 0.4), torch.tensor([[0.3, 0, 0.1, 0.6]]))
    torch.testing.assert_close(model.mixture({"wave": 1}, 1.5), torch.tensor([[1.5, 0, 0, -0.5]]))
    assert model.mixture({"wave": 1}, 0).tolist() == [[0, 0, 0, 1]]
    assert tiny(2, identity=False).mixture({"starry": 0.2}).tolist() == [[0, 1]]


@pytest.mark.parametrize(
    "shares, strength, message",
    [
        ({"stary": 1}, 1, "--style=stary: this network has wave, starry; did you mean starry?"),
        ({}, 1, "--style: the shares"),
        ({"wave": 0}, 1, "--style: the shares"),
        ({"wave": 2, "starry": -1}, 1, "--style: the shares"),
        ({"wave": float("nan")}, 1, "--style: the shares"),
        ({"wave": float("inf")}, 1, "--style: the shares"),
        ({"wave": 1}, -0.5, "--strength=-0.5"),
        ({"wave": 1}, float("nan"), "--strength=nan"),
        ({"wave": 1}, float("inf"), "--strength=inf"),
    ],
)
def test_mixtures_that_are_none(shares, strength, message):
    with pytest.raises(UserError) as error:
        tiny().mixture(shares, strength)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_strength_needs_the_identity():
    with pytest.raises(UserError, match="--strength=0.5: this network was trained without the identity"):
        tiny(identity=False).mixture({"wave": 1}, 0.5)


# ----------------------------------------------------------------------------------- weights of pytorch/examples


def examples(channels: tuple[int, int, int], blocks: int = 5, seed: int = 0) -> ReferenceNet:
    """A network like theirs with random weights, whose paintings go from about 0 to about 255."""
    torch.manual_seed(seed)
    net = ReferenceNet(channels, blocks)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "in" in name.split(".")[-2]:
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
        photo = 255 * torch.rand(1, 3, 64, 64)
        std, mean = torch.std_mean(net(photo), (0, 2, 3))
        net.deconv3.conv2d.weight.mul_((60 / std).view(-1, 1, 1, 1))
        net.deconv3.conv2d.bias.sub_(mean).mul_(60 / std).add_(128)
    return net.eval()


@torch.no_grad()
def largest_difference(ours: TransformerNet, theirs: ReferenceNet, height: int, width: int, light: float = 1) -> float:
    """Of both paintings of a random photograph, in grey levels."""
    photo = light * random(1, 3, height, width, seed=9)
    expected = theirs(255 * photo)[:, :, :height, :width]
    assert expected.std() > 20  # a painting, not a grey wall
    return (255 * ours(photo, ours.mixture({ours.styles[0]: 1}))["image"] - expected).abs().max().item()


@pytest.mark.parametrize("channels, blocks", [((32, 64, 128), 5), ((16, 32, 64), 5), ((5, 9, 13), 3)])
def test_examples_weights_give_the_same_picture(channels, blocks):
    theirs = examples(channels, blocks)
    ours = from_examples(theirs.state_dict(), "mosaic")
    assert ours.styles == ["mosaic"] and not ours.training and not ours.identity
    assert ours.arguments["channels"] == list(channels) and len(ours.blocks) == blocks
    for height, width in ((64, 64), (50, 61), (33, 48)):
        assert largest_difference(ours, theirs, height, width) < 0.01


def test_examples_weights_give_the_same_picture_of_an_almost_black_photograph():
    """Its variance is not large against the normalisation's epsilon: the scale of the input shows."""
    theirs = examples((4, 6, 8), blocks=2)
    ours = from_examples(theirs.state_dict(), "mosaic")
    for light in (4e-3, 4e-4):
        assert largest_difference(ours, theirs, 32, 32, light) < 0.01


def old_statistics(state: dict) -> dict:
    """As InstanceNorm wrote before PyTorch 0.4."""
    more = {}
    for key in [k for k in state if k.endswith("weight") and ".conv2d" not in k]:
        norm = key.removesuffix("weight")
        more |= {f"{norm}running_mean": torch.rand(len(state[key])), f"{norm}running_var": torch.rand(len(state[key]))}
    assert len(more) == 2 * (5 + 2 * 2)
    return {**state, **more}


FORMS = {
    "plain": lambda state: state,
    "old statistics": old_statistics,
    "DataParallel": lambda state: {f"module.{k}": v for k, v in state.items()},
    "nested": lambda state: {"epoch": 2, "state_dict": state},
    "everything": lambda state: {"state_dict": {f"module.{k}": v for k, v in old_statistics(state).items()}},
    "double": lambda state: {k: v.double() for k, v in state.items()},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("suffix", [".pth", ".model"])
def test_examples_files_of_every_age(tmp_path, form, suffix):
    theirs = examples((4, 6, 8), blocks=2)
    torch.save(FORMS[form](theirs.state_dict()), tmp_path / f"w{suffix}")
    ours = from_examples(read_state_dict(tmp_path / f"w{suffix}"), "w")
    assert largest_difference(ours, theirs, 30, 29) < 0.01


def test_examples_weights_in_safetensors_and_in_half_precision(tmp_path):
    theirs = examples((4, 6, 8), blocks=2)
    save_file(theirs.state_dict(), tmp_path / "w.safetensors")
    assert largest_difference(from_examples(read_state_dict(tmp_path / "w.safetensors"), "w"), theirs, 24, 24) < 0.01
    half = {k: v.half() for k, v in theirs.state_dict().items()}
    theirs.load_state_dict(half)
    assert largest_difference(from_examples(half, "w"), theirs, 24, 24) < 0.01


def test_a_network_from_examples_can_be_kept_as_ours(tmp_path):
    theirs = examples((4, 6, 8), blocks=2)
    from_examples(theirs.state_dict(), "candy").save(tmp_path / "candy.safetensors")
    assert largest_difference(TransformerNet.load(tmp_path / "candy.safetensors"), theirs, 20, 20) < 0.01


def without(state: dict, key: str) -> dict:
    return {k: v for k, v in state.items() if k != key}


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda s: [1, 2], "w.pth holds no state dict"),
        (lambda s: {"epoch": 3}, "w.pth holds no state dict"),
        (lambda s: {"fc.weight": torch.zeros(2, 2)}, "it has no conv1.conv2d.weight"),
        (lambda s: without(s, "conv3.conv2d.weight"), "it has no conv3.conv2d.weight"),
        (lambda s: without(s, "deconv3.conv2d.bias"), "it has no deconv3.conv2d.bias"),
        (lambda s: {**s, "conv1.conv2d.weight": torch.tensor(1.0)}, "it has no conv1.conv2d.weight"),
        (lambda s: without(s, "in4.weight"), "missing in4.weight"),
        (lambda s: {**s, "res7.conv1.conv2d.weight": torch.zeros(1)}, "unknown res7"),
        (lambda s: {**s, "attention.weight": torch.zeros(1)}, "unknown attention.weight"),
        (lambda s: {**s, "conv2.conv2d.weight": torch.zeros(6, 4, 5, 5)}, r"conv2.conv2d.weight is \(6, 4, 5, 5\)"),
        (lambda s: {**s, "in1.weight": torch.zeros(9)}, r"in1.weight is \(1, 9\), not \(1, 4\)"),
    ],
)
def test_files_of_other_networks_are_refused_in_one_line(spoil, message):
    with pytest.raises(UserError, match=message) as error:
        from_examples(spoil(examples((4, 6, 8), blocks=2).state_dict()), "w", "place/w.pth")
    assert str(error.value).startswith("place/w.pth ") and "\n" not in str(error.value)


def test_the_reference_has_the_layers_of_the_published_files():
    """Names and shapes of pytorch/examples' files, by hand, so that the oracle cannot drift along with our network."""
    state = ReferenceNet().state_dict()
    shapes = {
        "conv1.conv2d.weight": (32, 3, 9, 9),
        "conv3.conv2d.weight": (128, 64, 3, 3),
        "in3.bias": (128,),
        "res1.conv1.conv2d.weight": (128, 128, 3, 3),
        "res5.in2.weight": (128,),
        "deconv1.conv2d.weight": (64, 128, 3, 3),
        "in4.weight": (64,),
        "deconv2.conv2d.bias": (32,),
        "in5.bias": (32,),
        "deconv3.conv2d.weight": (3, 32, 9, 9),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    assert len(state) == 2 * (6 + 5) + 8 * 5 and sum(p.numel() for p in state.values()) == 1_679_235


# ----------------------------------------------------------------------------------------- weights of pytorch-book


class BookConv(nn.Module):
    """Upsampled or not, continued by reflection, convolved."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, upsample: int = 1):
        super().__init__()
        self.upsample, self.reflection_pad = upsample, nn.ReflectionPad2d(kernel // 2)
        self.conv2d = nn.Conv2d(inputs, outputs, kernel, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv2d(self.reflection_pad(nn.Upsample(scale_factor=self.upsample)(x)))


class BookBlock(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv1, self.conv2 = BookConv(channels, channels, 3), BookConv(channels, channels, 3)
        self.in1, self.in2 = (nn.InstanceNorm2d(channels, affine=True) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.in2(self.conv2(F.relu(self.in1(self.conv1(x)))))


class BookNet(nn.Module):
    """The layers of pytorch-book's style chapter, in its three sequences; pictures are 0..255."""

    def __init__(self, full: int = 32, half: int = 64, quarter: int = 128, blocks: int = 5):
        super().__init__()

        def stage(conv: BookConv) -> list[nn.Module]:
            return [conv, nn.InstanceNorm2d(conv.conv2d.out_channels, affine=True), nn.ReLU()]

        down = (BookConv(3, full, 9), BookConv(full, half, 3, 2), BookConv(half, quarter, 3, 2))
        up = (BookConv(quarter, half, 3, upsample=2), BookConv(half, full, 3, upsample=2))
        self.initial_layers = nn.Sequential(*(layer for conv in down for layer in stage(conv)))
        self.res_layers = nn.Sequential(*(BookBlock(quarter) for _ in range(blocks)))
        self.upsample_layers = nn.Sequential(*(layer for conv in up for layer in stage(conv)), BookConv(full, 3, 9))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.upsample_layers(self.res_layers(self.initial_layers(x)))


@torch.no_grad()
@pytest.mark.parametrize("sizes", [(4, 6, 8, 2), (5, 9, 13, 3)])
def test_the_books_weights_paint_what_its_network_paints(tmp_path, sizes):
    torch.manual_seed(0)
    theirs = BookNet(*sizes).eval()
    for norm in (module for module in theirs.modules() if isinstance(module, nn.InstanceNorm2d)):
        norm.weight.add_(0.3 * torch.randn_like(norm.weight))
        norm.bias.add_(0.3 * torch.randn_like(norm.bias))
    last, photo = theirs.upsample_layers[6].conv2d, random(1, 3, 36, 29)
    std, mean = torch.std_mean(theirs(255 * photo), (0, 2, 3))
    last.weight.mul_((60 / std).view(-1, 1, 1, 1))
    last.bias.sub_(mean).mul_(60 / std).add_(128)
    torch.save(theirs.state_dict(), tmp_path / "book.pth")
    ours = load_network(tmp_path / "book.pth")
    assert ours.styles == ["book"] and len(ours.blocks) == sizes[3]
    expected = theirs(255 * photo)[:, :, :36, :29].clamp(0, 255)
    painting = 255 * ours(photo, ours.mixture({"book": 1}))["image"].clamp(0, 1)
    assert expected.std() > 20 and (painting - expected).abs().max() < 0.01
    rest = without(theirs.state_dict(), "res_layers.1.in2.bias")
    with pytest.raises(UserError, match="place/book.pth does not fit TransformerNet: missing res2.in2.bias"):
        from_examples(rest, "book", "place/book.pth")


def test_the_books_reference_has_the_layers_of_its_files():
    """Names and shapes by hand, as of the other reference."""
    state = BookNet().state_dict()
    shapes = {
        "initial_layers.0.conv2d.weight": (32, 3, 9, 9),
        "initial_layers.6.conv2d.weight": (128, 64, 3, 3),
        "initial_layers.7.bias": (128,),
        "res_layers.0.conv1.conv2d.weight": (128, 128, 3, 3),
        "res_layers.4.in2.weight": (128,),
        "upsample_layers.0.conv2d.weight": (64, 128, 3, 3),
        "upsample_layers.4.weight": (32,),
        "upsample_layers.6.conv2d.weight": (3, 32, 9, 9),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    assert len(state) == 2 * (6 + 5) + 8 * 5 and sum(p.numel() for p in state.values()) == 1_679_235


def test_shipped_network_paints():
    path = Path(__file__).parents[1] / "checkpoints" / "style.safetensors"
    model = TransformerNet.load(path)
    painting = model(random(1, 3, 40, 50), model.mixture({model.styles[0]: 1}))["image"]
    assert painting.isfinite().all() and painting.shape == (1, 3, 40, 50)
