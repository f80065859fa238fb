"""Pictures with labels: Kaggle's Dogs vs. Cats, or a folder for each class, and what a classifier sees of them.

It knows no network and no loss. A picture that cannot be read is None, which `collate` leaves out.
"""

import csv
import hashlib
import io
import math
import os
import re
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from data.photos import Source, list_pictures
from utils.errors import UserError, did_you_mean
from utils.files import atomic_write
from utils.images import on_white, open_image, read_image

SPLIT_FOLDER = re.compile(
    r"(?:(?P<train>train|training)|(?P<val>val|valid|validation|dev)|(?P<test>test|testing))"
    r"(?:[ _-]?(?:set|data|images|imgs))?[ _-]?\d*",
    re.IGNORECASE,
)  # names of folders that say what the pictures are for: train, Valid, test1, training_set
CONTAINERS = frozenset("data dataset image images img imgs jpg jpeg photo photos picture pictures".split())
NO_CLASS = CONTAINERS | frozenset("dsc dscf dscn pic pxl screenshot".split())  # names that a camera gives
COPY = r"(?:[ _-]*(?:copy|副本))?(?:[ _]?\(\d+\)| \d+)?"  # what file managers add to the name of a second one
# cat.0, but no dates and times, as 2024.12.31 and "at 10.11.12"
KAGGLE_NAME = re.compile(rf"(?=.*[^\W\d_])(?!.*\.\d+\.)(.+)\.(\d+){COPY}", re.IGNORECASE)
LOOSE_NAME = re.compile(rf"([^\W\d_]+(?:[ _-][^\W\d_]+)*)[ _-]?(?:\d+|\(\d+\)){COPY}", re.IGNORECASE)  # cat_1
KAGGLE_LABELS = {"0": "cat", "1": "dog"}
HELD_OUT = 10  # one of so many pictures of a class is for validation
MARGIN = 256 / 224  # a picture's shorter side, in sides of the crop, as torchvision's networks are validated
MIN_AREA = 0.35  # of the picture, that a training crop shows
RATIO = (3 / 4, 4 / 3)  # width to height of a training crop, before it is made square
LUMA = torch.tensor([0.299, 0.587, 0.114])  # shares of red, green and blue in the grey of ITU-R BT.601


@dataclass(frozen=True)
class Sample:
    """A picture and its class, if that is known; `id` is what Kaggle calls it: the file's name without suffix."""

    source: Source
    label: str | None
    id: str
    listed: bool = False  # the label is from a file of labels, not from the picture's name

    @property
    def split(self) -> str:
        """train, val or test if a folder says so, else empty."""
        return _split_for(self.source.name)


# --------------------------------------------------------------------------------------------- pictures and labels


def list_samples(root: str | Path, labels: str | Path = "") -> list[Sample]:
    """The pictures of a folder or an uncompressed .tar with their labels, sorted by name.

    Where there are two or more folders beside each other, these are the classes, whatever is in them (torchvision's
    ImageFolder); folders that only say what pictures are for (train, test1, images …) or that are around everything do
    not count. Else a picture's label is what its name has before a number (`cat.0.jpg`, `cat_1.jpg`), or the one
    folder. `labels` names a CSV `id,label` for pictures without one; there 1 means dog and 0 cat, if it has no other
    labels. Raises UserError if there are no pictures, if some are of classes by folder and others by name, and for a
    CSV that cannot be read, or does not fit them.
    """
    sources = list_pictures(root)
    names = [source.name for source in sources]
    found = _labels(names, packed=not Path(root).is_dir(), loose=not labels)
    ids = (PurePosixPath(name).stem for name in names)
    samples = [Sample(*sample) for sample in zip(sources, found, ids, strict=True)]
    return _with_listed_labels(samples, Path(labels)) if labels else samples


def _folders(name: str) -> tuple[str, ...]:
    """The folders of a path relative to the root; a .tar may write it as ./a/b, ../a/b or /a/b."""
    return tuple(part for part in PurePosixPath(name).parts[:-1] if part not in ("/", ".."))


