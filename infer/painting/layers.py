"""The layers of a painting in progress: kept in memory, in a file or nowhere, and read in boxes, normalised.

Also the arithmetic of single boxes. Which boxes in which order is tiles.py's business. Shapes: N pictures, C channels,
H x W pixels.
"""

import math
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from models.transformer_net import EPS, InstanceNorm
from utils.errors import UserError

LAST = torch.channels_last
SUMMED = 1 << 16  # pixels: as many can be added up in float32
Box = tuple[int, int, int, int]  # top, bottom, left, right; bottom and right are the first that are outside
Pieces = list[tuple[Box, Tensor]]  # what a box consists of: where in it, and its values (N, C, h, w)


@dataclass
class Affine:
    """What comes after a normalisation: scale and shift (C), and the bounds of their result, perhaps infinite."""

    scale: Tensor
    shift: Tensor
    low: Tensor
    high: Tensor

    def limits(self, relu: bool) -> list[Tensor]:
        """The bounds, [low, high] (C) each; those of a ReLU as well, if one follows."""
        return [limit.clamp(min=0) if relu else limit for limit in (self.low, self.high)]


@dataclass
class Norm:
    """What a layer's values become: (x - mean) / sqrt(var + EPS) * scale + shift, for each picture and channel."""

    moments: list[tuple[Tensor, Tensor]]  # N times mean and var (C)
    affine: Affine


def moments_of(x: Tensor, layout: torch.memory_format) -> tuple[Tensor, Tensor]:
    """Mean and variance (C) of one picture (1, C, h, w); in float32, whatever the type of x."""
    if layout is LAST:  # batch normalisation's kernel; without the zeros, moments of bf16 are rounded to bf16
        return torch.batch_norm_update_stats(x, *torch.zeros(2, x.shape[1], device=x.device), 0.0)
    # Where channels come first it takes seven times as long as two sums, of rows in float32, of these in float64.
    sums, norms = x[0].sum(2).double(), torch.linalg.vector_norm(x[0], dim=2).double()  # (C, h)
    pixels = x[0, 0].numel()
    mean = sums.sum(1) / pixels
    return mean.float(), (norms.square().sum(1) / pixels - mean.square()).clamp(min=0).float()


def _rows_of(x: Tensor, layout: torch.memory_format) -> Tensor:
    """(C, h, w) -> the same memory, rows last: (C, h, w), or (h, w C) where channels come last."""
    return x.permute(1, 2, 0).flatten(1) if layout is LAST else x


def _to_row(values: Tensor, width: int, layout: torch.memory_format) -> Tensor:
    """Of each channel (C) -> written out for a row of `_rows_of`, (C, 1, w) or (w C).

    torch's kernels of three tensors use the vector units only where all of them are dense: 2 to 5 times as fast.
    """
    return values.repeat(width) if layout is LAST else values[:, None, None].repeat(1, 1, width)


def _normalise(x: Tensor, norm: Norm) -> Tensor:
    """(N, C, h, w) of 16 bits, channels last -> a new one, after ReLU; computed in float32 in one pass."""
    scale, shift = norm.affine.scale, norm.affine.shift
    pictures = [F.batch_norm(x[i : i + 1], *moments, scale, shift, eps=EPS) for i, moments in enumerate(norm.moments)]
    y = pictures[0] if len(pictures) == 1 else torch.cat(pictures)
    # Limits from 0 on compare like integers of 16 bits, whose kernel is several times as fast.
    limits = (limit.to(y.dtype).view(torch.int16) for limit in norm.affine.limits(relu=True))
    low, high = (_to_row(limit, y.shape[3], LAST) for limit in limits)
    for one in y.view(torch.int16):
        rows = _rows_of(one, LAST)
        torch.clamp(rows, low, high, out=rows)
    return y


def _normalise_float(x: Tensor, norm: Norm, relu: bool, layout: torch.memory_format, out: Tensor) -> None:
    """The same in float32, with ReLU or without: (N, C, h, w) into `out`, whose memory has this layout."""
    width = x.shape[3]
    low, high = (_to_row(limit, width, layout) for limit in norm.affine.limits(relu))
    for one, result, (mean, var) in zip(x, out, norm.moments, strict=True):
        scale = norm.affine.scale * (var + EPS).rsqrt()
        shift = norm.affine.shift - mean * scale
        scale, shift = (_to_row(values, width, layout) for values in (scale, shift))
        rows = _rows_of(result, layout)
        torch.addcmul(shift, _rows_of(one, layout), scale, out=rows)
        torch.clamp(rows, low, high, out=rows)


