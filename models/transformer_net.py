"""The painter: Johnson's image transformation network, whose later layers each style has for itself.

One pass turns a photograph into a painting. The styles share the first layers; each has its own scale and shift after
every normalisation, its own last residual blocks and its own decoder, and so has the identity, which gives the
photograph back. Mixtures of those numbers are mixtures of styles. How pictures of any size are painted fast and in
bounded memory is infer/painting/tiles.py's business.

Shapes: B pictures, S styles (the last one is the identity, if the network has it), C channels, H x W pixels.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call
from torch.nn import functional as F

from models.basemodule import BaseModule, check_shape, unwrap
from utils.errors import UserError, did_you_mean

EPS = 1e-5  # of all normalisations
MARGIN = 1.0  # of the bound on normalised values, within which they are pushed back in training
STANDARD_MEAN, STANDARD_STD = 0.5, 0.25  # brightness and contrast of the picture that the identity works in


class TransformerNet(BaseModule):
    """Johnson et al. 2016 with the conditional instance normalisation of Dumoulin et al. 2017.

    Args:
        styles: their names, in the order of the rows of the normalisation.
        channels: of the three resolutions 1, 1/2, 1/4; (32, 64, 128) are those of pytorch/examples (width 1).
        blocks: residual blocks.
        identity: whether there is one more row that paints the photograph as it is (needed for a strength below 1).
        own: how many of the last blocks each row has for itself, and with them the decoder; 0: the rows share all
            convolutions.
        bound: how many standard deviations a normalised value may be from the mean, see ConditionalInstanceNorm.

    The names of the layers are those of pytorch/examples' fast_neural_style, whose weights fit.
    """

    def __init__(
        self,
        styles: list[str],
        channels: tuple[int, int, int] = (32, 64, 128),
        blocks: int = 5,
        identity: bool = True,
        own: int = 0,
        bound: float = 0.0,
    ):
        arguments = {"channels": list(channels), "blocks": blocks, "identity": identity, "own": own, "bound": bound}
        super().__init__(styles=list(styles), **arguments)
        self.styles, self.identity = list(styles), identity
        rows = len(styles) + identity
        kernels = rows if own else 0
        full, half, quarter = channels
        self.conv1 = ReflectConv(3, full, 9)
        self.in1 = ConditionalInstanceNorm(rows, full, bound)
        self.conv2 = ReflectConv(full, half, 3, stride=2)
        self.in2 = ConditionalInstanceNorm(rows, half, bound)
        self.conv3 = ReflectConv(half, quarter, 3, stride=2)
        self.in3 = ConditionalInstanceNorm(rows, quarter, bound)
        for number in range(1, blocks + 1):
            block = ResidualBlock(rows, quarter, kernels if number > blocks - own else 0, bound)
            setattr(self, f"res{number}", block)
        # Johnson et al. use fractionally strided convolutions here; these avoid their checkerboard.
        self.deconv1 = ReflectConv(quarter, half, 3, rows=kernels)
        self.in4 = ConditionalInstanceNorm(rows, half, bound)
        self.deconv2 = ReflectConv(half, full, 3, rows=kernels)
        self.in5 = ConditionalInstanceNorm(rows, full, bound)
        self.deconv3 = ReflectConv(full, 3, 9, rows=kernels, kind=BlockConv2d)
        # An almost grey picture to begin with: noise of full strength would be hundreds of times off in style.
        for name, parameter in self.deconv3.named_parameters():
            parameter.data.mul_(0.1) if name.endswith("weight") else nn.init.constant_(parameter, STANDARD_MEAN)

    @property
    def blocks(self) -> list["ResidualBlock"]:
        return [getattr(self, f"res{number}") for number in range(1, self.arguments["blocks"] + 1)]

    @property
    def shared_convolutions(self) -> list[str]:
        """Names of those that all rows share."""
        return [name for name, layer in self.named_modules() if isinstance(layer, ReflectConv) and not layer.rows]

    def forward(self, image: Tensor, style: Tensor) -> dict[str, Tensor]:
        """image (B, 3, H, W) in 0..1 and shares of the rows style (B, S) -> {"image": (B, 3, H, W)}; H, W at least 5.

        The result is not clamped to 0..1: a clamped pixel would give no gradient. In the training of a network with a
        bound there is also "excess" (B), by how far normalised values are near the bound or beyond it.
        """
        if not torch.compiler.is_exporting():  # which has its own ways with sizes
            check_shape(image, (None, 3, None, None), "image")
            check_shape(style, (len(image), len(self.styles) + self.identity), "style")
        height, width = image.shape[2:]
        x = F.relu(self.in1(self.conv1(image, style), style))  # (B, full, H, W)
        x = F.relu(self.in2(self.conv2(x, style), style))  # (B, half, H/2, W/2), rounded up
        x = F.relu(self.in3(self.conv3(x, style), style))  # (B, quarter, H/4, W/4), rounded up
        for block in self.blocks:
            x = block(x, style)
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        x = F.relu(self.in4(self.deconv1(x, style), style))  # (B, half, H/2, W/2)
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        x = F.relu(self.in5(self.deconv2(x, style), self.within(style)))  # (B, full, H, W)
        x = self.deconv3(x, self.within(style))[:, :, :height, :width].float()  # (B, 3, H, W), without the rounding up
        if self.identity:
            scale, shift = colours_back(image, style)
            x = x * scale + shift
        excess = [norm.excess for norm in self.norms if norm.excess is not None]
        for norm in self.norms:
            norm.excess = None  # nothing of this pass is kept
        return {"image": x, "excess": sum(excess)} if excess else {"image": x}

    @property
    def norms(self) -> list["ConditionalInstanceNorm"]:
        return [module for module in self.modules() if isinstance(module, ConditionalInstanceNorm)]

    def within(self, style: Tensor) -> Tensor:
        """Shares (B, S) -> those that the last normalisation goes by: no further than the style itself.

        It decides on the colours: beyond the style, at a strength of 1.5, they would be those of no painting.
        """
        if not self.identity:
            return style
        beyond = (-style[:, -1:]).clamp(min=0)  # (B, 1)
        return torch.cat([style[:, :-1] / (1 + beyond), style[:, -1:] + beyond], 1)

    def untrained_styles(self) -> list[int]:
        """The rows of styles that no training has touched yet."""
        return [
            row
            for row in range(len(self.styles))
            if all(bool((norm.weight[row] == 1).all() and (norm.bias[row] == 0).all()) for norm in self.norms)
        ]

    @torch.no_grad()
    def styles_from_identity(self) -> None:
        """Rows that no training has touched yet become copies of the identity's: a good place for a style to start."""
        rows = self.untrained_styles()
        for norm in self.norms:
            norm.weight[rows], norm.bias[rows] = norm.weight[-1].clone(), norm.bias[-1].clone()
        for conv in (module for module in self.modules() if isinstance(module, ReflectConv) and module.rows):
            for row in rows:
                conv.kernels[row].load_state_dict(conv.kernels[-1].state_dict())

    def mixture(self, shares: Mapping[str, float], strength: float = 1.0) -> Tensor:
        """The row of shares (1, S) for `forward`: styles in the given proportion, the identity as far as strength < 1.

        Above 1 the numbers go on along the line from the identity through the style, but see `within`. Raises
        UserError for an unknown style, for shares that are no proportion, and for a strength that the network cannot
        have.
        """
        for name in shares:
            if name not in self.styles:
                near = did_you_mean(name, self.styles)
                raise UserError(f"--style={name}: this network has {', '.join(self.styles)}{near}")
        total = sum(shares.values())
        if not (0 < total < math.inf) or min(shares.values()) < 0:
            raise UserError("--style: the shares of a mixture must be positive numbers, as in wave:0.6,starry:0.4")
        if not 0 <= strength < math.inf:
            raise UserError(
                f"--strength={strength}: give a number from 0 (the photograph) through 1 (the style) to 1.5"
            )
        if strength != 1 and not self.identity:
            raise UserError(f"--strength={strength}: this network was trained without the identity; leave it at 1")
        row = torch.zeros(1, len(self.styles) + self.identity)
        for name, share in shares.items():
            row[0, self.styles.index(name)] += strength * share / total
        if self.identity:
            row[0, -1] = 1 - strength
        return row


