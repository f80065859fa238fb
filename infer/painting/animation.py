"""Pictures that move (GIF, WebP, APNG, AVIF): their frames, and what FFmpeg does not do by itself to write some.

video.py paints them as it does videos: an animation can be written as a video, and a video as an animation.
"""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from utils.errors import UserError
from utils.images import decode, open_image, opened

TOO_SHORT, DEFAULT = 10, 100  # ms: what is to be shown for the former, or less, every browser shows for the latter


@dataclass
class Frame:
    """An upright picture (H, W, 3) uint8, its time and its duration in units of its reader's time base.

    `alpha` (H, W) uint8 is 255 where it is opaque; None: it is so throughout.
    """

    rgb: np.ndarray
    pts: int
    duration: int
    alpha: np.ndarray | None = None


class Animation:
    """The frames of an open picture, composed as they are shown, and what there is to know of them.

    `path` is its name, for messages; a side longer than `max_side` pixels is reduced to that, 0: never.
    """

    time_base = Fraction(1, 1000)  # seconds
    rate = Fraction(1000, DEFAULT)  # frames a second; the times of the frames are what counts
    uneven, pixel_shape, sounds = True, None, ()

    def __init__(self, image: Image.Image, path: str | Path, max_side: int = 0):
        self.image, self.path, self.max_side = image, path, max_side
        loop = image.info.get("loop")
        if image.format == "GIF":  # which counts repetitions; without a count it is shown once
            self.plays = 1 if loop is None else loop and loop + 1
        else:
            self.plays = loop or 0  # 0: for ever
        self.hidden = int(bool(image.info.get("default_image")))  # a first picture that is for old programs only
        self.frames, self.damaged = 0, False

    @property
    def expected_frames(self) -> int:
        """0 if it is not known."""
        try:
            return self.image.n_frames - self.hidden
        except Exception:  # a stranger's bytes make the decoders raise anything
            return 0

    def __iter__(self) -> Iterator[Frame]:
        """The frames; the last one that can be read is the last. Raises UserError if there is none."""
        pts = 0
        while True:
            try:
                self.image.seek(self.hidden + self.frames)
                picture = decode(self.image, self.max_side)
                duration = round(self.image.info.get("duration") or 0)
            except EOFError:
                return
            except Exception as error:
                if not self.frames:
                    raise UserError(f"{self.path} is broken: not one of its frames could be read") from error
                self.damaged = True
                return
            self.frames += 1
            duration = duration if duration > TOO_SHORT else DEFAULT
            yield Frame(picture.rgb, pts, duration, picture.alpha)
            pts += duration


@contextmanager
def open_animation(path: str | Path, max_megapixels: float = 0, max_side: int = 0) -> Iterator[Animation]:
    """The animation in a file. Raises UserError if it cannot be read, or is larger than `max_megapixels`."""
    with opened(path, str(path)) as file, open_image(file, str(path), max_megapixels) as image:
        yield Animation(image, path, max_side)


def to_palette(rgb: np.ndarray, alpha: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) uint8 -> (H, W) numbers of colours, and the colours (256, 4) as alpha, red, green, blue.

    What is less than half opaque becomes transparent: a GIF knows no more.
    """
    colors = 256 if alpha is None else 255
    image = Image.fromarray(rgb).quantize(colors, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    palette, found = np.zeros((256, 4), np.uint8), np.array(image.getpalette(), np.uint8).reshape(-1, 3)
    palette[: len(found), 1:], palette[:colors, 0] = found, 255
    numbers = np.array(image)
    if alpha is not None:
        numbers[alpha < 128] = 255
    return numbers, palette


def set_last_duration(path: str | Path, milliseconds: int) -> None:
    """Writes into a WebP or APNG how long its last frame is shown: FFmpeg gives it what the others have."""
    with open(path, "r+b") as file:
        is_webp = file.read(4) == b"RIFF"
        at, last = 12 if is_webp else 8, 0
        while len(head := (file.seek(at), file.read(8))[1]) == 8:
            if is_webp:
                name, length = struct.unpack("<4sI", head)
                size = 8 + length + length % 2
            else:
                length, name = struct.unpack(">I4s", head)
                size = 12 + length  # with its checksum
            last = at if name in (b"ANMF", b"fcTL") else last
            at += size
        if last and is_webp:
            file.seek(last + 8 + 12)  # behind x, y, width, height
            file.write(milliseconds.to_bytes(3, "little"))
        elif last:
            file.seek(last + 4)
            chunk = bytearray(file.read(4 + 26))
            units = 1000 if milliseconds < 1 << 16 else 100  # in a second; there are two bytes for the number of them
            delay = min(milliseconds * units // 1000, 65_535), units
            struct.pack_into(">HH", chunk, 4 + 20, *delay)  # behind number, width, height, x, y
            file.seek(last + 4)
            file.write(chunk + struct.pack(">I", zlib.crc32(chunk)))
