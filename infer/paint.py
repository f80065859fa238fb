"""Painting pictures of any size with a TransformerNet: fast, in bounded memory, without seams.

`Painter.paint` gives what `TransformerNet.forward` gives; only the order of the work differs. Instance normalisation
needs the statistics of the whole picture before its result can be used anywhere, so the network is a chain of passes,
one for each normalisation. A pass goes over the picture in tiles that stay in the processor's cache: it reads a piece
of the layer before (with the few pixels around it that a kernel sees), normalises it, convolves it, and adds the result
to the statistics of its own layer. What the passes hand on lies in memory, or in a file if it is too much for that.
Layers of full resolution are never kept: computing them again is cheaper than writing and reading them.

It reads and writes no pictures: infer/stylize.py does. Shapes: N pictures, C channels, H x W pixels.
"""

import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.transformer_net import EPS, STANDARD_MEAN, STANDARD_STD, ConditionalInstanceNorm, TransformerNet
from utils.errors import UserError

TILE = 256  # pixels: side of a tile at full resolution; its features fit the cache
SMALLEST = 16  # pixels: what is smaller is continued at its edges before it is painted
# Of products, and of what is kept between two passes where it must be exact. The first three convolutions are computed
# in float32 in either case: their errors are the largest, in plain skies above all, and they are cheap.
DTYPES = {"fp32": (torch.float32, torch.float32), "bf16": (torch.bfloat16, torch.float16)}
Progress = Callable[[float], object]  # is told the share of the work that is done
Box = tuple[int, int, int, int]  # top, bottom, left, right; bottom and right are the first that are outside


