"""infer/painting/styles.py: choosing, loading, strengths and mixtures; whole paintings are the oracle."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import infer.painting.styles
from infer.painting.colors import blend
from infer.painting.styles import CHINESE, StylePainter, choose_styles, load_painter, style_label
from infer.painting.tiles import Painter
from models.lenet import LeNet
from tests.painting import STYLES, as_examples, called, is_near, noise, painted, photo, pixels, tiny
from utils.errors import UserError


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    tiny().save(path)
    return str(path)


# --------------------------------------------------------------------------------------------- choosing the styles


@pytest.mark.parametrize(
    "text, weights",
    [
        ("", {"great_wave": 1}),
        ("the_scream", {"the_scream": 1}),
        ("wave", {"great_wave": 1}),
        ("WAVE", {"great_wave": 1}),
        ("starf", {"starfish": 1}),
        ("s", ["s may be starry_night or starfish"]),
        ("t", {"the_scream": 1}),  # what begins with it goes before what has it inside
        ("wave:0.6,starry:0.4", {"great_wave": 0.6, "starry_night": 0.4}),
        ("wave:3, the_scream", {"great_wave": 3, "the_scream": 1}),
        ("wave,great:0.5", {"great_wave": 1.5}),
        ("星夜", {"starry_night": 1}),
        ("呐喊：2，巨浪", {"the_scream": 2, "great_wave": 1}),
        ("starry_nihgt", ["starry_nihgt", "great_wave, starry_night", "did you mean starry_night?"]),
        ("list", ["great_wave, starry_night, the_scream, starfish"]),
        ("star", ["star may be starry_night or starfish"]),
        ("wave:0", ["'0' is no weight"]),
        ("wave:inf", ["'inf' is no weight"]),
        ("wave:", ["'' is no weight"]),
        (":1", ["this network has"]),
        ("wave,,starry", ["a part is empty", "wave:0.6,sea:0.4"]),
        ("wave starry", ["commas part a mixture"]),
    ],
)
def test_styles_are_chosen_by_part_of_their_name_and_weight(text, weights):
    if isinstance(weights, dict):
        assert choose_styles(text, STYLES) == weights
        return
    with pytest.raises(UserError) as error:
        choose_styles(text, STYLES)
    message = str(error.value)
    assert message.startswith(f"style={text}: ") and "\n" not in message
    assert all(words in message for words in weights)


def test_a_name_that_looks_like_a_mixture_is_found_first():
    assert choose_styles("a:2,b", ["b", "a:2,b"]) == {"a:2,b": 1}
    assert choose_styles("sea", ["seaside", "sea"]) == {"sea": 1}


def test_a_label_is_fit_for_a_file_name():
    assert style_label({"great_wave": 0.6, "starry": 0.4}) == "great_wave+starry"
    assert style_label({"../a b": 1, "星": 1}) == ".._a_b+星"


def test_chinese_names_are_not_ambiguous():
    names = [alias for aliases in CHINESE.values() for alias in aliases]
    assert len(names) == len(set(names)) and not set(names) & set(CHINESE)


# ------------------------------------------------------------------------------------------ strengths and mixtures


def in_one_style(rgb: np.ndarray, style: str) -> np.ndarray:
    return Painter(tiny()[style]).paint(rgb).astype(float)


@pytest.mark.parametrize("strength", [0.2, 0.5, 1.0, 1.2, 1.5])
def test_a_strength_is_between_whole_pictures(strength):
    """The photograph, its painting, and the painting of that; rounding apart."""
    rgb = np.stack([noise(), noise(seed=1)])
    once = in_one_style(rgb, "great_wave")
    twice = in_one_style(once.astype(np.uint8), "great_wave")
    expected = rgb + strength * (once - rgb) if strength <= 1 else once + (strength - 1) * (twice - once)
    result = StylePainter(tiny(), "great_wave", strength, "fp32").paint(rgb)
    assert result.dtype == np.uint8 and np.abs(result - expected).max() <= 0.51
    assert np.array_equal(rgb, np.stack([noise(), noise(seed=1)]))  # the caller keeps his picture


def test_without_strength_the_picture_stays_as_it_is(monkeypatch):
    monkeypatch.setattr(Painter, "paint", None)  # no network is needed
    rgb = noise()[None]
    result = StylePainter(tiny(), "great_wave", 0.0, "fp32").paint(rgb)
    assert (result == rgb).all() and not np.shares_memory(result, rgb)


def test_a_mixture_is_the_weighted_mean_of_paintings():
    rgb, text = noise()[None], "wave:3,starry:2,scream:5"
    expected = sum(w * in_one_style(rgb, s) for w, s in ((0.3, STYLES[0]), (0.2, STYLES[1]), (0.5, STYLES[2])))
    mixed = StylePainter(tiny(), text, 1.0, "fp32").paint(rgb)
    assert np.abs(mixed - expected).max() <= 1.5  # rounded on the way
    half = StylePainter(tiny(), text, 0.5, "fp32").paint(rgb)
    assert np.abs(half - blend(rgb, mixed.copy(), 0.5).astype(int)).max() == 0


@pytest.mark.parametrize("style, strength", [("wave", 0.5), ("wave,starry", 1.0), ("wave,starry", 1.5)])
def test_progress_rises_to_one(style, strength):
    told = []
    StylePainter(tiny(), style, strength, "fp32").paint(noise()[None], told.append)
    assert told == sorted(told) and told[-1] == 1.0 and len(told) > 5


@pytest.mark.parametrize("strength", [-0.1, 1.6, float("nan"), float("inf")])
def test_strengths_that_are_none(strength):
    with pytest.raises(UserError, match="^strength=.*: must lie between 0, the photograph, and 1.5$"):
        StylePainter(tiny(), "wave", strength)


def test_style_strength_and_stroke_reach_the_network(capsys, network, tmp_path):
    path, out, mixture = photo(tmp_path / "a.png"), tmp_path / "b.png", "wave:0.6,starry:0.4"
    for words, how in (([], ()), ([f"--style={mixture}", "--strength=0.3", "--stroke=0"], (mixture, 0.3, 0))):
        code, _, err = called(capsys, path, f"--out={out}", f"--load={network}", "--precision=fp32", *words)
        assert code == 0, err
        assert is_near(pixels(out), painted(network, path, *how))


def test_the_styles_are_listed(capsys, network):
    listed = "great_wave 神奈川浪\nstarry_night 星月夜\nthe_scream 呐喊\nstarfish\n"
    assert called(capsys, f"--load={network}", "--style=list")[:2] == (0, listed)


def test_the_other_options_reach_the_painter(capsys, network, tmp_path, monkeypatch):
    given = []

    class Spy(Painter):
        def __init__(self, model, *options):
            given.append(options)
            super().__init__(model, *options)

    monkeypatch.setattr(infer.painting.styles, "Painter", Spy)
    path = photo(tmp_path / "a.png")
    words = ("--precision=bf16", "--memory_limit=7", "--tile=64", "--stroke=0")
    assert called(capsys, path, f"--load={network}", *words)[0] == 0
    assert given == [("bf16", 7, 64)]


# ----------------------------------------------------------------------------------------------- networks of others


@pytest.mark.parametrize("suffix", [".pth", ".model", ".safetensors"])
def test_weights_of_the_examples_paint_the_same_picture(capsys, tmp_path, suffix):
    save = save_file if suffix == ".safetensors" else torch.save
    save(as_examples(tiny("scream")), tmp_path / f"mosaic{suffix}")
    path, out = photo(tmp_path / "a.png"), tmp_path / "b.png"
    words = (path, f"--load={tmp_path}/mosaic{suffix}", f"--out={out}", "--precision=fp32", "--stroke=0")
    code, _, err = called(capsys, *words)
    assert code == 0 and "mosaic 100%" in err
    tiny("scream").save(tmp_path / "tiny.safetensors")
    expected = painted(tmp_path / "tiny.safetensors", path, stroke=0)
    assert is_near(pixels(out), expected) and expected.std() > 5


def test_other_files_are_refused_in_one_line(capsys, network, tmp_path):
    path = photo(tmp_path / "a.png")
    torch.save({"weight": torch.ones(3)}, tmp_path / "other.pth")
    torch.save(torch.ones(3), tmp_path / "tensor.pth")
    torch.save(tiny(), tmp_path / "whole.pth")
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "cut.safetensors").write_bytes(Path(network).read_bytes()[:-100])
    LeNet(["cat", "dog"]).save(tmp_path / "lenet.safetensors")
    for name, told in {
        "other.pth": "other.pth is no style network of pytorch/examples or pytorch-book: it has no conv1.conv2d.weight",
        "tensor.pth": "tensor.pth holds no state dict",
        "whole.pth": "whole.pth holds a whole Python object",
        "text.pth": "text.pth is not a readable weight file, or was cut short",
        "cut.safetensors": "cut.safetensors is not a readable weight file, or was cut short",
        "lenet.safetensors": "lenet.safetensors holds a LeNet, not a StyleNetworks",
        "none.pth": f"--load={tmp_path}/none.pth does not exist",
        "": f"cannot read {tmp_path}: Is a directory; give a weight file",
    }.items():
        code, out, err = called(capsys, path, f"--load={tmp_path / name}")
        assert code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 0, err
        assert f"error: {tmp_path}/{told}" in err or f"error: {told}" in err, err
    assert load_painter(network).styles == STYLES
