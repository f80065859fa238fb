"""infer/painting/files.py and its command: every kind of picture, broken ones, inputs that stay as they are."""

import json
import os
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

import config
import infer.painting.files
import infer.painting.optimize
import main
from infer.painting.colors import stylize
from infer.painting.files import Job, paint_files, plan
from tasks import make_task
from tests.painting import as_examples, called, invert, is_near, noise, painted, photo, pixels, tiny
from tests.test_security import huge_png
from tests.test_video import greys, make_video
from tests.test_video import read as read_video
from utils.errors import UserError
from utils.images import read_image


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    tiny().save(path)
    return str(path)


def moving(path: Path, frames: int, **options: object) -> Path:
    """An animation of noise."""
    first, *others = (Image.fromarray(noise(24, 32, n)) for n in range(frames))
    first.save(path, save_all=True, append_images=others, **options)
    return path


# ------------------------------------------------------------------------------------------- masks and other options


def test_mask_and_keep_color_on_the_command_line(capsys, network, tmp_path):
    path, mask = photo(tmp_path / "a.png"), tmp_path / "mask.png"
    Image.fromarray(np.repeat([[0, 255]], 2, 0).astype(np.uint8)).resize((64, 48), 0).save(mask)  # of another size
    same = (path, f"--load={network}", "--precision=fp32", "--stroke=0")
    assert called(capsys, f"--mask={mask}", "--out", tmp_path / "b.png", "--keep_color", *same)[0] == 0
    result, before = pixels(tmp_path / "b.png"), pixels(path)
    assert np.array_equal(result[:, :15], before[:, :15])
    painting = painted(network, path, stroke=0)[None]
    expected = stylize(before[None], lambda rgb, progress: painting.copy(), keep_color=True)[0]
    assert is_near(result[:, 17:], expected[:, 17:]) and not np.array_equal(result[:, 17:], before[:, 17:])
    mask = moving(tmp_path / "a.gif", 2)
    code, _, err = called(capsys, f"--mask={mask}", *same)
    assert code == 0 and f"{mask} is an animation: only its first frame is used" in err


def test_what_is_transparent_in_a_mask_stays_the_photograph(tmp_path):
    mask = np.full((24, 32, 4), 255, np.uint8)  # white throughout, and drawn on the right only
    mask[:, :8, 3], mask[:, 8:16, 3], mask[:, 24:, :3] = 0, 128, 128
    Image.fromarray(mask).save(tmp_path / "mask.png")
    path = photo(tmp_path / "a.png")
    assert not list(paint_files([Job(path, tmp_path / "b.png")], invert, mask=str(tmp_path / "mask.png")))[0].error
    before, after = pixels(path).astype(float), pixels(tmp_path / "b.png")
    for part, share in ((slice(8), 0), (slice(8, 16), 128 / 255), (slice(16, 24), 1), (slice(24, 32), 128 / 255)):
        expected = before[:, part] * (1 - share) + (255 - before[:, part]) * share
        assert np.abs(after[:, part] - expected).max() <= 0.51


def test_max_side_quality_and_max_megapixels(capsys, network, tmp_path):
    out, sizes = tmp_path / "b.jpg", []
    words = (photo(tmp_path / "a.png", 60, 90), f"--load={network}", "--max_side=45", "--stroke=0", f"--out={out}")
    for quality in (20, 95):
        assert called(capsys, *words, f"--quality={quality}", "--max_megapixels=0.0054")[0] == 0
        assert pixels(out).shape == (30, 45, 3)
        sizes.append(out.stat().st_size)
    assert sizes[0] < sizes[1]
    code, _, err = called(capsys, *words, "--max_megapixels=0.005399")
    assert code == 1 and "90 x 60" in err and "max_megapixels" in err


# ------------------------------------------------------------------------------------------------------ what goes where


def placed(paths: list[str], out: str = "") -> dict[str, str]:
    return {str(job.path): str(job.out) for job in plan(paths, out, "wave")[0]}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A current folder with pictures."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "b.gif", "trip/b.png", "trip/b.gif", "trip/deep/C.JPG", "trip/.hidden.png", "trip/.x/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        photo(tmp_path / name)
    for name in ("film.avi", "trip/film.mov", "trip/notes.txt"):
        (tmp_path / name).touch()
    return tmp_path


