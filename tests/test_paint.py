"""The painter's engine: what TransformerNet.forward paints, at any size, in tiles, from a file, in bounded memory."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import infer.painting.tiles
from infer.painting.layers import Layer, upsampled
from infer.painting.tiles import MANY, Painter, _Painting
from models.transformer_net import StyleNetworks, TransformerNet, unfold
from tests.painting import in_new_process, is_near, memory_peak, vary
from utils.errors import UserError

ROOT = Path(__file__).parents[1]


def network(channels=(8, 12, 16), blocks=2, bound=0.0) -> TransformerNet:
    """Random, with different scales and shifts, some of them negative, and full contrast."""
    torch.manual_seed(0)
    painter = StyleNetworks({"random": {"channels": channels, "blocks": blocks, "bound": bound}}).eval()
    model = vary(painter, 0.5)["random"]
    model.deconv3.conv2d.weight.data *= 5
    return model


def pictures(height: int, width: int, n: int = 1, seed: int = 0) -> np.ndarray:
    """Coloured noise over gradients, (n, H, W, 3) uint8; each of other colours and contrast."""
    random = np.random.default_rng((seed, height, width))
    rows, columns = np.mgrid[:height, :width] / max(height, width)
    smooth = 60 + 120 * np.stack([rows, columns, 1 - rows], -1)
    each = random.uniform(0.2, 1, (n, 1, 1, 3))
    return np.clip(smooth * each + random.normal(0, 30, (n, height, width, 3)), 0, 255).astype(np.uint8)


@torch.no_grad()
def plain(model: TransformerNet, rgb: np.ndarray) -> np.ndarray:
    """The network's own forward, whole pictures, float32."""
    image = torch.from_numpy(rgb).permute(0, 3, 1, 2).float() / 255
    output = model(image)["image"]
    return output.mul(255).add(0.5).clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    assert one.shape == other.shape and one.dtype == other.dtype == np.uint8
    return np.abs(one.astype(int) - other.astype(int))


@pytest.mark.processor
@pytest.mark.parametrize("height, width", [(64, 64), (37, 50), (129, 66), (16, 200), (41, 43), (42, 43), (17, 18)])
def test_tiles_of_any_side_give_what_the_network_gives(height, width):
    model, rgb = network(), pictures(height, width, 2)
    expected = plain(model, rgb)
    assert expected.std() > 20  # it shows something
    for tile in (-1, 0, 16, 24, 40, 64):
        painted = Painter(model, tile=tile).paint(rgb)
        assert difference(painted, expected).max() <= 1, tile
        assert difference(painted, expected).mean() < 0.01


@pytest.mark.skipif(not torch.backends.nnpack.is_available(), reason="NNPACK knows no such processor")
@pytest.mark.parametrize("nnpack", [True, False])
@pytest.mark.parametrize("tile", [0, 48])
def test_both_libraries_paint_what_the_network_paints(monkeypatch, nnpack, tile):
    """Whichever is faster here; with kernels for upsampling of both kinds, and several pictures."""
    monkeypatch.setattr(infer.painting.tiles, "nnpack_is_faster", lambda: nnpack)
    model, rgb = network((8, 24, MANY)), pictures(101, 75, 2)
    painter = Painter(model, tile=tile)
    assert [w.shape[-1] for w in (painter.up1, painter.up2, painter.last)] == ([3, 2, 9] if nnpack else [2, 2, 10])
    off = difference(painter.paint(rgb), plain(model, rgb))
    assert off.max() <= 1 and off.mean() < 0.01


@pytest.mark.parametrize("tile", [0, 24])
def test_bounded_values(tile):
    model, rgb = network(bound=1.5), pictures(70, 50, 2)
    expected = plain(model, rgb)
    assert expected.std() > 20
    assert difference(plain(network(), rgb), expected).max() > 20  # the bound does something
    assert difference(Painter(model, tile=tile).paint(rgb), expected).max() <= 1


