"""data/dogcat.py: samples by seed, epoch and index, the cache, broken pictures."""

import os

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import data.dogcat
from data.dogcat import DogCatDataset, collate
from data.labels import Sample, list_samples
from data.views import Augmentation
from tests.pictures import invented, make, one_line, pack, smooth
from utils.errors import UserError

CLASSES = ["cat", "dog"]


def same(a: dict, b: dict) -> bool:
    return torch.equal(a["image"], b["image"]) and (a["label"], a["index"]) == (b["label"], b["index"])


def test_a_sample_is_a_function_of_seed_epoch_and_index(tmp_path):
    samples = list_samples(make(tmp_path, "cat.1.png", "dog.1.png", "cat.2.png"))
    options = {"seed": 3, "shuffle_blocks": 2}
    one, two = (DogCatDataset(samples, CLASSES, 16, Augmentation(**options)) for _ in range(2))
    torch.manual_seed(0)
    first = [one[i] for i in range(3)]
    torch.manual_seed(1)
    assert all(same(first[i], two[i]) for i in (2, 0, 1, 1))  # in another order, one of them twice
    two.set_epoch(1)
    assert not any(same(first[i], two[i]) for i in range(3))
    other = DogCatDataset(samples, CLASSES, 16, Augmentation(**options | {"seed": 4}))
    assert not any(same(first[i], other[i]) for i in range(3))


def test_views_come_again(tmp_path):
    pictures = DogCatDataset(list_samples(make(tmp_path, "cat.1.png")), CLASSES, 16, Augmentation(views=3))
    seen = []
    for epoch in range(5):
        pictures.set_epoch(epoch)
        seen.append(pictures[0])
    assert same(seen[0], seen[3]) and same(seen[1], seen[4])
    assert not any(same(seen[2], other) for other in seen[:2])


def test_batches():
    samples = invented(cat=12, dog=11)
    pictures = DogCatDataset(samples, CLASSES, 16, Augmentation(seed=4, views=1))
    batches = pictures.batches(5, 0)
    assert [len(batch) for batch in batches] == [5, 5, 5, 5, 3] and sorted(sum(batches, [])) == list(range(23))
    assert batches == DogCatDataset(samples, CLASSES, 16, Augmentation(seed=4)).batches(5, 0)
    assert batches != pictures.batches(5, 1)  # the order always changes
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
def test_workers_give_what_the_process_itself_gives(tmp_path):
    make(tmp_path / "p", *(f"{label}.{i}.png" for label in CLASSES for i in range(4)))
    (tmp_path / "p" / "cat.9.png").write_bytes(b"no picture")
    samples = list_samples(tmp_path / "p") * 2  # so that two workers write the same file of the cache
    cached, plain = (DogCatDataset(samples, CLASSES, 16, Augmentation(), cache) for cache in (tmp_path / "cache", ""))
    for pictures in (cached, plain):
        pictures.set_epoch(3)
    batches = plain.batches(4, 3)
    several = list(DataLoader(cached, batch_sampler=batches, collate_fn=collate, num_workers=2))
    alone = (collate([plain[i] for i in batch]) for batch in batches)
    for mine, its in zip(alone, several, strict=True):
        assert all(torch.equal(mine[name], its[name]) for name in ("image", "label", "index"))
    assert sum(len(batch["index"]) for batch in several) == 16  # two of the same broken one are missing


@pytest.fixture
def photo(tmp_path) -> list[Sample]:
    Image.fromarray(smooth(200, 150)).save(tmp_path / "cat.1.jpg")
    return list_samples(tmp_path)


def test_the_cache_changes_nothing_but_the_time(tmp_path, photo, monkeypatch):
    plain = DogCatDataset(photo, CLASSES, 32, Augmentation(seed=0))[0]
    cached = DogCatDataset(photo, CLASSES, 32, Augmentation(seed=0), cache=tmp_path / "deep" / "cache")
    assert same(cached[0], plain)
    (kept,) = (tmp_path / "deep" / "cache").iterdir()
    assert np.load(kept, allow_pickle=False).shape == (55, 73, 3)
    monkeypatch.setattr(data.dogcat, "read_reduced", None)  # whoever decodes now, fails
    assert same(cached[0], plain)


@pytest.mark.parametrize("kind", ["cut", "text", "other shape", "other type", "folder"])
def test_a_broken_file_in_the_cache_is_made_anew(tmp_path, photo, kind):
    cached = DogCatDataset(photo, CLASSES, 32, Augmentation(seed=0), cache=tmp_path / "cache")
    expected = cached[0]
    (kept,) = (tmp_path / "cache").iterdir()
    whole = kept.read_bytes()
    kept.unlink()
    if kind == "folder":
        kept.mkdir()
        with pytest.warns(UserWarning, match="no more pictures are kept: cannot write"):
            assert same(cached[0], expected)
        return
    if kind in ("cut", "text"):
        kept.write_bytes({"cut": whole[:-100], "text": b"poem"}[kind])
    else:
        with open(kept, "wb") as file:
            np.save(file, {"other shape": np.zeros((9, 9), np.uint8), "other type": np.zeros((9, 9, 3))}[kind])
    assert same(cached[0], expected) and kept.read_bytes() == whole


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
    with pytest.raises(UserError, match="^cache=.*cat.1.jpg: cannot make this folder") as error:
        DogCatDataset(photo, CLASSES, 32, cache=tmp_path / "cat.1.jpg")
    one_line(error)
    (tmp_path / "locked").mkdir(0o555)
    if os.access(tmp_path / "locked", os.W_OK):
        pytest.skip("root may write everywhere")
    with pytest.raises(UserError, match="^cache=.*locked: cannot write to this folder") as error:
        DogCatDataset(photo, CLASSES, 32, cache=tmp_path / "locked")
    one_line(error)