class Painter:
    """A network with one setting of its styles, ready to paint.

    Args:
        model: the network, on the device to compute on.
        style: shares of the styles (1, S), from `model.mixture`.
        precision: "fp32" or "bf16".
        memory_limit: MB that the layers of a picture may take (besides the picture and the painting themselves); the
            layers of a larger picture lie in a temporary file.
        tile: side of the tiles in pixels of the picture; 0: the whole picture in one; -1: what is fast.

    Raises UserError if there is no room for a temporary file.
    """

    def __init__(
        self, model: TransformerNet, style: Tensor, precision: str = "fp32", memory_limit: int = 1000, tile: int = -1
    ):
        (self.dtype, self.kept), self.memory_limit = DTYPES[precision], memory_limit
        self.tile = (
            TILE if tile < 0 else tile and max(SMALLEST, tile // 8 * 8)
        )  # halves and quarters are whole and even
        self.device = model.device
        # A picture of one colour has no contrast to normalise but that of bf16's rounding, which would become blotches.
        self.in_float32 = partial(Painter, model, style, "fp32", memory_limit, tile) if precision == "bf16" else None
        style = style.to(self.device)
        with torch.inference_mode():
            # Normalisation takes the biases of the convolutions before it away: they are left out.
            self.conv1 = _weight(model.conv1.conv2d.weight / 255, torch.float32)
            self.conv2, self.conv3 = (_weight(c.conv2d.weight, torch.float32) for c in (model.conv2, model.conv3))
            self.trunk = [
                [
                    (_weight(c.conv2d.weight, self.dtype), _row(n, style))
                    for c, n in ((b.conv1, b.in1), (b.conv2, b.in2))
                ]
                for b in model.blocks
            ]
            self.up1, self.up2 = (
                _weight(upsampled(d.conv2d.weight), self.dtype) for d in (model.deconv1, model.deconv2)
            )
            self.last = _weight(in_blocks(model.deconv3.conv2d.weight), self.dtype)
            self.last_bias = model.deconv3.conv2d.bias.float()  # (3), added in float32
            self.in1, self.in2, self.in3, self.in4, self.in5 = (
                _row(layer, style) for layer in (model.in1, model.in2, model.in3, model.in4, model.in5)
            )
        self.identity = float(style[0, -1].clamp(0, 1)) if model.identity else 0.0

    @torch.inference_mode()
    def paint(self, rgb: np.ndarray, progress: Progress | None = None) -> np.ndarray:
        """uint8 (N, H, W, 3), of any height and width -> uint8 (N, H, W, 3).

        Pictures of one call have nothing to do with each other; small ones are faster together.
        """
        height, width = rgb.shape[1:3]
        if self.in_float32 and any(flat := [(p.min((0, 1)) == p.max((0, 1))).all() for p in rgb]):
            result = self.in_float32().paint(rgb)  # the rare case: in a video, a black frame
            if not all(flat):
                flat = np.array(flat)
                result[~flat] = self.paint(rgb[~flat], progress)
            return result
        small = ((0, 0), (0, max(0, SMALLEST - height)), (0, max(0, SMALLEST - width)), (0, 0))
        if any(after for _, after in small):
            rgb = np.pad(rgb, small, mode="edge")
        return _Painting(self, rgb, progress or (lambda share: None)).run()[:, :height, :width]


class _Painting:
    """The passes over one batch of pictures."""

    def __init__(self, painter: Painter, rgb: np.ndarray, progress: Progress):
        self.p, self.rgb, self.progress = painter, rgb, progress
        self.n, self.height, self.width = rgb.shape[:3]
        # Normalisation takes any constant away; without it there are fewer digits to lose.
        self.middle = rgb[:, ::16, ::16].mean((1, 2), keepdims=True).astype(np.int16)  # (N, 1, 1, 3)
        self.half = (self.height + 1) // 2, (self.width + 1) // 2
        self.quarter = (self.half[0] + 1) // 2, (self.half[1] + 1) // 2
        half_channels, quarter_channels = len(painter.conv2), len(painter.conv3)
        held = max(3 * quarter_channels, quarter_channels + 4 * half_channels)  # values for a pixel of the quarter
        megabytes = self.n * self.quarter[0] * self.quarter[1] * held * painter.dtype.itemsize / 1e6
        self.in_file = megabytes > painter.memory_limit
        self.passes_done = 0
        self.passes = 6 + 2 * len(painter.trunk)

    def run(self) -> np.ndarray:
        p = self.p
        norm1 = self.statistics(self.height, self.width, 1, self.first, p.in1)
        half = self.new_layer(len(p.conv2), self.half, p.kept)
        norm2 = self.fill(half, 2, lambda box: self.second(box, norm1), p.in2)
        x = self.new_layer(len(p.conv3), self.quarter, p.kept)
        norm3 = self.fill(
            x, 4, lambda box: _conv(half.read(_around(box, 1, 2), norm2, relu=True, edge="reflect"), p.conv3, 2), p.in3
        )
        half.close()
        for box in self.boxes(*self.quarter, 4):
            x.write(box, _normalise(x.read(box), norm3).relu_())
        self.residual_blocks(x)
        half = self.new_layer(len(p.conv2), (2 * self.quarter[0], 2 * self.quarter[1]), p.dtype)
        norm4 = self.fill(half, 2, lambda box: self.doubled(x, box, p.up1), p.in4)
        x.close()
        norm5 = self.statistics(
            2 * half.height, 2 * half.width, 1, lambda box: self.doubled(half, box, p.up2, norm4), p.in5
        )
        painting = np.empty((self.n, self.height, self.width, 3), np.uint8)
        scale, shift = self.colours()
        for box in self.boxes(2 * half.height, 2 * half.width, 1):
            top, bottom, left, right = box
            picture = self.final(half, box, norm4, norm5).float() * scale + shift  # (N, 3, h, w)
            pixels = picture.mul_(255).add_(0.5).clamp_(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
            place = painting[:, top:bottom, left:right]
            place[:] = pixels[:, : place.shape[1], : place.shape[2]]  # without what the rounding up has added
        half.close()
        self.progress(1.0)
        return painting

    # ------------------------------------------------------------------------------------------ what the passes do

    def first(self, box: Box) -> Tensor:
        """conv1 in a box of the picture -> (N, full, h, w)."""
        top, bottom, left, right = _around(box, 4)
        rows, columns = _clip(top, bottom, self.height), _clip(left, right, self.width)
        pixels = self.rgb[:, rows[0] : rows[1], columns[0] : columns[1]]
        edges = ((0, 0), (rows[0] - top, bottom - rows[1]), (columns[0] - left, right - columns[1]), (0, 0))
        if any(map(any, edges)):
            pixels = np.pad(pixels, edges, mode="reflect")
        x = torch.from_numpy(pixels - self.middle).to(self.p.device)
        return _conv(x.permute(0, 3, 1, 2), self.p.conv1)

    def second(self, box: Box, norm1: "Norm") -> Tensor:
        """conv2 in a box of half resolution -> (N, half, h, w)."""
        top, bottom, left, right = _around(box, 1, 2)
        rows, columns = _clip(top, bottom, self.height), _clip(left, right, self.width)
        x = _normalise(self.first((*rows, *columns)), norm1).relu_()
        x = F.pad(x, (columns[0] - left, right - columns[1], rows[0] - top, bottom - rows[1]), mode="reflect")
        return _conv(x, self.p.conv2, 2)

    def residual_blocks(self, x: "Layer") -> None:
        """x + IN(conv(relu(IN(conv(x))))), again and again, in place."""
        a, b = (self.new_layer(x.channels, self.quarter, self.p.dtype) for _ in "ab")
        for (conv_a, in_a), (conv_b, in_b) in self.p.trunk:
            norm_a = self.fill(a, 4, lambda box, w=conv_a: _conv(x.read(_around(box, 1), edge="reflect"), w), in_a)
            norm_b = self.fill(
                b, 4, lambda box, w=conv_b, n=norm_a: _conv(a.read(_around(box, 1), n, True, edge="reflect"), w), in_b
            )
            for box in self.boxes(*self.quarter, 4):
                x.write(box, x.read(box) + _normalise(b.read(box), norm_b))
        a.close()
        b.close()

    def doubled(
        self, layer: "Layer", box: Box, weight: Tensor, norm: "Norm | None" = None, then: "Norm | None" = None
    ) -> Tensor:
        """Upsampling and convolution in a box of the doubled resolution (its edges even) -> (N, C, h, w).

        `norm` is the layer's own normalisation (None: it has had it), `then` that of the result (None: not yet).
        """
        top, bottom, left, right = (edge // 2 for edge in box)
        x = layer.read(_around((top, bottom, left, right), 1), norm, relu=norm is not None, edge="replicate")
        x = F.pixel_shuffle(_conv(x, weight), 2)  # with one row and one column more at each side
        return (x if then is None else _normalise(x, then).relu_())[:, :, 1:-1, 1:-1]

    def final(self, half: "Layer", box: Box, norm4: "Norm", norm5: "Norm") -> Tensor:
        """The painting in a box (its edges even) -> (N, 3, h, w)."""
        top, bottom, left, right = _around(box, 4)
        rows, columns = _clip(top, bottom, 2 * half.height), _clip(left, right, 2 * half.width)
        x = self.doubled(half, (*rows, *columns), self.p.up2, norm4, norm5)
        x = F.pad(x, (columns[0] - left, right - columns[1], rows[0] - top, bottom - rows[1]), mode="reflect")
        return F.pixel_shuffle(_conv(x, self.p.last, 2), 2)

    def colours(self) -> tuple[Tensor, Tensor]:
        """(scale, shift), each (N, 3, 1, 1), of the last convolution's output: its bias, and colours_back."""
        bias, share = self.p.last_bias.view(1, 3, 1, 1), self.p.identity
        if not share:
            return torch.ones_like(bias), bias
        total, squares = np.zeros((2, self.n, 3))
        for top in range(0, self.height, 64):  # a few rows at a time: their copies in float64 are large
            rows = self.rgb[:, top : top + 64].astype(np.float64) / 255
            total += rows.sum((1, 2))
            squares += np.square(rows).sum((1, 2))
        mean = total / (self.height * self.width)
        std = np.sqrt(np.maximum(squares / (self.height * self.width) - mean**2, 0))
        mean, std = (torch.from_numpy(v).float().view(-1, 3, 1, 1).to(bias.device) for v in (mean, std))
        scale = 1 - share + share * std / STANDARD_STD
        return scale, bias * scale + share * (mean - STANDARD_MEAN * std / STANDARD_STD)

    # ------------------------------------------------------------------------------------------------- one pass

    def new_layer(self, channels: int, size: tuple[int, int], dtype: torch.dtype) -> "Layer":
        return Layer(self.n, channels, *size, dtype, self.p.device, self.in_file)

    def fill(self, layer: "Layer", shrunk: int, compute: Callable[[Box], Tensor], row: "Row") -> "Norm":
        """Computes a layer in tiles and keeps it; `shrunk`: by what its sides are smaller than the picture's."""

        def compute_and_keep(box: Box) -> Tensor:
            x = compute(box)
            layer.write(box, x)
            return x

        return self.statistics(layer.height, layer.width, shrunk, compute_and_keep, row)

    def statistics(self, height: int, width: int, shrunk: int, compute: Callable[[Box], Tensor], row: "Row") -> "Norm":
        """The normalisation of a layer that is computed in tiles, exact over all of it."""
        count, total, squares = 0, 0, 0
        for box in self.boxes(height, width, shrunk):
            x = compute(box).contiguous(memory_format=torch.channels_last)
            pixels = x.shape[2] * x.shape[3]
            # The kernel that batch normalisation uses; one picture at a time, and sums over the tiles in float64.
            of_each = [torch.batch_norm_update_stats(x[i : i + 1], None, None, 0.0) for i in range(self.n)]
            mean, var = (torch.stack(values).double() for values in zip(*of_each, strict=True))  # (N, C)
            count, total, squares = count + pixels, total + pixels * mean, squares + pixels * (var + mean.square())
        mean = total / count
        var = (squares / count - mean.square()).clamp_(min=0)
        self.passes_done += 1
        self.progress(self.passes_done / self.passes)
        return Norm(mean.float(), var.float(), *row)

    def boxes(self, height: int, width: int, shrunk: int) -> Iterator[Box]:
        side = self.p.tile // shrunk or max(height, width)
        for top in range(0, height, side):
            for left in range(0, width, side):
                yield top, min(top + side, height), left, min(left + side, width)


Row = tuple[Tensor, Tensor]  # scale and shift (C) of a normalisation


@dataclass
class Norm:
    """What a layer's values become: (x - mean) / sqrt(var + EPS) * scale + shift, for each picture and channel."""

    mean: Tensor  # (N, C)
    var: Tensor  # (N, C)
    scale: Tensor  # (C)
    shift: Tensor  # (C)


def _normalise(x: Tensor, norm: Norm) -> Tensor:
    """(N, C, h, w) -> a new (N, C, h, w); computed in float32 in one pass, whatever the type of x."""
    x = x.contiguous(memory_format=torch.channels_last)
    pictures = [
        F.batch_norm(x[i : i + 1], norm.mean[i], norm.var[i], norm.scale, norm.shift, eps=EPS) for i in range(len(x))
    ]
    return pictures[0] if len(pictures) == 1 else torch.cat(pictures)


class Layer:
    """A layer's values (N, C, H, W), channels last, in memory or in an unnamed temporary file."""

    def __init__(
        self, n: int, channels: int, height: int, width: int, dtype: torch.dtype, device: torch.device, in_file: bool
    ):
        self.channels, self.height, self.width, self.map = channels, height, width, None
        shape = (n, height, width, channels)
        if not in_file:
            self.values = torch.empty(shape, dtype=dtype, device=device)
            return
        size = int(np.prod(shape)) * dtype.itemsize
        with tempfile.TemporaryFile() as file:
            try:
                os.posix_fallocate(file.fileno(), 0, size)  # a full disk is an error now, not a crash later
            except OSError as error:
                raise UserError(
                    f"{tempfile.gettempdir()} has no room for {size // 10**6} MB ({error.strerror}): set TMPDIR to "
                    f"another folder, or give a larger --memory_limit or a smaller --max_side"
                ) from error
            self.map = mmap.mmap(file.fileno(), size)
        self.values = torch.frombuffer(self.map, dtype=dtype).view(shape)

    def write(self, box: Box, x: Tensor) -> None:
        top, bottom, left, right = box
        self.values[:, top:bottom, left:right] = x.permute(0, 2, 3, 1)
        self._release()

    def read(self, box: Box, norm: Norm | None = None, relu: bool = False, edge: str = "") -> Tensor:
        """(N, C, h, w) in a box, normalised; what is outside of the layer is continued as `edge` says."""
        top, bottom, left, right = box
        rows, columns = _clip(top, bottom, self.height), _clip(left, right, self.width)
        x = self.values[:, rows[0] : rows[1], columns[0] : columns[1]].permute(0, 3, 1, 2)
        if norm is not None:
            x = _normalise(x, norm)
        if relu:
            x = x.relu_()
        pad = (columns[0] - left, right - columns[1], rows[0] - top, bottom - rows[1])
        if any(pad):
            x = F.pad(x, pad, mode=edge)
        self._release()
        return x

    def _release(self) -> None:
        """The file's pages need not stay in this process's memory: the system keeps or writes them as it likes."""
        if self.map is not None:
            self.map.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        """Gives the memory back."""
        del self.values


def upsampled(weight: Tensor) -> Tensor:
    """The kernel (4 O, I, 2, 2) that does to a small picture what (O, I, 3, 3) does to the twice enlarged one.

    Enlarged by repetition, neighbours are equal, so that their weights can be added beforehand: 4 products for a pixel
    instead of 9. At each place between four small pixels it gives the four enlarged ones around it, as pixel_shuffle
    expects them: rows (2i - 1, 2i) from the small rows (i - 1, i), and columns likewise.
    """
    w = weight.float()
    rows = torch.stack([_pair(w[:, :, 0] + w[:, :, 1], w[:, :, 2]), _pair(w[:, :, 0], w[:, :, 1] + w[:, :, 2])], 1)
    # (O, 2, I, 2, 3): which row of the pair, small row, column of the kernel
    left, middle, right = rows.unbind(-1)
    both = torch.stack([torch.stack([left + middle, right], -1), torch.stack([left, middle + right], -1)], 2)
    # (O, 2, 2, I, 2, 2) -> (4 O, I, 2, 2)
    return both.flatten(0, 2)


def _pair(first: Tensor, second: Tensor) -> Tensor:
    return torch.stack([first, second], 2)


def in_blocks(weight: Tensor) -> Tensor:
    """The kernel (4 O, I, K + 1, K + 1) that gives 2 x 2 pixels at a time, at stride 2, what (O, I, K, K) gives singly.

    Convolutions with 3 outputs leave most of a processor's vector unit idle; with 12 they do not.
    """
    outputs, inputs, kernel, _ = weight.shape
    result = weight.new_zeros(outputs, 2, 2, inputs, kernel + 1, kernel + 1)
    for row in (0, 1):
        for column in (0, 1):
            result[:, row, column, :, row : row + kernel, column : column + kernel] = weight
    return result.flatten(0, 2)


def _weight(weight: Tensor, dtype: torch.dtype) -> Tensor:
    return weight.detach().to(dtype).contiguous(memory_format=torch.channels_last)


def _conv(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    return F.conv2d(x.to(weight.dtype).contiguous(memory_format=torch.channels_last), weight, stride=stride)


def _row(layer: ConditionalInstanceNorm, style: Tensor) -> Row:
    scale, shift = layer.affine(style)
    return scale[0], shift[0]


def _around(box: Box, margin: int, stride: int = 1) -> Box:
    """What a kernel sees that reaches `margin` beyond its centre: the box in the layer before it.

    At stride 2 the last centre is at 2 * bottom - 2, so that a 3 x 3 kernel sees up to 2 * bottom - 1.
    """
    top, bottom, left, right = (edge * stride for edge in box)
    back = stride - 1
    return top - margin, bottom + margin - back, left - margin, right + margin - back


def _clip(start: int, end: int, size: int) -> tuple[int, int]:
    return max(start, 0), min(end, size)