def test_layers_in_a_file_change_nothing():
    model, rgb = network(), pictures(150, 150, 2)  # too many for 1 MB to keep the layers of full resolution as well
    for precision in ("fp32", "bf16"):
        in_memory = Painter(model, precision, memory_limit=1, tile=32).paint(rgb)
        in_file = Painter(model, precision, memory_limit=0, tile=32).paint(rgb)
        assert (in_memory == in_file).all()


def test_a_layer_in_a_file_is_read_to_the_device_that_computes():
    layer = Layer((1, 3, 8, 8), 4, torch.float32, torch.channels_last, torch.device("meta"), kept=True, in_file=True)
    [values] = layer.tiles.values()
    assert values.device.type == "cpu" and layer.read((0, 4, 2, 8)).device.type == "meta"
    layer = Layer((1, 3, 8, 8), 4, torch.float32, torch.channels_last, torch.device("cpu"), kept=True, in_file=True)
    layer.read((0, 4, 2, 8)).fill_(7)  # no copy where none is needed
    [values] = layer.tiles.values()
    assert (values[..., 0:4, 2:8] == 7).all()


@pytest.mark.parametrize(
    "tile, memory_limit, times",
    [(-1, 1000, 1), (-1, 0, 2 * 4), (0, 1000, 1), (80, 1000, 1), (72, 1000, 4), (72, 0, 2 * 4), (0, 0, 2)],
)
def test_layers_of_full_resolution_are_computed_once_and_in_one_piece_if_memory_allows(
    monkeypatch, tile, memory_limit, times
):
    """What is painted is the same."""
    monkeypatch.setattr(infer.painting.tiles, "TILE", 72)
    model, rgb = network(), pictures(80, 75)
    painter = Painter(model, tile=tile, memory_limit=memory_limit)
    conv, weights = infer.painting.tiles.conv, []
    monkeypatch.setattr(infer.painting.tiles, "conv", lambda x, w, *stride: weights.append(w) or conv(x, w, *stride))
    assert difference(painter.paint(rgb), plain(model, rgb)).max() <= 1
    assert [sum(w is each for w in weights) for each in (painter.conv1, painter.up2)] == [times, times]


@pytest.mark.processor
@pytest.mark.parametrize(
    "precision, layout",
    [("fp32", torch.contiguous_format), ("fp32", torch.channels_last), ("bf16", torch.channels_last)],
    ids=["fp32-first", "fp32-last", "bf16-last"],
)
@pytest.mark.parametrize("tile, height, width", [(0, 40, 35), (16, 40, 35), (0, 1200, 700)])
def test_statistics_are_exact(tile, height, width, layout, precision):
    """Far from zero too, of tiles of unequal sizes, of many pixels, and of values in bf16."""
    painter = Painter(network(), precision, tile=tile)
    painting = _Painting(painter, pictures(height, width, 2), print)
    layer = painting.new_layer(5, (height, width), 1, painter.dtype, layout)
    values = 3 + torch.randn(2, 5, height, width, generator=torch.Generator().manual_seed(0)).to(painter.dtype)
    painting.fill(layer, lambda box: values[:, :, box[0] : box[1], box[2] : box[3]], (torch.ones(5), torch.zeros(5)))
    for i, moments in enumerate(layer.norm.moments):
        expected = torch.var_mean(values[i].double(), (1, 2), correction=0)[::-1]
        off = 1e-5 if precision == "fp32" or height < 100 else 5e-5
        torch.testing.assert_close(moments, tuple(e.float() for e in expected), atol=off, rtol=off)


@pytest.mark.processor
def test_bf16_is_close():
    """Random weights amplify rounding more than trained ones do; of these, see test_shipped.py."""
    model, rgb = network((16, 32, 64), 5), pictures(120, 100, 2)
    off = difference(Painter(model, "bf16", tile=48).paint(rgb), plain(model, rgb))
    assert 0 < off.max() <= 6
    assert off.mean() <= 0.8


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_picture_of_one_colour_is_painted_evenly(precision):
    """Equal pixels have variance 0: no NaN, and rounding does not become a pattern."""
    model, rgb = network(), pictures(80, 72, 3)
    rgb[1] = 200, 30, 90
    painter = Painter(model, precision, tile=32)
    painted = painter.paint(rgb)
    assert np.ptp(painted[1].reshape(-1, 3), axis=0).max() == 0
    assert difference(painted[1:2], plain(model, rgb[1:2])).max() <= 1  # small: so is its rounding
    assert (painted[[0, 2]] == painter.paint(rgb[[0, 2]])).all()


