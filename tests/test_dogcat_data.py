"""data/dogcat.py: labels and splits, what a classifier sees of a picture, the cache, broken pictures."""

import io
import os
import tarfile
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import InterpolationMode, RandomResizedCrop, v2

import data.dogcat
from data.dogcat import (
    MIN_AREA,
    DogCatDataset,
    Sample,
    centre_view,
    choose_split,
    class_names,
    collate,
    jitter_colours,
    list_samples,
    random_box,
    read_reduced,
    shuffle_regions,
)
from data.photos import Source
from utils.errors import UserError

SHARED = Path(__file__).parents[2] / "shared" / "dogcat"
CLASSES = ["cat", "dog"]


def noise(width: int = 40, height: int = 30, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def smooth(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Something like a photograph: no detail finer than a tenth of it."""
    return np.array(Image.fromarray(noise(10, 10, seed)).resize((width, height), Image.Resampling.BICUBIC))


def ramp(width: int, height: int) -> np.ndarray:
    """Red is the column, green the row, both from 0 to 255, so that a view tells where it is from."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([x, y, 0 * x], -1).round().astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def make(place: Path, *names: str, **more) -> Path:
    """Files of these names below `place`, each with another picture."""
    for number, name in enumerate(names):
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(noise(seed=number, **more)))
    return place


def pack(folder: Path, archive: Path, prefix: str = "") -> Path:
    with tarfile.open(archive, "w") as tar:
        tar.add(folder, prefix or ".")
    return archive


def labels_of(root: Path, labels: str | Path = "") -> dict[str, str | None]:
    return {sample.source.name: sample.label for sample in list_samples(root, labels)}


def invented(**counts: int) -> list[Sample]:
    names = [f"{label}.{i}.jpg" for label, count in counts.items() for i in range(count)]
    return [Sample(Source(name, Path("root")), name.split(".")[0], name[:-4]) for name in names]


def one_line(error: pytest.ExceptionInfo) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


# --------------------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize(
    "name, label",
    [
        ("cat.0.jpg", "cat"), ("dog.12499.jpg", "dog"), ("train/cat.1.jpg", "cat"), ("猫.3.png", "猫"),
        ("animals/dog.7.jpg", "dog"), ("1.jpg", None), ("test1/1.jpg", None), ("2024.12.31.jpg", None),
        ("cat.jpg", None), ("cat.x.jpg", None), ("Cat/0.jpg", "Cat"), ("train/robin/IMG_12.jpg", "robin"),
        ("Valid/robin/a.png", "robin"), ("train/n01443537/images/n01443537_0.jpg", "n01443537"), ("images/1.jpg", None),
        ("birds/test/1.jpg", None), ("cats/cat.5.jpg", "cat"),
    ],
)  # fmt: skip
def test_label_of_a_name(tmp_path, name, label):
    assert labels_of(make(tmp_path, name)) == {name: label}


def classes_of(root: Path) -> tuple[list[str], dict[str, int]]:
    """(the classes, how many pictures to train with each has)."""
    train = choose_split(list_samples(root), "train")
    return class_names(train), dict(Counter(sample.label for sample in train))


