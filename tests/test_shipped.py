"""checkpoints/: the shipped models work with nothing else present, and are as good as their card says."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from config import PoetConfig, parse
from data.poetry import FORMS, SPECIALS, verses
from infer.compose import compose
from models.poet import Poet
from tasks import make_task

ROOT = Path(__file__).parent.parent
POET = ROOT / "checkpoints" / "poet.safetensors"
TANG = ROOT.parent / "shared" / "poetry" / "tang.jsonl.xz"


@pytest.fixture(scope="module")
def poet() -> Poet:
    return Poet.load(POET)


def test_the_file_is_small_and_complete(poet):
    assert POET.stat().st_size < 12e6
    assert poet.metadata["forms"] == list(FORMS) and poet.metadata["config"]["task"] == "poet"


@pytest.mark.parametrize("form", FORMS)
def test_a_hundred_poems_have_their_form(poet, form):
    count, width = FORMS[form]
    poems = compose(poet, n=100, form=form, seed=7)
    for poem in poems:
        text = "".join(poem.lines)
        assert [len(v) for v in verses(text)] == [width] * count, text
        assert not any(sign in text for sign in SPECIALS)
    assert len({str(p) for p in poems}) == 100


def test_generate_writes_from_the_shipped_file_in_any_folder(tmp_path):
    command = [sys.executable, str(ROOT / "main.py"), "generate", "--n=3", "--json", "--seed=5", "--acrostic=诗画人间"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    poems = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(poems) == 3
    for poem in poems:
        assert set(poem) == {"form", "title", "lines", "score"} and poem["form"] == "七绝"
        assert [v[0] for v in verses("".join(poem["lines"]))] == list("诗画人间")
        assert -8 < poem["score"] < 0
    assert os.listdir(tmp_path) == []


def test_title_and_author_are_heeded(poet):
    """Given a title, the poet finds the poem that belongs to it likelier than under another title."""
    own = [json.loads(line) for line in (ROOT / "dataset" / "sample" / "poetry.jsonl").read_text().splitlines()]
    cfg = parse(PoetConfig, {"load": POET})
    task = make_task(cfg)
    right = task.report("train")["bits_per_char_given"]
    for poem, other in zip(task.poems, own[1:] + own[:1], strict=True):
        poem.title = other["title"]
    assert right < task.report("train")["bits_per_char_given"] - 0.03


@pytest.mark.skipif(not TANG.exists(), reason="needs the Tang corpus beside the project (../shared/poetry)")
def test_bits_per_character_are_what_the_card_says():
    card = (ROOT / "checkpoints" / "README.md").read_text()
    said = [float(x) for x in re.search(r"Tang test split.*\*\*([\d.]+)\*\* \| \*\*([\d.]+)\*\*", card).groups()]
    report = make_task(parse(PoetConfig, {"load": POET, "data_root": TANG})).report("test")
    assert report["bits_per_char"] == pytest.approx(said[0], abs=0.006)
    assert report["bits_per_char_given"] == pytest.approx(said[1], abs=0.006)
    assert report["bits_per_char"] < 6.4