def test_a_picture_of_one_colour_is_painted_evenly_by_the_shipped_network():
    """Its many normalisations make a grid of rounding, in float32 as well."""
    model = StyleNetworks.load(ROOT / "checkpoints" / "style.safetensors")["great_wave"]
    colours = []
    for shade, (height, width) in ((0, (150, 200)), (255, (61, 64)), (128, (600, 40))):
        rgb = np.full((1, height, width, 3), shade, np.uint8)
        painted = Painter(model).paint(rgb)
        assert (painted == painted[0, 0, 0]).all()
        colours.append(painted[0, 0, 0].tolist())
    assert colours[0] == colours[1] == colours[2]  # the style's own, whatever the picture's was


def test_pictures_of_one_call_have_nothing_to_do_with_each_other(monkeypatch):
    """Nor has it how many are painted at a time, but for rounding; and the caller keeps his pictures."""
    model, rgb = network(), pictures(50, 60, 5)
    before, painter = rgb.copy(), Painter(model)
    together = painter.paint(rgb)
    assert (rgb == before).all()
    for i in range(3):
        assert is_near(painter.paint(rgb[i : i + 1])[0], together[i])
    monkeypatch.setattr(infer.painting.tiles, "TILE", 80)  # two pictures at a time
    assert is_near(painter.paint(rgb), together)


def test_tiny_pictures_keep_their_size():
    painter = Painter(network())
    for size in ((1, 1), (1, 40), (3, 5), (15, 2), (16, 16)):
        painted = painter.paint(pictures(*size))
        assert painted.shape == (1, *size, 3) and painted.dtype == np.uint8


@pytest.mark.parametrize("n", [1, 4])
def test_progress_rises_to_one(monkeypatch, n):
    monkeypatch.setattr(infer.painting.tiles, "TILE", 60)  # two pictures at a time
    model, told = network(), []
    Painter(model, tile=16).paint(pictures(40, 40, n), told.append)
    assert told == sorted(told) and len(told) >= 5 * (n + 1) // 2 and told[-1] == 1.0


def test_no_room_for_the_file_is_one_line(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    model = network()
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match="No space left on device.*TMPDIR.*memory_limit"):
        Painter(model, memory_limit=0).paint(pictures(40, 40))


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["first", "last"])
@pytest.mark.parametrize("height, width", [(2, 2), (5, 7), (8, 8)])
def test_four_small_kernels_do_what_upsampling_and_a_large_one_do(height, width, layout, size):
    torch.manual_seed(1)
    x, weight = torch.randn(2, 3, height, width), torch.randn(5, 3, 3, 3)
    enlarged = F.pad(F.interpolate(x, scale_factor=2, mode="nearest"), (1, 1, 1, 1), mode="reflect")
    expected = F.conv2d(enlarged, weight)
    small = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), upsampled(weight, size))
    unfolded = unfold(small.contiguous(memory_format=layout))
    torch.testing.assert_close(unfolded if size == 3 else unfolded[:, :, 1:-1, 1:-1], expected)


def memory_for(limit: int) -> float:
    """MB that a painting takes."""
    painter = Painter(TransformerNet((8, 16, 64), 1).eval(), memory_limit=limit)
    painter.paint(pictures(64, 64))
    rgb = np.random.default_rng(0).integers(0, 256, (1, 1600, 1600, 3), dtype=np.uint8)
    before = memory_peak(start=True)
    painter.paint(rgb)
    return memory_peak() - before


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="needs Linux to measure memory")
def test_a_file_bounds_the_memory():
    """Three layers of 400 x 400 x 64 float32 are 123 MB; the rest (tiles, pictures) varies between machines."""
    used = {limit: in_new_process(memory_for, limit) for limit in (1000, 1)}
    assert used[1000] > 123
    assert used[1] < used[1000] - 62
