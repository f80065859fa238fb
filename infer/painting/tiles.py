"""Painting pictures of any size with a TransformerNet: fast, in bounded memory, without seams.

`Painter.paint` gives what `TransformerNet.forward` gives; only the order of the work differs. Instance normalisation
needs the statistics of the whole picture before its result can be used anywhere, so the network is a chain of passes,
one for each normalisation. A pass goes over the picture in tiles that stay in the processor's cache: it reads a piece
of the layer before (with the few pixels around it that a kernel sees), normalises it, convolves it, and adds the result
to the statistics of its own layer. What the passes hand on lies in memory, or in a file if it is too much for that.
What fits the memory limit is painted in one piece, which is faster than tiles. Layers of full resolution, most of the
memory, are not kept where they would not fit: they are computed again where they are needed.

Channels come last, which oneDNN is fastest with, but in float32 on a processor with AVX2 and no more: there NNPACK's
convolutions by Winograd's algorithm and by Fourier transforms are two to three times as fast (docs/decisions.md). They
take channels first, and so do all layers from the residual blocks on.

It reads and writes no pictures: infer/painting/files.py does. Shapes: N pictures, C channels, H x W pixels.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from infer.painting.colors import Progress, ignore, part_of
from infer.painting.layers import (
    LAST,
    Affine,
    Box,
    Layer,
    Norm,
    affine_of,
    around,
    as_weight,
    clip,
    conv,
    moments_of,
    upsampled,
)
from models.transformer_net import TransformerNet, in_blocks, unfold
from utils.hardware import check_memory, choose_precision, nnpack_is_faster, tune_malloc

TILE = 512  # pixels: side of a tile at full resolution
SMALLEST = 16  # pixels: what is smaller is continued at its edges before it is painted
# Of products, and of what is kept between two passes where it must be exact. The first three convolutions are computed
# in float32 in either case: their errors are the largest, in plain skies above all, and they are cheap.
DTYPES = {"fp32": (torch.float32, torch.float32), "bf16": (torch.bfloat16, torch.float16)}
MANY = 64  # channels: with as many, Winograd's algorithm pays even if 5 of 9 weights are zeros


def painting_precision(wanted: str, model: TransformerNet) -> tuple[str, str]:
    """(precision, why) for a Painter, see choose_precision; found out with a painting of 16 x 16 pixels."""
    noise = np.random.default_rng(0).integers(0, 256, (1, SMALLEST, SMALLEST, 3), np.uint8)
    gpu = model.device.type == "cuda"
    return choose_precision(wanted, gpu, lambda precision: Painter(model, precision).paint(noise))


class Painter:
    """A network, ready to paint.

    Args:
        model: the network, on the device to compute on.
        precision: "fp32" or "bf16".
        memory_limit: MB that the layers of a picture may take (besides the picture and the painting themselves); the
            layers of a larger picture lie in a temporary file.
        tile: side of the tiles in pixels of the picture; 0: the whole picture in one; -1: that if it fits memory_limit.

    Raises UserError if there is no room for a temporary file, or no memory for a tile.
    """

    def __init__(self, model: TransformerNet, precision: str = "fp32", memory_limit: int = 1000, tile: int = -1):
        (self.dtype, self.kept), self.memory_limit = DTYPES[precision], memory_limit
        self.tile = tile if tile <= 0 else max(SMALLEST, tile // 8 * 8)  # halves and quarters are whole and even
        self.device = model.device
        fast = precision == "fp32" and self.device.type == "cpu" and nnpack_is_faster()
        self.layout = layout = torch.contiguous_format if fast else torch.channels_last  # from the residual blocks on
        tune_malloc()
        with torch.inference_mode():
            # Normalisation takes the biases of the convolutions before it away: they are left out.
            self.conv1 = as_weight(model.conv1.conv2d.weight / 255, torch.float32)
            self.conv2, self.conv3 = (as_weight(c.conv2d.weight, torch.float32) for c in (model.conv2, model.conv3))
            self.trunk = [
                [
                    (as_weight(layer.conv2d.weight, self.dtype, layout), affine_of(norm))
                    for layer, norm in ((block.conv1, block.in1), (block.conv2, block.in2))
                ]
                for block in model.blocks
            ]
            self.up1, self.up2 = (
                as_weight(upsampled(w, 3 if fast and w.shape[1] >= MANY else 2), self.dtype, layout)
                for w in (model.deconv1.conv2d.weight, model.deconv2.conv2d.weight)
            )
            last = model.deconv3.conv2d.weight
            self.last = as_weight(last if fast else in_blocks(last), self.dtype, layout)
            self.last_bias = model.deconv3.conv2d.bias.float()  # (3), added in float32
            self.in1, self.in2, self.in3, self.in4, self.in5 = map(
                affine_of, (model.in1, model.in2, model.in3, model.in4, model.in5)
            )
            # A picture of one colour has no contrast to normalise but that of rounding, which would become a pattern.
            # Without rounding its normalisations give nothing but their shifts; this, (3), is what they end in.
            even = last.float().sum((2, 3)) @ F.relu(self.in5.shift) + self.last_bias
            self.even = 255 * even.cpu().numpy()
        if self.tile > 0:
            self.check_tile(self.tile, self.tile)

    def check_tile(self, height: int, width: int) -> None:
        """Raises UserError where a tile cannot fit: its layer of full resolution, as it is read and as it is made."""
        if self.device.type == "cpu":
            needed = 2 * 4 * len(self.conv1) * height * width
            check_memory(needed, f"a tile of {width} x {height} pixels", "give a smaller tile, or leave it out")

    @torch.inference_mode()
    def paint(self, rgb: np.ndarray, progress: Progress = ignore) -> np.ndarray:
        """uint8 (N, H, W, 3), of any height and width -> uint8 (N, H, W, 3).

        Pictures of one call have nothing to do with each other; small ones are faster together, up to a tile's size.
        """
        height, width = rgb.shape[1:3]
        flat = np.array([_of_one_colour(picture) for picture in rgb])
        if flat.any():  # the rare case: in a video, a black frame
            result = np.empty_like(rgb)
            result[flat] = np.clip(self.even + 0.5, 0, 255)
            if not flat.all():
                result[~flat] = self.paint(rgb[~flat], progress)
            return result
        small = ((0, 0), (0, max(0, SMALLEST - height)), (0, max(0, SMALLEST - width)), (0, 0))
        if any(after for _, after in small):
            rgb = np.pad(rgb, small, mode="edge")
        painting = np.empty(rgb.shape, np.uint8)
        together = max(1, TILE**2 // (rgb.shape[1] * rgb.shape[2]))
        for first in range(0, len(rgb), together):
            batch = rgb[first : first + together]
            told = part_of(progress, first, len(rgb), len(batch))
            _Painting(self, batch, told).run(painting[first : first + together])
        return painting[:, :height, :width]


class _Painting:
    """The passes over one batch of pictures."""

    def __init__(self, painter: Painter, rgb: np.ndarray, progress: Progress):
        self.p, self.rgb, self.progress = painter, rgb, progress
        self.n, self.height, self.width = rgb.shape[:3]
        if not painter.tile:
            painter.check_tile(self.height, self.width)
        # Normalisation takes any constant away; without it there are fewer digits to lose.
        self.middle = rgb[:, ::16, ::16].mean((1, 2), keepdims=True).astype(np.int16)  # (N, 1, 1, 3)
        self.half = (self.height + 1) // 2, (self.width + 1) // 2
        self.quarter = (self.half[0] + 1) // 2, (self.half[1] + 1) // 2
        full, half, quarter = len(painter.conv1), len(painter.conv2), len(painter.conv3)
        # Bytes for a pixel of a quarter of the resolution:
        limit = 1e6 * painter.memory_limit / (self.n * self.quarter[0] * self.quarter[1])
        self.in_file = max(3 * quarter, quarter + 4 * half) * painter.dtype.itemsize > limit
        # The most are two layers, of full and of half resolution, in float32.
        self.keep_full = 4 * (16 * full + 4 * half) <= limit
        # In one piece it is eight of full resolution, with all that is copied on the way and freed memory that waits.
        in_one = max(self.height, self.width) <= TILE or 8 * 4 * 16 * full <= limit
        self.tile = painter.tile if painter.tile >= 0 else 0 if in_one else TILE
        self.kept = torch.float32 if self.keep_full else painter.kept
        self.passes_done = 0
        self.passes = 6 + 2 * len(painter.trunk)

    def run(self, painting: np.ndarray) -> None:
        """Fills painting (N, H, W, 3)."""
        p = self.p
        full = self.new_layer(len(p.conv1), (self.height, self.width), 1, torch.float32, LAST)
        self.fill(full, self.first, p.in1)
        half = self.new_layer(len(p.conv2), self.half, 2, self.kept, LAST)
        self.fill(half, lambda box: conv(full.read(around(box, 1, 2), "reflect"), p.conv2, 2), p.in2)
        full.close()
        x = self.new_layer(len(p.conv3), self.quarter, 4, self.kept, p.layout)
        self.fill(x, lambda box: conv(half.read(around(box, 1, 2), "reflect"), p.conv3, 2), p.in3)
        half.close()
        for box in self.boxes(x):
            x.write(box, x.read(box))
        x.norm = None  # it is normalised now
        self.residual_blocks(x)
        half = self.new_layer(len(p.conv2), (2 * self.quarter[0], 2 * self.quarter[1]), 2, p.dtype, p.layout)
        self.fill(half, lambda box: _doubled(x, box, p.up1), p.in4)
        x.close()
        full = self.new_layer(len(p.conv1), (2 * half.height, 2 * half.width), 1, p.dtype, p.layout)
        self.fill(full, lambda box: _doubled(half, box, p.up2), p.in5)
        shift = 255 * p.last_bias.view(1, 3, 1, 1) + 0.5  # rounded when cut off
        for box in self.boxes(full):
            top, bottom, left, right = box
            x = full.read(around(box, 4), "reflect")
            if len(p.last) == 3:  # NNPACK's Fourier transforms take much memory: some rows at a time
                x = torch.cat([conv(x[:, :, row : row + 136], p.last) for row in range(0, bottom - top, 128)], 2)
            else:
                x = unfold(conv(x, p.last, 2))  # (N, 3, h, w)
            pixels = torch.add(shift, x.float(), alpha=255).clamp_(0, 255).byte().permute(0, 2, 3, 1)  # (N, h, w, 3)
            place = painting[:, top:bottom, left:right]
            place[:] = pixels[:, : place.shape[1], : place.shape[2]].cpu().numpy()  # without what rounding up has added
        half.close()
        full.close()
        self.progress(1.0)

    # ------------------------------------------------------------------------------------------ what the passes do

    def first(self, box: Box) -> Tensor:
        """conv1 in a box of the picture -> (N, full, h, w)."""
        top, bottom, left, right = around(box, 4)
        rows, columns = clip(top, bottom, self.height), clip(left, right, self.width)
        pixels = self.rgb[:, rows[0] : rows[1], columns[0] : columns[1]]
        edges = ((0, 0), (rows[0] - top, bottom - rows[1]), (columns[0] - left, right - columns[1]), (0, 0))
        if any(map(any, edges)):
            pixels = np.pad(pixels, edges, mode="reflect")
        x = torch.from_numpy(pixels - self.middle).to(self.p.device)
        return conv(x.permute(0, 3, 1, 2), self.p.conv1)

    def residual_blocks(self, x: Layer) -> None:
        """x + IN(conv(relu(IN(conv(x))))), again and again, in place."""
        a, b = (self.new_layer(x.channels, self.quarter, 4, self.p.dtype, self.p.layout) for _ in "ab")
        b.relu = False
        for (conv_a, in_a), (conv_b, in_b) in self.p.trunk:
            self.fill(a, lambda box, w=conv_a: conv(x.read(around(box, 1), "reflect"), w), in_a)
            self.fill(b, lambda box, w=conv_b: conv(a.read(around(box, 1), "reflect"), w), in_b)
            for box in self.boxes(x):
                x.write(box, b.read(box, exact=True).add_(x.read(box)))
        a.close()
        b.close()

    # ------------------------------------------------------------------------------------------------- one pass

    def new_layer(
        self, channels: int, size: tuple[int, int], shrunk: int, dtype: torch.dtype, layout: torch.memory_format
    ) -> Layer:
        kept = shrunk > 1 or self.keep_full
        return Layer((self.n, channels, *size), shrunk, dtype, layout, self.p.device, kept, self.in_file)

    def fill(self, layer: Layer, compute: Callable[[Box], Tensor], affine: Affine) -> None:
        """Computes a layer in tiles, keeps it (or not), and finds its normalisation, exact over all of it."""
        layer.compute = compute
        bands = [(box, list(layer.bands(box))) for box in self.boxes(layer)]
        pixels = [rows * (right - left) for (_, _, left, right), heights in bands for rows in heights]
        # A place for them beforehand: small blocks that stay between the large ones of each tile would cut up the heap.
        moments = torch.empty(self.n, 2, len(pixels), layer.channels, device=self.p.device)
        number = 0
        for box, heights in bands:
            x = compute(box).contiguous(memory_format=layer.layout)
            layer.write(box, x)
            for band in x.split(heights, 2):
                for i in range(self.n):  # one picture at a time
                    moments[i, 0, number], moments[i, 1, number] = moments_of(band[i : i + 1], layer.layout)
                number += 1
        layer.norm = Norm([_of_all(pixels, *tiles) for tiles in moments], affine)
        self.passes_done += 1
        self.progress(self.passes_done / self.passes)

    def boxes(self, layer: Layer) -> Iterator[Box]:
        side = self.tile // layer.shrunk or max(layer.height, layer.width)
        for top in range(0, layer.height, side):
            for left in range(0, layer.width, side):
                yield top, min(top + side, layer.height), left, min(left + side, layer.width)


def _of_all(pixels: list[int], means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (C) over all tiles from those of each (tiles, C), summed in float64."""
    if len(pixels) == 1:
        return means[0], variances[0]
    share = torch.tensor(pixels, device=means.device).double().div(sum(pixels))[:, None]  # (tiles, 1)
    mean = (share * means).sum(0)
    return mean.float(), (share * (variances + (means - mean).square())).sum(0).float()


def _doubled(layer: Layer, box: Box, weight: Tensor) -> Tensor:
    """Upsampling and convolution in a box of the doubled resolution (its edges even) -> (N, C, h, w)."""
    top, bottom, left, right = (edge // 2 for edge in box)
    x = unfold(conv(layer.read(around((top, bottom, left, right), 1), "replicate"), weight))
    return x if weight.shape[2] == 3 else x[:, :, 1:-1, 1:-1]  # without one row and one column at each side


def _of_one_colour(rgb: np.ndarray) -> bool:
    """(H, W, 3); a few pixels tell of almost all pictures."""
    return bool((rgb[::16, ::16] == rgb[0, 0]).all() and (rgb == rgb[0, 0]).all())
