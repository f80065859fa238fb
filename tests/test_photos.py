"""data/photos.py: what is found in folders and archives, what a sample is, what happens to broken pictures."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from data.photos import PhotoDataset, Source, choose_split, collate, in_other_light, list_pictures, read_source
from tests.pictures import noise, pack, png, ramp
from utils.errors import UserError


def folder(place: Path, **names_and_sizes: tuple[int, int]) -> Path:
    for number, (name, size) in enumerate(names_and_sizes.items()):
        Image.fromarray(noise(*size, seed=number)).save(place / f"{name}.png")
    return place


def dataset(place: Path, size: int = 16, styles: int = 3, **more) -> PhotoDataset:
    return PhotoDataset(list_pictures(place), size, styles, **{"each": 2, "seed": 0, **more})


def names(place: Path) -> list[str]:
    return [source.name for source in list_pictures(place)]


# ------------------------------------------------------------------------------------------------ what is found


def test_pictures_of_a_folder_by_name_and_however_deep(tmp_path):
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / ".cache").mkdir()
    found = ("z.JPG", "a.png", "b/y.webp", "b/c/x.tiff", "读.jpeg")
    for name in (*found, ".hidden.png", ".cache/thumb.png", "b/._y.webp", "notes.txt", "b/jpg", "movie.mp4", "a.bak"):
        (tmp_path / name).touch()
    assert names(tmp_path) == ["a.png", "b/c/x.tiff", "b/y.webp", "z.JPG", "读.jpeg"]


def test_links_are_followed_but_not_in_circles(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "elsewhere").mkdir()
    for name in ("photos/a.png", "elsewhere/b.png"):
        (tmp_path / name).touch()
    (tmp_path / "photos" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "again").symlink_to(tmp_path / "photos")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "photos")
    assert sorted(Path(name).name for name in names(tmp_path / "photos")) == ["a.png", "b.png"]


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_odd_members_of_a_tar(tmp_path):
    odd = ("./a.png", "/abs/b.png", "notes.txt", ".hidden.png", "__MACOSX/a.png")
    path = write_tar(tmp_path / "odd.tar", {**dict.fromkeys(odd, png(noise())), "empty.png": b""})
    with tarfile.open(path, "a") as archive:
        for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo("odd.png")
            info.type, info.linkname = kind, "/etc/hostname"
            archive.addfile(info)
    assert names(path) == ["./a.png", "/abs/b.png", "empty.png"]
    photos = dataset(path)
    assert [photos[i]["broken"] for i in range(3)] == [[], [], ["empty.png"]]


def test_a_folder_and_its_tar_give_the_same_samples(tmp_path):
    place = tmp_path / "photos"
    place.mkdir()
    pack(folder(place, a=(40, 30), b=(25, 50), c=(16, 16)), tmp_path / "photos.tar")
    for mine, its in zip(dataset(place), dataset(tmp_path / "photos.tar"), strict=True):
        assert torch.equal(mine["image"], its["image"]) and torch.equal(mine["style"], its["style"])


NO_PLACE, NO_PICTURES = "expected a folder of pictures or a whole, uncompressed .tar", "no pictures in it"
PLACES = {
    "missing": (lambda place: None, "does not exist"),
    "empty folder": (lambda place: place.mkdir(), NO_PICTURES),
    "picture": (lambda place: place.write_bytes(png(noise())), NO_PLACE),
    "gz": (lambda place: write_tar(place, {"a.png": png(noise())}, "w:gz"), NO_PLACE),
    "empty file": (lambda place: place.touch(), NO_PLACE),
    "cut": (lambda place: place.write_bytes(write_tar(place, {"a.png": png(noise())}).read_bytes()[:700]), NO_PLACE),
    "no pictures": (lambda place: write_tar(place, {"a.txt": b"poem"}), NO_PICTURES),
}


@pytest.mark.parametrize("make, expected", PLACES.values(), ids=PLACES)
def test_places_without_pictures_are_one_line(tmp_path, make, expected):
    place = tmp_path / "place"
    make(place)
    for option in ("data_root", "style_image"):
        with pytest.raises(UserError, match=expected) as error:
            list_pictures(place, option)
        assert str(error.value).startswith(f"{option}={place}") and "\n" not in str(error.value)


# ----------------------------------------------------------------------------------------------------- the split


def sources(count: int) -> list[Source]:
    return [Source(f"folder/{i:05}.jpg", Path("root")) for i in range(count)]


@pytest.mark.parametrize("count", [3, 4, 39, 40, 1000])
def test_the_splits_are_disjoint_and_complete(count):
    parts = {split: choose_split(sources(count), split) for split in ("train", "val", "test")}
    together = [source.name for part in parts.values() for source in part]
    assert len(together) == count and set(together) == {source.name for source in sources(count)}
    assert len(parts["val"]) == len(parts["test"]) == min(max(2, count // 20), count // 3)


def test_the_split_does_not_depend_on_the_order_or_the_place():
    moved = [Source(source.name, Path("elsewhere"), 512, 9) for source in reversed(sources(100))]
    for split in ("train", "val", "test"):
        assert [s.name for s in choose_split(sources(100), split)] == [s.name for s in choose_split(moved, split)]


def test_the_split_of_these_names_will_never_change():
    """Fixed figures: who goes on with a run must train on the same photographs."""
    assert [s.name[-9:-4] for s in choose_split(sources(100), "val")] == ["00033", "00069", "00067", "00047", "00007"]
    assert [s.name[-9:-4] for s in choose_split(sources(100), "test")] == ["00092", "00038", "00091", "00040", "00065"]


def test_too_few_photographs():
    with pytest.raises(UserError, match="^data_root: 2 photographs are too few"):
        choose_split(sources(2), "train")
    with pytest.raises(UserError, match="^others: 1 photograph is too few"):
        choose_split(sources(1), "val", "others")


# ----------------------------------------------------------------------------------------------------- the samples


def same(a: dict, b: dict) -> bool:
    return torch.equal(a["image"], b["image"]) and torch.equal(a["style"], b["style"]) and a["broken"] == b["broken"]


def test_a_sample_is_a_function_of_seed_epoch_and_index(tmp_path):
    folder(tmp_path, a=(40, 30), b=(40, 30), c=(40, 30))
    one, two = dataset(tmp_path), dataset(tmp_path)
    torch.manual_seed(0)
    first = [one[i] for i in range(3)]
    torch.manual_seed(1)
    again = [two[i] for i in (2, 0, 1, 1)]  # in another order, one of them twice
    assert all(same(first[i], sample) for i, sample in zip((2, 0, 1, 1), again, strict=True))
    two.set_epoch(1)
    assert not any(same(first[i], two[i]) for i in range(3))
    two.set_epoch(0)
    assert same(first[0], two[0])
    assert not any(same(first[i], dataset(tmp_path, seed=1)[i]) for i in range(3))


def test_workers_give_what_the_process_itself_gives(tmp_path):
    photos = dataset(folder(tmp_path, a=(40, 30), b=(40, 30), c=(40, 30), d=(16, 50)))
    photos.set_epoch(3)
    batches = photos.batches(2, 3)
    loaders = [DataLoader(photos, batch_sampler=batches, collate_fn=collate, num_workers=n) for n in (0, 1)]
    for mine, its in zip(*loaders, strict=True):
        assert same(mine, its)


def test_batches_are_a_permutation_of_the_epoch(tmp_path):
    photos = PhotoDataset(sources(23), 16, 3, seed=4)
    batches = photos.batches(5, 0)
    assert [len(batch) for batch in batches] == [5, 5, 5, 5, 3]
    assert sorted(sum(batches, [])) == list(range(23))
    assert batches == photos.batches(5, 0) and batches != photos.batches(5, 1)
    assert photos.batches(5, 0, limit=2) == batches[:2] and photos.batches(5, 0, limit=99) == batches


@pytest.fixture
def by_day(monkeypatch):
    monkeypatch.setattr("data.photos.in_other_light", lambda pixels, random: pixels)


def test_some_crops_are_seen_in_a_dusk_or_a_fog():
    """Of a grey square: the contrast that is left, of black or of white, is a plane."""
    grey = np.full((40, 40, 3), 100, np.uint8)
    y, x = np.mgrid[0:40, 0:40]
    plane = np.stack([x, y, np.ones_like(x)], -1).reshape(-1, 3).astype(float)
    kinds, least, directions = {"day": 0, "dusk": 0, "fog": 0}, [], []
    for seed in range(400):
        seen = in_other_light(grey, np.random.default_rng(seed))
        assert seen.dtype == np.uint8 and (seen == seen[..., :1]).all()  # no colour
        veil = 0 if seen.mean() < 100 else 255
        left = (seen[..., 0].astype(float) - veil) / (100 - veil)  # of the contrast
        fitted, *_ = np.linalg.lstsq(plane, left.ravel(), rcond=None)
        assert np.abs(plane @ fitted - left.ravel()).max() * abs(100 - veil) < 1  # rounded
        kind = "day" if (seen == 100).all() else "fog" if veil else "dusk"
        kinds[kind] += 1
        least.append(left.min())
        directions += [tuple(np.sign(fitted[:2]))] if kind != "day" else []
    assert 170 < kinds["day"] < 230 and 100 < kinds["dusk"] < 165 and 45 < kinds["fog"] < 90
    assert 0.09 < min(least) < 0.13
    assert set(directions) == {(1, 1), (1, -1), (-1, 1), (-1, -1)}


def test_crops_lie_in_the_picture_in_all_sizes_and_both_ways_round(tmp_path, by_day):
    Image.fromarray(ramp(300, 200)).save(tmp_path / "ramp.png")
    photos = dataset(tmp_path, size=64, seed=2)
    sides, mirrored, left, top = [], 0, [], []
    for photos.epoch in range(100):
        image = photos[0]["image"].float()  # (3, 64, 64)
        columns, rows = image[0].mean(0) / 255 * 300, image[1].mean(1) / 255 * 200  # where they are from, in pixels
        assert (rows.diff() >= 0).all() and image[2].max() == 0
        mirrored += bool(columns[0] > columns[-1])
        width, height = (columns[-1] - columns[0]).abs() * 64 / 63, (rows[-1] - rows[0]) * 64 / 63
        assert width == pytest.approx(height, abs=6)  # a square, not stretched
        sides.append(float(height))
        left.append(float(columns.min()))
        top.append(float(rows.min()))
    assert 30 < mirrored < 70
    assert 73 <= min(sides) < 90 and 185 < max(sides) <= 204  # from 0.38 of the height to all of it
    assert min(left) < 15 and max(left) > 150 and min(top) < 5 and max(top) > 70


def test_without_a_seed_it_is_the_middle_and_all_styles(tmp_path):
    Image.fromarray(ramp(300, 100)).save(tmp_path / "wide.png")
    Image.fromarray(ramp(100, 300)).save(tmp_path / "high.png")
    photos = dataset(tmp_path, size=50, styles=5, seed=None)
    for index, middle in ((0, 1), (1, 0)):  # high: rows 100 to 200; wide: columns
        image = photos[index]["image"][middle].float().mean(middle) / 255 * 300  # (50)
        assert image[0] == pytest.approx(101, abs=2) and image[-1] == pytest.approx(199, abs=2)
        assert photos[index]["style"].tolist() == [0, 1, 2, 3, 4]
    photos.set_epoch(7)
    assert same(photos[0], dataset(tmp_path, size=50, styles=5, seed=None)[0])


def test_styles_are_different_ones_and_all_turn_up(tmp_path):
    photos = dataset(folder(tmp_path, a=(20, 20)), styles=5, each=3)
    seen = []
    for photos.epoch in range(60):
        styles = photos[0]["style"].tolist()
        assert len(set(styles)) == 3
        seen += styles
    assert {style: seen.count(style) >= 20 for style in range(5)} == dict.fromkeys(range(5), True)
    assert sorted(dataset(tmp_path, styles=2, each=4)[0]["style"].tolist()) == [0, 1]


def test_collate(tmp_path):
    (tmp_path / "b.png").touch()
    photos = dataset(folder(tmp_path, a=(20, 20), c=(30, 20)), size=17)
    batch = collate([photos[i] for i in range(3)])
    assert batch["image"].shape == (3, 3, 17, 17) and batch["image"].dtype == torch.uint8
    assert batch["style"].shape == (3, 2) and batch["style"].dtype == torch.int64
    assert batch["broken"] == ["b.png"]


# ------------------------------------------------------------------------------------------------ odd pictures


def test_tiny_photographs_are_enlarged(tmp_path, by_day):
    colour = (10, 200, 90)
    for size in ((1, 1), (1, 60), (60, 1), (2, 3), (15, 16)):
        Image.new("RGB", size, colour).save(tmp_path / "tiny.png")
        for seed in (None, *range(20)):
            image = dataset(tmp_path, seed=seed)[0]["image"]  # (3, 16, 16)
            assert image.shape == (3, 16, 16) and (image == torch.tensor(colour).view(3, 1, 1)).all()


def test_a_large_jpeg_is_decoded_small_and_looks_the_same(tmp_path):
    large = Image.fromarray(ramp(1600, 1200))
    large.save(tmp_path / "large.jpg", quality=95)
    photos = dataset(tmp_path, size=64, seed=None)
    assert read_source(photos.sources[0], 128).rgb.shape == (128, 171, 3)
    expected = large.resize((64, 64), Image.Resampling.BICUBIC, box=(200, 0, 1400, 1200))
    difference = photos[0]["image"].permute(1, 2, 0).int() - torch.from_numpy(np.array(expected)).int()
    assert difference.abs().max() <= 4


# ----------------------------------------------------------------------------------------------- broken pictures


def spoilt(place: Path) -> list[str]:
    """Writes files that are no pictures; their names in order."""
    files = {
        "b0_empty.jpg": b"",
        "b1_text.jpg": b"a poem",
        "b2_cut.png": png(noise())[:500],
        "b3_zeros.jpg": bytes(5000),
    }
    for name, data in files.items():
        (place / name).write_bytes(data)
    return list(files)


def test_broken_pictures_are_replaced_by_the_next_one_and_named(tmp_path):
    broken = [*spoilt(tmp_path), "b4_gone.png"]
    folder(tmp_path, a=(40, 30), c=(40, 30), b4_gone=(9, 9))
    photos = dataset(tmp_path)
    (tmp_path / "b4_gone.png").unlink()
    assert [source.name for source in photos.sources] == ["a.png", *broken, "c.png"]
    assert photos[0]["broken"] == [] and photos[6]["broken"] == []
    for index in range(1, 6):
        assert photos[index]["broken"] == broken[index - 1 :]
    alone = PhotoDataset([photos.sources[-1]] * 7, 16, 3, 2, 0)  # c.png itself, with the crops of each index
    assert all(torch.equal(photos[i]["image"], alone[i]["image"]) for i in range(1, 7))


def test_all_broken_is_one_line_with_the_reason_else_the_last_ones_are_replaced_by_the_first(tmp_path):
    broken = spoilt(tmp_path)
    with pytest.raises(UserError) as error:
        dataset(tmp_path)[2]
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("none of the 4 photographs can be read; the first: b2_cut.png is broken")
    assert dataset(folder(tmp_path, a=(40, 30)))[3]["broken"] == broken[2:]