def _put_together(
    pieces: Pieces, layout: torch.memory_format, pad: Sequence[int] = (0, 0, 0, 0), edge: str = "",
    norm: Norm | None = None, relu: bool = False,
) -> Tensor:  # fmt: skip
    """The box (N, C, h, w) of these pieces, padded as by F.pad; with `norm` normalised on the way, in float32.

    Each value is copied once, not once for each of these steps.
    """
    first = pieces[0][1]
    if len(pieces) == 1 and norm is None and not any(pad):
        return first
    left, right, top, bottom = pad
    height, width = (max(place[end] for place, _ in pieces) for end in (1, 3))
    size = *first.shape[:2], top + height + bottom, left + width + right
    y = torch.empty(size, dtype=first.dtype, device=first.device, memory_format=layout)
    inside = y[..., top : top + height, left : left + width]
    for (upper, lower, start, end), piece in pieces:
        part = inside[..., upper:lower, start:end]
        if norm is None:
            part.copy_(piece)
        else:
            _normalise_float(piece, norm, relu, layout, part)
    for dim, before, after in ((2, top, bottom), (3, left, right)):
        size = y.shape[dim]
        skip = edge == "reflect"  # the outermost pixel itself is not repeated
        if before:
            y.narrow(dim, 0, before).copy_(y.narrow(dim, before + skip, before).flip(dim))
        if after:
            y.narrow(dim, size - after, after).copy_(y.narrow(dim, size - 2 * after - skip, after).flip(dim))
    return y


