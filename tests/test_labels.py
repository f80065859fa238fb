"""data/labels.py: of which class pictures are, and what for."""

from collections import Counter
from pathlib import Path

import pytest

from data.dogcat import DogCatDataset
from data.labels import Sample, choose_split, class_names, list_samples
from data.photos import Source
from tests.pictures import invented, make, one_line, pack
from utils.errors import UserError

CLASSES = ["cat", "dog"]


def labels_of(root: Path, labels: str | Path = "") -> dict[str, str | None]:
    return {sample.source.name: sample.label for sample in list_samples(root, labels)}


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


def test_the_classes_are_those_to_train_with(tmp_path):
    folders = [f"{split}/{name}" for split in ("train", "val") for name in ("cats", "dogs")]
    make(tmp_path, *(f"{folder}/{i}.jpg" for folder in folders for i in "12"), "test/fish/1.jpg")
    assert classes_of(tmp_path) == (["cats", "dogs"], {"cats": 2, "dogs": 2})
    make(tmp_path, "val/birds/7.jpg")
    with pytest.raises(UserError, match="^val/birds/7.jpg is labelled birds, but the classes are cats, dogs"):
        DogCatDataset(choose_split(list_samples(tmp_path), "val"), classes_of(tmp_path)[0], 32)


def test_a_copy_goes_where_its_original_goes(tmp_path):
    names = [f"{label}.{i}" for label in CLASSES for i in range(20)]
    make(tmp_path, *(f"{name}.jpg" for name in names), *(f"{name} - Copy.jpg" for name in names))
    parts = [choose_split(list_samples(tmp_path), part) for part in ("train", "val")]
    train, val = ({sample.id.removesuffix(" - Copy") for sample in part} for part in parts)
    assert len(val) == 4 and not train & val


def test_labels_from_a_file(tmp_path):
    make(tmp_path / "p", "1.jpg", "2.jpg", "3.jpg", "cat.4.jpg")
    csv = tmp_path / "labels.csv"
    csv.write_text("\ufeffid,label\r\n2,1\r\n1,0\r\ncat.4,1\r\n99,1\r\n", encoding="utf-8")
    assert labels_of(tmp_path / "p", csv) == {"1.jpg": "cat", "2.jpg": "dog", "3.jpg": None, "cat.4.jpg": "cat"}
    csv.write_text('label,"id",sure\n"house, sparrow",1,yes\nrobin , 2,no\n')
    assert list(labels_of(tmp_path / "p", csv).values()) == ["house, sparrow", "robin", None, "cat"]
    csv.write_text("id,label\n1,0\n2,1\n3,2\n")  # three classes that are called by numbers
    assert list(labels_of(tmp_path / "p", csv).values()) == ["0", "1", "2", "cat"]


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "labels=.*: cannot be read"), (b"", "expected the columns id,label"), (b"id,label\n", "expected the co"),
        (b"name,class\n1,cat\n", "expected the columns id,label"), (b"id,label\n1\n", "no label \\(id 1\\)"),
        (b"id,label\n,cat\n", "has no id"), (b"id,label\n1,cat\n1,dog\n", "id 1 is cat and dog"),
        (b"\x89PNG\r\n\xff\xfe", "is not a CSV file"), (b"id,label\n7,cat\n", "no picture without a label"),
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
        with pytest.raises(UserError, match=f"needs two classes, here is {found}: name pictures like cat.0") as error:
            class_names(samples)
        one_line(error)


@pytest.mark.parametrize("counts", [{"cat": 2, "dog": 3}, {"cat": 19, "dog": 200}, {"a": 11, "b": 40, "c": 99}])
def test_training_and_validation_share_each_class(counts):
    samples = invented(**counts)
    train, val = (choose_split(samples, split) for split in ("train", "val"))
    assert sorted(s.source.name for s in train + val) == sorted(s.source.name for s in samples)
    assert Counter(s.label for s in val) == {label: max(1, count // 10) for label, count in counts.items()}
    assert choose_split(samples, "test") == samples


def test_the_split_of_these_names_will_never_change():
    """Fixed figures: who goes on with a run must not train on what validated it."""
    held_out = ["cat.6", "cat.26", "cat.27", "dog.8", "dog.17"]
    assert [s.id for s in choose_split(invented(cat=30, dog=20), "val")] == held_out


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
    train, test = ["train/cat/1.jpg", "train/dog/1.jpg"], ["test/4.jpg", "test/dog/3.jpg"]
    assert names == {"train": train, "val": ["Valid/cat/2.jpg"], "test": test}


def test_listed_labels_are_for_the_test_if_others_are_in_the_names_and_else_for_training(tmp_path):
    named = [f"train/{label}.{i}.jpg" for label in CLASSES for i in (1, 2)]
    make(tmp_path / "p", *named, "test/1.jpg", "2.jpg", "3.jpg")
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
        (["cats/1.jpg", "dogs/1.jpg", "cat.5.jpg"], "train", "^cat.5.jpg is called like a cat, but .* folders here"),
    ],
)
def test_too_little_for_a_split_is_one_line(tmp_path, names, split, message):
    with pytest.raises(UserError, match=message) as error:
        choose_split(list_samples(make(tmp_path, *names)), split)
    one_line(error)
