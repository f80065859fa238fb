"""Pictures with the numbers of their classes. Which there are is in labels.py, what is seen of them in views.py."""

import hashlib
import io
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from tqdm import tqdm

from data.labels import Sample
from data.loading import batches_of, chunks
from data.views import Augmentation, centre_view, read_reduced
from utils.errors import UserError, did_you_mean
from utils.files import atomic_write


class DogCatDataset(Dataset):
    """Square views, `size` pixels a side, of pictures, with the numbers of their classes: places in `classes`.

    A sample is a function of (seed, epoch, index). Without `augmentation` it is the middle of the picture. `cache` is a
    folder in which reduced pictures are kept; empty: none. Raises UserError for a label that is no class, and for a
    cache that cannot be written.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        classes: Sequence[str],
        size: int,
        augmentation: Augmentation | None = None,
        cache: str | Path = "",
    ):
        if augmentation and augmentation.shuffle_blocks > size:
            message = f"a view of {size} pixels has at most {size} blocks a side"
            raise UserError(message, shuffle_blocks=augmentation.shuffle_blocks)
        self.samples, self.classes, self.size, self.augmentation = list(samples), list(classes), size, augmentation
        self.labels = [self._number(sample) for sample in self.samples]
        self.cache = _writable_folder(Path(cache)) if cache else None
        self.epoch = 0

    def _number(self, sample: Sample) -> int:
        if sample.label is None:
            return -1
        names = [name.casefold() for name in self.classes]
        if sample.label.casefold() not in names:
            known = f"{', '.join(self.classes)}{did_you_mean(sample.label, self.classes)}"
            raise UserError(f"{sample.source.name} is labelled {sample.label}, but the classes are {known}")
        return names.index(sample.label.casefold())

    def __len__(self) -> int:
        return len(self.samples)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def batches(self, batch_size: int, epoch: int) -> list[list[int]]:
        """The epoch's batches of indices, in random order; in the given one without augmentation."""
        order = list(range(len(self)))
        if self.augmentation:
            order = np.random.default_rng((self.augmentation.seed, epoch)).permutation(len(self)).tolist()
        return chunks(order, batch_size)

    def __getitem__(self, index: int) -> dict[str, Any] | None:
        """{"image": (3, size, size) uint8, "label": number of the class or -1, "index"}; None if it cannot be read."""
        if not 0 <= index < len(self):
            raise IndexError(f"picture {index} of {len(self)}")  # this is what ends a `for`
        try:
            rgb = self._read(index)
        except (UserError, OSError):
            return None
        augment = self.augmentation
        image = augment.view(rgb, self.size, self.epoch, index) if augment else centre_view(rgb, self.size)
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
        raise UserError(f"cannot make this folder: {error.strerror}", cache=folder) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError("cannot write to this folder; give another one", cache=folder)
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
    """{"image": (B, 3, size, size) uint8, or "maps" (B, C, h, w), "label", "index": (B) int64}, or None of nothing."""
    there = [sample for sample in samples if sample is not None]
    return default_collate(there) if there else None


class CachedFeatures(Dataset):
    """What a frozen body makes of pictures: {"maps": (C, h, w), "label", "index"}, None for one that is broken.

    Computed at once by `extract`: images (B, 3, size, size) uint8 -> maps (B, C, h, w) on the CPU.
    """

    def __init__(self, extract: Callable[[Tensor], Tensor], pictures: DogCatDataset, batch: int, workers: int = 0):
        self.pictures = pictures
        self.found: dict[int, dict[str, Any]] = {}
        # The global generator is for the training: a resumed one computes this once more.
        own = torch.Generator()
        loader = DataLoader(pictures, batch, collate_fn=collate, num_workers=workers, generator=own)
        for samples in tqdm(batches_of(loader), "features", len(loader), unit="batch", leave=False):
            if samples is None:
                continue
            maps = extract(samples["image"])
            for i, index in enumerate(samples["index"].tolist()):
                self.found[index] = {"maps": maps[i].clone(), "label": int(samples["label"][i]), "index": index}

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> dict[str, Any] | None:
        return self.found.get(index)

    def fault(self, index: int) -> str:
        return self.pictures.fault(index)