TRIP = {"trip/b.gif": "b_2.png", "trip/b.png": "b.png", "trip/deep/C.JPG": "deep/C.JPG"}


def under(folder: str) -> dict[str, str]:
    return {path: f"{folder}/{out}" for path, out in TRIP.items()}


@pytest.mark.parametrize(
    "paths, out, expected",
    [
        ("a.jpg", "", {"a.jpg": "a_wave.jpg"}),
        ("film.avi", "x.webm", {"film.avi": "x.webm"}),
        ("a.jpg", "x/y.png", {"a.jpg": "x/y.png"}),
        ("a.jpg", "x/", {"a.jpg": "x/a.jpg"}),
        ("a.jpg", "trip", {"a.jpg": "trip/a.jpg"}),
        ("trip", "", under("trip_wave")),
        ("trip/", "new", under("new")),
        ("a.jpg b.gif film.avi", "", {"a.jpg": "a_wave.jpg", "b.gif": "b_wave.png", "film.avi": "film_wave.mp4"}),
        ("a.jpg ./a.jpg trip", "new", {"a.jpg": "new/a.jpg", **under("new/trip")}),
        ("trip/b.png b.gif", "new", {"trip/b.png": "new/b.png", "b.gif": "new/b_2.png"}),
        ("b.gif trip/b.png", "new", {"b.gif": "new/b_2.png", "trip/b.png": "new/b.png"}),
    ],
)
def test_where_paintings_go(here, paths, out, expected):
    assert list(placed(paths.split(), out).items()) == list(expected.items())


def test_a_folder_named_by_dots(here, monkeypatch):
    monkeypatch.chdir(here / "trip" / "deep")
    assert placed(["."]) == {"C.JPG": str(here / "trip" / "deep_wave" / "C.JPG")}
    assert placed([".."], str(here / "new"))["../b.png"] == str(here / "new" / "b.png")


def test_a_number_is_added_to_as_few_names_as_can_be(here):
    """And not one that makes it the name of another picture."""
    for name in ("b_2.png", "deep/b.png", "b.ppm"):
        photo(here / "trip" / name)
    assert placed(["trip"], "new") == {
        "trip/b.gif": "new/b_3.png",
        "trip/b.png": "new/b.png",
        "trip/b.ppm": "new/b_4.png",
        "trip/b_2.png": "new/b_2.png",
        "trip/deep/C.JPG": "new/deep/C.JPG",
        "trip/deep/b.png": "new/deep/b.png",
    }
    out = placed(["trip/b.png", "trip/deep/b.png", "trip/b_2.png"], "new")
    assert list(out.values()) == ["new/b.png", "new/b_3.png", "new/b_2.png"]


def test_other_files_in_a_folder_are_left_alone_and_said_so_where_they_may_be_pictures(here):
    assert plan(["trip"], "", "wave")[1] == ["videos in trip are left alone, such as film.mov: name each as a path"]
    (here / "trip" / "film.mov").unlink()
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "IMG_1.AAE", "notes.md", "index.json", ".x/e.cr2"):
        (here / "trip" / name).touch()
    assert plan(["trip"], "", "wave")[1] == []
    for name in ("deep/noext", "IMG_1.CR2", "b.png.bak"):
        (here / "trip" / name).touch()
    [remark] = plan(["trip"], "", "wave")[1]
    assert remark.startswith("3 other files in trip are left alone, such as IMG_1.CR2 (") and ".jpg, " in remark


@pytest.mark.parametrize(
    "paths, out, words",
    [
        ("c.jpg", "", "c.jpg does not exist"),
        ("a.jpg c.jpg", "", "c.jpg does not exist"),
        ("a.jpg", "x.xyz", r"x.xyz.* \.xyz.*\.jpg"),
        ("a.jpg", "x", r"x: cannot write pictures of type \(none\)"),
        ("a.jpg", "x.mp4", "cannot write pictures of type .mp4"),
        ("film.avi", "x.jpg", r"cannot write a video or an animation as \.jpg.*\.mp4"),
        ("a.jpg b.gif", "x.jpg", "out=x.jpg: is a file"),
        ("trip", "a.jpg", "out=a.jpg: is a file"),
        ("trip/.x/..", "trip", "is inside of trip/.x/.."),
        ("empty", "", r"empty has no pictures in it.*\.png"),
    ],
)
def test_a_plan_that_cannot_be_is_one_line(here, paths, out, words):
    (here / "empty").mkdir()
    with pytest.raises(UserError, match=words) as error:
        plan(paths.split(), out, "wave")
    assert "\n" not in str(error.value)