@pytest.mark.parametrize(
    "names, labels",
    [
        # Two folders or more are the classes, whatever the pictures in them are called.
        (["cats/IMG.0.jpg", "cats/cat.7.jpg", "dogs/a.jpg"], ["cats", "cats", "dogs"]),
        (["train/cats/IMG.0.jpg", "train/dogs/1.jpg", "val/cats/dog.1.jpg"], ["cats", "dogs", "cats"]),
        (["Train/Cats/1.jpg", "Train/Dogs/1.jpg", "Test/DOGS/IMG.5.jpg"], ["DOGS", "Cats", "Dogs"]),
        (["PetImages/Cat/0.jpg", "PetImages/Dog/0.jpg", "PetImages/1.jpg"], [None, "Cat", "Dog"]),
        (["pets/cats/siamese/1.jpg", "pets/cats/manx/1.jpg", "pets/dogs/1.jpg"], ["cats", "cats", "dogs"]),
        (["cats/train/1.jpg", "cats/test/2.jpg", "dogs/train/1.jpg"], ["cats", "cats", "dogs"]),
        (["training_set/cats/cat.1.jpg", "training_set/dogs/dog.1.jpg", "test_set/dogs/2.jpg"],
         ["dogs", "cats", "dogs"]),
        (["train/a/1.jpg", "train/b/1.jpg", "test/cat.1.jpg", "misc.jpg"], [None, None, "a", "b"]),
        (["images/a/1.jpg", "images/b/photos/1.jpg"], ["a", "b"]),
        # Without them, the names decide: Kaggle's, and what becomes of them when they are copied and renamed.
        (["cat.0.jpg", "cat.0 - Copy.jpg", "cat.0 - Copy (2).jpg", "cat.0 (1).jpg", "dog.1 copy.jpg"],
         ["cat"] * 4 + ["dog"]),
        (["cat.0 - 副本.jpg", "dog.0.jpg"], ["cat", "dog"]),
        (["cat_1.jpg", "dog-2.jpg", "dog (3).jpg", "Cat4.jpg"], ["Cat", "cat", "dog", "dog"]),
        (["cat.0.jpg", "cat_1.jpg", "dog.0.jpg", "holiday_1.jpg"], ["cat", "cat", "dog", None]),
        (["cat.0.jpg", "dog_1.jpg"], ["cat", "dog"]),
        (["cat.0.jpg", "dog.0.jpg", "IMG.0.jpg", "DSC.7.jpg", "IMG_1.jpg"], [None, None, None, "cat", "dog"]),
        (["animals/cat.1.jpg", "animals/dog.1.jpg", "animals/zebra/1.jpg"], ["cat", "dog", None]),
        (["cat.1.jpg", "dog.1.jpg", "misc/a.jpg"], ["cat", "dog", None]),
        # One kind of names that cameras give says nothing.
        (["holiday_1.jpg", "holiday_2.jpg", "IMG_3.jpg"], [None, None, None]),
        (["IMG_20240101_120000.jpg", "VID 2024-01-01 at 10.11.12.jpg"], [None, None]),
        # What is beside the pictures is none.
        (["cats/1.jpg", "dogs/1.jpg", "__MACOSX/cats/1.jpg", "@eaDir/1.jpg/x.jpg", ".thumbs/a/1.jpg"],
         ["cats", "dogs"]),
    ],
)  # fmt: skip
def test_labels_of_a_set(tmp_path, names, labels):
    for number, root in enumerate((make(tmp_path / "set", *names), pack(tmp_path / "set", tmp_path / "set.tar"))):
        (tmp_path / "set" / "Thumbs.db").write_bytes(b"")
        found = labels_of(root)
        assert list(found.values()) == labels, (number, found)


def test_a_picture_of_a_class_beside_the_folders_of_classes_is_named(tmp_path):
    make(tmp_path, "cats/1.jpg", "dogs/1.jpg", "old/1.jpg", "cat.5.jpg")
    with pytest.raises(
        UserError, match="^cat.5.jpg is called like a cat, but the classes are folders here .cats, dogs"
    ):
        list_samples(tmp_path)


def test_the_classes_are_those_to_train_with(tmp_path):
    make(
        tmp_path, *(f"{split}/{name}/{i}.jpg" for split in ("train", "val") for name in ("cats", "dogs") for i in "12")
    )
    make(tmp_path, "test/fish/1.jpg")
    assert classes_of(tmp_path) == (["cats", "dogs"], {"cats": 2, "dogs": 2})
    make(tmp_path, "val/birds/7.jpg")
    with pytest.raises(UserError, match="^val/birds/7.jpg is labelled birds, but the classes are cats, dogs"):
        DogCatDataset(choose_split(list_samples(tmp_path), "val"), classes_of(tmp_path)[0], 32)


def test_a_copy_goes_where_its_original_goes(tmp_path):
    names = [f"{label}.{i}" for label in CLASSES for i in range(20)]
    make(tmp_path, *(f"{name}.jpg" for name in names), *(f"{name} - Copy.jpg" for name in names))
    ids = [
        {s.id.removesuffix(" - Copy") for s in choose_split(list_samples(tmp_path), part)} for part in ("train", "val")
    ]
    assert len(ids[1]) == 4 and not ids[0] & ids[1]


def test_ids_are_kaggles(tmp_path):
    make(tmp_path, "train/cat.0.jpg", "test1/17.jpg")
    assert [sample.id for sample in list_samples(tmp_path)] == ["17", "cat.0"]


def test_a_tar_gives_what_its_folder_gives(tmp_path):
    for number, names in enumerate((["cat.0.jpg", "1.jpg"], ["a/0.jpg", "b/0.jpg"], ["train/a/0.jpg", "test/1.jpg"])):
        folder = make(tmp_path / str(number), *names)
        expected = sorted(labels_of(folder).items())
        for prefix in ("", "pets"):
            archive = pack(folder, tmp_path / f"{number}{prefix}.tar", prefix)
            found = [
                (name.removeprefix("./").removeprefix("pets/"), label) for name, label in labels_of(archive).items()
            ]
            assert sorted(found) == expected


