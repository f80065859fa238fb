"""dataset/sample: the pictures that a training starts with when it is given none, and the script that drew them."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.photos import EMBEDDED, HELD_OUT, choose_split, list_pictures
from utils.images import read_image

ROOT = Path(__file__).resolve().parent.parent
STYLES = EMBEDDED.parent / "styles"


def files(folder: Path) -> dict[str, Path]:
    return {source.path.stem: source.path for source in list_pictures(folder)}


def test_there_are_photographs_for_every_split():
    sources = list_pictures(EMBEDDED)
    splits = {name: {s.name for s in choose_split(sources, name)} for name in ("train", "val", "test")}
    assert len(splits["train"]) >= 20 and splits["val"] and splits["test"]
    assert len(set().union(*splits.values())) == sum(map(len, splits.values())) == len(sources) == 24 > HELD_OUT


def test_they_are_small_and_of_the_size_that_the_readme_tells():
    readme = (EMBEDDED.parent / "README.md").read_text()
    sides = tuple(map(int, re.search(r"(\d+) x (\d+) pixels", readme).groups()))
    assert f"{len(files(EMBEDDED))} " in readme and f"{len(files(STYLES))} paintings" in readme
    assert all(f"`{name}`" in readme for name in files(STYLES))
    for folder, limit in ((EMBEDDED, 500_000), (STYLES, 250_000)):
        assert sum(path.stat().st_size for path in files(folder).values()) < limit
    for path in files(EMBEDDED).values():
        with Image.open(path) as image:
            assert tuple(sorted(image.size)) == sides and image.format == "JPEG" and image.mode == "RGB"


@pytest.mark.parametrize("name", files(EMBEDDED))
def test_a_photograph_has_the_statistics_of_one(name):
    """Contrast, colours, and a spectrum that falls with the frequency, neither flat (noise) nor empty (a drawing)."""
    rgb = read_image(EMBEDDED / f"{name}.jpg").rgb.astype(float)
    grey = rgb.mean(axis=2)
    assert grey.std() > 15 and np.ptp(grey) > 100
    assert (rgb.max(axis=2) - rgb.min(axis=2)).mean() > 8
    square = grey[:288, :288] - grey[:288, :288].mean()
    power = np.abs(np.fft.fft2(square * np.outer(np.hanning(288), np.hanning(288)))) ** 2
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(288) * 288, np.fft.fftfreq(288) * 288))
    rings = np.arange(4, 72)
    mean = [power[(radius >= r) & (radius < r + 1)].mean() for r in rings]
    slope = np.polyfit(np.log(rings), np.log(mean), 1)[0]
    assert -4.2 < slope < -1.2  # photographs: about -2
