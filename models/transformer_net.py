"""The painter: Johnson's image transformation network, one for each style.

One pass turns a photograph into a painting. How pictures of any size are painted fast and in bounded memory is
infer/painting/tiles.py's business; strengths and mixtures of styles are infer/painting/styles.py's.

Shapes: B pictures, C channels, H x W pixels.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from models.basemodule import BaseModule, check_shape, unwrap
from utils.errors import UserError

EPS = 1e-5  # of all normalisations
MARGIN = 1.0  # of the bound on normalised values, within which they are pushed back in training


class TransformerNet(BaseModule):
    """Johnson et al. 2016.

    Args:
        channels: of the three resolutions 1, 1/2, 1/4; (32, 64, 128) are those of pytorch/examples (width 1).
        blocks: residual blocks.
        bound: how many standard deviations a normalised value may be from the mean, see InstanceNorm; 0: no bound.

    The names of the layers are those of pytorch/examples' fast_neural_style, whose weights fit.
    """

    def __init__(self, channels: Sequence[int] = (32, 64, 128), blocks: int = 5, bound: float = 0.0):
        super().__init__(channels=list(channels), blocks=blocks, bound=bound)
        full, half, quarter = channels
        self.conv1 = ReflectConv(3, full, 9)
        self.in1 = InstanceNorm(full, bound)
        self.conv2 = ReflectConv(full, half, 3, stride=2)
        self.in2 = InstanceNorm(half, bound)
        self.conv3 = ReflectConv(half, quarter, 3, stride=2)
        self.in3 = InstanceNorm(quarter, bound)
        for number in range(1, blocks + 1):
            setattr(self, f"res{number}", ResidualBlock(quarter, bound))
        # Johnson et al. use fractionally strided convolutions here; these avoid their checkerboard.
        self.deconv1 = ReflectConv(quarter, half, 3)
        self.in4 = InstanceNorm(half, bound)
        self.deconv2 = ReflectConv(half, full, 3)
        self.in5 = InstanceNorm(full, bound)
        self.deconv3 = ReflectConv(full, 3, 9, kind=BlockConv2d)
        # An almost grey picture to begin with: noise of full strength would be hundreds of times off in style.
        self.deconv3.conv2d.weight.data.mul_(0.1)
        nn.init.constant_(self.deconv3.conv2d.bias, 0.5)

    @property
    def blocks(self) -> list["ResidualBlock"]:
        return [getattr(self, f"res{number}") for number in range(1, self.arguments["blocks"] + 1)]

    @property
    def norms(self) -> list["InstanceNorm"]:
        return [module for module in self.modules() if isinstance(module, InstanceNorm)]

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """image (B, 3, H, W) in 0..1 -> {"image": (B, 3, H, W)}; H, W at least 5.

        The result is not clamped to 0..1: a clamped pixel would give no gradient. In training there is also
        "excess" (B), by how far normalised values are near the bound or beyond it.
        """
        if not torch.compiler.is_exporting():  # which has its own ways with sizes
            check_shape(image, (None, 3, None, None), "image")
        height, width = image.shape[2:]
        x = F.relu(self.in1(self.conv1(image)))  # (B, full, H, W)
        x = F.relu(self.in2(self.conv2(x)))  # (B, half, H/2, W/2), rounded up
        x = F.relu(self.in3(self.conv3(x)))  # (B, quarter, H/4, W/4), rounded up
        for block in self.blocks:
            x = block(x)
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        x = F.relu(self.in4(self.deconv1(x)))  # (B, half, H/2, W/2)
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        x = F.relu(self.in5(self.deconv2(x)))  # (B, full, H, W)
        x = self.deconv3(x)[:, :, :height, :width].float()  # (B, 3, H, W), without the rounding up
        excess = [norm.excess for norm in self.norms if norm.excess is not None]
        for norm in self.norms:
            norm.excess = None  # nothing of this pass is kept
        return {"image": x, "excess": sum(excess)} if excess else {"image": x}

    @classmethod
    def upgrade(cls, arguments: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[type[BaseModule], dict, dict]:
        """Files of before had all styles in one network, see `split_styles`."""
        return (
            (StyleNetworks, *split_styles(arguments, tensors)) if "styles" in arguments else (cls, arguments, tensors)
        )


class StyleNetworks(BaseModule):
    """A TransformerNet for each style: what a file of the painter holds.

    Args:
        styles: {name: the arguments of its network}.
    """

    def __init__(self, styles: Mapping[str, Mapping[str, Any]]):
        super().__init__(styles={name: dict(arguments) for name, arguments in styles.items()})
        self.networks = nn.ModuleList(TransformerNet(**arguments) for arguments in styles.values())

    @property
    def styles(self) -> list[str]:
        return list(self.arguments["styles"])

    def __getitem__(self, style: str) -> TransformerNet:
        return self.networks[self.styles.index(style)]

    def forward(self, image: Tensor, style: Tensor) -> dict[str, Tensor]:
        """image (B, 3, H, W) in 0..1 and the numbers of their styles (B) -> as of TransformerNet.forward."""
        check_shape(style, (len(image),), "style")
        order, parts = [], []
        for number in style.unique().tolist():
            places = (style == number).nonzero()[:, 0]
            order.append(places)
            parts.append(self.networks[number](image[places]))
        back = torch.cat(order).argsort()
        return {name: torch.cat([part[name] for part in parts])[back] for name in parts[0]}


def join_styles(models: Sequence[StyleNetworks]) -> StyleNetworks:
    """One painter with the styles of several, and what they know of each; of a style that two have, the last one's."""
    networks = {name: model[name] for model in models for name in model.styles}
    result = StyleNetworks({name: network.arguments for name, network in networks.items()})
    for name, network in networks.items():
        result[name].load_state_dict(network.state_dict())
    pictures = {name: p for model in models for name, p in model.metadata.get("style_pictures", {}).items()}
    result.metadata = {**models[0].metadata, "style_pictures": pictures}
    return result.eval()


