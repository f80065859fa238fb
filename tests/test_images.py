"""utils/images.py: every kind of picture that users have, made on the fly, and every kind of broken one."""

import io
import os
import struct
import warnings
import zlib
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageFile, TiffImagePlugin, TiffTags

from tests.painting import in_new_process
from utils.errors import UserError
from utils.images import (
    IMAGE_SUFFIXES,
    WRITABLE,
    format_of,
    grid,
    open_image,
    read_image,
    save_image,
    to_tensor,
    to_uint8,
)

BEST = {
    "JPEG": {"quality": 100, "subsampling": 0},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 95},
    "HEIF": {"quality": 100, "chroma": 444},
}
TOLERANCE = {"JPEG": 4, "AVIF": 16, "HEIF": 4, "GIF": 40}  # GIF: 256 of 600 colours


@pytest.fixture
def rgb() -> np.ndarray:
    """(20, 30, 3): no two pixels alike, so that nothing can be turned unseen."""
    y, x = np.mgrid[:20, :30]
    return np.stack((x * 8, y * 12, 255 - x * 4 - y), -1).astype(np.uint8)


@pytest.fixture(scope="module")
def smooth() -> np.ndarray:
    """(600, 900, 3): waves, as JPEG likes them."""
    y, x = np.mgrid[:600, :900]
    waves = [np.sin(x / 40) + np.cos(y / 30), np.sin((x + y) / 50) * 2, np.cos(x / 70) + np.sin(y / 90)]
    return (np.stack(waves, -1) * 60 + 128).astype(np.uint8)


