"""Painting files: pictures, animations, folders and videos; what goes where, and what becomes of the broken ones.

video.py is how a video is read and written. Shapes: N pictures, H x W pixels.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from infer.painting.animation import open_animation
from infer.painting.colors import Paint, stylize
from infer.painting.video import ANIMATIONS, BATCH_PIXELS, FORMATS, VIDEO_SUFFIXES, paint_video, video_format
from infer.painting.video_reader import open_reader
from models.loss_networks import SMALLEST
from utils.errors import UserError
from utils.files import is_inside, refuse_overwriting
from utils.images import (
    IMAGE_SUFFIXES,
    WRITABLE,
    Picture,
    format_of,
    is_animation,
    open_image,
    read_image,
    save_image,
    to_tensor,
)
from utils.signatures import HEAD, VIDEO, recognize

# Notes, and what phones, cameras and file managers put beside pictures: nobody wants these painted.
QUIET_SUFFIXES = frozenset(".txt .md .json .csv .xmp .aae .ini .db".split())


def read_style(source: str | Path | BinaryIO, max_side: int, name: str = "") -> Tensor:
    """The picture of a style (1, 3, H, W) in 0..1, its longer side reduced to `max_side` pixels.

    Raises UserError, in which `name` is the picture (empty: its path), if it cannot be read, or is too small for a loss
    network.
    """
    rgb = _read(source, max_side=max_side, name=name).rgb
    height, width = rgb.shape[:2]
    if min(height, width) < SMALLEST:
        size = f"{width} x {height} pixels (style_size={max_side})"
        raise UserError(f"{name or source} has {size}: the picture of a style needs {SMALLEST} a side at least")
    return to_tensor(rgb)


def _read(source: str | Path | BinaryIO, max_megapixels: float = 0, max_side: int = 0, name: str = "") -> Picture:
    """A picture that is not painted; what else is in its file is said at once."""
    picture = read_image(source, max_megapixels, max_side, name)
    if picture.note:
        tqdm.write(picture.note, file=sys.stderr)
    return picture


# ----------------------------------------------------------------------------------------------- what goes where


@dataclass
class Job:
    """A file to paint, and where the painting goes."""

    path: Path
    out: Path
    kind: str = "picture"  # or animation, or video


def plan(paths: Sequence[str], out: str, label: str, others: Sequence[str] = ()) -> tuple[list[Job], list[str]]:
    """(what to paint, in which order and where to; remarks for the user). Nothing is written yet.

    Args:
        paths: pictures, animations, videos and folders; of a folder all pictures (by suffix), however deep, but no
            hidden ones, and none in linked folders.
        out: a file; for a folder or several paths, or where there is a folder already, the folder to write to.
            Empty: beside each path, with `label` in the name.
        others: more files that must not be overwritten, such as the mask.

    A painting has its photograph's type where that can be written, else it is a PNG; of an animation a WebP, of a video
    an MP4, and either may be written as the other. Where two would have the same name, one whose type is its
    photograph's gets it, the other a number. Raises UserError if a path does not exist, if a folder has no pictures,
    for a type that cannot be written, or if a painting would replace an input, under whatever name.
    """
    several = len(paths) > 1 or os.path.isdir(paths[0])
    if several and out and (os.path.isfile(out) or Path(out).suffix.lower() in {*WRITABLE, *FORMATS}):
        raise UserError("is a file: several pictures need a folder", out=out)
    wanted: list[Job] = []
    remarks: list[str] = []
    for path in dict.fromkeys(map(Path, paths)):
        if not os.path.lexists(path):
            raise UserError(f"{path} does not exist: give a picture, a folder of pictures, or a video")
        if path.is_dir():
            named = path if path.name not in ("", "..") else path.resolve()
            root = Path(out, named.name if len(paths) > 1 else "") if out else named.parent / f"{named.name}_{label}"
            jobs, more = _plan_folder(path, root)
            wanted, remarks = wanted + jobs, remarks + more
        else:
            wanted.append(_plan_file(path, out, several, label))
    jobs = _apart(wanted)
    refuse_overwriting((job.out for job in jobs), [*(job.path for job in jobs), *others])
    return jobs, remarks


def _plan_folder(folder: Path, root: Path) -> tuple[list[Job], list[str]]:
    """(the pictures of a folder, painted below `root`; remarks about what is left alone)."""
    if is_inside(root, folder):
        raise UserError(f"{root} is inside of {folder}, which is the input: give another out=…")
    files, videos, rest = _files_of(folder)
    remarks = []
    if videos:
        remarks.append(f"videos in {folder} are left alone, such as {videos[0].name}: name each as a path")
    if rest:
        count = f"{len(rest)} other file{'s' * (len(rest) > 1)} in {folder} {'are' if len(rest) > 1 else 'is'}"
        known = ", ".join(sorted(IMAGE_SUFFIXES))
        remarks.append(f"{count} left alone, such as {rest[0].name} (pictures are {known})")
    kinds = [(file, kind_of(file)) for file in files]
    return [Job(file, _with_type(root / file.relative_to(folder), kind), kind) for file, kind in kinds], remarks


def _plan_file(path: Path, out: str, several: bool, label: str) -> Job:
    """A picture, an animation or a video, and where to."""
    kind = kind_of(path)
    if out and (several or out.endswith(os.sep) or os.path.isdir(out)):
        target = _with_type(Path(out) / path.name, kind)
    else:
        target = Path(out) if out else _with_type(path.with_name(f"{path.stem}_{label}{path.suffix}"), kind)
    (format_of if kind == "picture" else video_format)(target)
    return Job(path, target, kind)


def _files_of(folder: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """(pictures, videos, others that somebody may take for pictures) in a folder and its folders, by name."""
    files = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(place, name) for name in names if not name.startswith(".")]
    pictures = sorted(file for file in files if file.suffix.lower() in IMAGE_SUFFIXES)
    if not pictures:
        raise UserError(f"{folder} has no pictures in it ({', '.join(sorted(IMAGE_SUFFIXES))})")
    videos = sorted(file for file in files if file.suffix.lower() in VIDEO_SUFFIXES)
    known = IMAGE_SUFFIXES | VIDEO_SUFFIXES | QUIET_SUFFIXES
    return pictures, videos, sorted(file for file in files if file.suffix.lower() not in known)


def kind_of(path: Path) -> str:
    """picture, animation or video: by what is in the file, and by its name only where that says nothing.

    What cannot be read is a picture, whose reader says why.
    """
    if not path.is_file():
        return "picture"
    try:
        with open(path, "rb") as file:
            try:
                with open_image(file, str(path)) as image:
                    return "animation" if is_animation(image) else "picture"
            except UserError:
                file.seek(0)
                what = recognize(file.read(HEAD))
    except OSError:
        return "picture"
    is_video = what == VIDEO or (not what and path.suffix.lower() in VIDEO_SUFFIXES)
    return "video" if is_video else "picture"


def _with_type(target: Path, kind: str) -> Path:
    suffixes, other = {
        "picture": (WRITABLE, ".png"),
        "animation": (ANIMATIONS, ".webp"),
        "video": ((), ".mp4"),
    }[kind]
    return target if target.suffix.lower() in suffixes else target.with_suffix(other)


def _apart(wanted: Sequence[Job]) -> list[Job]:
    """The jobs with numbers in the names that another one has: of photo.gif and photo.png, say, the former's."""
    first: dict[Path, Job] = {}
    for job in sorted(wanted, key=lambda job: job.path.suffix != job.out.suffix):
        first.setdefault(job.out, job)
    taken = set(first)
    jobs = []
    for job in wanted:
        out, number = job.out, 1
        while out in taken and first.get(out) is not job:
            number += 1
            out = job.out.with_name(f"{job.out.stem}_{number}{job.out.suffix}")
        taken.add(out)
        jobs.append(replace(job, out=out))
    return jobs