def test_labels_from_a_file(tmp_path):
    make(tmp_path / "p", "1.jpg", "2.jpg", "3.jpg", "cat.4.jpg")
    csv = tmp_path / "labels.csv"
    csv.write_text("\ufeffid,label\r\n2,1\r\n1,0\r\ncat.4,1\r\n99,1\r\n", encoding="utf-8")
    assert labels_of(tmp_path / "p", csv) == {"1.jpg": "cat", "2.jpg": "dog", "3.jpg": None, "cat.4.jpg": "cat"}
    csv.write_text('label,"id",sure\n"house, sparrow",1,yes\nrobin , 2,no\n')
    assert labels_of(tmp_path / "p", csv) == {
        "1.jpg": "house, sparrow",
        "2.jpg": "robin",
        "3.jpg": None,
        "cat.4.jpg": "cat",
    }
    csv.write_text("id,label\n1,0\n2,1\n3,2\n")  # three classes that are called by numbers
    assert list(labels_of(tmp_path / "p", csv).values()) == ["0", "1", "2", "cat"]


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "cannot read --labels="), (b"", "expected the columns id,label"), (b"id,label\n", "expected the co"),
        (b"name,class\n1,cat\n", "expected the columns id,label"), (b"id,label\n1\n", "no label \\(id 1\\)"),
        (b"id,label\n,cat\n", "has no id"), (b"id,label\n1,cat\n1,dog\n", "id 1 is cat and dog"),
        (b"\x89PNG\r\n\xff\xfe", "not a CSV file"), (b"id,label\n7,cat\n", "no picture without a label"),
    ],
)  # fmt: skip
def test_faulty_files_of_labels_are_one_line(tmp_path, content, message):
    make(tmp_path / "p", "1.jpg", "2.jpg")
    if content is not None:
        (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        list_samples(tmp_path / "p", tmp_path / "labels.csv")
    assert "labels.csv" in one_line(error)


def test_two_pictures_of_one_id_are_refused_where_the_id_matters(tmp_path):
    make(tmp_path / "p", "test/1.jpg", "images/1.jpg", "test/2.jpg")
    (tmp_path / "labels.csv").write_text("id,label\n1,1\n")
    for ask in (lambda: list_samples(tmp_path / "p", tmp_path / "labels.csv"),
                lambda: choose_split(list_samples(tmp_path / "p"), "test")):  # fmt: skip
        with pytest.raises(UserError, match="images/1.jpg and test/1.jpg have the same id, 1"):
            ask()
    make(tmp_path / "q", "test/cat/1.jpg", "test/dog/1.jpg")  # folders tell them apart
    assert len(choose_split(list_samples(tmp_path / "q"), "test")) == 2


def test_class_names_are_sorted_and_need_to_be_two():
    assert class_names(invented(dog=2, cat=1)) == CLASSES
    assert class_names(invented(robin=1, Crow=1, Sparrow=1, crow=2)) == ["Crow", "robin", "Sparrow"]
    for samples, found in ((invented(cat=3), "only cat"), ([Sample(Source("1.jpg", Path()), None, "1")], "none")):
        with pytest.raises(
            UserError, match=f"needs two classes, here is {found}: name pictures like cat.0.jpg"
        ) as error:
            class_names(samples)
        one_line(error)


# ----------------------------------------------------------------------------------------------------- the splits


@pytest.mark.parametrize("counts", [{"cat": 2, "dog": 3}, {"cat": 19, "dog": 200}, {"a": 11, "b": 40, "c": 99}])
def test_training_and_validation_share_each_class(counts):
    samples = invented(**counts)
    train, val = (choose_split(samples, split) for split in ("train", "val"))
    assert sorted(s.source.name for s in train + val) == sorted(s.source.name for s in samples)
    assert Counter(s.label for s in val) == {label: max(1, count // 10) for label, count in counts.items()}
    assert choose_split(samples, "test") == samples


def test_the_split_of_these_names_will_never_change():
    """Fixed figures: who goes on with a run must not train on what validated it."""
    assert [s.id for s in choose_split(invented(cat=30, dog=20), "val")] == VAL


VAL = ["cat.6", "cat.26", "cat.27", "dog.8", "dog.17"]


def test_the_split_depends_on_names_of_files_only(tmp_path):
    make(tmp_path / "pets" / "train", *(f"{label}.{i}.jpg" for label in CLASSES for i in range(25)), width=2, height=2)
    archive = pack(tmp_path / "pets", tmp_path / "pets.tar", "some/where")
    expected = None
    for root in (tmp_path, tmp_path / "pets", tmp_path / "pets" / "train", archive):
        found = [sample.id for sample in choose_split(list_samples(root), "val")]
        expected = expected or found
        assert found == expected and len(found) == 4


def test_folders_of_splits_decide(tmp_path):
    make(tmp_path, "train/cat/1.jpg", "train/dog/1.jpg", "Valid/cat/2.jpg", "test/dog/3.jpg", "test/4.jpg")
    samples = list_samples(tmp_path)
    names = {split: [s.source.name for s in choose_split(samples, split)] for split in ("train", "val", "test")}
    assert names == {
        "train": ["train/cat/1.jpg", "train/dog/1.jpg"],
        "val": ["Valid/cat/2.jpg"],
        "test": ["test/4.jpg", "test/dog/3.jpg"],
    }


def test_listed_labels_are_for_the_test_if_others_are_in_the_names_and_else_for_training(tmp_path):
    make(
        tmp_path / "p", *(f"train/{label}.{i}.jpg" for label in CLASSES for i in (1, 2)), "test/1.jpg", "2.jpg", "3.jpg"
    )
    make(tmp_path / "q", "train/a.jpg", "train/b.jpg", "train/c.jpg", "train/d.jpg", "test/e.jpg")
    for name, ids in (("p", "123"), ("q", "abcde")):
        (tmp_path / f"{name}.csv").write_text("id,label\n" + "".join(f"{id},{i % 2}\n" for i, id in enumerate(ids)))
    samples = list_samples(tmp_path / "p", tmp_path / "p.csv")
    assert [s.id for s in choose_split(samples, "test")] == ["2", "3", "1"]
    assert not any(s.listed for split in ("train", "val") for s in choose_split(samples, split))
    samples = list_samples(tmp_path / "q", tmp_path / "q.csv")
    both = [s.id for split in ("train", "val") for s in choose_split(samples, split)]
    assert sorted(both) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    "names, split, message",
    [
        (["1.jpg", "2.jpg"], "train", "no labelled pictures outside of test folders: name pictures like"),
        (["test/cat.1.jpg", "test/dog.1.jpg"], "val", "no labelled pictures outside of test folders"),
        (["val/cat.1.jpg", "val/dog.1.jpg"], "train", "are in val folders: there are none to train with"),
        (["cat.1.jpg", "cat.2.jpg", "dog.1.jpg"], "train", "class dog has one picture, dog.1.jpg"),
    ],
)
def test_too_little_for_a_split_is_one_line(tmp_path, names, split, message):
    with pytest.raises(UserError, match=message) as error:
        choose_split(list_samples(make(tmp_path, *names)), split)
    one_line(error)


# ------------------------------------------------------------------------------------------------------- the views


@pytest.mark.parametrize("size", [32, 64, 128, 224])
@pytest.mark.parametrize("width, height", [(500, 375), (190, 144), (144, 191), (40, 30), (7, 20), (1, 3), (300, 301)])
def test_the_middle_is_torchvisions(width, height, size):
    rgb = smooth(width, height)
    reference = v2.Compose([v2.Resize(round(size * 256 / 224), InterpolationMode.BICUBIC), v2.CenterCrop(size)])
    expected = torch.from_numpy(np.array(reference(Image.fromarray(rgb)))).permute(2, 0, 1)  # Pillow's arithmetic
    difference = (centre_view(rgb, size).int() - expected.int()).abs().float()
    assert difference.max() <= 2 and difference.mean() < 0.1


def test_long_strips_are_not_enlarged_as_a_whole():
    for shape in ((1, 50_000), (50_000, 1), (2, 30_000)):
        rgb = np.full((*shape, 3), 7, np.uint8)
        rgb[tuple(slice(n // 2 - 1, n // 2 + 1) if n > 9 else slice(None) for n in shape)] = 200
        view = centre_view(rgb, 64)
        assert view.shape == (3, 64, 64) and view[:, 16:48, 16:48].max() > 150  # the middle is still the middle


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (1600, 1201), (3000, 500)])
def test_large_pictures_are_reduced_to_what_the_smallest_crop_needs(tmp_path, size):
    rgb = smooth(*size)
    Image.fromarray(rgb).save(tmp_path / "cat.1.jpg", quality=97)
    (sample,) = list_samples(tmp_path)
    reduced = read_reduced(sample.source, 64)
    assert min(reduced.shape[:2]) == 109 == np.ceil(64 / MIN_AREA**0.5)
    assert max(reduced.shape[:2]) == pytest.approx(109 * max(size) / min(size), abs=1)
    assert read_reduced(sample.source, 800).shape == rgb.shape  # nothing is enlarged
    whole = centre_view(rgb, 64).int()
    difference = (DogCatDataset([sample], CLASSES, 64)[0]["image"].int() - whole).abs().float()
    assert difference.max() <= 10 and difference.mean() < 1.5  # JPEG, its draft mode, two resizings instead of one
    assert np.array_equal(DogCatDataset([sample], CLASSES, 64).picture(0), centre_view(reduced, 64).permute(1, 2, 0))


def test_random_boxes_are_drawn_as_torchvision_draws_them():
    """Two samples of 2000: means and deviations of area, ratio and place; all within the picture and the bounds."""
    random, image = np.random.default_rng(0), torch.zeros(3, 144, 190)
    torch.manual_seed(0)
    mine = np.array([random_box(190, 144, random) for _ in range(2000)])
    draw = RandomResizedCrop.get_params
    its = np.array([draw(image, [MIN_AREA, 1], [3 / 4, 4 / 3]) for _ in range(2000)])  # top, left, height, width
    x, y, w, h = mine[:, 0], mine[:, 1], mine[:, 2] - mine[:, 0], mine[:, 3] - mine[:, 1]
    assert x.min() == 0 == y.min() and mine[:, 2].max() == 190 and mine[:, 3].max() == 144
    area = w * h / (190 * 144)
    assert MIN_AREA * 0.98 < area.min() < MIN_AREA * 1.05 and area.max() > 0.95
    assert 0.74 < (w / h).min() and (w / h).max() < 1.35
    top, left, height, width = its.T
    for a, b in ((w * h, width * height), (np.log(w / h), np.log(width / height)), (x, left), (y, top)):
        error = 4 * np.sqrt((a.var() + b.var()) / 2000)  # four standard errors
        assert a.mean() == pytest.approx(b.mean(), abs=error) and a.std() == pytest.approx(b.std(), rel=0.1)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (1000, 100), (100, 1000)])
def test_where_no_random_box_fits_it_is_the_middle(size):
    width, height = size
    for seed in range(5):
        x0, y0, x1, y1 = random_box(width, height, np.random.default_rng(seed), 1)
        assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
        assert abs((x0 + x1) - width) <= 1 and abs((y0 + y1) - height) <= 1
        assert (x1 - x0, y1 - y0) == (min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3)))