def colours_back(image: Tensor, style: Tensor) -> tuple[Tensor, Tensor]:
    """(scale, shift), each (B, 3, 1, 1), that the output of the last convolution gets.

    Instance normalisation takes a picture's mean colour and contrast away, so no weights could paint the identity. Its
    row paints a picture of standard mean and contrast, which gets those of the photograph back, as far as the identity
    has a share; a style paints its own colours (scale 1, shift 0). Not in the papers.
    """
    std, mean = torch.std_mean(image.float(), dim=(2, 3), keepdim=True, correction=0)  # (B, 3, 1, 1)
    share = style[:, -1].clamp(0, 1).view(-1, 1, 1, 1)
    scale = 1 - share + share * std / STANDARD_STD
    shift = share * (mean - STANDARD_MEAN * std / STANDARD_STD)
    return scale, shift


class ReflectConv(nn.Module):
    """A convolution over a picture that is continued at its edges by reflection: zeros would show as a border.

    With `rows` each row has a kernel of its own, and a mixture of rows the mixture of their kernels.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        rows: int = 0,
        kind: type[nn.Conv2d] = nn.Conv2d,
    ):
        super().__init__()
        self.pad, self.rows = kernel // 2, rows
        if rows:
            self.kernels = nn.ModuleList(kind(inputs, outputs, kernel, stride) for _ in range(rows))
        else:
            self.conv2d = kind(inputs, outputs, kernel, stride)

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        """x (B, C, H, W), style (B, S) if there are rows -> (B, outputs, H', W')."""
        with torch.autocast(x.device.type, enabled=False):  # which would make float32 of what only is copied
            x = F.pad(x, (self.pad,) * 4, mode="reflect")
        if not self.rows:
            return self.conv2d(x)
        if torch.compiler.is_exporting():  # there all pictures are in the style of the first
            return functional_call(self.kernels[0], self.mixture(style[0]), x)
        pictures = [self._convolve(x[i : i + 1], shares) for i, shares in enumerate(style)]
        return pictures[0] if len(pictures) == 1 else torch.cat(pictures)

    def _convolve(self, x: Tensor, shares: Tensor) -> Tensor:
        row = int(shares.argmax())
        if shares[row] == 1 and shares.count_nonzero() == 1:
            return self.kernels[row](x)
        return functional_call(self.kernels[row], self.mixture(shares), x)

    def mixture(self, shares: Tensor) -> dict[str, Tensor]:
        """{"weight", "bias"} of a mixture (S) of the rows."""
        if not self.rows:
            return {"weight": self.conv2d.weight, "bias": self.conv2d.bias}
        mixed = zip(shares, self.kernels, strict=True)
        parts = [(share, kernel) for share, kernel in mixed if torch.compiler.is_exporting() or share]
        return {name: sum(share * getattr(kernel, name) for share, kernel in parts) for name in ("weight", "bias")}


class BlockConv2d(nn.Conv2d):
    """A convolution to even sides, computed 2 x 2 pixels at a time: three times as fast where there are few outputs."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv2d(x, in_blocks(self.weight), stride=2)  # (B, 4 O, H/2, W/2)
        y = y.unflatten(1, (2, 2, -1)).permute(0, 3, 4, 1, 5, 2)  # (B, O, H/2, 2, W/2, 2)
        return y.flatten(4, 5).flatten(2, 3) + self.bias.view(-1, 1, 1)