# ---------------------------------------------------------------------------------------------------------- files


@dataclass
class Result(Job):
    """What became of a job: `error` is empty if the painting was written; `note` says what is not as it should be."""

    error: str = ""
    note: str = ""
    width: int = 0
    height: int = 0
    seconds: float = 0.0
    picture: Picture | None = field(default=None, repr=False)  # that waits to be painted

    def __str__(self) -> str:
        return self.error or str(self.out)

    def as_dict(self) -> dict[str, Any]:
        what = {"error": self.error} if self.error else {"width": self.width, "height": self.height}
        what |= {"note": self.note} if self.note else {}
        name = {"path": str(self.path), "out": str(self.out), "ok": not self.error}
        return {**name, **what, "seconds": round(self.seconds, 3)}


def paint_files(
    jobs: Sequence[Job],
    paint: Paint,
    keep_color: bool = False,
    mask: str = "",
    max_side: int = 0,
    max_megapixels: float = 0,
    batch: int = 1,
    quality: int = 95,
) -> Iterator[Result]:
    """Does the jobs in their order, with a progress bar if stderr is a terminal. What is broken gives a Result with an
    error; the rest goes on.

    Neighbours of equal size are painted together, up to `batch`. For the other options see `stylize`, `read_image`,
    `paint_video` and `save_image`. Raises UserError if the mask cannot be read.
    """
    grey = read_mask(mask, max_megapixels) if mask else None
    brush = partial(stylize, paint=paint, keep_color=keep_color, mask=grey)
    form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
    with tqdm(total=len(jobs), bar_format=form, leave=False, disable=None) as bar:
        for group in _groups(jobs, lambda path: read_image(path, max_megapixels, max_side), batch):
            bar.set_description_str(group[0].path.name, refresh=False)
            show = partial(_show, bar, bar.n, len(group))
            start = time.perf_counter()
            try:
                if group[0].kind != "picture":
                    _paint_video(group[0], brush, max_side, max_megapixels, batch, quality, show)
                elif group[0].picture:
                    _paint_pictures(group, brush, quality, show)
            except UserError as error:
                for result in group:
                    result.error = str(error)
            show(1.0)
            for result in group:
                result.seconds += (time.perf_counter() - start) / len(group)
                result.picture = None
                yield result


