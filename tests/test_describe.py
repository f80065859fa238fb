"""What a photograph shows in words, and the poem about it. The network is a stand-in; the shipped one is elsewhere."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import main
from data.photos import Source
from data.sights import imagenet_classes, scenes
from infer.photo.classify import SOMETHING_ELSE, TOO_MODEST, Answer, Pictures, _answer, calibrate_views
from infer.photo.describe import COLORS, describe_outputs
from infer.photo.pixels import horizon, main_colors
from models import EfficientNetLite0, LeNet

THINGS = {sight.name: number for number, sight in enumerate(imagenet_classes())}
SCENES = [scene.name for scene in scenes()]


def outputs(things: dict[str, float] | None = None, seen: str = "", maybe: str = "") -> dict[str, torch.Tensor]:
    """Logits of two views: ImageNet's classes with these probabilities, scenes that are `seen` or `maybe` there."""
    things = things or {}
    rest = (1 - sum(things.values())) / (1000 - len(things))
    imagenet = torch.full((1000,), rest).log()
    for name, chance in things.items():
        imagenet[THINGS[name]] = np.log(chance)
    chances = [0.9 if name in seen.split() else 0.4 if name in maybe.split() else 0.05 for name in SCENES]
    return {
        "logits": torch.tensor([[2.0, -2.0]] * 2),
        "imagenet": torch.stack([imagenet - 1, imagenet + 1]),
        "scenes": torch.tensor([chances] * 2).logit(),
    }


@pytest.mark.parametrize(
    "things, seen, title, words, absent",
    [
        ({"crane bird": 0.8}, "water bird day", "咏鹤", ["鹤", "水", "溪"], "雪霜夜雨月春夏秋冬"),
        ({}, "mountain autumn day", "秋日望山", ["青山", "秋", "霜叶"], "雪夜雨月春夏冬"),
        ({}, "snow mountain winter", "雪中望山", ["青山", "雪", "冬"], "夜雨月春夏秋"),
        ({}, "night street", "夜过城", ["城", "夜", "街"], "雪霜雨春夏秋冬"),
        ({}, "", "即事", [], "雪霜夜雨月春夏秋冬"),
        ({"espresso": 0.4}, "indoor", "尝新", ["苦", "窗", "香"], "雪霜夜雨月春夏秋冬"),
        ({"canoe": 0.4}, "people", "泛舟", ["扁舟"], "雪霜夜雨月春夏秋冬"),
    ],
)
def test_the_subject_of_a_poem(things, seen, title, words, absent):
    found = describe_outputs("a.jpg", outputs(things, seen), ["blue"])
    assert (found.title, found.words) == (title, words)
    assert {c for c in "雪霜夜雨月春夏秋冬" if c in found.absent} == set(absent)
    assert set(found.absent) <= set(found.avoid) and not set(found.avoid) & set("".join(words))


def test_what_may_be_there_is_not_forbidden_and_colours_forbid_what_they_are_not():
    assert "雪" not in describe_outputs("a.jpg", outputs({}, "mountain", maybe="snow"), []).avoid
    assert "月" not in describe_outputs("a.jpg", outputs({}, "sea", maybe="dusk"), []).avoid
    summer = describe_outputs("a.jpg", outputs({}, "summer day", maybe="snow dusk"), [])
    assert {"雪", "月", "秋"} <= set(summer.avoid)  # what is seen forbids them
    sand = describe_outputs("a.jpg", outputs(), ["orange"]).avoid
    assert {"青", "翠"} <= set(sand) and "青" not in describe_outputs("a.jpg", outputs(), ["orange", "blue"]).avoid
    assert "花" in describe_outputs("a.jpg", outputs({}, "snow"), []).avoid
    assert "花" not in describe_outputs("a.jpg", outputs({}, "snow flower"), []).avoid
    green, yellow = (describe_outputs("a.jpg", outputs(), [name, "blue"]).avoid for name in ("green", "yellow"))
    assert "枯" in green and "绿" not in green and "枯" not in yellow and "绿" in yellow


def test_a_creature_that_is_not_sure_is_not_named():
    found = describe_outputs("a.jpg", outputs({"hyena": 0.45, "lion": 0.3}, "animal"), [])
    assert [sight.name for sight, _ in found.seen] == ["animal"] and found.title == "即事"


def test_in_words_and_json():
    found = describe_outputs("a.jpg", outputs({"red fox": 0.7}, "snow"), ["white", "grey"])
    assert str(found) == "a.jpg: 赤狐 red fox 70%, 雪 snow 90%, 白 white, 灰 grey"
    facts = found.as_dict()
    assert facts["seen"][1] == {"name": "snow", "chinese": "雪", "kind": "weather", "probability": 0.9}
    assert facts["poem"]["title"] == "咏狐" and facts["colors"] == ["white", "grey"]
    nothing = describe_outputs("b.jpg", outputs(), [])
    assert str(nothing) == "b.jpg: nothing that is clear"


def test_main_colors_the_larger_part_first():
    colors = {"red": (200, 30, 30), "blue": (60, 120, 220), "green": (40, 160, 60), "yellow": (250, 220, 40)}
    colors |= {"white": (240, 240, 240), "black": (10, 10, 12), "grey": (128, 128, 128)}
    for name, rgb in colors.items():
        picture = np.full((90, 120, 3), rgb, np.uint8)
        picture[:5] = 255 - np.array(rgb)  # a twentieth of another one
        assert main_colors(picture) == [name] and name in COLORS
    picture = np.zeros((100, 100, 3), np.uint8)
    picture[:30] = colors["blue"]
    assert main_colors(picture) == ["black", "blue"]