def _labels(names: Sequence[str], packed: bool, loose: bool) -> list[str | None]:
    """The label of each path; `packed`: a .tar's folder around everything is no class; `loose`: cat_1 has a label."""
    tops = {_folders(name)[:1] for name in names}
    wrapper = len(next(iter(tops))) if packed and len(tops) == 1 else 0
    paths = [
        tuple(part for part in _folders(name)[wrapper:] if not _split_of(part) and part.lower() not in CONTAINERS)
        for name in names
    ]
    around = os.path.commonprefix([path for path in paths if path])  # of tuples, too
    inside = [path[len(around) :] for path in paths]
    folders = [path[0] if path else None for path in inside]
    stems = [PurePosixPath(name).stem for name in names]
    classes = {folder.casefold(): folder for folder in folders if folder}
    if len(classes) < 2:
        by_name = _labels_by_name(stems, loose)
        return by_name if any(by_name) else [_innermost(_folders(name)[wrapper:]) for name in names]
    for name, folder, label in zip(names, folders, _labels_by_name(stems, loose=False), strict=True):
        if label and not folder and _split_for(name) != "test":
            some = ", ".join(sorted(classes.values(), key=str.casefold)[:3])
            raise UserError(
                f"{name} is called like a {label}, but the classes are folders here ({some}): move it into one of them"
            )
    return folders


def _innermost(folders: tuple[str, ...]) -> str | None:
    """The innermost folder that may be a class, unless it is around one that names a split."""
    for folder in reversed(folders):
        if _split_of(folder):
            return None
        if folder.lower() not in CONTAINERS:
            return folder
    return None


def _labels_by_name(stems: Sequence[str], loose: bool) -> list[str | None]:
    """What the names say: `cat.0` is of a class, and `cat_1` of one, too, where `cat.0` names less than two classes.

    Cameras call pictures so as well: a single class of that kind is none.
    """
    strict, found = ([_class_of(form.fullmatch(stem)) for stem in stems] for form in (KAGGLE_NAME, LOOSE_NAME))
    classes = {label.casefold() for label in strict if label}
    if len(classes) < 2:
        classes |= {label.casefold() for label in found if label}
    if not loose or len(classes) < 2:
        return strict
    return [a or (b if b and b.casefold() in classes else None) for a, b in zip(strict, found, strict=True)]


def _class_of(match: re.Match | None) -> str | None:
    return match[1] if match and match[1].lower() not in NO_CLASS else None


def _with_listed_labels(samples: list[Sample], path: Path) -> list[Sample]:
    listed = _read_labels(path)
    unlabelled = [sample for sample in samples if sample.label is None]
    _check_ids([sample for sample in unlabelled if sample.id in listed])
    if not any(sample.id in listed for sample in unlabelled):
        raise UserError(
            f"--labels={path}: no picture without a label has one of its ids; an id is a file's name without suffix"
        )
    return [
        replace(sample, label=listed[sample.id], listed=True)
        if sample.label is None and sample.id in listed
        else sample
        for sample in samples
    ]


def _read_labels(path: Path) -> dict[str, str]:
    """{id: label} of a CSV file."""
    place = f"--labels={path}"
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = [{str(k).strip().lower(): v for k, v in row.items()} for row in csv.DictReader(file)]
    except OSError as error:
        raise UserError(f"cannot read {place}: {error.strerror}; give a CSV file with the columns id,label") from error
    except (UnicodeDecodeError, csv.Error):
        raise UserError(f"{place} is not a CSV file: expected UTF-8 text with the columns id,label") from None
    if not rows or not {"id", "label"} <= rows[0].keys():
        raise UserError(f"{place}: expected the columns id,label in the first line, and labels below")
    listed: dict[str, str] = {}
    for row in rows:
        id, label = ((row[name] or "").strip() for name in ("id", "label"))
        if not id or not label:
            raise UserError(f"{place}: a line has no {'label (id ' + id + ')' if id else 'id'}; expected id,label")
        if listed.setdefault(id, label) != label:
            raise UserError(f"{place}: id {id} is {listed[id]} and {label}; give each id one label")
    if set(listed.values()) <= KAGGLE_LABELS.keys():
        return {id: KAGGLE_LABELS[label] for id, label in listed.items()}
    return listed


