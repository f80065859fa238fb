"""The board of a run in a real browser: curves, histograms and poems are seen, and no script runs out of a text."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.servers import Server, free_port, lacking
from training.recorder import Recorder

POEM = "春眠不觉晓，处处闻啼鸟。\n夜来风雨声，花落知多少。"
EVIL = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script> $\\href{javascript:window.hacked=1}{x}$'


def make_run(folder: Path) -> None:
    rng = np.random.default_rng(0)
    names = [f"{layer}.weight" for layer in ("embed", "lstm_0", "lstm_1", "project", "form", EVIL)]
    recorder = Recorder(folder)
    recorder.config({"task": "poet", "lr": 2e-3, "batch_size": 32, "data_root": EVIL})
    step = 0
    for epoch in range(3):
        for _ in range(500):
            step += 1
            loss = 4.2 + 4.5 * np.exp(-step / 250) + 0.1 * rng.normal()
            times = {"data_time": 0.004 + 0.001 * rng.random(), "model_time": 0.12 + 0.01 * rng.random()}
            recorder.batch(step, epoch, loss=loss, bits_per_char=loss / np.log(2), lr=2e-3 / 2**epoch, **times)
        recorder.epoch(step, epoch, "train", loss=loss, perplexity=np.exp(loss))
        recorder.epoch(step, epoch, "val", loss=loss + 0.1, bits_per_char=1.5 * loss, perplexity=1.1 * np.exp(loss))
        recorder.gradients(step, epoch, {name: (-rng.random(), 0.0, rng.random()) for name in names})
        for name in names:
            recorder.histogram(step, epoch, name, rng.normal(size=2000))
        recorder.text(step, epoch, "poems", POEM)
        recorder.text(step, epoch, EVIL, EVIL)
    x, y = np.meshgrid(np.linspace(0, 255, 320), np.linspace(0, 255, 200))
    Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8)).save(folder / "styled.png")
    recorder.image(step, epoch, "styled", folder / "styled.png")
    recorder.curve(
        step, epoch, "precision_recall", {"dog": (x[0] / 255, 1 - (x[0] / 255) ** 4)}, ("recall", "precision")
    )
    recorder.final(step, epoch, {"loss": float(loss)})
    recorder.close()


@contextmanager
def chromium() -> Iterator[Any]:
    """Playwright's browser; where it is lacking the test is skipped, or fails in CI."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        lacking("playwright is not installed (dependency group dev)")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        lacking("no chromium on the PATH")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page():
    with chromium() as browser:
        yield browser.new_page(viewport={"width": 1300, "height": 2400})


def test_the_board_shows_curves_histograms_and_poems(tmp_path, page):
    make_run(tmp_path / "poet")
    server = Server(tmp_path / "data", free_port(), str(tmp_path / "poet"))
    try:
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("requestfailed", lambda request: errors.append(request.url))
        page.goto(f"http://127.0.0.1:{server.port}/env/poet", timeout=120_000)
        page.wait_for_selector("text=春眠不觉晓", timeout=120_000)
        page.wait_for_selector(".barlayer .point", timeout=120_000)

        traces = page.evaluate(
            """() => Object.fromEntries([...document.querySelectorAll('.plotly-graph-div')].map(plot => [
                plot.layout.title.text.split(',')[0],
                plot._fullData.map(trace => [trace.name, trace.x.length,
                    plot.querySelectorAll('.scatterlayer .trace').length])]))"""
        )
        assert [(name, drawn) for name, _, drawn in traces["loss"]] == [("train", 2), ("val", 2)]
        assert 500 <= traces["loss"][0][1] <= 1000 and traces["loss"][1][1] == 3
        assert [name for name, _, _ in traces["seconds per batch"]] == ["data", "model"]
        assert traces["precision recall"] == [["dog", 320, 1]]
        assert {"bits per char", "lr", "perplexity", "largest gradient", "histograms"} <= set(traces)
        assert page.locator(".barlayer .trace").count() == 6  # a small histogram a layer
        assert page.get_by_text("夜来风雨声，花落知多少。").first.is_visible()
        assert page.locator("img[src^='data:image/png']").first.is_visible()
        assert page.get_by_text("onerror=").first.is_visible()  # as text

        folder = Path(os.environ.get("ARTIFACTS") or tmp_path)
        folder.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=folder / "board.png")
        assert page.evaluate("window.hacked") is None
        assert errors == []
    finally:
        code = server.stop()
    assert (code, server.rest) == (0, "")
