"""Pictures from and to files, and to and from tensors. Pillow decodes; what users send is checked before it may.

It knows no network. Pictures are sRGB, 8 bits a channel, upright: profiles, 16 bits and EXIF orientation end here.
"""

import ctypes
import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL
import torch
from PIL import ExifTags, Image, ImageCms, ImageDraw, ImageFont
from pillow_heif import register_heif_opener
from torch import Tensor

from utils.errors import UserError, reason_of
from utils.files import QUALITY, atomic_save
from utils.signatures import HEAD, RAW, RAW_SUFFIXES, recognize

IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .gif .bmp .tif .tiff .ppm .pgm .heic .heif .hif .avif .jp2".split()
)  # of files to look for in folders; what is in a file is found by its content

# Not everything that Pillow opens: some of its formats start programs (EPS) or have no signature (TGA).
READABLE = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "HEIF", "AVIF", "JPEG2000")
ANIMATION = "is an animation: only its first frame is used"
# What a file may hold besides its first picture. Cameras add views of the same to a JPEG (MPO): nobody misses those.
MORE = {
    **dict.fromkeys(("GIF", "WEBP", "PNG", "AVIF"), ANIMATION),
    "TIFF": "has several pages: only the first is used",
    "HEIF": "holds several pictures: only the main one is used",
}
WRITABLE = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
}
LONGEST = {"JPEG": 65_500, "WEBP": 16_383}  # sides that these formats can hold, in pixels
MAX_MEGAPIXELS = 500.0  # where the caller sets no limit: 1.5 GB of RGB
STRIP = 1 << 20  # pixels to convert at a time

Image.MAX_IMAGE_PIXELS = None  # Pillow would warn from 89 megapixels on and refuse at 179; open_image checks instead
register_heif_opener()
warnings.filterwarnings("ignore", module=r"PIL\.")  # on broken metadata; they name no file, and spoil no picture
for library in Path(PIL.__file__).parent.glob("../pillow.libs/libtiff*"):  # as Linux's wheels have it
    ctypes.CDLL(str(library)).TIFFSetErrorHandler(None)  # the same: it would write to stderr by itself


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture: `rgb` (H, W, 3) uint8 in sRGB; `alpha` (H, W) uint8, 255 is opaque, or None if it has none.

    Colours are not multiplied by alpha. `note` is a line about what else was in its file, or empty.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None = None
    note: str = ""

    def on(self, color: str | tuple[int, int, int]) -> np.ndarray:
        """(H, W, 3) uint8, laid on a color where it is transparent."""
        return self.rgb if self.alpha is None else laid_on(self.rgb, self.alpha, color)


def open_image(file: BinaryIO, name: str, max_megapixels: float = 0) -> Image.Image:
    """Pillow's image of an open file, not decoded yet. Raises UserError if it is empty, no picture, or too large."""
    head = file.read(HEAD)
    if not head:
        raise UserError(f"{name} is empty (0 bytes), not a picture")
    file.seek(0)
    what = recognize(head)
    is_raw = what == RAW or Path(name).suffix.lower() in RAW_SUFFIXES
    with errors_named(name):
        try:
            image = Image.open(file, formats=READABLE)
        except Image.UnidentifiedImageError:
            unknown = f"is not a picture that can be read ({', '.join(READABLE)}), or is broken"
            raise UserError(f"{name} {RAW if is_raw else what or unknown}") from None
        if image.format == "TIFF" and (is_raw or _is_preview(image)):
            raise UserError(f"{name} {RAW}")
    width, height = image.size
    limit = max_megapixels or MAX_MEGAPIXELS
    if width * height > limit * 1e6:
        size = f"{width} x {height} pixels, {width * height / 1e6:.1f} megapixels"
        raise UserError(f"{name} has {size}, more than max_megapixels={limit:g}: raise that, or make it smaller")
    return image


def read_image(source: str | Path | BinaryIO, max_megapixels: float = 0, max_side: int = 0, name: str = "") -> Picture:
    """Reads a picture: the first frame, upright, in sRGB; its `note` says so where there are more.

    Args:
        source: a path, or a file opened to read bytes; `name` is what messages call it.
        max_megapixels: larger ones are refused before they are decoded; 0: MAX_MEGAPIXELS.
        max_side: a longer side is reduced to so many pixels; 0: never. None is enlarged.

    Needs memory for 2.4 copies of the result's RGB. Raises UserError if there is no such file, or it is empty, no
    picture, broken, cut short or too large.
    """
    name = name or (str(source) if isinstance(source, str | Path) else "the picture")
    with opened(source, name) as file, open_image(file, name, max_megapixels) as image, errors_named(name):
        note = f"{name} {MORE[image.format]}" if _has_more(image) else ""
        return replace(decode(image, max_side), note=note)


def is_animation(image: Image.Image) -> bool:
    """Whether an open picture moves."""
    return _has_more(image) and MORE[image.format] == ANIMATION


def _has_more(image: Image.Image) -> bool:
    try:
        return image.format in MORE and image.is_animated
    except Exception:  # what follows the first picture is broken
        return False


