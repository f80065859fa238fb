"""Makes the pictures of the README with the project's own painter: `python docs/make_pictures.py`.

The photographs come with scikit-image (a development dependency): coffee (CC0, Rachel Michetti), Chelsea the cat (CC0,
Stefan van der Walt), the astronaut Eileen Collins and a rocket (public domain, NASA and SpaceX).
"""

import sys
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image, ImageOps

sys.path.insert(0, str(Path(__file__).parents[1]))

from infer.paint import Painter  # noqa: E402
from infer.stylize import load_network  # noqa: E402
from utils.hardware import choose_precision  # noqa: E402
from utils.images import grid, save_image  # noqa: E402

PHOTOS = ("coffee", "chelsea", "astronaut", "rocket")
SIDE = 512  # pixels that are painted
SHOWN = 240  # pixels in the sheet
PICTURES = Path(__file__).parent / "pictures"


def shown(rgb: np.ndarray) -> np.ndarray:
    """(H, W, 3) at the size that it has in the sheet."""
    return np.asarray(Image.fromarray(rgb).resize((SHOWN, SHOWN), Image.Resampling.LANCZOS))


def contact_sheet() -> None:
    """A row for each style, a column for each photograph; the photographs themselves on top."""
    model = load_network(Path(__file__).parents[1] / "checkpoints" / "style.safetensors")
    photos = np.stack([
        np.asarray(ImageOps.fit(Image.fromarray(getattr(skimage.data, name)()), (SIDE, SIDE))) for name in PHOTOS
    ])  # fmt: skip
    rows = [photos]
    precision, _ = choose_precision("auto", gpu=False)
    for name in model.styles:
        rows.append(Painter(model, model.mixture({name: 1.0}), precision).paint(photos))
    labels = ("photograph", *(name.replace("_", " ") for name in model.styles))
    sheet = grid([[shown(rgb) for rgb in row] for row in rows], row_labels=labels)
    save_image(PICTURES / "styles.jpg", sheet, quality=88)


def strengths() -> None:
    """One photograph from strength 0 to 1.5, and a mixture."""
    model = load_network(Path(__file__).parents[1] / "checkpoints" / "style.safetensors")
    photo = np.asarray(ImageOps.fit(Image.fromarray(skimage.data.chelsea()), (SIDE, SIDE)))[None]
    precision, _ = choose_precision("auto", gpu=False)
    first, second = "great_wave", "the_scream"
    settings = [(f"{first} {s:g}", {first: 1.0}, s) for s in (0.0, 0.5, 1.0, 1.5)]
    settings.append((f"half {second}", {first: 1.0, second: 1.0}, 1.0))
    row = [shown(Painter(model, model.mixture(mix, s), precision).paint(photo)[0]) for _, mix, s in settings]
    sheet = grid([row], column_labels=[label.replace("_", " ") for label, _, _ in settings])
    save_image(PICTURES / "strength.jpg", sheet, quality=88)


if __name__ == "__main__":
    contact_sheet()
    strengths()