def test_views_show_boxes_of_the_picture_in_both_directions(tmp_path):
    (tmp_path / "cat.1.png").write_bytes(png(ramp(190, 144)))
    pictures = DogCatDataset(list_samples(tmp_path), CLASSES, 48, seed=1, jitter=0)
    mirrored, widths = 0, []
    for epoch in range(100):
        pictures.set_epoch(epoch)
        image = pictures[0]["image"].float()  # (3, 48, 48)
        columns, rows = image[0].mean(0), image[1].mean(1)
        assert (rows.diff() >= 0).all() and image[2].max() == 0
        mirrored += bool(columns[0] > columns[-1])
        widths.append(float((columns[-1] - columns[0]).abs() / 255))
    assert 30 < mirrored < 70
    assert 0.4 < min(widths) < 0.6 and 0.85 < max(widths) <= 1


def test_without_strength_colours_stay_and_the_factors_are_those_of_torchvision():
    image = torch.from_numpy(smooth(40, 30)).permute(2, 0, 1) // 3 + 70  # (3, 30, 40), nothing is cut off
    assert torch.equal(jitter_colours(image, 0, np.random.default_rng(0)), image)
    for seed in range(10):
        brightness, contrast, saturation = np.random.default_rng(seed).uniform(0.8, 1.2, 3)
        expected = v2.functional.adjust_brightness(image / 255, brightness)
        expected = v2.functional.adjust_contrast(expected, contrast)
        expected = v2.functional.adjust_saturation(expected, saturation)
        changed = jitter_colours(image, 0.2, np.random.default_rng(seed))
        assert (changed - expected * 255).abs().max() <= 1