def _check_ids(samples: list[Sample]) -> None:
    seen: dict[str, Sample] = {}
    for sample in samples:
        if other := seen.get(sample.id):
            raise UserError(
                f"{other.source.name} and {sample.source.name} have the same id, {sample.id}: labels and predictions "
                f"would be mixed up; rename one of them"
            )
        seen[sample.id] = sample


def class_names(samples: Sequence[Sample]) -> list[str]:
    """The classes of the samples to train with, sorted; names that differ in case only are one.

    Raises UserError if it is not two.
    """
    names = {sample.label.casefold(): sample.label for sample in reversed(samples) if sample.label is not None}
    if len(names) < 2:
        found = f"only {next(iter(names.values()))}" if names else "none"
        raise UserError(f"a classifier needs two classes, here is {found}: {HOW_TO_LABEL}")
    return sorted(names.values(), key=str.casefold)


HOW_TO_LABEL = "name pictures like cat.0.jpg, make a folder for each class, or give --labels=FILE (CSV: id,label)"


def _split_of(folder: str) -> str:
    """train, val or test if the name of a folder says so, else empty."""
    match = SPLIT_FOLDER.fullmatch(folder)
    return match.lastgroup if match else ""


def _split_for(name: str) -> str:
    """What the innermost folder that names a split says of the path of a picture."""
    return next(filter(None, map(_split_of, reversed(_folders(name)))), "")


def choose_split(samples: Sequence[Sample], split: str) -> list[Sample]:
    """The samples that are for `split` (train, val, test), in the order given.

    Training and validation share the labelled pictures that are in no test folder, those labelled by name, or if there
    are none, those from a file of labels: what is in a val folder is for validation, or else a tenth of each class, by
    a hash of the file's name. Test is what is in a test folder or not labelled by name; if there is nothing of the
    kind, all of it. Raises UserError if nothing is left for the split, a class has one picture only, or two pictures
    of the test that are not labelled by name have the same id.
    """
    if split == "test":
        chosen = [s for s in samples if s.split == "test" or s.label is None or s.listed] or list(samples)
        _check_ids([s for s in chosen if s.label is None or s.listed])
        return chosen
    labelled = [s for s in samples if s.label is not None and not s.split == "test"]
    labelled = [s for s in labelled if not s.listed] or labelled
    if not labelled:
        raise UserError(f"no labelled pictures outside of test folders: {HOW_TO_LABEL}")
    held_out = {s.source.name for s in labelled if s.split == "val"} or _tenth(labelled)
    chosen = [s for s in labelled if (s.source.name in held_out) == (split == "val")]
    if not chosen:
        raise UserError("all labelled pictures are in val folders: there are none to train with")
    return chosen