def in_blocks(weight: Tensor) -> Tensor:
    """The kernel (4 O, I, K + 1, K + 1) that gives 2 x 2 pixels at a time, at stride 2, what (O, I, K, K) gives singly.

    Convolutions with 3 outputs leave most of a processor's vector unit idle; with 12 they do not.
    """
    moved = [F.pad(weight, (column, 1 - column, row, 1 - row)) for row in (0, 1) for column in (0, 1)]
    return torch.cat(moved)


class ResidualBlock(nn.Module):
    """x + IN(conv(relu(IN(conv(x))))); no ReLU after the sum, as in Gross & Wilber 2016."""

    def __init__(self, rows: int, channels: int, kernels: int = 0, bound: float = 0.0):
        super().__init__()
        self.conv1 = ReflectConv(channels, channels, 3, rows=kernels)
        self.in1 = ConditionalInstanceNorm(rows, channels, bound)
        self.conv2 = ReflectConv(channels, channels, 3, rows=kernels)
        self.in2 = ConditionalInstanceNorm(rows, channels, bound)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        y = F.relu(self.in1(self.conv1(x, style), style))
        return x + self.in2(self.conv2(y, style), style)


class ConditionalInstanceNorm(nn.Module):
    """Each channel of each picture to mean 0 and variance 1, then scaled and shifted by a mixture of the rows.

    Dumoulin, Shlens, Kudlur 2017, equation 5. With one row it is InstanceNorm2d(affine=True).

    Left to itself, a network learns to put one spot of a picture 17 to 50 standard deviations off, which tells the next
    layers how strong the rest is, and shows in the painting. With a `bound` normalised values are clamped to it, and in
    training `excess` (B) is the mean square by which they are beyond bound - MARGIN.
    """

    decays = False  # its parameters have two dimensions, but are scales and shifts: see training/parameters.py

    def __init__(self, rows: int, channels: int, bound: float = 0.0):
        super().__init__()
        self.bound, self.excess = bound, None
        self.weight = nn.Parameter(torch.ones(rows, channels))
        self.bias = nn.Parameter(torch.zeros(rows, channels))

    def affine(self, style: Tensor) -> tuple[Tensor, Tensor]:
        """(scale, shift), each (B, C), of the mixtures style (B, S)."""
        return style.float() @ self.weight.float(), style.float() @ self.bias.float()

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """x (B, C, H, W), style (B, S) -> (B, C, H, W)."""
        with torch.autocast(x.device.type, enabled=False):
            scale, shift = self.affine(style)  # (B, C)
            if torch.compiler.is_exporting():  # InstanceNorm's loop would make the size of the batch a constant
                x = F.instance_norm(x, eps=EPS)
                x = x.clamp(-self.bound, self.bound) if self.bound else x
                return x * scale[:, :, None, None] + shift[:, :, None, None]
            if not self.bound:
                return InstanceNorm.apply(x, scale, shift)
            x, excess = BoundedInstanceNorm.apply(x, scale, shift, self.bound)
            self.excess = excess if self.training else None
            return x


