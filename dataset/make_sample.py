"""Draws the pictures in dataset/sample: photographs that nobody took, paintings that nobody painted.

`python dataset/make_sample.py [FOLDER]` writes FOLDER/photos and FOLDER/styles, always the same ones. They are there so
that a training of the painter can show its work without any download; nothing else in the project needs this file.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from drawing.landscape import flowers, landscape, pebbles
from drawing.light import photograph
from drawing.painting import InkPainting, strokes_painting
from drawing.solids import still_life, village
from numpy import ndarray as Array
from numpy.random import Generator
from PIL import Image

LANDSCAPES = {
    "alps_noon": {"weather": "noon", "ground": "alpine", "relief": 1.2, "eye": 0.6},
    "alps_dawn": {"weather": "dawn", "ground": "alpine", "relief": 1.3, "eye": 0.8},
    "autumn_hills": {"weather": "clear", "ground": "autumn", "relief": 0.8, "eye": 0.4},
    "desert_dusk": {"weather": "dusk", "ground": "desert", "relief": 1.5, "eye": 0.5},
    "desert_noon": {"weather": "clear", "ground": "desert", "relief": 2.2, "eye": 0.9},
    "winter_ridge": {"weather": "clear", "ground": "winter", "relief": 1.3, "eye": 0.7},
    "winter_dusk": {"weather": "dusk", "ground": "winter", "relief": 1.0, "eye": 0.5},
    "misty_hills": {"weather": "grey", "ground": "spring", "relief": 1.0, "eye": 0.6},
    "lake_noon": {"weather": "noon", "ground": "alpine", "relief": 1.3, "lake": 0.8, "eye": 0.4},
    "lake_dawn": {"weather": "dawn", "ground": "spring", "relief": 1.2, "lake": 0.7, "eye": 0.5},
    "lake_autumn": {"weather": "noon", "ground": "autumn", "relief": 1.0, "lake": 0.8, "eye": 0.4},
    "fjord_dusk": {"weather": "dusk", "ground": "alpine", "relief": 1.4, "lake": 0.9, "eye": 0.5, "upright": True},
    "valley": {"weather": "noon", "ground": "spring", "relief": 1.4, "eye": 0.9, "upright": True},
}
VILLAGES = {
    "village_summer": ("noon", "alpine", 4, 6),
    "village_autumn": ("clear", "autumn", 3, 7),
    "village_winter": ("dawn", "winter", 4, 3),
    "park": ("noon", "spring", 0, 11),
}


def draw(folder: Path, only: str = "") -> None:
    """Writes the photographs and the paintings whose names contain `only`."""
    scenes: dict[str, Callable[[Generator], Array]] = {}
    for name, given in LANDSCAPES.items():
        scenes[name] = lambda rng, given=given: landscape(rng, **given)
    for name, given in VILLAGES.items():
        scenes[name] = lambda rng, given=given: village(rng, *given)
    for number in range(5):
        scenes[f"fruit_{number + 1}"] = lambda rng, number=number: still_life(rng, number)
    scenes |= {"pebbles": pebbles, "flowers": flowers}
    for seed, (name, scene) in enumerate(scenes.items()):
        rng = np.random.default_rng(seed)
        save(folder / "photos" / f"{name}.jpg", lambda rng=rng, scene=scene: photograph(rng, scene(rng)), only, 80)
    for name, painting in {"ink": lambda rng: InkPainting(rng).draw(), "strokes": strokes_painting}.items():
        save(folder / "styles" / f"{name}.jpg", lambda painting=painting: painting(np.random.default_rng(0)), only, 88)


def save(path: Path, make: Callable[[], Image.Image], only: str, quality: int) -> None:
    if only in path.stem:
        path.parent.mkdir(parents=True, exist_ok=True)
        make().save(path, quality=quality, optimize=True)
        print(f"{path}  {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent / "sample", *sys.argv[2:3])
