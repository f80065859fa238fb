"""dataset/sample: the pictures that a training starts with when it is given none."""

import random
import re
from collections import Counter
from pathlib import Path

from PIL import Image

from data.labels import class_names, list_samples
from data.photos import EMBEDDED, HELD_OUT, choose_split, list_pictures
from data.poem_files import EMBEDDED as POETRY
from data.poem_files import read_poems
from data.verse import split_verses
from shihua import Poet

SAMPLE = EMBEDDED.parent


def files(folder: Path) -> dict[str, Path]:
    return {source.path.stem: source.path for source in list_pictures(folder)}


def test_there_are_photographs_for_every_split():
    sources = list_pictures(EMBEDDED)
    splits = {name: {s.name for s in choose_split(sources, name)} for name in ("train", "val", "test")}
    assert len(splits["train"]) >= 20 and splits["val"] and splits["test"]
    assert len(set().union(*splits.values())) == sum(map(len, splits.values())) == len(sources) == 24 > HELD_OUT


def test_there_are_as_many_cats_as_dogs():
    learnt = list_samples(SAMPLE / "dogcat" / "train")
    judged = list_samples(SAMPLE / "dogcat" / "test", labels=SAMPLE / "dogcat" / "test_labels.csv")
    assert class_names(learnt) == ["cat", "dog"]
    assert Counter(sample.label for sample in learnt) == {"cat": 48, "dog": 48}
    assert Counter(sample.label for sample in judged) == {"cat": 12, "dog": 12}
    assert {sample.label for sample in list_samples(SAMPLE / "dogcat" / "test")} == {None}  # the names tell nothing
    assert {int(sample.id) for sample in judged} == set(range(1, 25))


def test_they_are_small_and_of_the_size_that_the_readme_tells():
    readme = (SAMPLE / "README.md").read_text()
    sides = tuple(map(int, re.search(r"(\d+) x (\d+) pixels", readme).groups()))
    assert f"{len(files(EMBEDDED))} " in readme and f"{len(files(SAMPLE / 'styles'))} paintings" in readme
    assert all(f"`{name}`" in readme for name in files(SAMPLE / "styles"))
    for folder, limit in ((EMBEDDED, 500_000), (SAMPLE / "styles", 250_000), (SAMPLE / "dogcat", 500_000)):
        assert sum(path.stat().st_size for path in folder.rglob("*.jpg")) < limit
    for path in files(EMBEDDED).values():
        with Image.open(path) as image:
            assert tuple(sorted(image.size)) == sides and image.format == "JPEG" and image.mode == "RGB"


def test_the_poems_are_regular_and_no_verse_occurs_twice():
    poems = read_poems(POETRY / "written.jsonl.xz")
    assert len(poems) >= 5000 and (POETRY / "written.jsonl.xz").stat().st_size < 600_000
    assert {poem.form for poem in poems} == {"五绝", "七绝"}
    assert len({(poem.title, poem.form) for poem in poems}) == len(poems)
    assert max(Counter(verse for poem in poems for verse in split_verses(poem.lines)).values()) == 1
    check = Poet().check
    assert all(check(poem.lines).regular for poem in random.Random(0).sample(poems, 100))