def saved(image: Image.Image, name: str, **options) -> io.BytesIO:
    """The image as an open file in the format `name`, at its best unless the options say otherwise."""
    file = io.BytesIO()
    image.save(file, format=name, **{**BEST.get(name, {}), **options})
    file.seek(0)
    return file


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> io.BytesIO:
    """A PNG by hand: Pillow writes neither 16-bit colours nor sizes that are not there."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)), *chunks]
    parts += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + body)


# -------------------------------------------------------------------------------------------------------- reading


# EXIF 2.32, tag 274: where the stored row 0 and column 0 are in the upright picture.
STORED = {
    1: lambda rgb: rgb,  # top, left
    2: lambda rgb: rgb[:, ::-1],  # top, right
    3: lambda rgb: rgb[::-1, ::-1],  # bottom, right
    4: lambda rgb: rgb[::-1],  # bottom, left
    5: lambda rgb: rgb.transpose(1, 0, 2),  # left, top
    6: lambda rgb: rgb.transpose(1, 0, 2)[::-1],  # right, top
    7: lambda rgb: rgb.transpose(1, 0, 2)[::-1, ::-1],  # right, bottom
    8: lambda rgb: rgb.transpose(1, 0, 2)[:, ::-1],  # left, bottom
}


@pytest.mark.parametrize("name", ["PNG", "BMP", "TIFF", "PPM", "GIF", "JPEG", "WEBP", "AVIF", "HEIF", "JPEG2000"])
def test_formats_and_exif_orientation(rgb, name):
    has_exif = name not in ("BMP", "PPM", "GIF", "JPEG2000")
    for orientation, stored in STORED.items() if has_exif else [(1, STORED[1])]:
        exif = Image.Exif()
        exif[274] = orientation
        options = {"exif": exif.tobytes()} if has_exif else {}
        file = saved(Image.fromarray(np.ascontiguousarray(stored(rgb))), name, **options)
        if name in ("HEIF", "AVIF"):  # turned by irot and imir; HEIF's EXIF says the same once more
            assert (b"irot" in file.getvalue() or b"imir" in file.getvalue()) == (orientation > 1)
        picture = read_image(file)
        assert picture.alpha is None and picture.rgb.dtype == np.uint8 and picture.rgb.flags.c_contiguous
        assert picture.rgb.shape == rgb.shape
        assert np.abs(picture.rgb.astype(int) - rgb).max() <= TOLERANCE.get(name, 0), orientation
        file.seek(0)
        assert read_image(file, max_side=15).rgb.shape == (10, 15, 3)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "PA"])
def test_grey_and_palettes(rgb, mode):
    grey = rgb[..., 0]
    if mode == "1":
        grey = np.where(grey > 100, 255, 0).astype(np.uint8)
    alpha = rgb[..., 1]
    image = Image.fromarray(grey).convert(mode.removesuffix("A"))
    if mode.endswith("A"):
        image.putalpha(Image.fromarray(alpha))
    assert image.mode == mode
    picture = read_image(saved(image, "TIFF" if mode == "PA" else "PNG"))
    assert (picture.rgb == grey[..., None]).all()
    if mode.endswith("A"):
        assert (picture.alpha == alpha).all()
    else:
        assert picture.alpha is None


def test_alpha_is_kept_apart_and_turned_too(rgb):
    exif = Image.Exif()
    exif[274] = 6
    image = Image.fromarray(np.dstack((rgb, rgb[..., 1])))
    for name in ("PNG", "TIFF", "WEBP"):
        picture = read_image(saved(image, name, exif=exif, **({"exact": True} if name == "WEBP" else {})))
        assert (picture.rgb == np.rot90(rgb, -1)).all() and (picture.alpha == np.rot90(rgb[..., 1], -1)).all(), name


def test_transparent_colours(rgb):
    palette = Image.fromarray(np.array([[0, 1, 2, 3]], np.uint8), "P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    one_pixel = np.full(rgb.shape[:2], 255)
    one_pixel[3, 4] = 0
    for image, name, transparency, alpha in (
        (palette, "PNG", 2, [[255, 255, 0, 255]]),
        (palette, "PNG", b"\x00\x40\x80\xff", [[0, 64, 128, 255]]),
        (palette, "GIF", 1, [[255, 0, 255, 255]]),
        (Image.fromarray(rgb), "PNG", tuple(rgb[3, 4].tolist()), one_pixel),
    ):
        picture = read_image(saved(image, name, transparency=transparency))
        assert (picture.rgb == np.array(image.convert("RGB"))).all() and (picture.alpha == alpha).all()


def test_16_bit_grey_is_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 300).astype(np.uint16).reshape(3, 100)
    dark = np.arange(300, dtype=np.int32).reshape(3, 100) // 2  # mode I, of 65535: stays dark
    big_endian = ramp.astype(">u2").tobytes()
    for file, values in (
        (saved(Image.fromarray(ramp), "PNG"), ramp),
        (saved(Image.fromarray(ramp), "TIFF"), ramp),
        (saved(Image.frombytes("I;16B", (100, 3), big_endian), "TIFF"), ramp),
        (io.BytesIO(b"P5 100 3 65535\n" + big_endian), ramp),
        (saved(Image.fromarray(ramp.astype(np.int32)), "TIFF"), ramp),
        (saved(Image.fromarray(dark), "TIFF"), dark),
    ):
        picture = read_image(file)
        assert (picture.rgb == np.floor(values / 257 + 0.5)[..., None]).all() and picture.alpha is None


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("white", [1, 255, 65535, 1e6])
def test_floating_point(white):
    ramp = np.linspace(-0.1, 1, 111, dtype=np.float32).reshape(3, 37) * np.float32(white)
    ramp[0, 0] = ramp[1, 1] = np.nan
    picture = read_image(saved(Image.fromarray(ramp), "TIFF"))
    expected = np.floor(np.clip(np.nan_to_num(ramp, nan=0) / white, 0, 1) * 255 + 0.5)
    assert np.abs(picture.rgb - expected[..., None]).max() <= 1 and picture.rgb.max() == 255
    assert picture.rgb[1, 1].tolist() == [0, 0, 0]


@pytest.mark.parametrize("chunks", [(), ((b"tRNS", struct.pack(">3H", 65535, 65535, 65535)),)])
def test_16_bit_colours(chunks):
    values = np.linspace(0, 65535, 60).astype(">u2").reshape(4, 5, 3)
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    picture = read_image(png(5, 4, 16, 2, rows, *chunks))
    assert np.abs(picture.rgb - values / 257).max() <= 1 and picture.rgb.max() == 255


def test_cmyk():
    """By hand: no ink but 20 % black, and full cyan."""
    image = Image.new("CMYK", (16, 8), (0, 0, 0, 51))
    image.paste((255, 0, 0, 0), (8, 0, 16, 8))
    for name in ("TIFF", "JPEG"):  # Pillow writes CMYK JPEGs as Adobe does, inverted
        picture = read_image(saved(image, name))
        assert np.abs(picture.rgb[4, 2].astype(int) - 204).max() <= 2
        assert np.abs(picture.rgb[4, 13].astype(int) - (0, 255, 255)).max() <= 2


def test_first_frame_of_what_moves(rgb):
    first = Image.fromarray(rgb).quantize(64)
    others = [Image.new("RGB", first.size, colour).quantize() for colour in ("red", "lime")]
    expected = np.array(first.convert("RGB"))
    for name in ("GIF", "PNG", "TIFF", "WEBP"):
        picture = read_image(saved(first, name, save_all=True, append_images=others), name="moving")
        assert (picture.rgb == expected).all(), name
        what = "has several pages" if name == "TIFF" else "is an animation: only its first frame is used"
        assert picture.note.startswith(f"moving {what}")


def test_further_pictures_of_a_camera_and_of_a_collection(rgb):
    first, other = Image.fromarray(rgb), Image.fromarray(255 - rgb)
    mpo = saved(first, "MPO", save_all=True, append_images=[other], **BEST["JPEG"])  # the same, seen otherwise
    burst = saved(other, "HEIF", save_all=True, append_images=[first], primary_index=1)
    for file, note in ((mpo, ""), (burst, "burst holds several pictures: only the main one is used")):
        picture = read_image(file, name="burst")
        assert np.abs(picture.rgb.astype(int) - rgb).max() <= 4 and picture.note == note


def test_strips_join(monkeypatch, rgb):
    alpha = rgb[..., 1]
    for strip in (1, 70, 10_000):  # pixels: a row each, two rows each, all of them
        monkeypatch.setattr("utils.images.STRIP", strip)
        picture = read_image(saved(Image.fromarray(np.dstack((rgb, alpha))), "PNG"))
        assert (picture.rgb == rgb).all() and (picture.alpha == alpha).all()


# ------------------------------------------------------------------------------------------------------ profiles


def icc_profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A minimal profile by hand (ICC.1:2001-04): header, tag table, tags."""
    at, table, data = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", at + len(data), len(content))
        data += content
    header = bytearray(128)
    header[8:12] = b"\x02\x10\0\0"
    header[12:24] = b"mntr" + space + b"XYZ "
    header[36:40] = b"acsp"
    header[68:80] = struct.pack(">3I", 0xF6D6, 0x10000, 0xD32D)  # D50
    header[0:4] = struct.pack(">I", at + len(data))
    return bytes(header) + table + data


