"""Makes the pictures of the README with the project's own networks: `python docs/make_pictures.py [NAME …]`.

Photographs of scikit-image: coffee (CC0, Rachel Michetti), Chelsea the cat (CC0, Stefan van der Walt), the astronaut
Eileen Collins and a rocket (public domain, NASA and SpaceX).
"""

import contextlib
import io
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image, ImageOps
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import shihua  # noqa: E402
from utils.images import grid, save_image  # noqa: E402

PHOTOS = ("coffee", "chelsea", "astronaut", "rocket")
SIDE = 512  # pixels that are painted
SHOWN, LARGE = 240, 360  # pixels in a sheet
FORMER_PAINTER = "6968e14:checkpoints/style.safetensors"
SAMPLE = ROOT / "dataset" / "sample" / "dogcat" / "train"
# Photograph, style, title, form of the postcards: one has room for its poem, one has not.
CARDS = (("camera", "sesshu_autumn", "秋郊", "七绝"), ("coffee", "starry_night", "茶烟", "五绝"))
PICTURES = Path(__file__).parent / "pictures"


def photo_of(name: str) -> Image.Image:
    return ImageOps.fit(Image.fromarray(getattr(skimage.data, name)()).convert("RGB"), (SIDE, SIDE))


def shown(image: Image.Image, side: int = SHOWN) -> np.ndarray:
    """(H, W, 3) at the size that it has in a sheet."""
    return np.asarray(ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS))


def save_row(name: str, images: list[Image.Image], quality: int) -> None:
    """Pictures of one height, side by side."""
    white = np.full((images[0].height, 12, 3), 255, np.uint8)
    parts = [part for image in images for part in (white, np.asarray(image))]
    save_image(PICTURES / name, np.hstack(parts[1:]), quality=quality)


def styles() -> None:
    """A row for each style, a column for each photograph; the photographs themselves on top."""
    painter, photos = shihua.Painter(), [photo_of(name) for name in PHOTOS]
    rows = [photos, *([painter.paint(photo, style=style) for photo in photos] for style in painter.styles)]
    labels = ("photograph", *(name.replace("_", " ") for name in painter.styles))
    sheet = grid([[shown(image) for image in row] for row in rows], row_labels=labels)
    save_image(PICTURES / "styles.jpg", sheet, quality=78)


def before() -> None:
    """Photographs as the former network (one for all styles, Gram matrices) painted them, and as it is done now."""
    old = subprocess.run(["git", "show", FORMER_PAINTER], cwd=ROOT, check=True, capture_output=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "style.safetensors")
        file.write_bytes(old)
        pairs = list(zip(PHOTOS, ("starry_night", "great_wave", "composition_vii", "the_scream"), strict=True))
        rows = [[shown(painter.paint(photo_of(photo), style=style), LARGE) for photo, style in pairs]
                for painter in (shihua.Painter(file), shihua.Painter())]  # fmt: skip
    save_image(PICTURES / "before.jpg", grid(rows, row_labels=("before", "now")), quality=82)


def strength() -> None:
    """One photograph from strength 0 to 1.5, and a mixture."""
    painter, photo = shihua.Painter(), photo_of("chelsea")
    row = {f"great wave {s:g}": {"style": "great_wave", "strength": s} for s in (0.0, 0.5, 1.0, 1.5)}
    row["half the scream"] = {"style": "great_wave,the_scream"}
    sheet = grid([[shown(painter.paint(photo, **how)) for how in row.values()]], column_labels=list(row))
    save_image(PICTURES / "strength.jpg", sheet, quality=88)


def dogcat() -> None:
    """A photograph and drawn animals, each with what speaks for its class."""
    classifier, row = shihua.Classifier(), []
    for photo in (photo_of("chelsea"), *(Image.open(SAMPLE / f"{name}.0.jpg") for name in ("cat", "dog"))):
        overlay = classifier(photo, explain=True).overlay
        row += [shown(photo), shown(Image.fromarray(overlay))]
    save_image(PICTURES / "dogcat.jpg", grid([row]), quality=88)


def postcard() -> None:
    """Postcards with the poet's own verse."""
    cards = []
    for name, style, title, form in CARDS:
        photo = getattr(skimage.data, name)()
        card = shihua.postcard(photo, style=style, title=title, form=form, seed=1).image
        cards.append(card.resize((round(card.width * 420 / card.height), 420), Image.Resampling.LANCZOS))
    save_row("postcard.jpg", cards, quality=88)


@contextmanager
def browsing(width: int, height: int, locale: str = "en") -> Iterator[Page]:
    """A page of Chromium."""
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or "chromium"
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser.new_page(viewport={"width": width, "height": height}, locale=locale)
        browser.close()


def report() -> None:
    """The first screen of the report about the embedded test pictures."""
    with tempfile.TemporaryDirectory() as folder, browsing(1100, 900) as view:
        words = ["test", "--load=checkpoints/dogcat.safetensors", f"--out={folder}"]
        subprocess.run([sys.executable, "main.py", *words], cwd=ROOT, check=True)
        view.goto(Path(folder, "report.html").as_uri())
        view.screenshot(path=PICTURES / "report.jpg", type="jpeg", quality=80)


@contextmanager
def serving(*arguments: str, port: int) -> Iterator[str]:
    """The address of `main.py ARGUMENTS` while it serves there."""
    process = subprocess.Popen([sys.executable, "main.py", *arguments, f"--port={port}"], cwd=ROOT)
    try:
        while process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def page() -> None:
    """The page with a poem, on a desk in Chinese and on a phone in English."""
    shots = []
    with serving("demo", port=7899) as address:
        for width, locale, title in ((1000, "zh-CN", "题目"), (390, "en", "Title")):
            with browsing(width, 760, locale) as view:
                view.goto(address)
                view.get_by_label(title).locator("visible=true").fill("春江夜泊")
                view.locator("#start-compose").click()
                view.locator(".card").nth(3).wait_for(timeout=60_000)
                view.evaluate("scrollTo(0, 0)")
                if width == 390:
                    view.locator(".card").nth(0).scroll_into_view_if_needed()
                view.wait_for_timeout(500)
                shots.append(Image.open(io.BytesIO(view.screenshot())).convert("RGB"))
    save_row("page.jpg", shots, quality=80)


def board() -> None:
    """The board of a training of the poet on the embedded sample."""
    with tempfile.TemporaryDirectory() as folder:
        options = [f"--save_path={folder}", "--run=poet", "--use_visdom=false", "--max_epoch=2"]
        subprocess.run([sys.executable, "main.py", "train", *options], cwd=ROOT, check=True)
        with serving("visdom", f"{folder}/poet", port=8099) as address, browsing(1300, 1000) as view:
            view.goto(f"{address}/env/poet")
            view.wait_for_selector(".heatmaplayer .hm", timeout=30_000)
            view.wait_for_timeout(2000)
            view.screenshot(path=PICTURES / "board.jpg", type="jpeg", quality=75)


if __name__ == "__main__":
    for make in (styles, before, strength, dogcat, postcard, report, page, board):
        if not sys.argv[1:] or make.__name__ in sys.argv[1:]:
            make()