def test_what_is_in_a_file_decides_and_its_name_only_where_that_says_nothing(here):
    make_video(here / "real.mov", greys(3))
    Image.fromarray(noise()).save(here / "IMG_1.HEIC", format="HEIF")
    moving(here / "moving.gif", 2)
    (here / "text").write_text("no picture")
    (here / "page").write_text("<!doctype html><html></html>")
    for source, name, kind, out in (
        ("a.jpg", "picture", "picture", "picture_x.png"),
        ("a.jpg", "photo.mp4", "picture", "photo_x.png"),
        ("real.mov", "film", "video", "film_x.mp4"),
        ("real.mov", "film.jpg", "video", "film_x.mp4"),
        ("trip/b.png", "trip/scan.dat", "picture", "trip/scan_x.png"),
        ("moving.gif", "moving.jpg", "animation", "moving_x.webp"),
        ("IMG_1.HEIC", "heic.mp4", "picture", "heic_x.png"),
        ("page", "page.mp4", "picture", "page_x.png"),
        ("text", "text.heic", "picture", "text_x.png"),
        ("film.avi", "empty.avi", "video", "empty_x.mp4"),
    ):
        os.link(source, name)
        assert plan([name], "", "x")[0] == [Job(Path(name), Path(out), kind)]
    assert plan(["moving.gif"], "", "x")[0] == [Job(Path("moving.gif"), Path("moving_x.gif"), "animation")]


# --------------------------------------------------------------------------------------------- inputs stay as they are


@pytest.mark.parametrize(
    "words",
    [
        "a.jpg --out=new/../a.jpg",  # of which atomic_save would make the folder
        "link.jpg --out=a.jpg",
        "a.jpg --out=.",
        "a.jpg --out=linked/../a.jpg",
        "trip --out=trip",
        "trip --out=trip/new",
        "trip --out=linked",
        "linked --out=trip/new",
        "trip/deep trip/deep/C.JPG --out=trip",  # trip/deep/C.JPG itself
        "film.avi --out=film.mp4",
    ],
)
def test_no_input_is_overwritten(capsys, network, here, words):
    make_video(here / "film.avi", greys(1))
    os.symlink("a.jpg", "link.jpg")
    os.symlink("trip", "linked")
    os.symlink("film.avi", "film.mp4")
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    code, out, err = called(capsys, *words.split(), f"--load={network}")
    assert code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 0
    assert "input" in err and "give another out=" in err
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("fault", [None, UserError("no"), KeyboardInterrupt()])
def test_an_old_painting_is_replaced_whole_or_not_at_all(here, fault):
    def paint(rgb: np.ndarray, progress: object) -> np.ndarray:
        if fault:
            raise fault
        return 255 - rgb

    old = here / "old.png"
    old.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt) if isinstance(fault, KeyboardInterrupt) else nullcontext():
        [result] = paint_files([Job(here / "trip" / "b.png", old)], paint)
        assert result.error == ("no" if fault else "")
    assert (old.read_bytes() == b"old") == bool(fault) and not list(here.glob(".*.part"))


# ---------------------------------------------------------------------------------------------- folders with bad files