def decode(image: Image.Image, max_side: int = 0) -> Picture:
    """The frame at which an open image is, upright, in sRGB, its longer side reduced; raises whatever decoders do."""
    size = _reduced(image.size, max_side)
    if size != image.size:  # a JPEG can be decoded at 1/2, 1/4, 1/8; the last factor of 2 is left to the filter
        image.draft(None, (2 * size[0], 2 * size[1]))
    image.load()
    # Only now, since Pillow turns a TIFF itself while it loads it, and a PNG may have its EXIF at the end.
    orientation = _orientation(image)
    picture = _decoded(image, orientation)
    width, height = size[::-1] if orientation >= 5 else size
    return picture if picture.rgb.shape[:2] == (height, width) else _resized(picture, (width, height))


def to_tensor(rgb: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) float32 in 0..1, in channels_last order."""
    pixels = torch.from_numpy(np.require(rgb, requirements=["C", "W"]))  # (H, W, 3)
    return pixels.permute(2, 0, 1)[None].float().div_(255)  # (1, 3, H, W)


def to_uint8(tensor: Tensor) -> np.ndarray:
    """(1, 3, H, W) or (3, H, W) in 0..1 -> (H, W, 3) uint8, rounded to the nearest; what is outside is clamped."""
    pixels = tensor.detach().reshape(tensor.shape[-3:]).permute(1, 2, 0)  # (H, W, 3)
    return pixels.float().mul(255).add_(0.5).clamp_(0, 255).to(torch.uint8).contiguous().cpu().numpy()


def laid_on(rgb: np.ndarray, alpha: np.ndarray, color: str | tuple[int, int, int]) -> np.ndarray:
    """(H, W, 3) uint8, laid on a color where `alpha` (H, W) uint8 is less than 255."""
    image = Image.fromarray(rgb)
    return np.array(Image.composite(image, Image.new("RGB", image.size, color), Image.fromarray(alpha)))


def format_of(path: str | Path) -> str:
    """Pillow's name of the format that `save_image` will write, by the suffix. Raises UserError for an unknown one."""
    suffix = Path(path).suffix
    if suffix.lower() not in WRITABLE:
        raise UserError(f"{path}: cannot write pictures of type {suffix or '(none)'}; use {', '.join(WRITABLE)}")
    return WRITABLE[suffix.lower()]


def save_image(path: str | Path, rgb: np.ndarray, alpha: np.ndarray | None = None, quality: int = QUALITY) -> None:
    """Writes (H, W, 3) uint8 with `alpha` (H, W) to `path`, whole or not at all, in the format of its suffix.

    JPEG and BMP have no alpha: the picture is laid on white. Raises UserError for another suffix, for more pixels than
    the format can hold, and if the place cannot be written.
    """
    name = format_of(path)
    height, width = rgb.shape[:2]
    if max(width, height) > LONGEST.get(name, 1 << 31):
        raise UserError(f"{path}: {name} holds {LONGEST[name]} pixels a side, not {width} x {height}; use .png")
    if alpha is not None and name in ("JPEG", "BMP"):
        rgb, alpha = laid_on(rgb, alpha, "white"), None
    image = Image.fromarray(rgb)
    if alpha is not None:
        image.putalpha(Image.fromarray(alpha))
    # Full resolution of colour: strokes of a painting have sharp edges in hue, too.
    options = {
        "JPEG": {"quality": quality, "subsampling": 0},
        "WEBP": {"quality": quality},
        "TIFF": {"compression": "tiff_adobe_deflate"},
    }
    atomic_save(path, lambda temporary: image.save(temporary, format=name, **options.get(name, {})))


