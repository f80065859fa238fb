"""Which pictures there are, of which class and for what: Kaggle's Dogs vs. Cats, or a folder for each class."""

import csv
import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from data.photos import Source, list_pictures
from utils.errors import UserError
from utils.files import write_csv

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
CLIP = 0.005  # one wrong answer of probability 0 would make Kaggle's log loss infinite


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


def list_samples(root: str | Path, labels: str | Path = "") -> list[Sample]:
    """The pictures of a folder or an uncompressed .tar with their labels, sorted by name.

    Two or more folders beside each other are the classes; folders that only say what pictures are for (train, images …)
    do not count. Else the label is what a picture's name has before a number (`cat.0.jpg`, `cat_1.jpg`), or the one
    folder. `labels` is a CSV `id,label` for the others, where 1 may mean dog and 0 cat. Raises UserError if there are
    no pictures, for classes by folder and by name together, and for a CSV that cannot be read, or does not fit.
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
            raise UserError(f"{name} is called like a {label}, but classes are folders here ({some}): move it into one")
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
    """What the names say: `cat.0` has a class; so has `cat_1`, if there are two, as cameras call pictures alike."""
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
    chosen = [sample for sample in samples if sample.label is None and sample.id in listed]
    _check_ids(chosen)
    if not chosen:
        message = "no picture without a label has one of its ids; an id is a file's name without suffix"
        raise UserError(message, labels=path)
    labelled = {sample: replace(sample, label=listed[sample.id], listed=True) for sample in chosen}
    return [labelled.get(sample, sample) for sample in samples]


def _read_labels(path: Path) -> dict[str, str]:
    """{id: label} of a CSV file."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = [{str(k).strip().lower(): v for k, v in row.items()} for row in csv.DictReader(file)]
    except OSError as error:
        message = f"cannot be read: {error.strerror}; give a CSV file with the columns id,label"
        raise UserError(message, labels=path) from error
    except (UnicodeDecodeError, csv.Error):
        raise UserError("is not a CSV file: expected UTF-8 text with the columns id,label", labels=path) from None
    if not rows or not {"id", "label"} <= rows[0].keys():
        raise UserError("expected the columns id,label in the first line, and labels below", labels=path)
    listed: dict[str, str] = {}
    for row in rows:
        id, label = ((row[name] or "").strip() for name in ("id", "label"))
        if not id or not label:
            missing = f"label (id {id})" if id else "id"
            raise UserError(f"a line has no {missing}; expected id,label", labels=path)
        if listed.setdefault(id, label) != label:
            raise UserError(f"id {id} is {listed[id]} and {label}; give each id one label", labels=path)
    if set(listed.values()) <= KAGGLE_LABELS.keys():
        return {id: KAGGLE_LABELS[label] for id, label in listed.items()}
    return listed


def _check_ids(samples: list[Sample]) -> None:
    seen: dict[str, Sample] = {}
    for sample in samples:
        if other := seen.get(sample.id):
            raise UserError(f"{other.source.name} and {sample.source.name} have the same id, {sample.id}: rename one")
        seen[sample.id] = sample


def class_names(samples: Sequence[Sample]) -> list[str]:
    """The classes to train with, sorted; names that differ in case only are one. Raises UserError if it is not two."""
    names = {sample.label.casefold(): sample.label for sample in reversed(samples) if sample.label is not None}
    if len(names) < 2:
        found = f"only {next(iter(names.values()))}" if names else "none"
        raise UserError(f"a classifier needs two classes, here is {found}: {HOW_TO_LABEL}")
    return sorted(names.values(), key=str.casefold)


HOW_TO_LABEL = "name pictures like cat.0.jpg, make a folder for each class, or give labels=FILE (CSV: id,label)"


def _split_of(folder: str) -> str:
    """train, val or test if the name of a folder says so, else empty."""
    match = SPLIT_FOLDER.fullmatch(folder)
    return match.lastgroup if match else ""


def _split_for(name: str) -> str:
    """What the innermost folder that names a split says of the path of a picture."""
    return next(filter(None, map(_split_of, reversed(_folders(name)))), "")


def choose_split(samples: Sequence[Sample], split: str) -> list[Sample]:
    """The samples that are for `split` (train, val, test), in the order given.

    Test: what is in a test folder or not labelled by name, else everything. Of the other labelled pictures (those from
    a CSV only if there are no others) what is in a val folder is for validation, else a tenth of each class, by a hash
    of the name. Raises UserError if nothing is left, a class has one picture only, or two pictures of the test have the
    same id.
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


def write_submission(path: Path, table: Mapping[str, np.ndarray], classes: list[str]) -> None:
    """Kaggle's CSV of probabilities (K) by id, CLIP away from 0 and 1: those of the last of two classes, or of all."""
    two = len(classes) == 2
    order = sorted(table, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))
    rows = ([name, *(f"{p:.6f}" for p in table[name].clip(CLIP, 1 - CLIP)[int(two) :])] for name in order)
    write_csv(path, ["id", "label"] if two else ["id", *classes], rows)
