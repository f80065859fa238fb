"""Makes the pictures of the README with the project's own networks: `python docs/make_pictures.py [NAME …]`.

The photographs come with scikit-image (a development dependency): coffee (CC0, Rachel Michetti), Chelsea the cat (CC0,
Stefan van der Walt), the astronaut Eileen Collins and a rocket (public domain, NASA and SpaceX).
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

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from config import DogCatConfig  # noqa: E402
from infer.painting.files import load_network  # noqa: E402
from infer.painting.tiles import Painter  # noqa: E402
from infer.photo.classify import open_model  # noqa: E402
from infer.photo.explain import explain_prediction  # noqa: E402
from infer.postcard.card import postcard as set_poem  # noqa: E402
from infer.postcard.fonts import choose_face  # noqa: E402
from infer.postcard.text import Inscription  # noqa: E402
from infer.verse.compose import compose  # noqa: E402
from infer.verse.settings import PoemSettings  # noqa: E402
from models.poet import Poet  # noqa: E402
from tasks.dogcat import DogCatTask  # noqa: E402
from utils.hardware import choose_precision  # noqa: E402
from utils.images import grid, read_image, save_image  # noqa: E402

PHOTOS = ("coffee", "chelsea", "astronaut", "rocket")
SIDE = 512  # pixels that are painted
SHOWN = 240  # pixels in the sheet
DRAWN = ("cat.0.jpg", "dog.0.jpg")  # of the embedded sample
# Photograph, style, title, form of the postcards.
CARDS = (("camera", "great_wave", "秋郊", "七绝"), ("coffee", "starry_night", "茶烟", "五绝"))
SEAL = "诗画"
CHROMIUM = shutil.which("chromium") or "chromium"
PICTURES = Path(__file__).parent / "pictures"


def shown(rgb: np.ndarray) -> np.ndarray:
    """(H, W, 3) at the size that it has in the sheet."""
    return np.asarray(Image.fromarray(rgb).resize((SHOWN, SHOWN), Image.Resampling.LANCZOS))


def contact_sheet() -> None:
    """A row for each style, a column for each photograph; the photographs themselves on top."""
    model = load_network(ROOT / "checkpoints" / "style.safetensors")
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
    model = load_network(ROOT / "checkpoints" / "style.safetensors")
    photo = np.asarray(ImageOps.fit(Image.fromarray(skimage.data.chelsea()), (SIDE, SIDE)))[None]
    precision, _ = choose_precision("auto", gpu=False)
    first, second = "great_wave", "the_scream"
    settings = [(f"{first} {s:g}", {first: 1.0}, s) for s in (0.0, 0.5, 1.0, 1.5)]
    settings.append((f"half {second}", {first: 1.0, second: 1.0}, 1.0))
    row = [shown(Painter(model, model.mixture(mix, s), precision).paint(photo)[0]) for _, mix, s in settings]
    sheet = grid([row], column_labels=[label.replace("_", " ") for label, _, _ in settings])
    save_image(PICTURES / "strength.jpg", sheet, quality=88)


def explanations() -> None:
    """A photograph and drawn animals, each with what speaks for the class that it is of."""
    model = open_model(ROOT / "checkpoints" / "dogcat.safetensors")
    sample = ROOT / "dataset" / "sample" / "dogcat" / "train"
    pictures = [
        (skimage.data.chelsea(), 0),
        *((read_image(sample / name).rgb, number) for number, name in enumerate(DRAWN)),
    ]
    row = []
    for rgb, target in pictures:
        shown = (rgb, explain_prediction(model, rgb, target))
        row += [np.asarray(ImageOps.fit(Image.fromarray(p), (SHOWN, SHOWN))) for p in shown]
    save_image(PICTURES / "dogcat.jpg", grid([row]), quality=88)


def postcard() -> None:
    """Postcards with the poet's own verse: one with room for it, one without."""
    painter = load_network(ROOT / "checkpoints" / "style.safetensors")
    poet = Poet.load(ROOT / "checkpoints" / "poet.safetensors")
    precision, _ = choose_precision("auto", gpu=False)
    cards = []
    for name, style, title, form in CARDS:
        photo = np.asarray(Image.fromarray(getattr(skimage.data, name)()).convert("RGB"))
        painting = Painter(painter, painter.mixture({style: 1.0}), precision).paint(photo[None])[0]
        [poem] = compose(poet, PoemSettings(form=form, title=title), seed=1)
        text = Inscription(poem.verses, title, seal=SEAL)
        cards.append(set_poem(painting, text, choose_face(text.characters)[0]).rgb)
    height, gap = 420, 12
    row = [Image.fromarray(c).resize((round(c.shape[1] * height / len(c)), height), Image.LANCZOS) for c in cards]
    sheet = Image.new("RGB", (sum(card.width + gap for card in row) - gap, height), "white")
    left = 0
    for card in row:
        sheet.paste(card, (left, 0))
        left += card.width + gap
    save_image(PICTURES / "postcard.jpg", np.asarray(sheet), quality=88)


def report() -> None:
    """The first screen of the report about the embedded test pictures."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        cfg = DogCatConfig(task="dogcat", load=str(ROOT / "checkpoints" / "dogcat.safetensors"), out=folder)
        DogCatTask(cfg).evaluate("test")
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        page.goto(Path(folder, "report.html").as_uri())
        page.screenshot(path=PICTURES / "report.jpg", type="jpeg", quality=80)
        browser.close()


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
    """The page with a poem, on a desk and on a phone."""
    from playwright.sync_api import sync_playwright

    shots = []
    with serving("demo", port=7899) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for width in (1000, 390):
            view = browser.new_page(viewport={"width": width, "height": 760})
            view.goto(address)
            view.get_by_label("题目 Title").locator("visible=true").fill("春江夜泊")
            view.get_by_role("button", name="写诗 Compose").locator("visible=true").click()
            view.locator(".card").nth(3).wait_for(timeout=60_000)
            view.evaluate("scrollTo(0, 0)")
            if width == 390:
                view.locator(".card").nth(0).scroll_into_view_if_needed()
            view.wait_for_timeout(500)
            shots.append(Image.open(io.BytesIO(view.screenshot())).convert("RGB"))
        browser.close()
    sheet = Image.new("RGB", (shots[0].width + shots[1].width + 12, shots[0].height), "white")
    sheet.paste(shots[0], (0, 0))
    sheet.paste(shots[1], (shots[0].width + 12, 0))
    save_image(PICTURES / "page.jpg", np.asarray(sheet), quality=80)


def board() -> None:
    """The board of a training of the poet on the embedded sample."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder:
        options = [f"--save_path={folder}", "--run=poet", "--use_visdom=false", "--max_epoch=6"]
        subprocess.run([sys.executable, "main.py", "train", *options], cwd=ROOT, check=True)
        with serving("visdom", f"{folder}/poet", port=8099) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
            view = browser.new_page(viewport={"width": 1300, "height": 1000})
            view.goto(f"{address}/env/poet")
            view.wait_for_selector(".barlayer .point", timeout=30_000)
            view.wait_for_timeout(2000)
            view.screenshot(path=PICTURES / "board.jpg", type="jpeg", quality=75)
            browser.close()


if __name__ == "__main__":
    for make in (contact_sheet, strengths, explanations, postcard, report, page, board):
        if not sys.argv[1:] or make.__name__ in sys.argv[1:]:
            make()