def split_styles(arguments: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(arguments, tensors) of StyleNetworks from those of a file of before.

    There styles shared convolutions, or had one each of some (NAME.kernels.NUMBER), and each had a row (S, C) of every
    normalisation; the last row may be a style of none, the identity, which is left out.
    """
    own = {"channels": arguments["channels"], "blocks": arguments["blocks"], "bound": arguments.get("bound", 0.0)}
    result = {}
    for key, tensor in tensors.items():
        shared, kernels, rest = key.partition(".kernels.")
        for number in range(len(arguments["styles"])):
            if tensor.ndim == 2:  # a row for each style
                result[f"networks.{number}.{key}"] = tensor[number].clone()
            elif not kernels:
                result[f"networks.{number}.{key}"] = tensor.clone()
            elif rest.startswith(f"{number}."):
                result[f"networks.{number}.{shared}.conv2d.{rest.partition('.')[2]}"] = tensor
    return {"styles": dict.fromkeys(arguments["styles"], own)}, result


class ReflectConv(nn.Module):
    """A convolution over a picture that is continued at its edges by reflection: zeros would show as a border."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, kind: type[nn.Conv2d] = nn.Conv2d):
        super().__init__()
        self.pad = kernel // 2
        self.conv2d = kind(inputs, outputs, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # which would make float32 of what only is copied
            x = F.pad(x, (self.pad,) * 4, mode="reflect")
        return self.conv2d(x)


class BlockConv2d(nn.Conv2d):
    """A convolution to even sides, computed 2 x 2 pixels at a time: three times as fast where there are few outputs."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv2d(x, in_blocks(self.weight), stride=2)  # (B, 4 O, H/2, W/2)
        y = y.unflatten(1, (2, 2, -1)).permute(0, 3, 4, 1, 5, 2)  # (B, O, H/2, 2, W/2, 2)
        return y.flatten(4, 5).flatten(2, 3) + self.bias.view(-1, 1, 1)


def unfold(x: Tensor) -> Tensor:
    """(B, 4 C, H, W), 2 x 2 pixels of C at each place -> (B, C, 2 H, 2 W), in the layout of x.

    What pixel_shuffle does with another order of channels, and many times faster where they come last.
    """
    if x.is_contiguous():
        return x.unflatten(1, (2, 2, -1)).permute(0, 3, 4, 1, 5, 2).flatten(4).flatten(2, 3)
    x = x.permute(0, 2, 3, 1).unflatten(3, (2, 2, -1)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
    return x.permute(0, 3, 1, 2)


def in_blocks(weight: Tensor) -> Tensor:
    """The kernel (4 O, I, K + 1, K + 1) that gives 2 x 2 pixels at a time, at stride 2, what (O, I, K, K) gives singly.

    Convolutions with 3 outputs leave most of a processor's vector unit idle; with 12 they do not.
    """
    moved = [F.pad(weight, (column, 1 - column, row, 1 - row)) for row in (0, 1) for column in (0, 1)]
    return torch.cat(moved)


class ResidualBlock(nn.Module):
    """x + IN(conv(relu(IN(conv(x))))); no ReLU after the sum, as in Gross & Wilber 2016."""

    def __init__(self, channels: int, bound: float = 0.0):
        super().__init__()
        self.conv1 = ReflectConv(channels, channels, 3)
        self.in1 = InstanceNorm(channels, bound)
        self.conv2 = ReflectConv(channels, channels, 3)
        self.in2 = InstanceNorm(channels, bound)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.in1(self.conv1(x)))
        return x + self.in2(self.conv2(y))


class InstanceNorm(nn.Module):
    """Each channel of each picture to mean 0 and variance 1, then scaled and shifted: InstanceNorm2d(affine=True).

    Left to itself, a network learns to put one spot of a picture 17 to 50 standard deviations off, which tells the next
    layers how strong the rest is, and shows in the painting. With a `bound` normalised values are clamped to it, and in
    training `excess` (B) is the mean square by which they are beyond bound - MARGIN.
    """

    def __init__(self, channels: int, bound: float = 0.0):
        super().__init__()
        self.bound, self.excess = bound, None
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        with torch.autocast(x.device.type, enabled=False):
            if torch.compiler.is_exporting():  # the loop below would make the size of the batch a constant
                x = F.instance_norm(x, eps=EPS)
                x = x.clamp(-self.bound, self.bound) if self.bound else x
                return x * self.weight[:, None, None] + self.bias[:, None, None]
            x, excess = BoundedNorm.apply(x, self.weight, self.bias, self.bound)
            self.excess = excess if self.training else None
            return x


class BoundedNorm(torch.autograd.Function):
    """InstanceNorm's function: the result, and the mean square of the excess (B).

    One picture's instance normalisation is the batch normalisation of a batch of one, whose kernels are many times
    faster than torch's own instance normalisation where channels come last (benchmarks/README.md). There they add up
    pixel by pixel in float32: of 256 x 256 pixels the result is 4e-5 off, of 2048 x 2048 3e-3. What is clamped gets no
    gradient but that of the excess.
    """

    @staticmethod
    def forward(ctx, x: Tensor, scale: Tensor, shift: Tensor, bound: float) -> tuple[Tensor, Tensor]:
        z, rstd = torch.empty_like(x), []  # normalised values
        zero, one = torch.zeros_like(scale), torch.ones_like(scale)  # without them, rstd of bf16 would be bf16
        for i in range(len(x)):
            z[i : i + 1], _, r = torch.native_batch_norm(x[i : i + 1], one, zero, None, None, True, 0.0, EPS)
            rstd.append(r)
        ctx.bound, ctx.beyond = bound, False
        if bound:
            low, high = torch.aminmax(z.as_strided((z.numel(),), (1,)))  # as it lies in memory: ten times as fast
            ctx.beyond = max(-low, high).item() > bound - MARGIN
        ctx.save_for_backward(z, scale, *rstd)
        excess = _excess(z, bound).square().mean((1, 2, 3)) if ctx.beyond else z.new_zeros(len(z))
        y = z.clamp(-bound, bound) if ctx.beyond else z
        return torch.addcmul(shift[:, None, None].to(z.dtype), y, scale[:, None, None].to(z.dtype)), excess

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor, grad_excess: Tensor) -> tuple[Tensor | None, ...]:
        z, scale, *rstd = ctx.saved_tensors
        zero, one = torch.zeros_like(scale), torch.ones_like(scale)
        grad_x, grad_scale, grad_shift = torch.empty_like(z), zero.clone(), zero.clone()
        factors = [scale * r for r in rstd]  # of dz
        if ctx.beyond:
            grad_scale = (grad * z.clamp(-ctx.bound, ctx.bound)).sum((0, 2, 3), dtype=scale.dtype)
            grad_shift = grad.sum((0, 2, 3), dtype=scale.dtype)
            strength = (2 * grad_excess / z[0].numel())[:, None, None, None]
            grad = grad * scale[:, None, None].to(z.dtype) * (z.abs() < ctx.bound)
            grad = (grad + strength * _excess(z, ctx.bound) * z.sign()).to(z.dtype)
            factors = rstd
        for i, factor in enumerate(factors):
            # The normalisation of what is normalised already, but with the factor of the first one.
            grad_x[i : i + 1], by_scale, by_shift = torch.ops.aten.native_batch_norm_backward(
                grad[i : i + 1], z[i : i + 1], factor, None, None, zero, one, True, EPS, (True,) * 3
            )
            if not ctx.beyond:
                grad_scale += by_scale
                grad_shift += by_shift
        return grad_x, grad_scale, grad_shift, None


def _excess(z: Tensor, bound: float) -> Tensor:
    """By how much each value is beyond bound - MARGIN, on either side."""
    return (z.abs() - (bound - MARGIN)).clamp_(min=0)


def _examples_name(key: str) -> str:
    """The name that a parameter of pytorch-book's network has in pytorch/examples'; others stay as they are."""
    if not (found := re.fullmatch(r"(initial|res|upsample)_layers\.(\d+)\.(.+)", key)):
        return key
    part, index, rest = found[1], int(found[2]), found[3]
    if part == "res":
        return f"res{index + 1}.{rest}"
    number = index // 3 + 1  # each third is a ReLU
    if index % 3:
        return f"in{number + 3 * (part == 'upsample')}.{rest}"
    return f"{'conv' if part == 'initial' else 'deconv'}{number}.{rest}"


def from_examples(tensors: Mapping[str, Any], name: str, source: str = "") -> StyleNetworks:
    """The network of weights trained with pytorch/examples' fast_neural_style, as a painter of one style.

    pytorch-book's network is the same under other names, and fits, too. Channels and blocks are read from the weights:
    reduced versions fit as well. It paints pictures of 0..255; the first and the last convolution are rescaled, for
    ours are 0..1. What `load_weights` understands (DataParallel's prefix, dicts in dicts, old running statistics) is
    understood here. `name` is the style's, `source` what messages call the weights: their file. Raises UserError if the
    tensors are not those of such a network.
    """
    source = source or name
    tensors = {_examples_name(key): value for key, value in unwrap(tensors, source).items()}
    first = [f"conv{i}.conv2d.weight" for i in (1, 2, 3)]
    rescaled = {"conv1.conv2d.weight": 255, "deconv3.conv2d.weight": 1 / 255, "deconv3.conv2d.bias": 1 / 255}
    if missing := [key for key in (*first, *rescaled) if key not in tensors or not tensors[key].ndim]:
        raise UserError(f"{source} is no style network of pytorch/examples or pytorch-book: it has no {missing[0]}")
    channels = [len(tensors[key]) for key in first]
    blocks = sum(f"res{i}.conv1.conv2d.weight" in tensors for i in range(1, 100))
    model = StyleNetworks({name: {"channels": channels, "blocks": blocks}})
    model[name].load_weights(
        {key: value.float() * rescaled.get(key, 1) for key, value in tensors.items()}, source=source
    )
    return model.eval()
