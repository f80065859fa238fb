"""Photographs to train a painter with: every picture in a folder or a .tar, as random crops."""

import hashlib
import io
import math
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from data.loading import chunks
from utils.errors import UserError
from utils.images import IMAGE_SUFFIXES, Picture, open_image, read_image

EMBEDDED = Path(__file__).parent.parent / "dataset" / "sample" / "photos"
NEAREST = 0.38  # of the photograph's shorter side: the smallest crop
DUSK, FOG = 1 / 3, 1 / 6  # of the crops
LEAST_LEFT = 0.1  # of the contrast, at a side of such a crop
HELD_OUT = 20  # one of so many photographs is for validation, another one for the test


@dataclass(frozen=True)
class Source:
    """Where the bytes of one picture are: a file, or a part of a .tar file."""

    name: str  # relative to the root, for messages and for the split
    path: Path
    offset: int = 0
    size: int = -1  # bytes; -1: to the end

    def open(self) -> BinaryIO:
        if self.size < 0:
            return open(self.path, "rb")
        with open(self.path, "rb") as file:
            return io.BytesIO(os.pread(file.fileno(), self.size, self.offset))


def list_pictures(root: str | Path, option: str = "data_root") -> list[Source]:
    """All pictures (by suffix) in a folder, however deep, or in a .tar file, sorted by name; no hidden ones.

    Raises UserError about `option` if there is no such place, or no picture in it.
    """
    root = Path(root)
    place = {option: root}
    if root.is_dir():
        found = [Source(_printable(str(path.relative_to(root))), path) for path in _files(root)]
    elif root.exists():
        try:
            with tarfile.open(root, "r:") as archive:  # uncompressed: any picture can be read by itself
                members = [member for member in archive if member.isfile()]
        except tarfile.TarError:
            raise UserError("expected a folder of pictures or a whole, uncompressed .tar", **place) from None
        except OSError as error:
            raise UserError(f"cannot be read: {error.strerror}", **place) from error
        found = [Source(_printable(member.name), root, member.offset_data, member.size) for member in members]
    else:
        raise UserError("does not exist: give a folder of pictures or a .tar", **place)
    pictures = [s for s in found if Path(s.name).suffix.lower() in IMAGE_SUFFIXES and not _hidden(s.name)]
    if not pictures:
        raise UserError(f"no pictures in it ({', '.join(sorted(IMAGE_SUFFIXES))})", **place)
    return sorted(pictures, key=lambda source: source.name)


def _files(root: Path) -> Iterator[Path]:
    """The files below `root`; links are followed, but no folder is seen twice: they may lead in circles."""
    seen = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield from (Path(folder) / name for name in names)


def _hidden(name: str) -> bool:
    """Hidden by its name, or in a folder that macOS or a NAS puts beside pictures."""
    return any(part.startswith(".") or part in ("__MACOSX", "@eaDir") for part in Path(name).parts)


def _printable(name: str) -> str:
    """A file's name may hold bytes that are no UTF-8; they become question marks, which can be shown and hashed."""
    return name.encode(errors="replace").decode()


def read_source(source: Source, shorter: int, max_megapixels: float = 0) -> Picture:
    """A picture; a shorter side of more than so many pixels is reduced to that. Raises UserError or OSError."""
    with source.open() as file:
        sides = open_image(file, source.name, max_megapixels).size
        file.seek(0)
        longest = math.ceil(shorter * max(sides) / min(sides))
        return read_image(file, max_megapixels, max_side=longest, name=source.name)


