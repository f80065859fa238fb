"""The command classify: lines, JSON and tables, explanations, broken files, several processes."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import main
from infer.photo.classify import find_pictures, open_model
from tests.pictures import save_lenet, write_picture

SIZE = 32


@pytest.fixture(scope="module")
def model_file(tmp_path_factory) -> Path:
    return save_lenet(tmp_path_factory.mktemp("model") / "lenet.safetensors")


def expected(model, path: Path) -> np.ndarray:
    """The probabilities of the middle and of its mirror image, computed from the words of the documentation."""
    image = Image.open(path).convert("RGB")
    side = min(image.size) * 224 / 256
    x, y = ((length - side) / 2 for length in image.size)
    view = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=(x, y, x + side, y + side))
    pixels = torch.from_numpy(np.array(view)).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        logits = (model(pixels)["logits"] + model(pixels.flip(-1))["logits"]) / 2
    return (logits / 2.0).softmax(1)[0].numpy()


def cli(capfd, *words: str | Path, code: int = 0, **given) -> tuple[list[str], list[str]]:
    """The lines that `main.py classify` prints on stdout and stderr, in this process."""
    capfd.readouterr()
    given = {"precision": "fp32", "tta": 2, **given}
    argv = ["classify", *map(str, words), *(f"--{name}={value}" for name, value in given.items())]
    assert main.main(argv) == code, capfd.readouterr().err
    out, err = capfd.readouterr()
    assert "Traceback" not in err
    return out.splitlines(), [line for line in err.splitlines() if line.strip()]


def table(path: str | Path) -> list[list[str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_lines_json_and_csv_say_the_same(tmp_path, model_file, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["a.png", "sub/b,c.jpg", "sub/猫.png"]
    for i, name in enumerate(names):
        write_picture(Path("pictures", name), i)
    model = open_model(model_file)
    paths = [f"pictures/{name}" for name in names]
    out, err = cli(capfd, "pictures", load=model_file, csv="missing/folder/answers.csv")
    assert err == [] and len(out) == 3
    objects = [json.loads(line) for line in cli(capfd, "pictures", "--json", load=model_file)[0]]
    rows = table("missing/folder/answers.csv")
    assert rows[0] == ["path", "label", "cat", "dog"] and len(rows) == 4
    for path, line, found, row in zip(paths, out, objects, rows[1:], strict=True):
        cat, dog = expected(model, Path(path))
        best = "dog" if dog > cat else "cat"
        assert list(found) == ["path", "label", "cat", "dog"] and found["path"] == row[0] == path
        assert found["label"] == row[1] == best
        assert [found["cat"], found["dog"]] == pytest.approx([cat, dog], abs=1e-4)
        assert [float(value) for value in row[2:]] == pytest.approx([found["cat"], found["dog"]], abs=2e-6)
        assert line == f"{path}: {best} {min(max(cat, dog), 0.999):.1%}"
    line = cli(capfd, path, load=model_file, threshold=1)[0][0]
    assert line == f"{path}: neither (rather {best}) {max(cat, dog):.1%}"
    found = json.loads(cli(capfd, path, "--json", load=model_file, threshold=1)[0][0])
    assert found["label"] == "neither" and found["dog"] == pytest.approx(dog, abs=1e-4)


def test_more_views_and_three_classes_of_strange_names(tmp_path, capfd):
    classes = ("<b>dog", "a, b", "鸟")
    load = save_lenet(tmp_path / "lenet.safetensors", classes)
    path = write_picture(tmp_path / "a.png", 0)
    answers = []
    for tta in (1, 2, 6):
        found = json.loads(cli(capfd, path, "--json", load=load, tta=tta, csv=tmp_path / "a.csv")[0][0])
        assert sum(found[name] for name in classes) == pytest.approx(1, abs=1e-5) and found["label"] in classes
        answers.append(found["鸟"])
    assert len(set(answers)) == 3
    assert table(tmp_path / "a.csv")[0] == ["path", "label", *classes]


def test_a_doubtful_picture_is_looked_at_six_times(tmp_path, capfd):
    """Otherwise once; the temperature that makes one view sure or unsure is that of the file."""
    path = write_picture(tmp_path / "a.png", 0)
    for temperature, same in ((1e-4, 1), (100.0, 6)):
        calibrated = {"calibration": {views: [temperature, 0.0] for views in "0126"}}
        load = save_lenet(tmp_path / "lenet.safetensors", **calibrated)
        found = {tta: json.loads(cli(capfd, path, "--json", load=load, tta=tta)[0][0]) for tta in (0, 1, 6)}
        assert found[0] == found[same] and (same == 1 or found[1] != found[6])


def test_broken_files_are_named_and_the_rest_is_done(tmp_path, model_file, capfd):
    place = tmp_path / "in"
    for i in range(4):
        write_picture(place / f"{i}.png", i)
    (place / "1.png").write_bytes((place / "1.png").read_bytes()[:150])
    (place / "3.png").write_bytes(b"")
    write_picture(place / "big.png", 9, (1200, 900))
    more = {"max_megapixels": 1, "csv": tmp_path / "a.csv", "explain": True, "out": tmp_path / "out"}
    out, err = cli(capfd, place, code=1, load=model_file, **more)
    assert [line.split(":")[0] for line in out] == [str(place / name) for name in ("0.png", "2.png")]
    assert len(err) == 4 and err[-1] == "3 of 5 could not be read"
    for line, name in zip(err, ("1.png", "3.png", "big.png"), strict=False):
        assert line.startswith("error: ") and str(place / name) in line
    assert "1.1 megapixels, more than max_megapixels=1" in err[2]
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 3
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0_explained.png", "2_explained.png"]
    objects = [json.loads(line) for line in cli(capfd, place, "--json", code=1, load=model_file)[0]]
    assert [set(found) == {"path", "error"} for found in objects] == [False, True, False, True, False]
    alone = cli(capfd, place / "3.png", code=1, load=model_file)[1]
    assert alone == [f"error: {place / '3.png'} is empty (0 bytes), not a picture"]


def test_of_an_animation_the_first_frame_is_judged_and_said(tmp_path, model_file, capfd):
    first, second = (Image.open(write_picture(tmp_path / f"{i}.png", i)) for i in range(2))
    first.save(tmp_path / "a.webp", save_all=True, append_images=[second], lossless=True)
    still, moving = (cli(capfd, tmp_path / name, load=model_file) for name in ("0.png", "a.webp"))
    assert moving[0][0].split(":")[1] == still[0][0].split(":")[1] and still[1] == []
    assert moving[1] == [f"{tmp_path / 'a.webp'} is an animation: only its first frame is used"]
    told = json.loads(cli(capfd, tmp_path / "a.webp", "--json", load=model_file)[0][0])
    assert told["note"] == moving[1][0]


# --------------------------------------------------------------------------------------------------- explanations


def test_explanations_lie_beside_the_pictures_or_in_a_folder_none_over_another(tmp_path, model_file, capfd):
    paths = [
        write_picture(tmp_path / place / "cat.png", seed, size)
        for place, seed, size in (("one", 6, (48, 40)), ("two", 7, (40, 60)))
    ]
    found = [tmp_path / "out" / name for name in ("cat_explained.png", "cat_explained_2.png")]
    lines = cli(capfd, *paths, out=tmp_path / "out", explain=True, load=model_file)[0]
    assert [line.rpartition("  ")[2] for line in lines] == list(map(str, found))
    changes = []
    for path, explained in zip(paths, found, strict=True):
        before, after = (np.array(Image.open(file)).astype(int) for file in (path, explained))
        changes.append(np.abs(before - after).max())  # they have one size
    assert max(changes) > 20  # something is painted over them
    line = cli(capfd, paths[0], "--json", explain=True, load=model_file)[0][0]
    beside = tmp_path / "one" / "cat_explained.png"
    assert json.loads(line)["explanation"] == str(beside) and beside.exists()


@pytest.mark.parametrize("place", ["in", "out"])
def test_an_explanation_never_takes_the_place_of_another_file(tmp_path, model_file, capfd, place):
    """Be it a picture to classify or anybody's; the second time its own is replaced."""
    write_picture(tmp_path / "in" / "a.png", 0)
    mine = write_picture(tmp_path / place / "a_explained.png", 1)
    before = mine.read_bytes()
    for _ in range(2):
        cli(capfd, tmp_path / "in" / "a.png", mine, explain=True, load=model_file, out=tmp_path / place)
    assert mine.read_bytes() == before
    names = {"a_explained.png", "a_explained_2.png", "a_explained_explained.png"}
    assert {path.name for path in mine.parent.iterdir()} - {"a.png"} == names


