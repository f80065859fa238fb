"""The layers of a painting in progress: kept in memory, in a file or nowhere, and read in boxes, normalised.

Also the arithmetic of single boxes. Which boxes in which order is tiles.py's business. Shapes: N pictures, C channels,
H x W pixels.
"""

import math
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from models.transformer_net import EPS, InstanceNorm
from utils.errors import UserError

LAST = torch.channels_last
SUMMED = 1 << 16  # pixels: as many can be added up in float32
Box = tuple[int, int, int, int]  # top, bottom, left, right; bottom and right are the first that are outside


@dataclass
class Affine:
    """What comes after a normalisation: scale and shift (C), and bounds of their result, if it has any."""

    scale: Tensor
    shift: Tensor
    low: Tensor | None = None
    high: Tensor | None = None


@dataclass
class Norm:
    """What a layer's values become: (x - mean) / sqrt(var + EPS) * scale + shift, for each picture and channel."""

    moments: list[tuple[Tensor, Tensor]]  # N times mean and var (C)
    affine: Affine


def _normalise(x: Tensor, norm: Norm, relu: bool) -> Tensor:
    """(N, C, h, w), dense -> a new (N, C, h, w); computed in float32 in one pass, whatever the type of x."""
    scale, shift = norm.affine.scale, norm.affine.shift
    pictures = [F.batch_norm(x[i : i + 1], *moments, scale, shift, eps=EPS) for i, moments in enumerate(norm.moments)]
    return _limit_(pictures[0] if len(pictures) == 1 else torch.cat(pictures), norm.affine, relu)


def _limit_(x: Tensor, affine: Affine, relu: bool) -> Tensor:
    """In place: the bounds of the normalisation, if it has any, and then a ReLU, if there is one."""
    if affine.low is not None:
        low, high = ((limit.clamp(min=0) if relu else limit).to(x.dtype) for limit in (affine.low, affine.high))
        return torch.clamp(x, low, high, out=x)
    if relu:  # 16 bits have the same sign as an integer, whose kernel is 5 times faster
        (x if x.dtype == torch.float32 else x.view(torch.int16)).clamp_(min=0)
    return x


def _normalise_float(
    x: Tensor, norm: Norm, relu: bool, pad: tuple[int, int, int, int], edge: str, layout: torch.memory_format
) -> Tensor:
    """The same in float32 with ReLU and padding, as F.pad's; the values are copied once on the way, not three times."""
    left, right, top, bottom = pad
    n, channels, height, width = x.shape
    size = n, channels, top + height + bottom, left + width + right
    y = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=layout)
    inside = y[..., top : top + height, left : left + width]
    for one, result, (mean, var) in zip(x, inside, norm.moments, strict=True):
        scale = norm.affine.scale * (var + EPS).rsqrt()
        shift = norm.affine.shift - mean * scale
        torch.addcmul(shift[:, None, None], one, scale[:, None, None], out=result)
    _limit_(y, norm.affine, relu)
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
        self.map = None
        if not kept:
            return
        if not in_file:
            self.values = torch.empty(shape, dtype=dtype, device=device, memory_format=layout)
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
        self.values = values.permute(0, 3, 1, 2)

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
        top, bottom, left, right = box
        if self.map is None and x.shape == self.values.shape:
            self.values = x.to(self.values.dtype)
            return
        self.values[..., top:bottom, left:right] = x
        self._release()

    def read(self, box: Box, edge: str = "", exact: bool = False) -> Tensor:
        """(N, C, h, w) in a box, normalised; what is outside of the layer is continued as `edge` says."""
        top, bottom, left, right = box
        rows, columns = clip(top, bottom, self.height), clip(left, right, self.width)
        if self.kept:
            x = self.values[..., rows[0] : rows[1], columns[0] : columns[1]].to(self.device)  # from a file
        else:
            x = self.compute((*rows, *columns))
        if exact or x.dtype == torch.float16:
            x = x.float()
        pad = (columns[0] - left, right - columns[1], rows[0] - top, bottom - rows[1])
        if self.norm is not None and x.dtype == torch.float32:
            x = _normalise_float(x, self.norm, self.relu, pad, edge, self.layout)
        else:
            if self.norm is not None:
                x = _normalise(x.contiguous(memory_format=self.layout), self.norm, self.relu)
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
        self.values = self.compute = None


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
    if not norm.bound:
        return Affine(scale, shift)
    reach = (norm.bound * scale.abs()).view(-1, 1, 1)
    return Affine(scale, shift, shift.view(-1, 1, 1) - reach, shift.view(-1, 1, 1) + reach)


def around(box: Box, margin: int, stride: int = 1) -> Box:
    """What a kernel sees that reaches `margin` beyond its centre: the box in the layer before it.

    At stride 2 the last centre is at 2 * bottom - 2, so that a 3 x 3 kernel sees up to 2 * bottom - 1.
    """
    top, bottom, left, right = (edge * stride for edge in box)
    back = stride - 1
    return top - margin, bottom + margin - back, left - margin, right + margin - back


def clip(start: int, end: int, size: int) -> tuple[int, int]:
    return max(start, 0), min(end, size)