def choose_split(sources: list[Source], split: str, option: str = "data_root") -> list[Source]:
    """The photographs that are for `split` (train, val, test), by a hash of their names.

    Raises UserError about `option` if there are fewer than three.
    """
    if len(sources) < 3:
        count = "1 photograph is" if len(sources) == 1 else f"{len(sources)} photographs are"
        raise UserError(f"{count} too few: training, validation and test need one each", **{option: None})
    order = sorted(sources, key=lambda source: hashlib.sha256(source.name.encode()).digest())
    held_out = min(max(2, len(order) // HELD_OUT), len(order) // 3)  # two, if that leaves something to learn from
    parts = {"val": order[:held_out], "test": order[held_out : 2 * held_out], "train": order[2 * held_out :]}
    return parts[split]


class PhotoDataset(Dataset):
    """Square crops of photographs, `size` pixels a side, each with the numbers of the styles to paint it in.

    A sample is a function of (seed, epoch, index). A photograph is painted in `each` of the `styles` at a time; without
    a seed it is the middle of the picture, in all styles.
    """

    def __init__(self, sources: list[Source], size: int, styles: int, each: int = 1, seed: int | None = None):
        self.sources, self.size, self.styles, self.each, self.seed = sources, size, styles, each, seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.sources)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def batches(self, batch_size: int, epoch: int, limit: int = 0) -> list[list[int]]:
        """The epoch's batches in random order, `limit` of them at most (0: all)."""
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self)).tolist()
        return chunks(order, batch_size)[: limit or None]

    def __getitem__(self, index: int) -> dict[str, Any]:
        """{"image": (3, size, size) uint8, "style": (each) numbers, "broken": names of those replaced by the next one}.

        Raises UserError if none can be read.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"photograph {index} of {len(self)}")  # this is what ends a `for`
        broken, reason = [], None
        for offset in range(len(self)):
            source = self.sources[(index + offset) % len(self)]
            try:
                rgb = read_source(source, 2 * self.size).rgb  # no time for more detail
            except (UserError, OSError) as error:
                broken.append(source.name)
                reason = reason or error
                continue
            random = None if self.seed is None else np.random.default_rng((self.seed, self.epoch, index))
            crop, styles = self._crop(rgb, random), self._styles(random)
            pixels = crop if random is None else in_other_light(crop, random)
            image = torch.from_numpy(pixels).permute(2, 0, 1)  # (size, size, 3) -> (3, size, size)
            return {"image": image, "style": styles, "broken": broken}
        raise UserError(f"none of the {len(self)} photographs can be read; the first: {reason}")

    def _crop(self, rgb: np.ndarray, random: np.random.Generator | None) -> np.ndarray:
        """(H, W, 3) -> (size, size, 3): a square of the picture, mirrored or not; its middle if random is None."""
        height, width = rgb.shape[:2]
        short = min(width, height)
        if random is None:
            side, x, y, flip = short, (width - short) / 2, (height - short) / 2, False
        else:  # near and far: near, a crop is enlarged, so that smooth places are seen as well
            side = random.uniform(NEAREST * short, short)
            x, y, flip = random.uniform(0, width - side), random.uniform(0, height - side), random.random() < 0.5
        box = (x, y, min(x + side, width), min(y + side, height))  # rounding must not lead out of the picture
        image = Image.fromarray(rgb).resize((self.size, self.size), Image.Resampling.BICUBIC, box=box, reducing_gap=3)
        return np.array(ImageOps.mirror(image) if flip else image)

    def _styles(self, random: np.random.Generator | None) -> Tensor:
        if random is None:
            return torch.arange(self.styles)
        return torch.from_numpy(random.permutation(self.styles)[: self.each])


def in_other_light(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A square (S, S, 3) uint8 as it is, or in a dusk or a fog that changes evenly from one side to the opposite one.

    Photographs have few large, smooth places that are dark or pale; a painter that has seen none paints spots there.
    """
    kind, angle = random.random(), random.uniform(0, 2 * math.pi)
    near, far = random.uniform(LEAST_LEFT, 1, 2)
    if kind >= DUSK + FOG:
        return pixels
    y, x = np.ogrid[-1 : 1 : len(pixels) * 1j, -1 : 1 : len(pixels) * 1j]
    cos, sin = math.cos(angle), math.sin(angle)
    along = (x * cos + y * sin) / (abs(cos) + abs(sin))  # (S, S), from -1 to 1
    left = near + (far - near) * (along + 1) / 2  # of the contrast
    veil = 0.0 if kind < DUSK else 255.0
    return np.rint(veil + (pixels - veil) * left[..., None]).astype(np.uint8)


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """{"image": (B, 3, size, size) uint8, "style": (B, each), "broken": names}."""
    return {
        "image": torch.stack([s["image"] for s in samples]),
        "style": torch.stack([s["style"] for s in samples]),
        "broken": [name for s in samples for name in s["broken"]],
    }