def grid(
    rows: Sequence[Sequence[np.ndarray]],
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    gap: int = 4,
) -> np.ndarray:
    """A contact sheet (H, W, 3) of rows of pictures (h, w, 3) uint8, on white, with Latin labels left and on top."""
    height = max(picture.shape[0] for row in rows for picture in row)
    width = max(picture.shape[1] for row in rows for picture in row)
    font = _font(column_labels, width, max(10, min(height, width) // 12))
    left = max((round(font.getlength(label)) + 3 * gap for label in row_labels), default=0)
    top = sum(font.getmetrics()) + gap if column_labels else 0
    columns = max(map(len, rows))
    size = left + columns * (width + gap) - gap, top + len(rows) * (height + gap) - gap
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            image.paste(Image.fromarray(picture), (left + j * (width + gap), top + i * (height + gap)))
    for i, label in enumerate(row_labels):
        draw.text((left - 2 * gap, top + i * (height + gap) + height / 2), label, "black", font, anchor="rm")
    for j, label in enumerate(column_labels):
        draw.text((left + j * (width + gap) + width / 2, top - gap), label, "black", font, anchor="md")
    return np.array(image)


def _font(labels: Sequence[str], width: int, size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font, of `size` pixels or what lets the longest label fit into `width`."""
    longest = max((ImageFont.load_default(size).getlength(label) for label in labels), default=0)
    return ImageFont.load_default(size * min(1, width / longest) if longest else size)


@contextmanager
def opened(source: str | Path | BinaryIO, name: str) -> Iterator[BinaryIO]:
    """A picture's file, to read bytes from. Raises UserError if there is none."""
    if not isinstance(source, str | Path):
        yield source
        return
    try:
        mode = os.stat(source).st_mode
        if not stat.S_ISREG(mode):  # opening a pipe would wait for ever
            raise UserError(f"{name} is {'a folder' if stat.S_ISDIR(mode) else 'not a file'}: give a picture")
        file = open(source, "rb")
    except FileNotFoundError:
        raise UserError(f"{name} does not exist: give a picture") from None
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror}") from error
    with file:
        yield file


@contextmanager
def errors_named(name: str) -> Iterator[None]:
    """Makes one line of whatever Pillow raises."""
    try:
        yield
    except UserError:
        raise
    except MemoryError:
        raise UserError(f"{name} needs more memory than there is: make the picture smaller") from None
    except Exception as error:  # a stranger's bytes make the decoders raise anything
        raise UserError(f"{name} is broken or cut short: {reason_of(error)}") from error


def _is_preview(image: Image.Image) -> bool:
    """Whether what Pillow finds in this TIFF is only the preview of a camera's raw picture."""
    tags = image.tag_v2
    return ExifTags.Base.DNGVersion in tags or (
        ExifTags.Base.SubIFDs in tags and tags.get(ExifTags.Base.NewSubfileType) == 1
    )


def _reduced(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """`size` with the longer side reduced to `max_side`, at least 1 x 1."""
    longest = max(size)
    if not max_side or longest <= max_side:
        return size
    width, height = (max(1, round(side * max_side / longest)) for side in size)
    return width, height


def _resized(picture: Picture, size: tuple[int, int]) -> Picture:
    """The picture at `size` (width, height), by Lanczos; transparent pixels do not bleed into the others."""
    pixels = picture.rgb if picture.alpha is None else np.dstack((picture.rgb, picture.alpha))
    pixels = np.array(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))  # Pillow weighs RGBA by its alpha
    return Picture(pixels) if picture.alpha is None else Picture(pixels[..., :3].copy(), pixels[..., 3].copy())


def _decoded(image: Image.Image, orientation: int) -> Picture:
    """The pixels of a loaded image, turned; strip by strip, so that no second copy is made of all of them."""
    width, height = image.size
    shape = (width, height) if orientation >= 5 else (height, width)
    white, transform = _white(image), _to_srgb(image)
    rgb = np.empty((*shape, 3), np.uint8)
    alpha = np.empty(shape, np.uint8) if white is None and image.has_transparency_data else None
    stored_rgb = _as_stored(rgb, orientation)
    stored_alpha = None if alpha is None else _as_stored(alpha, orientation)
    rows = max(1, STRIP // width)
    for y in range(0, height, rows):
        strip = image.crop((0, y, width, min(y + rows, height)))
        if white is not None:
            grey = np.nan_to_num(np.asarray(strip, np.float32))  # (rows, W)
            stored_rgb[y : y + rows] = (np.clip(grey, 0, white) * (255 / white) + 0.5).astype(np.uint8)[..., None]
            continue
        if stored_alpha is not None:
            strip = strip.convert("RGBA")
            stored_alpha[y : y + rows] = np.asarray(strip.getchannel("A"))
        if transform is not None:
            strip = ImageCms.applyTransform(strip.convert(transform.input_mode), transform)
        stored_rgb[y : y + rows] = np.asarray(strip.convert("RGB"))
    return Picture(rgb, alpha)


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 if there is none."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken EXIF spoils no picture
        return 1
    return value if value in range(1, 9) else 1


def _as_stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """The view of an upright (H, W, …) array that has the rows and columns of the file (EXIF 2.32, tag 274)."""
    if orientation >= 5:
        upright = upright.swapaxes(0, 1)
    rows = -1 if orientation in (3, 4, 6, 7) else 1
    columns = -1 if orientation in (2, 3, 7, 8) else 1
    return upright[::rows, ::columns]


def _white(image: Image.Image) -> float | None:
    """The value of white in a grey picture of more than 8 bits; None for the others. (Pillow would clip at 255.)"""
    if image.mode.startswith("I;16"):
        return 65535
    if image.mode not in ("I", "F"):
        return None
    largest = float(np.nan_to_num(np.asarray(image)).max())
    whites = (1, 255, 65535) if image.mode == "F" else (65535,)
    return next((white for white in whites if largest <= white), largest)


def _to_srgb(image: Image.Image) -> ImageCms.ImageCmsTransform | None:
    """What converts the image's colours to sRGB; None where there is nothing to do, or no way."""
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(image.info["icc_profile"]))
        space = profile.profile.xcolor_space.strip()
        if "sRGB" in (profile.profile.profile_description or ""):
            return None
        fits = (space == "CMYK") == (image.mode == "CMYK") and (space != "GRAY" or image.mode in ("1", "L", "LA"))
        mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}[space]
        return ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB") if fits else None
    except (KeyError, OSError, ImageCms.PyCMSError):
        return None