class Layer:
    """A layer's values (N, C, H, W) and what they are normalised with when they are read.

    They are in memory, in an unnamed temporary file, or nowhere (`kept` False): computed again in every box.
    """

    def __init__(
        self,
        shape: tuple[int, int, int, int],
        shrunk: int,  # by what its sides are smaller than the picture's
        dtype: torch.dtype,
        layout: torch.memory_format,  # of what is read; in a file channels come last
        device: torch.device,
        kept: bool,
        in_file: bool,
    ):
        n, self.channels, self.height, self.width = shape
        self.shrunk, self.kept = shrunk, kept
        self.layout, self.device = layout, device
        self.norm: Norm | None = None
        self.relu = True  # after the normalisation
        self.compute: Callable[[Box], Tensor] | None = None
        self.dtype = dtype
        self.tiles: dict[Box, Tensor] = {}  # in memory as they were written; in a file it is one
        self.map = None
        if not (kept and in_file):
            return
        size = math.prod(shape) * dtype.itemsize
        with tempfile.TemporaryFile() as file:
            try:
                os.posix_fallocate(file.fileno(), 0, size)  # a full disk is an error now, not a crash later
            except OSError as error:
                raise UserError(
                    f"{tempfile.gettempdir()} has no room for {size // 10**6} MB ({error.strerror}): set TMPDIR to "
                    f"another folder, or give a larger memory_limit or a smaller max_side"
                ) from error
            self.map = mmap.mmap(file.fileno(), size)
        values = torch.frombuffer(self.map, dtype=dtype).view(n, self.height, self.width, self.channels)
        self.tiles[0, self.height, 0, self.width] = values.permute(0, 3, 1, 2)

    def bands(self, box: Box) -> Iterator[int]:
        """Heights of the parts of a box whose moments are found together.

        Where channels come last, they are added up in float32: the more pixels, the less exactly.
        """
        top, bottom, left, right = box
        most = max(1, SUMMED // (right - left)) if self.layout is LAST else bottom - top
        for row in range(top, bottom, most):
            yield min(most, bottom - row)

    def write(self, box: Box, x: Tensor) -> None:
        if not self.kept:
            return
        if self.map is None:
            self.tiles[box] = x.to(self.dtype)
            return
        [values] = self.tiles.values()
        top, bottom, left, right = box
        values[..., top:bottom, left:right] = x
        self._release()

    def read(self, box: Box, edge: str = "", exact: bool = False) -> Tensor:
        """(N, C, h, w) in a box, normalised; what is outside of the layer is continued as `edge` says."""
        top, bottom, left, right = box
        rows, columns = clip(top, bottom, self.height), clip(left, right, self.width)
        pad = (columns[0] - left, right - columns[1], rows[0] - top, bottom - rows[1])
        pieces = list(self._pieces((*rows, *columns)))
        if exact or pieces[0][1].dtype == torch.float16:
            pieces = [(place, piece.float()) for place, piece in pieces]
        if self.norm is None or pieces[0][1].dtype == torch.float32:
            x = _put_together(pieces, self.layout, pad, edge, self.norm, self.relu)
        else:
            x = _normalise(_put_together(pieces, LAST).contiguous(memory_format=LAST), self.norm)
            if any(pad):
                x = F.pad(x, pad, mode=edge)
        self._release()
        return x

    def _pieces(self, box: Box) -> Iterator[tuple[Box, Tensor]]:
        """What a box within the layer consists of."""
        if not self.kept:
            yield (0, box[1] - box[0], 0, box[3] - box[2]), self.compute(box)
        for (top, bottom, left, right), tile in self.tiles.items():
            first, last = max(box[0], top), min(box[1], bottom)
            start, end = max(box[2], left), min(box[3], right)
            if first < last and start < end:
                piece = tile[..., first - top : last - top, start - left : end - left].to(self.device)  # from a file
                yield (first - box[0], last - box[0], start - box[2], end - box[2]), piece

    def _release(self) -> None:
        """The file's pages need not stay in this process's memory: the system keeps or writes them as it likes."""
        if self.map is not None:
            self.map.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        """Gives the memory back."""
        self.tiles, self.compute = {}, None


# What the three rows of a kernel come to on the small picture, for the upper and the lower of two enlarged rows:
UPSAMPLED = {
    2: [[[1, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 1, 1]]],  # rows 2i - 1 and 2i, from the small rows i - 1 and i
    3: [[[1, 0, 0], [0, 1, 1], [0, 0, 0]], [[0, 0, 0], [1, 1, 0], [0, 0, 1]]],  # 2i and 2i + 1, from i - 1, i, i + 1
}


def upsampled(weight: Tensor, size: int = 2) -> Tensor:
    """The kernel (4 O, I, size, size) that does to a small picture what (O, I, 3, 3) does to the twice enlarged one.

    Enlarged by repetition, neighbours are equal, so that their weights can be added beforehand: 4 products for a pixel
    instead of 9. It gives 2 x 2 enlarged pixels at a time, as `unfold` expects them: of size 2 those around the place
    between four small pixels, of size 3 (with zeros, for Winograd's algorithm) those of one small pixel.
    """
    rows = torch.tensor(UPSAMPLED[size], dtype=torch.float32, device=weight.device)  # (2, size, 3)
    return torch.einsum("pyr,qxs,oirs->pqoiyx", rows, rows, weight.float()).flatten(0, 2)


def as_weight(weight: Tensor, dtype: torch.dtype, layout: torch.memory_format = LAST) -> Tensor:
    return weight.detach().to(dtype).contiguous(memory_format=layout)


def conv(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    """In the layout of the weight; by NNPACK where channels come first and the kernel's side is odd."""
    if weight.stride(1) == 1:
        return F.conv2d(x.to(weight.dtype).contiguous(memory_format=LAST), weight, stride=stride)
    if weight.shape[2] % 2 == 0:
        return F.conv2d(x.contiguous(), weight)
    pictures = [torch._nnpack_spatial_convolution(one, weight, None, 0) for one in x.split(1)]  # more at once: slower
    return pictures[0] if len(pictures) == 1 else torch.cat(pictures)


def affine_of(norm: InstanceNorm) -> Affine:
    scale, shift = norm.weight.detach().float(), norm.bias.detach().float()
    reach = norm.bound * scale.abs() if norm.bound else torch.full_like(scale, torch.inf)
    return Affine(scale, shift, shift - reach, shift + reach)


def around(box: Box, margin: int, stride: int = 1) -> Box:
    """What a kernel sees that reaches `margin` beyond its centre: the box in the layer before it.

    At stride 2 the last centre is at 2 * bottom - 2, so that a 3 x 3 kernel sees up to 2 * bottom - 1.
    """
    top, bottom, left, right = (edge * stride for edge in box)
    back = stride - 1
    return top - margin, bottom + margin - back, left - margin, right + margin - back


def clip(start: int, end: int, size: int) -> tuple[int, int]:
    return max(start, 0), min(end, size)
