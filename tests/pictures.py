"""Pictures, folders of pictures and classifiers of random weights that tests make."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.labels import Sample
from data.photos import Source
from models import BACKBONES


def noise(width: int = 40, height: int = 30, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def smooth(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Something like a photograph: no detail finer than a tenth of it."""
    return np.array(Image.fromarray(noise(10, 10, seed)).resize((width, height), Image.Resampling.BICUBIC))


def ramp(width: int, height: int) -> np.ndarray:
    """Red is the column, green the row, both from 0 to 255, so that a view tells where it is from."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([x, y, 0 * x], -1).round().astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def make(place: Path, *names: str, **more) -> Path:
    """Files of these names below `place`, each with another picture."""
    for number, name in enumerate(names):
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(noise(seed=number, **more)))
    return place


def pack(folder: Path, archive: Path, prefix: str = "") -> Path:
    with tarfile.open(archive, "w") as tar:
        tar.add(folder, prefix or ".")
    return archive


def invented(**counts: int) -> list[Sample]:
    names = [f"{label}.{i}.jpg" for label, count in counts.items() for i in range(count)]
    return [Sample(Source(name, Path("root")), name.split(".")[0], name[:-4]) for name in names]


def one_line(error: pytest.ExceptionInfo) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def write_picture(path: Path, seed: int, size: tuple[int, int] = (48, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(6, 5, seed)).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def save_lenet(path: Path, classes: tuple[str, ...] = ("cat", "dog"), **metadata: float) -> Path:
    """A LeNet of random weights: it is as sure of noise as others are of animals."""
    torch.manual_seed(0)
    model = BACKBONES["lenet"](list(classes))
    with torch.no_grad():
        model.fc3.weight.normal_(std=0.5)
    model.save(path, **{"image_size": 32, "temperature": 2.0, "threshold": 0.0, **metadata})
    return path