LINEAR = b"curv" + bytes(8)  # of no points: the identity


def xyz(x: float, y: float, z: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in (x, y, z)))


# sRGB's primaries, adapted to D50, in the order green, red, blue; and light that is linear.
SWAPPED = icc_profile(
    b"RGB ",
    {
        b"wtpt": xyz(0.9642, 1, 0.8249),
        b"rXYZ": xyz(0.38515, 0.71687, 0.09708),
        b"gXYZ": xyz(0.43607, 0.22249, 0.01392),
        b"bXYZ": xyz(0.14307, 0.06061, 0.71410),
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), LINEAR),
    },
)
GREY = icc_profile(b"GRAY", {b"wtpt": xyz(0.9642, 1, 0.8249), b"kTRC": LINEAR})


def srgb_of_linear(values: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1."""
    light = values / 255
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055) * 255


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA"])
def test_embedded_profile_becomes_srgb(rgb, mode):
    image = Image.fromarray(rgb)
    image = image.quantize(200) if mode == "P" else image.convert(mode)
    grey = mode in ("L", "LA")
    picture = read_image(saved(image, "PNG", icc_profile=GREY if grey else SWAPPED))
    linear = srgb_of_linear(np.array(image.convert("RGB")))
    assert np.abs(picture.rgb - (linear if grey else linear[..., [1, 0, 2]])).max() <= 2
    assert (picture.alpha is None) == ("A" not in mode)


def test_profiles_without_effect(rgb, monkeypatch):
    for profile in (GREY, b"nonsense"):  # one for other pictures; a broken one
        assert (read_image(saved(Image.fromarray(rgb), "PNG", icc_profile=profile)).rgb == rgb).all()
    cmyk = Image.fromarray(rgb).convert("CMYK")
    plain = read_image(saved(cmyk, "TIFF")).rgb
    assert (read_image(saved(cmyk, "TIFF", icc_profile=SWAPPED)).rgb == plain).all()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    monkeypatch.setattr(ImageCms, "applyTransform", lambda *_: pytest.fail("converted sRGB to sRGB"))
    assert (read_image(saved(Image.fromarray(rgb), "PNG", icc_profile=srgb)).rgb == rgb).all()


# -------------------------------------------------------------------------------------------------------- max_side


@pytest.mark.parametrize("name", ["PNG", "JPEG"])
def test_longest_side(name):
    for size, max_side, expected in (
        ((900, 600), 300, (300, 200)),
        ((600, 900), 300, (200, 300)),
        ((900, 600), 5000, (900, 600)),
        ((900, 600), 0, (900, 600)),
        ((1000, 1), 10, (10, 1)),
    ):
        picture = read_image(saved(Image.new("RGB", size, (90, 90, 90)), name), max_side=max_side)
        assert picture.rgb.shape == (expected[1], expected[0], 3) and (picture.rgb == 90).all()


@pytest.mark.parametrize("side", [450, 200, 77])
def test_reduced_jpeg_is_like_the_whole_one_reduced(smooth, side):
    reduced = read_image(saved(Image.fromarray(smooth), "JPEG", quality=95), max_side=side).rgb
    whole = Image.fromarray(smooth).resize((side, round(side * 2 / 3)), Image.Resampling.LANCZOS)
    difference = np.abs(reduced.astype(int) - np.array(whole))
    assert difference.mean() < 1.5 and difference.max() <= 12


def test_jpeg_is_decoded_at_reduced_size(smooth, monkeypatch):
    loaded = []
    load = ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: loaded.append(image.size) or load(image))
    assert read_image(saved(Image.fromarray(smooth), "JPEG"), max_side=100).rgb.shape == (67, 100, 3)
    assert loaded[0] == (225, 150)  # 1/4; twice of what is needed, at least


def test_transparent_colours_do_not_bleed():
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[:] = (0, 255, 0, 0)
    pixels[:, :32] = (200, 0, 0, 255)
    picture = read_image(saved(Image.fromarray(pixels), "PNG"), max_side=9)
    seen = picture.alpha > 0
    assert seen.any() and not seen.all() and picture.rgb[seen][:, 1].max() == 0
    assert picture.rgb.flags.c_contiguous and picture.alpha.flags.c_contiguous


# ---------------------------------------------------------------------------------------------------------- errors


def test_what_cannot_be_read(tmp_path, rgb, monkeypatch):
    good = saved(Image.fromarray(rgb), "PNG").getvalue()
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("I am not a picture.\n" * 50)
    (tmp_path / "vector.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "flipped.png").write_bytes(good[:60] + bytes([good[60] ^ 255]) + good[61:])
    os.mkfifo(tmp_path / "pipe.png")
    for name, message in {
        "missing.png": "does not exist",
        "empty.png": "is empty",
        "text.jpg": "is not a picture",
        "vector.eps": "is PostScript",
        "folder.png": "is a folder",
        "flipped.png": "is broken",
        "pipe.png": "is not a file",
        "empty.png/a.png": "Not a directory",
    }.items():
        with pytest.raises(UserError, match=message) as caught:
            read_image(tmp_path / name)
        text = str(caught.value)
        assert str(tmp_path / name) in text and "\n" not in text

    for error, message in (
        (ValueError("two\nlines"), r"^the picture is broken or cut short: two\Z"),
        (MemoryError(), "the picture needs more memory than there is: make the picture smaller"),
    ):
        monkeypatch.setattr(ImageFile.ImageFile, "load", Mock(side_effect=error))
        with pytest.raises(UserError, match=message):
            read_image(io.BytesIO(good))
    with pytest.raises(UserError, match="^upload 3 is empty"):
        read_image(io.BytesIO(), name="upload 3")


def dng(rgb: np.ndarray, *tags: tuple[int, int, object]) -> bytes:
    """A TIFF whose first picture is a preview: (tag, type, value) are more tags."""
    ifd = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, kind, value in tags:
        ifd.tagtype[tag], ifd[tag] = kind, value
    return saved(Image.fromarray(rgb), "TIFF", tiffinfo=ifd).getvalue()


def test_what_is_something_else_is_called_by_its_name(tmp_path, rgb):
    zeros = bytes(400)
    tiff = saved(Image.fromarray(rgb), "TIFF").getvalue()
    raw = "is a camera's raw file, which cannot be read: export it as JPEG or TIFF"
    for name, data, what in (
        ("a.jxl", b"\xff\x0a" + zeros, "is JPEG XL, which cannot be read: save it as JPEG or PNG"),
        ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is a drawing (SVG), "),
        ("b.svg", b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- x -->\n<svg/>", "is a drawing (SVG), "),
        ("page.jpg", b"\n<!DOCTYPE html><html><svg></svg></html>", "is a web page, not a picture: download"),
        ("lfs.jpg", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is only a pointer of Git LFS: "),
        ("a.psd", b"8BPS" + zeros, "is a Photoshop file, "),
        ("a.pdf", b"%PDF-1.7" + zeros, "is a PDF, "),
        ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0" + zeros, "is PostScript, "),
        ("a.cr2", b"II*\0\x10\0\0\0CR\x02\0" + zeros, raw),
        ("a.arw", zeros, raw),
        ("a.nef", tiff, raw),  # Pillow would give its preview
        ("b.tif", dng(rgb, (50706, TiffTags.BYTE, b"\1\4\0\0")), raw),
        ("film.jpg", b"\0\0\0\x18ftypisom" + zeros, "is a video, not a picture"),
        ("b.avif", b"\0\0\0\x18ftypavif" + zeros, "is not a picture that can be read (JPEG, PNG"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError) as caught:
            read_image(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name} {what}") and "\n" not in str(caught.value)
    for name in ("a.png", "a.heic"):  # the name says something else, the content is a picture
        (tmp_path / name).write_bytes(dng(rgb, (254, TiffTags.LONG, 1)))
        assert (read_image(tmp_path / name).rgb == rgb).all()


def pixels_in(folder: Path, stderr: Path) -> list[int]:
    """How many numbers each picture of a folder has; what is written to stderr goes to a file."""
    os.dup2(os.open(stderr, os.O_CREAT | os.O_WRONLY), 2)
    return [read_image(path).rgb.size for path in folder.iterdir()]


def test_broken_metadata_is_no_word_on_stderr_and_no_broken_picture(tmp_path, rgb):
    """In a process of its own, since pytest swallows warnings, and C libraries write to the stream itself."""
    folder, stderr = tmp_path / "in", tmp_path / "stderr"
    folder.mkdir()
    image = Image.fromarray(rgb)
    good = Image.Exif()
    good[271], good[274], good[34665] = "maker" * 20, 6, {36867: "2020:01:01 00:00:00"}
    exif = good.tobytes()
    entry = struct.pack("<HHII", 274, 3, 1, 6)
    head = b"Exif\0\0II*\0\x08\0\0\0"
    metadata = [
        exif[: len(exif) // 2],
        head + struct.pack("<H", 65535) + entry,  # entries that are not there
        head + struct.pack("<H", 2) + entry + struct.pack("<HHII", 271, 2, 2**31, 8) + bytes(4),  # a huge text
        head + struct.pack("<H", 2) + entry + struct.pack("<HHII", 34665, 4, 1, 2**31) + bytes(4),  # far away
        head + struct.pack("<H", 1) + entry + struct.pack("<I", 8),  # a circle
        head + struct.pack("<H", 1) + struct.pack("<HHII", 274, 99, 1, 6) + bytes(4),  # an unknown type
        head + struct.pack("<H", 1) + struct.pack("<HHI4s", 274, 2, 4, b"six\0") + bytes(4),
        head + struct.pack("<H", 1) + struct.pack("<HHII", 274, 3, 1, 77) + bytes(4),  # no such orientation
        b"Exif\0\0" + bytes(range(200)),
    ]
    profiles = [b"", SWAPPED[: len(SWAPPED) // 2], bytes(300)]
    spoilt = [{"exif": data} for data in metadata] + [{"icc_profile": data} for data in profiles]
    for name in ("JPEG", "PNG", "WEBP"):
        for number, options in enumerate(spoilt):
            (folder / f"{name}{number}").write_bytes(saved(image, name, **options).getvalue())
    tiff = bytearray(saved(image, "TIFF", compression="tiff_lzw").getvalue())
    start = struct.unpack_from("<I", tiff, 4)[0]
    count = struct.unpack_from("<H", tiff, start)[0]
    struct.pack_into("<HHII", tiff, start + 2 + 12 * (count - 1), 65000, 99, 2**30, 2**31)  # libtiff itself would speak
    (folder / "tag.tif").write_bytes(tiff)
    assert in_new_process(pixels_in, folder, stderr) == [1800] * (3 * len(spoilt) + 1)
    assert stderr.read_text() == ""


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "HEIF", "JPEG2000"])
def test_cut_short(tmp_path, smooth, name):
    data = saved(Image.fromarray(smooth[:200, :300]), name).getvalue()
    for share in (0.02, 0.5, 0.9):
        path = tmp_path / "a.jpg"
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(UserError, match="a.jpg .*(broken|cut short)") as caught:
            read_image(path)
        assert "\n" not in str(caught.value)


def test_random_damage_is_a_picture_or_one_line(rgb):
    random = np.random.default_rng(0)
    refused = 0
    for name in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"):
        data = np.frombuffer(saved(Image.fromarray(rgb), name).getvalue(), np.uint8)
        for _ in range(60):
            damaged = data.copy()
            damaged[random.integers(len(data), size=6)] = random.integers(256, size=6)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # Pillow's remarks on broken tags
                    picture = read_image(io.BytesIO(damaged.tobytes()), max_megapixels=1)
                assert picture.rgb.dtype == np.uint8 and picture.rgb.ndim == 3
            except UserError as error:
                refused += 1
                assert "\n" not in str(error)
    assert 50 < refused < 400


@pytest.mark.filterwarnings("error::UserWarning")
def test_too_large_is_refused_before_decoding_by_the_callers_limit(rgb, monkeypatch):
    file = saved(Image.fromarray(rgb), "PNG")
    assert read_image(file, max_megapixels=600e-6).rgb.shape == rgb.shape
    with open_image(png(30_000, 30_000, 8, 2, b""), "a", 1000) as image:  # Pillow alone refuses 179 megapixels
        assert image.size == (30_000, 30_000)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(UserError, match="0.0 megapixels, more than max_megapixels=0.0005"):
        read_image(file, max_megapixels=500e-6)
    for limit in (0, 899):
        expected = rf"30000 x 30000 pixels, 900\.0 megapixels, more than max_megapixels={limit or 500}"
        with pytest.raises(UserError, match=expected):
            read_image(png(30_000, 30_000, 8, 2, bytes(1000)), limit)


# --------------------------------------------------------------------------------------------------------- tensors


def test_tensors_and_back():
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    tensor = to_tensor(levels)
    assert tensor.shape == (1, 3, 16, 16) and tensor.dtype == torch.float32
    assert tensor.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(tensor[0, 1, 3], torch.arange(48, 64) / 255)
    for back in (to_uint8(tensor), to_uint8(tensor[0]), to_uint8(tensor.contiguous())):
        assert back.dtype == np.uint8 and back.flags.c_contiguous and (back == levels).all()


@pytest.mark.filterwarnings("error::UserWarning")
def test_tensors_of_arrays_that_are_turned_or_cannot_be_written_to(rgb):
    turned = rgb.copy()[::-1, ::-1]
    rgb.flags.writeable = False
    for array in (rgb, turned):
        assert (to_tensor(array)[0].permute(1, 2, 0).numpy() * 255).round().tolist() == array.tolist()


def test_rounding_and_clamping():
    values = torch.tensor([-1.0, -0.001, 0.49 / 255, 0.51 / 255, 99.4 / 255, 99.6 / 255, 1.0, 1.01, 7.0])
    expected = [0, 0, 0, 1, 99, 100, 255, 255, 255]
    given = values.expand(3, 1, 9).clone()
    assert to_uint8(given)[0, :, 2].tolist() == expected
    assert torch.equal(given, values.expand(3, 1, 9))  # not written to
    assert to_uint8(given.half().requires_grad_())[0, [0, 6, 8], 0].tolist() == [0, 255, 255]


# --------------------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize("suffix", WRITABLE)
def test_saved_pictures(tmp_path, smooth, suffix):
    path, name, smooth = tmp_path / "new" / f"a{suffix.upper()}", WRITABLE[suffix], smooth[:200, :300]
    alpha = smooth[..., 2]
    white = smooth.astype(float) * (alpha[..., None] / 255) + 255 - alpha[..., None]
    for given in (None, alpha):
        save_image(path, smooth, given)
        with Image.open(path) as image:
            assert image.format == name == format_of(path)
        picture = read_image(path)
        if given is None or name not in ("JPEG", "BMP"):
            assert picture.alpha is None if given is None else (picture.alpha == given).all()
            assert np.abs(picture.rgb.astype(int) - smooth).mean() <= {"JPEG": 1, "WEBP": 2}.get(name, 0)
        else:
            assert picture.alpha is None and np.abs(picture.rgb - white).max() <= (8 if name == "JPEG" else 1)
    assert suffix in IMAGE_SUFFIXES and os.listdir(path.parent) == [path.name]


def test_quality_and_colours_at_full_resolution(tmp_path):
    random = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    for suffix in (".jpg", ".webp"):
        for quality in (20, 95):
            save_image(tmp_path / f"{quality}{suffix}", random, quality=quality)
        assert (tmp_path / f"20{suffix}").stat().st_size < (tmp_path / f"95{suffix}").stat().st_size / 2
    red = np.zeros((32, 32, 3), np.uint8)
    red[:, ::2, 0] = 255
    save_image(tmp_path / "red.jpg", red)
    assert np.abs(read_image(tmp_path / "red.jpg").rgb.astype(int) - red).max() < 10


def test_what_cannot_be_written(tmp_path, rgb):
    for name, suffix in (("a.xyz", r"\.xyz"), ("a", r"\(none\)")):
        with pytest.raises(UserError, match=rf"{name}: cannot write pictures of type {suffix}; use \.jpg, .*\.png"):
            save_image(tmp_path / name, rgb)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write .*/file/a.png"):
        save_image(tmp_path / "file" / "a.png", rgb)
    for name, width in (("a.jpg", 65_501), ("a.webp", 16_384)):
        with pytest.raises(UserError, match=f"{name}: .* not {width} x 1; use .png"):
            save_image(tmp_path / name, np.zeros((1, width, 3), np.uint8))
    assert os.listdir(tmp_path) == ["file"]


# ------------------------------------------------------------------------------------------------------------ grid


def test_sheet_without_labels():
    pictures = [[np.full((8, 10, 3), 10 * (3 * i + j), np.uint8) for j in range(3)] for i in range(2)]
    sheet = grid(pictures, gap=2)
    assert sheet.shape == (18, 34, 3) and sheet.dtype == np.uint8
    expected = np.full((18, 34, 3), 255)
    for i, row in enumerate(pictures):
        for j, picture in enumerate(row):
            expected[10 * i : 10 * i + 8, 12 * j : 12 * j + 10] = picture
    assert (sheet == expected).all()


def test_sheet_with_labels_and_a_short_row():
    row = [np.full((100, 120, 3), 200, np.uint8)] * 3
    sheet = grid([row, row[:2]], ["coffee", "chelsea"], ["photo", "wave", "a name longer than the picture is wide"])
    top, left = sheet.shape[0] - (2 * 100 + 4), sheet.shape[1] - (3 * 120 + 2 * 4)
    assert 5 < top < 30 and 20 < left < 100
    assert (sheet[top : top + 100, left : left + 120] == 200).all()  # no label on a picture
    assert (sheet[top + 104 :, left + 248 :] == 255).all()
    ink = (sheet < 128).all(-1)
    assert ink[top : top + 100, : left - 4].any() and ink[top + 104 :, : left - 4].any()
    for column in range(left, sheet.shape[1], 124):  # captions stay above their columns
        assert ink[:top, column : column + 120].any() and not ink[:top, column - 4 : column].any()