# ------------------------------------------------------------------------------------------------ region confusion


@pytest.mark.parametrize("blocks, size, reach", [(2, 8, 1), (7, 30, 2), (7, 224, 2), (5, 64, 1), (3, 3, 2), (8, 33, 5)])
def test_every_region_appears_once_and_stays_near(blocks, size, reach):
    side = size // blocks
    start = (size % blocks) // 2
    numbers = np.full((1, size, size), -1)
    y, x = np.mgrid[: blocks * side, : blocks * side]
    numbers[0, start : start + blocks * side, start : start + blocks * side] = (y // side) * blocks + x // side
    furthest = 0
    for seed in range(30):
        image = np.concatenate([numbers, np.random.default_rng(seed).integers(0, 9, (1, size, size))])
        shuffled = shuffle_regions(image, blocks, np.random.default_rng(seed), reach)
        assert np.array_equal(shuffled[0] == -1, numbers[0] == -1)  # the border stays
        seen = []
        for row in range(blocks):
            for column in range(blocks):
                place = np.s_[
                    start + row * side : start + (row + 1) * side, start + column * side : start + (column + 1) * side
                ]
                (number,) = np.unique(shuffled[0][place])
                seen.append(number)
                from_row, from_column = divmod(int(number), blocks)
                origin = np.s_[
                    start + from_row * side : start + (from_row + 1) * side,
                    start + from_column * side : start + (from_column + 1) * side,
                ]
                assert np.array_equal(shuffled[1][place], image[1][origin])  # as a whole, not turned
                assert abs(row - from_row) < 2 * reach and abs(column - from_column) < 2 * reach
                furthest = max(furthest, abs(row - from_row), abs(column - from_column))
        assert sorted(seen) == list(range(blocks**2))
    assert furthest >= min(reach, blocks - 1)


def test_half_of_the_views_are_shuffled(tmp_path):
    (tmp_path / "cat.1.png").write_bytes(png(ramp(100, 100)))
    samples = list_samples(tmp_path)
    pictures = DogCatDataset(samples, CLASSES, 56, seed=0, jitter=0, shuffle_blocks=7)
    plain = DogCatDataset(samples, CLASSES, 56, seed=0, jitter=0)
    different = 0
    for epoch in range(60):
        pictures.set_epoch(epoch)
        plain.set_epoch(epoch)
        mine, its = pictures[0]["image"], plain[0]["image"]
        assert torch.equal(mine.flatten(1).sort().values, its.flatten(1).sort().values)
        different += not torch.equal(mine, its)
    assert 15 < different < 45
    with pytest.raises(UserError, match="--shuffle_blocks=57"):
        DogCatDataset(samples, CLASSES, 56, shuffle_blocks=57)


# ----------------------------------------------------------------------------------------------------- the dataset


def same(a: dict, b: dict) -> bool:
    return torch.equal(a["image"], b["image"]) and (a["label"], a["index"]) == (b["label"], b["index"])


def test_a_sample_is_a_function_of_seed_epoch_and_index(tmp_path):
    samples = list_samples(make(tmp_path, "cat.1.png", "dog.1.png", "cat.2.png"))
    options = {"seed": 3, "shuffle_blocks": 2}
    one, two = (DogCatDataset(samples, CLASSES, 16, **options) for _ in range(2))
    torch.manual_seed(0)
    first = [one[i] for i in range(3)]
    torch.manual_seed(1)
    assert all(same(first[i], two[i]) for i in (2, 0, 1, 1))  # in another order, one of them twice
    two.set_epoch(1)
    assert not any(same(first[i], two[i]) for i in range(3))
    assert not any(same(first[i], DogCatDataset(samples, CLASSES, 16, **options | {"seed": 4})[i]) for i in range(3))


def test_views_come_again(tmp_path):
    pictures = DogCatDataset(list_samples(make(tmp_path, "cat.1.png")), CLASSES, 16, seed=0, views=3)
    seen = []
    for epoch in range(7):
        pictures.set_epoch(epoch)
        seen.append(pictures[0])
    assert all(same(seen[i], seen[i + 3]) for i in range(4))
    assert not same(seen[0], seen[1]) and not same(seen[1], seen[2])
    assert pictures.batches(4, 0) == [[0]]


def test_batches(tmp_path):
    samples = invented(cat=12, dog=11)
    batches = DogCatDataset(samples, CLASSES, 16, seed=4, views=1).batches(5, 0)
    assert [len(batch) for batch in batches] == [5, 5, 5, 5, 3] and sorted(sum(batches, [])) == list(range(23))
    assert batches == DogCatDataset(samples, CLASSES, 16, seed=4).batches(5, 0)
    assert batches != DogCatDataset(samples, CLASSES, 16, seed=4, views=1).batches(5, 1)  # the order always changes
    assert sum(DogCatDataset(samples, CLASSES, 16).batches(5, 0), []) == list(range(23))


def test_labels_are_numbers_whatever_their_case(tmp_path):
    samples = list_samples(make(tmp_path, "Cat/1.png", "dog/2.png", "3.png", "robin/4.png"))
    pictures = DogCatDataset(samples, ["robin", "cat", "dog"], 16)
    assert {pictures.samples[s["index"]].source.name: s["label"] for s in pictures} == {
        "3.png": -1, "Cat/1.png": 1, "dog/2.png": 2, "robin/4.png": 0,
    }  # fmt: skip
    with pytest.raises(UserError, match="robin/4.png is labelled robin, but the classes are cat, dog$"):
        DogCatDataset(samples, CLASSES, 16)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more processes than this machine has cores
@pytest.mark.parametrize("cached", [False, True])
def test_workers_give_what_the_process_itself_gives(tmp_path, cached):
    make(tmp_path / "p", *(f"{label}.{i}.png" for label in CLASSES for i in range(4)))
    (tmp_path / "p" / "cat.9.png").write_bytes(b"no picture")
    samples = list_samples(tmp_path / "p") * 2  # so that two workers write the same file of the cache
    pictures = DogCatDataset(samples, CLASSES, 16, seed=0, cache=tmp_path / "cache" if cached else "")
    pictures.set_epoch(3)
    batches = pictures.batches(4, 3)
    several = list(DataLoader(pictures, batch_sampler=batches, collate_fn=collate, num_workers=2))
    alone = [collate([DogCatDataset.__getitem__(pictures, i) for i in batch]) for batch in batches]
    for mine, its in zip(alone, several, strict=True):
        assert all(torch.equal(mine[name], its[name]) for name in ("image", "label", "index"))
    assert sum(len(batch["index"]) for batch in several) == 16  # two of the same broken one are missing


def test_collate():
    sample = {"image": torch.zeros(3, 5, 5, dtype=torch.uint8), "label": 1, "index": 7}
    batch = collate([None, sample, None, {**sample, "label": -1, "index": 2}])
    assert batch["image"].shape == (2, 3, 5, 5) and batch["image"].dtype == torch.uint8
    assert batch["label"].tolist() == [1, -1] and batch["index"].tolist() == [7, 2]
    assert batch["label"].dtype == batch["index"].dtype == torch.int64
    assert collate([None, None]) is None


# ------------------------------------------------------------------------------------------------------- the cache


@pytest.fixture
def photo(tmp_path) -> list[Sample]:
    Image.fromarray(smooth(200, 150)).save(tmp_path / "cat.1.jpg")
    return list_samples(tmp_path)


def test_the_cache_changes_nothing_but_the_time(tmp_path, photo, monkeypatch):
    plain = DogCatDataset(photo, CLASSES, 32, seed=0)[0]
    cached = DogCatDataset(photo, CLASSES, 32, seed=0, cache=tmp_path / "deep" / "cache")
    assert same(cached[0], plain)
    (kept,) = (tmp_path / "deep" / "cache").iterdir()
    assert np.load(kept, allow_pickle=False).shape == (55, 73, 3)
    monkeypatch.setattr(data.dogcat, "read_reduced", None)  # whoever decodes now, fails
    assert same(cached[0], plain)


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("kind", ["cut", "empty", "text", "pickle", "other shape", "other type", "folder"])
def test_a_broken_file_in_the_cache_is_made_anew(tmp_path, photo, kind):
    cached = DogCatDataset(photo, CLASSES, 32, seed=0, cache=tmp_path / "cache")
    expected = cached[0]
    (kept,) = (tmp_path / "cache").iterdir()
    whole = kept.read_bytes()
    kept.unlink()
    if kind == "folder":
        kept.mkdir()
        with pytest.warns(UserWarning, match="no more pictures are kept: cannot write"):
            assert same(cached[0], expected)
        return
    if kind in ("cut", "empty", "text"):
        kept.write_bytes({"cut": whole[:-100], "empty": b"", "text": b"poem"}[kind])
    else:
        wrong = {
            "pickle": np.array([Trap(tmp_path / "sprung")]),
            "other shape": np.zeros((9, 9), np.uint8),
            "other type": np.zeros((9, 9, 3)),
        }
        with open(kept, "wb") as file:
            np.save(file, wrong[kind], allow_pickle=True)
    assert same(cached[0], expected) and kept.read_bytes() == whole
    assert not (tmp_path / "sprung").exists()


def test_a_changed_picture_and_another_size_are_not_taken_from_the_cache(tmp_path, photo):
    DogCatDataset(photo, CLASSES, 32, cache=tmp_path / "cache")[0]
    assert same(DogCatDataset(photo, CLASSES, 48, cache=tmp_path / "cache")[0], DogCatDataset(photo, CLASSES, 48)[0])
    Image.fromarray(smooth(200, 150, seed=1)).save(tmp_path / "cat.1.jpg")
    now = DogCatDataset(photo, CLASSES, 32)[0]
    assert same(DogCatDataset(photo, CLASSES, 32, cache=tmp_path / "cache")[0], now)
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_members_of_a_tar_have_their_own_places_in_the_cache(tmp_path):
    archive = pack(make(tmp_path / "p", "cat.1.png", "dog.1.png"), tmp_path / "p.tar")
    samples = list_samples(archive)
    for _ in range(2):
        cached = DogCatDataset(samples, CLASSES, 16, cache=tmp_path / "cache")
        assert all(same(a, b) for a, b in zip(cached, DogCatDataset(samples, CLASSES, 16), strict=True))


def test_a_cache_that_cannot_be_made_is_one_line(tmp_path, photo):
    with pytest.raises(UserError, match="^--cache=.*cat.1.jpg: cannot make this folder") as error:
        DogCatDataset(photo, CLASSES, 32, cache=tmp_path / "cat.1.jpg")
    one_line(error)
    (tmp_path / "locked").mkdir(0o555)
    if os.access(tmp_path / "locked", os.W_OK):
        pytest.skip("root may write everywhere")
    with pytest.raises(UserError, match="^--cache=.*locked: cannot write to this folder") as error:
        DogCatDataset(photo, CLASSES, 32, cache=tmp_path / "locked")
    one_line(error)


# ------------------------------------------------------------------------------------------------- broken pictures


def test_a_folder_with_5_percent_of_broken_pictures(tmp_path):
    """Every one of them is left out, and named with its reason, and nothing else is."""
    jpeg = io.BytesIO()
    Image.fromarray(noise(64, 64)).save(jpeg, "JPEG")
    faults = [b"", b"poem", jpeg.getvalue()[:600], png(noise())[:500], bytes(900)]
    make(tmp_path, *(f"{label}.{i}.jpg" for label in CLASSES for i in range(50)))
    spoilt = {f"{label}.{i * 7}.jpg": faults[i] for i, label in enumerate(["cat", "dog", "cat", "dog", "cat"])}
    for name, content in spoilt.items():
        (tmp_path / name).write_bytes(content)
    samples = list_samples(tmp_path)
    for cache in ("", tmp_path / "cache"):
        pictures = DogCatDataset(samples, CLASSES, 16, seed=0, cache=cache)
        none = [i for i in range(len(pictures)) if pictures[i] is None]
        assert {samples[i].source.name for i in none} == set(spoilt)
        for i in none:
            assert pictures.fault(i).startswith(samples[i].source.name) and "\n" not in pictures.fault(i)
    pictures = DogCatDataset(samples, CLASSES, 16)
    (tmp_path / samples[1].source.name).unlink()
    assert (
        pictures[1] is None and pictures.fault(1) == f"cannot read {samples[1].source.name}: No such file or directory"
    )
    assert pictures.fault(2).endswith("could not be read, but can be now")


def test_transparent_parts_are_white_and_grey_is_grey(tmp_path):
    rgba = np.zeros((30, 40, 4), np.uint8)
    rgba[:, :20] = (200, 10, 10, 255)
    Image.fromarray(rgba).save(tmp_path / "cat.1.png")
    Image.fromarray(np.full((30, 40), 128, np.uint8)).save(tmp_path / "dog.1.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rgb, grey = (read_reduced(sample.source, 64) for sample in list_samples(tmp_path))
    assert (rgb[:, :20] == (200, 10, 10)).all() and (rgb[:, 20:] == 255).all()
    assert grey.shape == (30, 40, 3) and (grey == 128).all()


def shared(name: str) -> Path:
    if not (SHARED / name).exists():
        pytest.skip(f"{name} is not here")
    return SHARED / name


def test_shared_broken_pictures():
    samples = list_samples(shared("broken.tar"))
    pictures = DogCatDataset(samples, CLASSES, 64, seed=0)
    for i, sample in enumerate(samples):
        number = int(sample.id.split(".")[1])
        assert (pictures[i] is None) == (number < 90010), sample.id
        if number < 90010:
            assert sample.source.name in pictures.fault(i)
    (upright,) = (s for s in samples if s.id == "dog.90015")
    assert read_reduced(upright.source, 200).shape[:2] == (144, 159)  # EXIF: stored 144 x 159 pixels, width first


def test_shared_train_and_test_set():
    samples = list_samples(shared("train.tar"))
    assert class_names(samples) == CLASSES and len(choose_split(samples, "train")) == 3600
    assert Counter(s.label for s in choose_split(samples, "val")) == {"cat": 200, "dog": 200}
    samples = choose_split(list_samples(shared("test.tar"), shared("test_labels.csv")), "test")
    assert Counter(s.label for s in samples) == {"cat": 200, "dog": 200}
    assert {s.id for s in samples} == {str(i) for i in range(1, 401)}