def test_explanations_in_a_folder_are_not_explained_again(tmp_path, model_file, capfd):
    """Neither beside the pictures nor in a folder of theirs; they are written anew, none is numbered further."""
    names = ["a.png", "b.jpg", "b.png", "c_explained.png", "sub/d_explained_2.png"]  # the last two are somebody's own
    for i, name in enumerate(names):
        write_picture(tmp_path / "in" / name, i)
    broken = tmp_path / "in" / "e_explained.png"
    broken.write_bytes(b"<html>")
    for more in ({}, {"out": tmp_path / "in" / "maps"}):
        first = cli(capfd, tmp_path / "in", explain=True, load=model_file, code=1, **more)[0]
        files = {path: path.read_bytes() for path in (tmp_path / "in").rglob("*.*")}
        overlay = Path(first[0].rpartition("  ")[2])
        os.utime(overlay, (1, 1))
        second = cli(capfd, tmp_path / "in", explain=True, load=model_file, code=1, **more)[0]
        assert first == second and [line.split(": ")[0] for line in first] == [str(tmp_path / "in" / n) for n in names]
        assert {path: path.read_bytes() for path in (tmp_path / "in").rglob("*.*")} == files
        assert overlay.stat().st_mtime > 1
    assert len(cli(capfd, tmp_path / "in" / "a_explained.png", load=model_file)[0]) == 1  # it is named
    maps = tmp_path / "in" / "maps"
    err = cli(capfd, maps, load=model_file, code=2)[1]
    assert err == [f"error: {maps}: no pictures in it, only explanations of some"]