class InstanceNorm(torch.autograd.Function):
    """Instance normalisation with a scale and a shift (B, C) for each picture.

    One picture's instance normalisation is the batch normalisation of a batch of one, whose kernels are many times
    faster than torch's own instance normalisation where channels come last (benchmarks/README.md). There they add up
    pixel by pixel in float32: of 256 x 256 pixels the result is 4e-5 off, of 2048 x 2048 3e-3.
    """

    @staticmethod
    def forward(ctx, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        y, saved = torch.empty_like(x), []
        for i in range(len(x)):
            y[i : i + 1], *mean_rstd = torch.native_batch_norm(
                x[i : i + 1], scale[i], shift[i], None, None, True, 0.0, EPS
            )
            saved += mean_rstd  # (C) and (C)
        ctx.save_for_backward(x, scale, *saved)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, scale, *saved = ctx.saved_tensors
        grad_x, grad_scale, grad_shift = torch.empty_like(x), torch.empty_like(scale), torch.empty_like(scale)
        for i in range(len(x)):
            grad_x[i : i + 1], grad_scale[i], grad_shift[i] = torch.ops.aten.native_batch_norm_backward(
                grad[i : i + 1], x[i : i + 1], scale[i], None, None, *saved[2 * i : 2 * i + 2], True, EPS, (True,) * 3
            )
        return grad_x, grad_scale, grad_shift


class BoundedInstanceNorm(torch.autograd.Function):
    """The same with normalised values clamped to -bound..bound; also the mean square of their excess (B).

    What is clamped gets no gradient but that of the excess.
    """

    @staticmethod
    def forward(ctx, x: Tensor, scale: Tensor, shift: Tensor, bound: float) -> tuple[Tensor, Tensor]:
        z, rstd = torch.empty_like(x), []  # normalised values
        for i in range(len(x)):
            z[i : i + 1], _, r = torch.native_batch_norm(x[i : i + 1], None, None, None, None, True, 0.0, EPS)
            rstd.append(r)
        low, high = torch.aminmax(z.as_strided((z.numel(),), (1,)))  # as it lies in memory: ten times as fast
        ctx.bound, ctx.beyond = bound, max(-low, high).item() > bound - MARGIN
        ctx.save_for_backward(z, scale, *rstd)
        excess = _excess(z, bound).square().mean((1, 2, 3)) if ctx.beyond else z.new_zeros(len(z))
        y = z.clamp(-bound, bound) if ctx.beyond else z
        return torch.addcmul(shift[:, :, None, None].to(z.dtype), y, scale[:, :, None, None].to(z.dtype)), excess

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor, grad_excess: Tensor) -> tuple[Tensor | None, ...]:
        z, scale, *rstd = ctx.saved_tensors
        zero, one = torch.zeros_like(scale[0]), torch.ones_like(scale[0])
        grad_x, grad_scale, grad_shift = torch.empty_like(z), torch.empty_like(scale), torch.empty_like(scale)
        factors = [s * r for s, r in zip(scale, rstd, strict=True)]  # of dz
        if ctx.beyond:
            grad_scale[:] = (grad * z.clamp(-ctx.bound, ctx.bound)).sum((2, 3))
            grad_shift[:] = grad.sum((2, 3))
            strength = (2 * grad_excess / z[0].numel())[:, None, None, None]
            grad = grad * scale[:, :, None, None].to(z.dtype) * (z.abs() < ctx.bound)
            grad = (grad + strength * _excess(z, ctx.bound) * z.sign()).to(z.dtype)
            factors = rstd
        for i, factor in enumerate(factors):
            # The normalisation of what is normalised already, but with the factor of the first one.
            grad_x[i : i + 1], by_scale, by_shift = torch.ops.aten.native_batch_norm_backward(
                grad[i : i + 1], z[i : i + 1], factor, None, None, zero, one, True, EPS, (True,) * 3
            )
            if not ctx.beyond:
                grad_scale[i], grad_shift[i] = by_scale, by_shift
        return grad_x, grad_scale, grad_shift, None