def read_mask(path: str, max_megapixels: float) -> np.ndarray:
    """(h, w) uint8; what is transparent is black: paint programs save white on nothing so."""
    picture = _read(path, max_megapixels)
    grey = np.asarray(Image.fromarray(picture.rgb).convert("L"))
    if picture.alpha is None:
        return grey
    return ((grey.astype(np.uint16) * picture.alpha + 127) // 255).astype(np.uint8)


def _groups(jobs: Sequence[Job], read: Callable[[Path], Picture], batch: int) -> Iterator[list[Result]]:
    """The jobs in their order: pictures of equal size together; alone what moves, or cannot be read."""
    group: list[Result] = []
    for job in jobs:
        result = Result(job.path, job.out, job.kind)
        if job.kind == "picture":
            start = time.perf_counter()
            try:
                result.picture = read(job.path)
            except UserError as error:
                result.error = str(error)
            result.seconds = time.perf_counter() - start
        if group and not (result.picture and _fits(result.picture, group, batch)):
            yield group
            group = []
        group.append(result)
        if not result.picture:
            yield group
            group = []
    if group:
        yield group


def _fits(picture: Picture, group: list[Result], batch: int) -> bool:
    shape = group[0].picture.rgb.shape
    together = (len(group) + 1) * shape[0] * shape[1]
    return picture.rgb.shape == shape and len(group) < batch and together <= BATCH_PIXELS


def _paint_pictures(group: list[Result], brush: Callable, quality: int, show: Callable[[float], None]) -> None:
    pictures = [result.picture.rgb for result in group]
    rgb = np.stack(pictures) if len(pictures) > 1 else pictures[0][None]  # no copy of a large one
    for result, painting in zip(group, brush(rgb, progress=show), strict=True):
        try:
            save_image(result.out, painting, result.picture.alpha, quality)
        except UserError as error:
            result.error = str(error)
        result.height, result.width = painting.shape[:2]
        result.note = result.picture.note


def _paint_video(
    result: Result,
    brush: Callable,
    max_side: int,
    max_megapixels: float,
    batch: int,
    quality: int,
    show: Callable[..., None],
) -> None:
    def count(done: int, total: int) -> None:
        show(min(1.0, done / total) if total else 0.0, f"frame {done}/{total or '?'}")

    opened = open_animation if result.kind == "animation" else open_reader
    with opened(result.path, max_megapixels, max_side) as reader:
        written = paint_video(reader, result.out, brush, batch, count, quality)
    result.width, result.height, result.note = written.width, written.height, written.note


def _show(bar: tqdm, done: float, size: int, share: float, text: str = "") -> None:
    """Moves the bar to `done` and a `share` of the next `size` jobs."""
    bar.set_postfix_str(text, refresh=False)
    bar.update(done + share * size - bar.n)