@pytest.mark.parametrize(
    "things, label, text",
    [
        ({"golden retriever": 0.8}, "dog", "a.jpg: dog 98.2% (golden retriever 80.0%)"),
        ({"golden retriever": 0.15, "tabby": 0.1}, "dog", "a.jpg: dog 98.2%"),  # no breed is sure enough
        ({"red fox": 0.82, "kit fox": 0.1}, "neither", "a.jpg: neither: red fox 82.0%"),
        ({}, "neither", "a.jpg: neither (rather dog) 98.2%"),  # 123 of 1,000 equal ones are cats and dogs
        ({"red fox": 0.2, "barn": 0.2, "alp": 0.2, "pier": 0.2}, "neither", "a.jpg: neither (rather dog) 98.2%"),
    ],
)
def test_what_is_neither_and_the_breed(things, label, text):
    given = outputs(things)
    given["imagenet"] *= TOO_MODEST  # whose chances are those things'
    answer, best = _answer(LeNet(["dog", "cat"]), given, 2, 0.7, Answer("a.jpg"))
    assert (answer.label, best, str(answer)) == (label, 0, text)
    assert ("seen" in answer.as_dict()) == ("(g" in text or ": red" in text)


def test_classes_that_imagenet_does_not_have_have_no_gate():
    answer, _ = _answer(LeNet(["tulip", "rose"]), outputs({"red fox": 0.9}), 2, 0.7, Answer("a.jpg"))
    assert str(answer) == "a.jpg: tulip 98.2%"


def test_the_command(tmp_path, capsys):
    photo = str(tmp_path / "grey.png")
    Image.fromarray(np.full((64, 80, 3), 128, np.uint8)).save(photo)
    (tmp_path / "broken.jpg").write_bytes(b"")
    torch.manual_seed(0)
    EfficientNetLite0(["cat", "dog"]).save(tmp_path / "eye.safetensors", recognises=True, image_size=64)
    load = f"--load={tmp_path / 'eye.safetensors'}"
    assert main.main(["describe", photo, load]) == 0
    assert capsys.readouterr().out == f"{photo}: nothing that is clear, 灰 grey\n"
    assert main.main(["describe", photo, str(tmp_path / "broken.jpg"), load, "--json"]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["poem"]["title"] == "即事" and "error" in lines[1]
    LeNet(["cat", "dog"]).save(tmp_path / "eye.safetensors")
    assert main.main(["describe", photo, load]) == 2
    assert "--load: this classifier knows its own classes only" in capsys.readouterr().err


class Known(EfficientNetLite0):
    """Sees in a picture what its first pixel's red says: that probability of a dog."""

    def feature_maps(self, image):
        return image[:, :1, :1, :1].expand(-1, 1280, 1, 1)

    def recognise(self, maps):
        share = maps[:, :1, 0, 0].clamp(1e-4, 1 - 1e-4)  # (B, 1)
        logits = torch.full((len(maps), 1000), -30.0)
        logits[:, :1], logits[:, 207:208] = (1 - share).log(), share.log()  # a tench, or a golden retriever
        logits *= TOO_MODEST
        return {"imagenet": logits, "scenes": torch.zeros(len(maps), len(SCENES))}


@pytest.mark.parametrize("share", [0.9, 0.02])
def test_the_gate_of_drawings_is_lower(tmp_path, share):
    """So that no more than one in a hundred of the validation pictures is shut out."""
    Image.fromarray(np.full((40, 40, 3), round(255 * share), np.uint8)).save(tmp_path / "a.png")
    pictures = Pictures([Source("a.png", tmp_path / "a.png")] * 20, 32, 1)
    model = Known(["cat", "dog"]).eval()
    model.metadata["recognises"] = True
    gate = calibrate_views(model, pictures, torch.tensor([0, 1] * 10))["1"][2]
    assert gate == pytest.approx(min(SOMETHING_ELSE, round(255 * share) / 255), rel=1e-3)


@pytest.mark.parametrize(
    "height, tilt, least, most", [(0.3, 0, 0.95, 1), (0.6, 0, 0.95, 1), (0.9, 0, 0, 0), (0.4, 0.3, 0, 0.3)]
)
def test_a_horizon_is_level_and_not_at_the_foot(height, tilt, least, most):
    y, x = np.mgrid[0:120, 0:160] / [[[120]], [[160]]]
    sky = y < height + tilt * (x - 0.5)
    picture = np.where(sky[..., None], (150, 190, 230), (40, 90, 120)).astype(np.uint8)
    assert least <= horizon(picture) <= most
    assert horizon(np.full_like(picture, 120)) == 0


def test_a_horizon_is_named_in_the_open_only():
    sea = describe_outputs("a.jpg", outputs({}, "sea sky day"), ["blue"], level=0.9)
    assert "地平线 horizon 90%" in str(sea) and sea.words == ["海", "天", "极目"]
    for seen, level in (("sea day", 0.9), ("sea sky day", 0.5), ("street sky sea", 0.9)):
        assert "horizon" not in str(describe_outputs("a.jpg", outputs({}, seen), ["blue"], level))