def _excess(z: Tensor, bound: float) -> Tensor:
    """By how much each value is beyond bound - MARGIN, on either side."""
    return (z.abs() - (bound - MARGIN)).clamp_(min=0)


BOOK_LAYERS = {
    **{f"initial_layers.{3 * i}.": f"conv{i + 1}." for i in range(3)},
    **{f"initial_layers.{3 * i + 1}.": f"in{i + 1}." for i in range(3)},
    **{f"upsample_layers.{3 * i}.": f"deconv{i + 1}." for i in range(3)},
    **{f"upsample_layers.{3 * i + 1}.": f"in{i + 4}." for i in range(2)},
}  # how pytorch-book calls the layers of the same network -> what pytorch/examples calls them


def _examples_name(key: str) -> str:
    """The name that a parameter of pytorch-book's network has in pytorch/examples'; others stay as they are."""
    if found := re.fullmatch(r"res_layers\.(\d+)\.(.+)", key):
        return f"res{int(found[1]) + 1}.{found[2]}"
    for book, examples in BOOK_LAYERS.items():
        if key.startswith(book):
            return examples + key.removeprefix(book)
    return key


def from_examples(tensors: Mapping[str, Any], name: str, source: str = "") -> TransformerNet:
    """The network of weights trained with pytorch/examples' fast_neural_style, as a one-style network in eval mode.

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
    blocks = sum(f"res{i}.conv1.conv2d.weight" in tensors for i in range(1, 100))
    model = TransformerNet([name], tuple(len(tensors[key]) for key in first), blocks, identity=False)
    own = model.state_dict()
    tensors = {key: value.float() * rescaled.get(key, 1) for key, value in tensors.items()}
    rows = {k: v[None] for k, v in tensors.items() if v.ndim == 1 and k in own and own[k].ndim == 2}  # (C) -> (1, C)
    model.load_weights({**tensors, **rows}, source=source)
    return model.eval()