def mixed_folder(folder: Path) -> tuple[dict[str, tuple[int, int]], set[str]]:
    """Pictures of every kind that is painted in its own way, {name: (width, height) as shown}; names of bad ones."""
    (folder / "sub").mkdir(parents=True)
    rgb = noise(20, 30)
    alpha = np.where(np.arange(30) < 15, 255, 40).astype(np.uint8) * np.ones((20, 1), np.uint8)
    image, other = Image.fromarray(rgb), Image.fromarray(noise(20, 30, 1))
    exif = Image.Exif()
    exif[274] = 6
    for name, options in (
        ("plain.BMP", {}),
        ("sub/plain.webp", {}),
        ("turned.jpg", {"exif": exif}),
        ("pages.tiff", {"save_all": True, "append_images": [other]}),
        ("moving.gif", {"save_all": True, "append_images": [other]}),
    ):
        image.save(folder / name, **options)
    Image.fromarray(np.dstack([rgb, alpha])).save(folder / "alpha.tiff")
    image.quantize(16).save(folder / "palette_alpha.png", transparency=3)
    photo(folder / "dot.png", 1, 1)
    photo(folder / "column.png", 500, 1)
    sizes = {"turned.jpg": (20, 30), "dot.png": (1, 1), "column.png": (1, 500)}
    good = {path.name: sizes.get(path.name, (30, 20)) for path in folder.rglob("*.*")}
    (folder / "cut.jpg").write_bytes((folder / "turned.jpg").read_bytes()[:400])
    (folder / "text.gif").write_text("no picture\n" * 50)
    huge_png(folder / "huge.png", 30_000)
    (folder / "sub" / "folder.jpg").mkdir()
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(folder / "pipe.png")
    (folder / ".thumb.jpg").write_bytes(b"x")
    make_video(folder / "film.mp4", greys(2))
    return good, {"cut.jpg", "text.gif", "huge.png", "gone.jpg", "pipe.png"}


def test_every_good_one_is_painted_at_its_size_every_bad_one_named(capsys, network, tmp_path):
    """And where stderr is no terminal there is no progress bar: with 2>&1, each line is a result, or a remark."""
    folder, out = tmp_path / "in", tmp_path / "out"
    good, bad = mixed_folder(folder)
    words = (f"--load={network}", f"--out={out}", "--json", "--precision=fp32", "--stroke=0")
    code, lines, err = called(capsys, folder, *words)
    results = [json.loads(line) for line in lines.splitlines()]
    assert code == 1 and [r["path"] for r in results] == sorted(r["path"] for r in results)
    failed = {Path(r["path"]).name: r["error"] for r in results if not r["ok"]}
    assert failed.keys() == bad and all(error in err for error in failed.values())
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == len(bad) and all(sum(name in line for line in errors) == 1 for name in bad)
    assert "30000 x 30000" in err and f"{len(bad)} of {len(good | failed)} could not be painted" in err
    assert "\r" not in err and "%|" not in err and "film.mp4" in err
    assert len(err.splitlines()) == len(bad) + 4  # how, what is left alone, the note, the count
    painted_ones = {Path(r["path"]).name: r for r in results if r["ok"]}
    assert painted_ones.keys() == good.keys() == {path.name for path in out.rglob("*") if path.is_file()}
    note = f"{folder / 'pages.tiff'} has several pages: only the first is used"
    assert {name: r["note"] for name, r in painted_ones.items() if "note" in r} == {"pages.tiff": note} and note in err
    for name, result in painted_ones.items():
        source, path = Path(result["path"]), Path(result["out"])
        assert path.suffix == source.suffix and (result["width"], result["height"]) == good[name]
        with Image.open(path) as image:
            assert image.size == good[name] and image.has_transparency_data == ("alpha" in name), name
            if "alpha" in name:
                assert np.array_equal(np.asarray(image.getchannel("A")), read_image(source).alpha)
        if path.suffix.lower() not in (".jpg", ".webp", ".gif"):  # those lose a little
            assert is_near(read_image(path).rgb, painted(network, source, stroke=0)), name


def test_a_picture_too_large_to_paint_is_named_and_the_others_are_done(tmp_path):
    jobs = [Job(photo(tmp_path / f"{n}.png", 10 + n, 10), tmp_path / f"out{n}.png") for n in range(3)]

    def paint(rgb: np.ndarray, progress: object) -> np.ndarray:
        if rgb.shape[1] == 11:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")
        return 255 - rgb

    results = list(paint_files(jobs, paint))
    assert [bool(r.error) for r in results] == [False, True, False]
    assert "out of memory at 10 x 11 pixels" in results[1].error and "max_side" in results[1].error

    def broken(rgb: np.ndarray, progress: object) -> np.ndarray:
        raise RuntimeError("a fault of ours")

    with pytest.raises(RuntimeError, match="a fault of ours"):
        list(paint_files(jobs, broken))