# ------------------------------------------------------------------------------------------------------- torchrun


def test_torchrun_shares_the_pictures(tmp_path, model_file, capfd, monkeypatch):
    """One process meets a broken picture, which ends none. Each has its own table and overlays."""
    for number in range(5):
        write_picture(tmp_path / "in" / "ab"[number % 2] / f"{number // 2}.png", number)
    (tmp_path / "in" / "a" / "0.png").write_bytes(b"no picture")  # the very first one
    more = {"load": model_file, "explain": True}
    whole = cli(capfd, tmp_path / "in", code=1, csv=tmp_path / "one.csv", out=tmp_path / "one", **more)[0]
    monkeypatch.setenv("WORLD_SIZE", "2")
    parts, errors = [], 0
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        out, err = cli(capfd, tmp_path / "in", csv=tmp_path / "two.csv", out=tmp_path / "two", **more)
        parts.append([line.replace("/two/", "/one/") for line in out])
        errors += len([line for line in err if line.startswith("error: ")])
    assert errors == 1 and [len(part) for part in parts] == [2, 2] and sorted(sum(parts, [])) == sorted(whole)
    one, *two = (table(tmp_path / name)[1:] for name in ("one.csv", "two.0.csv", "two.1.csv"))
    assert [row[:2] for row in sorted(one)] == [row[:2] for row in sorted(sum(two, []))]
    files = [sorted((path.name, path.stat().st_size) for path in (tmp_path / n).iterdir()) for n in ("one", "two")]
    assert files[0] == files[1] and len(files[0]) == 4


@pytest.mark.parametrize("more", [{}, {"out": "in/maps"}])
def test_processes_do_not_judge_each_others_explanations(tmp_path, model_file, capfd, monkeypatch, more):
    monkeypatch.chdir(tmp_path)
    write_picture(Path("in", "a.png"), 0)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    out, err = cli(capfd, "in", code=2, load=model_file, explain=True, **more)
    place = more.get("out", "")
    assert err == [f"error: --out={place}: several processes need a folder for explanations outside of the input"]
    assert not out and [path.name for path in tmp_path.rglob("*.png")] == ["a.png"]


# ------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    "words, more, line",
    [
        ([], {}, "classify needs a picture, or a folder of pictures"),
        (["EMPTY"], {}, "error: EMPTY: no pictures in it"),
        (["text.tar"], {}, "error: text.tar: expected a folder of pictures or a whole, uncompressed .tar"),
        (["a.png"], {"load": "a.png"}, "a.png is not a model file"),
        (["a.png"], {"csv": "a.png/answers.csv"}, "cannot write a.png/answers.csv"),
        (["a.png"], {"explain": True, "out": "a.png"}, "cannot write a.png/a_explained.png"),
        (["a.png"], {"out": "folder"}, "--out=folder is the folder for --explain"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, model_file, capfd, monkeypatch, words, more, line):
    monkeypatch.chdir(tmp_path)
    write_picture(Path("a.png"), 0)
    Path("EMPTY").mkdir()
    Path("text.tar").write_text("no archive")
    out, err = cli(capfd, *words, code=2, **{"load": model_file, **more})
    assert line in err[-1] and len(err) == 1 and err[0].startswith("error: ")
    assert not out or "explain" in more  # it is said before the work, not after it


def test_a_name_that_is_no_text_does_not_stop_the_table(tmp_path, model_file, capfd):
    strange = tmp_path / os.fsdecode(b"\xff\n.png")
    shutil.move(write_picture(tmp_path / "a.png", 0), strange)
    cli(capfd, strange, load=model_file, csv=tmp_path / "a.csv")
    assert table(tmp_path / "a.csv")[1][0] == str(tmp_path / "?\n.png")
    assert find_pictures([str(tmp_path)])[0].name == str(tmp_path / "?\n.png")