def _tenth(samples: list[Sample]) -> set[str]:
    """Names of a tenth of the pictures of each class. The hash is of the file's own name: a .tar gives what it gave
    before it was packed, and the copy of a picture goes where it goes."""
    classes: defaultdict[str, list[Source]] = defaultdict(list)
    for sample in samples:
        classes[sample.label.casefold()].append(sample.source)
    held_out: set[str] = set()
    for name, sources in classes.items():
        if len(sources) < 2:
            raise UserError(f"class {name} has one picture, {sources[0].name}: training and validation need one each")
        sources.sort(key=lambda source: hashlib.sha256(_original(source.name).encode()).digest())
        held_out.update(source.name for source in sources[: max(1, len(sources) // HELD_OUT)])
    return held_out


def _original(name: str) -> str:
    """The file's own name; of a copy, such as `cat.0 - Copy.jpg`, that of what was copied."""
    path = PurePosixPath(name)
    match = KAGGLE_NAME.fullmatch(path.stem)
    return f"{match[1]}.{match[2]}{path.suffix}" if match else path.name


# ---------------------------------------------------------------------------------------------- what is to be seen


def read_reduced(source: Source, size: int) -> np.ndarray:
    """A picture to make views of `size` pixels a side from: (H, W, 3) uint8, transparent parts white.

    A shorter side of more than size / sqrt(MIN_AREA) pixels is reduced to that: the smallest crops of a training then
    have `size` pixels a side. Nothing is enlarged. Raises UserError or OSError if it cannot be read.
    """
    shortest = math.ceil(size / math.sqrt(MIN_AREA))
    with source.open() as file:
        sides = open_image(file, source.name).size
        file.seek(0)
        drafty = min(sides) >= 4 * shortest  # from there on a JPEG is decoded at 1/2, 1/4 or 1/8
        longest = round(shortest * max(sides) / min(sides)) if drafty else 0
        picture = read_image(file, max_side=longest, name=source.name)
    rgb = picture.rgb
    if picture.alpha is not None:
        rgb = on_white(rgb, picture.alpha)
    if min(rgb.shape[:2]) <= shortest:
        return rgb
    reduced = _with_shorter_side(_planes(rgb), shortest)  # (3, H, W)
    return np.ascontiguousarray(reduced.permute(1, 2, 0).numpy())


def _planes(rgb: np.ndarray) -> Tensor:
    """(H, W, 3) -> (3, H, W), the same memory."""
    return torch.from_numpy(rgb).permute(2, 0, 1)


def _resized(image: Tensor, height: int, width: int) -> Tensor:
    """(3, H, W) -> (3, height, width) uint8. PyTorch's kernel does what Pillow's does, three times as fast."""
    return F.interpolate(image[None], (height, width), mode="bicubic", antialias=True)[0]


def _with_shorter_side(image: Tensor, side: int) -> Tensor:
    height, width = image.shape[1:]
    short = min(height, width)
    return _resized(image, side * height // short, side * width // short)


def _middle(image: Tensor, side: int) -> Tensor:
    """The middle of a picture (3, H, W), `side` pixels high and wide, or what there is."""
    top, left = (max(0, round((length - side) / 2)) for length in image.shape[1:])
    return image[:, top : top + side, left : left + side]


def centre_view(rgb: np.ndarray, size: int) -> Tensor:
    """(H, W, 3) -> (3, size, size) uint8: the shorter side resized to size * 256 / 224, the middle cut out.

    What a classifier is validated on and used with. It is torchvision's Resize (bicubic) and CenterCrop.
    """
    image = _middle(_planes(rgb), 3 * min(rgb.shape[:2]))  # a strip of 1 x 60000 pixels must not be enlarged as a whole
    return _middle(_with_shorter_side(image, round(size * MARGIN)), size).contiguous()


def random_box(
    width: int, height: int, random: np.random.Generator, min_area: float = MIN_AREA
) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of a random part of a picture, in pixels: `min_area` to all of it, RATIO wide.

    The random crop of Inception ("Going Deeper with Convolutions", CVPR 2015, section 6), as torchvision's
    RandomResizedCrop draws it: ten tries, then the middle.
    """
    for _ in range(10):
        area = width * height * random.uniform(min_area, 1)
        ratio = math.exp(random.uniform(*map(math.log, RATIO)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            x, y = int(random.integers(width - w + 1)), int(random.integers(height - h + 1))
            return x, y, x + w, y + h
    w, h = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
    x, y = (width - w) // 2, (height - h) // 2
    return x, y, x + w, y + h


def jitter_colours(image: Tensor, strength: float, random: np.random.Generator) -> Tensor:
    """(3, H, W) uint8 with brightness, contrast and saturation times random factors in 1 - strength .. 1 + strength.

    All three are one linear map of the colours; they are cut off at black and white once, at the end.
    """
    brightness, contrast, saturation = random.uniform(max(0, 1 - strength), 1 + strength, 3).tolist()
    pixels = image.reshape(3, -1).float()  # (3, H * W), 0..255
    matrix = brightness * contrast * (saturation * torch.eye(3) + (1 - saturation) * LUMA)  # (3, 3)
    offset = brightness * (1 - contrast) * (LUMA @ pixels.mean(1)) + 0.5  # the half rounds
    return torch.addmm(offset.expand(3, 1), matrix, pixels).clamp_(0, 255).to(torch.uint8).view_as(image)


def shuffle_regions(image: np.ndarray, blocks: int, random: np.random.Generator, reach: float = 2) -> np.ndarray:
    """A picture (C, H, W) cut into `blocks` x `blocks` regions that have changed places with near ones.

    The region confusion mechanism of "Destruction and Construction Learning for Fine-grained Image Recognition" (CVPR
    2019, section 3.1): in each row, then in each column, regions are sorted by their number plus a uniform random one
    in -reach .. reach, so that none moves by 2 * reach or more along either. Pixels that do not fill a region stay at
    the border. Needs `blocks` <= H, W.
    """
    h, w = (length // blocks for length in image.shape[1:])
    top, left = ((length % blocks) // 2 for length in image.shape[1:])
    middle = np.s_[:, top : top + h * blocks, left : left + w * blocks]
    regions = image[middle].reshape(-1, blocks, h, blocks, w)  # (C, row, h, column, w)
    noise = random.uniform(-reach, reach, (2, blocks, blocks))
    numbers = np.arange(blocks)
    columns = np.argsort(numbers + noise[0], axis=1)  # [y, x]: which region of row y comes to x
    rows = np.argsort(numbers[:, None] + noise[1], axis=0)  # [y, x]: from which row of column x, after that
    shuffled = regions[:, rows, :, np.take_along_axis(columns, rows, 0)]  # (row, column, C, h, w)
    result = image.copy()
    result[middle] = shuffled.transpose(2, 0, 3, 1, 4).reshape(-1, h * blocks, w * blocks)
    return result


# ------------------------------------------------------------------------------------------------------ the dataset


class DogCatDataset(Dataset):
    """Square views of pictures with the numbers of their classes.

    A sample is a function of (seed, epoch, index), with the cache or without, in whatever process.

    Args:
        samples: the pictures.
        classes: names of the classes; a label's number is its place here, whatever its case.
        size: side of the views in pixels.
        seed: of the random crops, mirrorings and colours. None: the middle, as it is.
        cache: folder in which reduced pictures are kept, so that they are decoded once; empty: none.
        shuffle_blocks: cut half of the views into so many regions a side, and shuffle these; 0: none.
        jitter: strength of the changes of brightness, contrast and saturation; 0: none.
        min_area: share of the picture that a crop shows at least.
        views: number of different views of a picture, which then come again; 0: new ones in each epoch.

    Raises UserError for a label that is no class, and for a cache that cannot be written.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        classes: Sequence[str],
        size: int,
        seed: int | None = None,
        cache: str | Path = "",
        shuffle_blocks: int = 0,
        jitter: float = 0.2,
        min_area: float = MIN_AREA,
        views: int = 0,
    ):
        if shuffle_blocks > size:
            raise UserError(
                f"--shuffle_blocks={shuffle_blocks}: a view of {size} pixels has at most {size} blocks a side"
            )
        self.samples, self.classes, self.size, self.seed = list(samples), list(classes), size, seed
        self.shuffle_blocks, self.jitter, self.min_area, self.views = shuffle_blocks, jitter, min_area, views
        self.labels = [self._number(sample) for sample in self.samples]
        self.cache = _writable_folder(Path(cache)) if cache else None
        self.epoch = 0

    def _number(self, sample: Sample) -> int:
        if sample.label is None:
            return -1
        names = [name.casefold() for name in self.classes]
        if sample.label.casefold() not in names:
            hint = did_you_mean(sample.label, self.classes)
            raise UserError(
                f"{sample.source.name} is labelled {sample.label}, but the classes are {', '.join(self.classes)}{hint}"
            )
        return names.index(sample.label.casefold())

    def __len__(self) -> int:
        return len(self.samples)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def batches(self, batch_size: int, epoch: int) -> list[list[int]]:
        """The epoch's batches of indices, in random order; in the given one without a seed."""
        order = list(range(len(self)))
        if self.seed is not None:
            order = np.random.default_rng((self.seed, epoch)).permutation(len(self)).tolist()
        return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]

    def __getitem__(self, index: int) -> dict[str, Any] | None:
        """{"image": (3, size, size) uint8, "label": number of the class or -1, "index"}; None if it cannot be read."""
        if not 0 <= index < len(self):
            raise IndexError(f"picture {index} of {len(self)}")  # this is what ends a `for`
        try:
            rgb = self._read(index)
        except (UserError, OSError):
            return None
        image = centre_view(rgb, self.size) if self.seed is None else self._random_view(rgb, index)
        return {"image": image, "label": self.labels[index], "index": index}

    def fault(self, index: int) -> str:
        """A line that names the picture and says why it cannot be read."""
        source = self.samples[index].source
        try:
            read_reduced(source, self.size)
        except UserError as error:
            return str(error)
        except OSError as error:
            return f"cannot read {source.name}: {error.strerror}"
        return f"{source.name} could not be read, but can be now"

    def picture(self, index: int) -> np.ndarray:
        """(size, size, 3) uint8, as validation sees it. Raises UserError or OSError if the picture cannot be read."""
        return centre_view(self._read(index), self.size).permute(1, 2, 0).contiguous().numpy()

    def _random_view(self, rgb: np.ndarray, index: int) -> Tensor:
        """(H, W, 3) -> (3, size, size): another one in each epoch."""
        epoch = self.epoch % self.views if self.views else self.epoch
        random = np.random.default_rng((self.seed, epoch, index))
        left, top, right, bottom = random_box(rgb.shape[1], rgb.shape[0], random, self.min_area)
        view = _resized(_planes(rgb[top:bottom, left:right]), self.size, self.size)
        if random.random() < 0.5:
            view = view.flip(-1)
        if self.jitter:
            view = jitter_colours(view, self.jitter, random)
        if self.shuffle_blocks and random.random() < 0.5:
            view = torch.from_numpy(shuffle_regions(view.numpy(), self.shuffle_blocks, random))
        return view

    def _read(self, index: int) -> np.ndarray:
        """`read_reduced`, from the cache if it is there; (H, W, 3) uint8."""
        source = self.samples[index].source
        if self.cache is None:
            return read_reduced(source, self.size)
        file = os.stat(source.path)
        key = (str(source.path.absolute()), source.offset, source.size, file.st_size, file.st_mtime_ns, self.size)
        path = self.cache / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}.npy"
        if (rgb := _load_array(path)) is None:
            rgb = read_reduced(source, self.size)
            self._keep(path, rgb)
        return rgb

    def _keep(self, path: Path, rgb: np.ndarray) -> None:
        buffer = io.BytesIO()
        np.save(buffer, rgb)
        try:
            atomic_write(path, buffer.getvalue())
        except UserError as error:  # a disk that has become full costs time, not the training
            warnings.warn(f"no more pictures are kept: {error}", stacklevel=1)
            self.cache = None


def _writable_folder(folder: Path) -> Path:
    """The folder, made if it is missing. Raises UserError if that, or a file in it, cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--cache={folder}: cannot make this folder: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"--cache={folder}: cannot write to this folder; give another one")
    return folder


def _load_array(path: Path) -> np.ndarray | None:
    """A picture of the cache; None if there is none, or not a whole one."""
    try:
        with open(path, "rb") as file:
            rgb = np.lib.format.read_array(file, allow_pickle=False)
    except Exception:  # whatever has become of the file: it is made anew
        return None
    return rgb if rgb.dtype == np.uint8 and rgb.ndim == 3 and rgb.shape[2] == 3 and rgb.size else None


def collate(samples: Sequence[dict[str, Any] | None]) -> dict[str, Tensor] | None:
    """{"image": (B, 3, size, size) uint8, "label": (B) int64, "index": (B) int64} of what was read, or None."""
    there = [sample for sample in samples if sample is not None]
    if not there:
        return None
    numbers = {name: torch.tensor([sample[name] for sample in there]) for name in ("label", "index")}  # (B)
    return {"image": torch.stack([sample["image"] for sample in there]), **numbers}