def test_neighbours_of_equal_size_are_painted_together_unless_they_are_large(tmp_path, monkeypatch):
    heights = [8, 8, 8, 9, 8, 8, 8, 8, 8]
    jobs = [Job(photo(tmp_path / f"{n}.png", h, 8, n), tmp_path / f"o{n}.png") for n, h in enumerate(heights)]
    jobs[5].path.write_bytes(b"bad")
    seen = []
    results = list(paint_files(jobs, lambda rgb, progress: seen.append(rgb.shape[:2]) or 255 - rgb, batch=2))
    assert seen == [(2, 8), (1, 8), (1, 9), (1, 8), (2, 8), (1, 8)]
    assert [r.path for r in results] == [job.path for job in jobs] and bool(results[5].error)
    for number in (0, 1, 2, 3, 4, 6, 7, 8):
        assert np.array_equal(pixels(jobs[number].out), 255 - pixels(jobs[number].path))
    monkeypatch.setattr(infer.painting.files, "BATCH_PIXELS", 150)
    list(paint_files(jobs[:3], lambda rgb, progress: seen.append(rgb.shape[:2]) or rgb, batch=4))
    assert seen[6:] == [(2, 8), (1, 8)]


def test_a_place_that_cannot_be_written_spoils_only_its_picture(tmp_path):
    jobs = [Job(photo(tmp_path / f"{n}.png"), tmp_path / f"o{n}.png") for n in range(3)]
    jobs[1].out.mkdir()
    results = list(paint_files(jobs, invert, batch=3))
    assert [bool(r.error) for r in results] == [False, True, False] and "cannot write" in results[1].error
    assert jobs[2].out.exists() and not list(tmp_path.glob(".*.part"))


# ------------------------------------------------------------------------------------------------------------- videos


def test_a_video_on_the_command_line(capsys, network, tmp_path):
    source = make_video(tmp_path / "film.mov", greys(6, 24, 32), sound="aac")
    photo(tmp_path / "a.png")
    (tmp_path / "bad.mkv").write_bytes(b"x" * 999)
    paths = (source, tmp_path / "a.png", tmp_path / "bad.mkv")
    code, out, err = called(capsys, *paths, f"--load={network}", "--json", "--stroke=0", "--max_side=16")
    film, picture, bad = map(json.loads, out.splitlines())
    assert code == 1 and not bad["ok"] and bad["error"] in err and "bad.mkv" in bad["error"]
    written = {"path": str(source), "out": str(tmp_path / "film_great_wave.mp4"), "ok": True}
    assert film == {**written, "width": 16, "height": 12, "seconds": film["seconds"]}
    assert picture["width"] == 16 and len(read_video(Path(film["out"]))[0]) == 6


@pytest.mark.parametrize("source, out", [("a.webp", ""), ("a.png", ""), ("a.gif", "b.mp4")])
def test_an_animation_on_the_command_line(capsys, network, tmp_path, source, out):
    path = moving(tmp_path / source, 3, duration=[100, 50, 200])
    words = [f"--out={tmp_path / out}"] if out else []
    code, lines, err = called(capsys, path, f"--load={network}", "--json", "--precision=fp32", "--stroke=0", *words)
    result = json.loads(lines)
    assert code == 0 and "note" not in result, err
    if out:
        assert len(read_video(tmp_path / out)[0]) == 3
        return
    assert result["out"] == str(tmp_path / f"a_great_wave{path.suffix}")
    with Image.open(result["out"]) as image:
        assert image.n_frames == 3
        painting = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(painting - painted(network, path, stroke=0)).mean() < (1 if source == "a.png" else 25)


def test_frames_are_masked(tmp_path):
    source = make_video(tmp_path / "film.mp4", greys(6))
    mask = tmp_path / "mask.png"
    Image.fromarray(np.repeat([[0, 255]], 48, 0).astype(np.uint8)).resize((64, 48), 0).save(mask)
    [result] = paint_files([Job(source, tmp_path / "b.mp4", "video")], invert, mask=str(mask), batch=4)
    assert not result.error
    for before, after in zip(read_video(source)[0], read_video(tmp_path / "b.mp4")[0], strict=True):
        assert np.abs(after[:, :28].astype(int) - before[:, :28]).max() <= 4
        assert np.abs(after[:, 36:].astype(int) - (255 - before[:, 36:])).max() <= 4


