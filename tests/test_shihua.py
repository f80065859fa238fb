"""The project as a library: what it takes, what it says of mistakes, that it loads a model once and prints nothing."""

import logging
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from PIL import Image

import shihua
from models.transformer_net import StyleNetworks
from tests.servers import ROOT
from utils.errors import UserError

SIDE = 40


@pytest.fixture(scope="module")
def painter(tmp_path_factory) -> shihua.Painter:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("models") / "style.safetensors"
    StyleNetworks({name: {"channels": (4, 4, 4), "blocks": 1} for name in ("sea", "ink")}).save(file)
    return shihua.Painter(file)


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


def test_an_import_is_light_and_a_model_is_loaded_when_it_is_needed():
    script = "import shihua, sys; shihua.Painter().styles; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True).stdout == "[]\n"


def test_a_model_is_loaded_once_whoever_asks(painter, monkeypatch):
    loaded, again = [], shihua.Painter(painter.file)
    monkeypatch.setattr(again, "_load", lambda device: loaded.append(device) or object())
    threads = [threading.Thread(target=lambda: again.network) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loaded == ["cpu"]


def test_photographs_may_be_anything(painter, rgb, tmp_path, capsys):
    path = tmp_path / "photo.png"
    Image.fromarray(rgb).save(path)
    expected = np.asarray(painter.paint(rgb, style="sea", precision="fp32"))
    assert expected.shape == rgb.shape and np.abs(expected.astype(int) - rgb).mean() > 1
    with open(path, "rb") as file:
        for photo in (path, str(path), file, Image.fromarray(rgb), shihua.read(rgb)):
            assert (np.asarray(painter.paint(photo, style="sea", precision="fp32")) == expected).all()
    painting = painter.paint(np.dstack((rgb, rgb[..., 0])), style="sea", strength=0)
    assert (np.asarray(painting) == np.dstack((rgb, rgb[..., 0]))).all()  # transparent where the photograph is
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("asked", "argument", "message"),
    [
        ({"strength": 2}, "strength", "strength=2: must be at most 1.5"),
        ({"strength": "much"}, "strength", "strength=much: expected a number"),
        ({"style": "wave"}, "style", "style=wave: this network has sea, ink"),
        ({"stlye": "sea"}, "stlye", "stlye: there is no such setting; did you mean style?"),
        ({"photo": np.zeros((4, 4, 3), complex)}, "photo", "photo: must be a path, a file"),
    ],
)
def test_a_mistake_carries_the_name_of_its_argument_and_no_dashes(painter, rgb, asked, argument, message):
    with pytest.raises(UserError) as error:
        painter.paint(**{"photo": rgb, **asked})
    assert error.value.argument == argument and str(error.value).startswith(message) and "--" not in str(error.value)


def test_progress_goes_from_0_to_1_and_cancels(painter, rgb):
    shares = []
    painter.paint(rgb, progress=shares.append)
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1)

    def cancel(share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        painter.paint(rgb, progress=cancel)


def test_remarks_go_to_the_logger(painter, rgb, caplog):
    with caplog.at_level(logging.INFO, "shihua"):
        painter.paint(rgb, style="sea:1,ink:3")
    assert "sea 25% + ink 75%, strength 1" in caplog.text


def test_a_poem_of_the_poet_becomes_a_card(rgb, tmp_path):
    (poem,) = shihua.Poet().write("春江", form="五绝", seed=1, candidates=2)
    assert poem.title == "春江" and [len(verse) for verse in poem.verses] == [5] * 4 == [len(t) for t in poem.tones]
    assert poem.rhymes[1] and poem.rhymes[3] and str(poem).startswith("《春江》\n") and poem.check.regular
    card = shihua.postcard(rgb, poem, style="none", place="paper")
    assert (card.title, card.lines, card.seed, card.place) == ("春江", poem.verses, None, "paper")
    with pytest.raises(UserError, match="name the file"):
        card.save()
    with Image.open(card.save(tmp_path / "card.png")) as image:
        assert image.size == card.image.size
