"""README.md and README.zh.md: what they tell people to type exists, what they say lies there lies there."""

import dataclasses
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

import config
import main

ROOT = Path(main.__file__).parent
READMES = ("README.md", "README.zh.md")
USAGE = ("docs/usage.md", "docs/usage.zh.md", "docs/data.md")


def commands(text: str) -> list[list[str]]:
    """Everything after `main.py` in code blocks and inline code."""
    found = re.findall(r"(?:python|uv run) main\.py ([^`\n#]+)", text)
    return [shlex.split(line.replace("…", "")) for line in found if "COMMAND" not in line]


def test_the_first_two_blocks_are_the_two_commands():
    for name in READMES:
        blocks = re.findall(r"```\n(.*?)\n```", (ROOT / name).read_text(), re.S)
        assert blocks[:2] == ["pip install uv && uv run main.py train --lr=1e-3", "uv run pytest"]


@pytest.mark.parametrize("name", [*READMES, *USAGE])
def test_every_command_and_option_exists(name):
    seen = set()
    for words in commands((ROOT / name).read_text()):
        command = words[0].rstrip("。，")
        assert command in main.COMMANDS, words
        options = {f.name for cls in config.OPTIONS[command] for f in dataclasses.fields(cls)}
        for option in re.findall(r"--(\w+)", " ".join(words)):
            assert option in options, f"{words}: no --{option}"
        seen.add(command)
    assert name not in READMES or seen == set(main.COMMANDS), "a command that the README does not show"


@pytest.mark.parametrize("name", READMES)
def test_it_is_short_and_its_file_tree_is_true(name):
    text = (ROOT / name).read_text()
    assert len(text.splitlines()) <= 150
    tree = re.search(r"```\n(main\.py .*?)\n```", text, re.S)[1]
    folder = ROOT
    for line in tree.splitlines():
        for path in re.findall(r"^ *([\w./]+)(?= {2,}|$)|(?<=  )(\w+/)(?= |$)", line):
            path = "".join(path)
            if line.startswith("  "):
                assert (folder / path).exists(), path
            else:
                assert (ROOT / path).exists(), path
                folder = ROOT / path


@pytest.mark.parametrize("names", [READMES, USAGE[:2]])
def test_both_languages_show_the_same_commands(names):
    both = [[c[0] for c in commands((ROOT / name).read_text())] for name in names]
    assert both[0] == both[1]


DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.S)
    assert "@@" not in text, "a place that was left to fill in"
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (path.parent / target).exists(), target


def test_the_six_lines_of_python_run(tmp_path, monkeypatch, capsys):
    """In both languages; what they leave is a card."""
    blocks = {
        block
        for name in READMES
        for block in re.findall(r"```python\n(import shihua\n.*?)```", (ROOT / name).read_text(), re.S)
    }
    assert blocks
    with Image.open(ROOT / "dataset" / "sample" / "photos" / "fjord_dusk.jpg") as photo:
        photo.convert("RGB").resize((120, 80)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        program = compile(block, "README.md", "exec")
        exec(program, {})
    poem, answer = capsys.readouterr().out.rsplit("\n", 2)[:2]
    assert len(poem.splitlines()) >= 3 and answer.startswith("photo.jpg: ")
    with Image.open("card.png") as card:
        assert card.width >= 120