# ------------------------------------------------------------------------------------------------------- optimisation


def test_optimizing_paints_each_picture_and_none_that_is_too_large(monkeypatch, tmp_path):
    def optimize(picture: torch.Tensor, loss: object, style: int, progress=lambda share: None, **_) -> torch.Tensor:
        progress(0.5), progress(1.0)
        return 1 - picture

    monkeypatch.setattr(infer.painting.optimize, "optimize", optimize)
    loss, told = torch.nn.BatchNorm1d(1), []  # anything with a device
    monkeypatch.setattr(infer.painting.optimize, "PerceptualLoss", lambda *args: loss)
    given = {"network_file": "", "classifier": "", "device": "cpu", "precision": "fp32"}
    style = photo(tmp_path / "sea.png", 40, 40)
    painter = infer.painting.optimize.OptimizingPainter(str(style), 64, "vgg19", **given, steps=3)
    photos = np.stack([noise(9, 12), noise(9, 12, 1)])
    assert np.array_equal(painter.paint(photos, told.append), 255 - photos) and told == [0.25, 0.5, 0.75, 1.0]
    with pytest.raises(UserError, match="max_side=1024"):
        painter.paint(np.zeros((1, 2000, 1000, 3), np.uint8))


def test_optimizing_on_the_command_line(capsys, monkeypatch, tmp_path):
    given = []

    def optimize(picture: torch.Tensor, loss: torch.nn.Module, style: int, **settings: object) -> torch.Tensor:
        styles = {len(values) for name, values in loss.named_buffers() if name.startswith("pixels_")}
        given.append((styles, style, settings))
        return 1 - picture

    monkeypatch.setattr(infer.painting.optimize, "optimize", optimize)
    weights = tmp_path / "squeezenet.pth"
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), weights)
    path, style = photo(tmp_path / "a.png"), photo(tmp_path / "sea.jpg", 40, 40)
    words = ("--method=optimize", f"--style_image={style}", "--loss_network=squeezenet", f"--vgg={weights}")
    code, out, err = called(capsys, path, *words, "--steps=2")
    assert code == 0 and out == f"{tmp_path / 'a_sea.png'}\n" and "sea, 2 steps" in err
    assert np.array_equal(pixels(tmp_path / "a_sea.png"), 255 - pixels(path))
    *_, (styles, style, settings) = given  # before it, where bf16 is fast, a trial of one step
    assert styles == {1} and style == 0 and settings.pop("progress")
    names = ("content_weight", "style_weight", "tv_weight")
    weights = tuple(float(getattr(config.StyleConfig, name)) for name in names)  # as in training
    assert settings.pop("precision") in ("fp32", "bf16") and settings == {"steps": 2, "weights": weights}


def test_of_several_styles_to_learn_the_one_that_is_too_small_is_named(tmp_path):
    photo(tmp_path / "sea.png", 40, 40)
    photo(tmp_path / "thin.png", 20, 80)
    task = make_task(config.task_config({"task": "style", "style_image": str(tmp_path), "style_size": "64"}))
    with pytest.raises(UserError) as error:
        _ = task.loss
    what = "has 64 x 16 pixels (style_size=64): the picture of a style needs 17 a side at least"
    assert str(error.value) == f"{tmp_path}/thin.png {what}"


@pytest.mark.parametrize(
    "words, message",
    [
        ("a.jpg --steps=3", ["--steps is for --method=optimize", "--style=NAME"]),
        ("a.jpg --method=optimize", ["--style_image=FILE"]),
        ("a.jpg --method=optimize --style_image=a.jpg --strength=0.5", ["--strength is for --method=network"]),
        ("a.jpg --method=optimize --style_image=dot.png", ["dot.png has 1 x 1 pixels", "17 a side at least"]),
        ("loop.jpg", ["loop.jpg", "Too many levels of symbolic links"]),
        ("-dash.jpg", ["write ./-dash.jpg, so that it is not taken for an option"]),
        ("--out -dash.jpg", ["write ./-dash.jpg"]),
        ("-- -dash.jpg", ["unexpected '--'", "./-NAME"]),
    ],
)
def test_a_slip_is_one_line_and_exit_code_2(capsys, here, words, message):
    photo(here / "dot.png", 1, 1)
    os.symlink("loop.jpg", "loop.jpg")
    os.link("a.jpg", "-dash.jpg")
    code, out, err = called(capsys, *words.split())
    assert code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 0
    assert all(part in err for part in message)


@pytest.mark.parametrize("words", ["--json true a.jpg", "--keep_color --json a.jpg", "./-dash.jpg --json"])
def test_a_switch_does_not_swallow_the_path_and_a_path_may_begin_with_a_dash(capsys, network, here, words):
    os.link("a.jpg", "-dash.jpg")
    os.link("a.jpg", "--json")  # a slip of somebody's: the option is meant
    code, out, err = called(capsys, *words.split(), f"--load={network}", "--stroke=0")
    name = "-dash" if "dash" in words else "a"
    assert code == 0 and json.loads(out)["out"] == f"{name}_great_wave.jpg", err


# ---------------------------------------------------------------------------------------------------------- torchrun


def test_processes_share_the_files_and_write_what_one_would(capsys, monkeypatch, network, here):
    """Also the names: trip/b.gif and trip/b.png go to different processes, and both want to be b.png."""
    (here / "trip" / "deep" / "broken.png").write_bytes(b"no picture")
    (here / "trip" / "z.png").write_bytes((here / "trip" / "b.png").read_bytes())
    words = ("trip", f"--load={network}", "--precision=fp32", "--batch=1", "--stroke=0")
    code, out, err = called(capsys, *words, "--out=one")
    assert code == 1 and "1 of 5 could not be painted" in err
    whole = [line.removeprefix("one/") for line in out.splitlines()]
    parts = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "3")
        code, out, err = called(capsys, *words, "--out=three")
        assert code == 0 and ("precision fp32" in err) == (rank == 0)  # an exit code would end the others
        parts.append([line.removeprefix("three/") for line in out.splitlines()])
    assert [len(part) for part in parts] == [1, 2, 1] and sorted(sum(parts, [])) == sorted(whole)
    for name in whole:
        assert np.array_equal(pixels(here / "one" / name), pixels(here / "three" / name))
    monkeypatch.setenv("WORLD_SIZE", "9")
    monkeypatch.setenv("RANK", "8")
    assert called(capsys, *words, "--out=nine")[:2] == (0, "") and not (here / "nine").exists()


@pytest.mark.parametrize("rank, world", [("3", "3"), ("-1", "2"), ("one", "2"), ("0", "0")])
def test_numbers_of_processes_that_make_no_sense(capsys, monkeypatch, network, here, rank, world):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)
    code, _, err = called(capsys, "a.jpg", f"--load={network}")
    assert code == 2 and err == f"error: RANK={rank} of WORLD_SIZE={world}: start by torchrun, or unset these variables"


# -------------------------------------------------------------------------------------------------------------- export


def test_export_hands_over_the_network_and_the_name(capsys, monkeypatch, network, tmp_path):
    import models.onnx

    monkeypatch.chdir(tmp_path)
    given = []
    monkeypatch.setattr(models.onnx, "export_painter", lambda model, path, style: given.append((style, str(path))))
    torch.save(as_examples(tiny("scream")), tmp_path / "sea.pth")
    assert main.main(["export", f"--load={network}"]) == 0
    assert main.main(["export", "--load=sea.pth", "--out=a/b.onnx"]) == 0
    assert main.main(["export", f"--load={network}", "--style=呐喊", "--out=c.onnx"]) == 0
    assert given == [("great_wave", "tiny.onnx"), ("sea", "a/b.onnx"), ("the_scream", "c.onnx")]
    assert capsys.readouterr().out == "tiny.onnx\na/b.onnx\nc.onnx\n"
    assert main.main(["export", f"--load={network}", f"--out={network}"]) == 2
    assert "must end in .onnx" in capsys.readouterr().err
