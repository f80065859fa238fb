"""docs/cookbook.md: what it names stands where it says, and its code runs."""

import dataclasses
import re

import pytest

import config
import main
from tests.quotes import LINK, ROOT, squeezed, symbols

TEXT = (ROOT / "docs" / "cookbook.md").read_text(encoding="utf-8")
CODE = re.findall(r"```python\n(.*?)```", TEXT, re.S)
PROSE = re.sub(r"```.*?```", "", TEXT, flags=re.S)


def test_symbols_are_there():
    links = re.findall(LINK, PROSE)
    assert len(links) == len(re.findall(r"\]\(\.\./", PROSE)) > 100
    for path, symbol, target in links:
        assert path == target and (not symbol or symbol in symbols(path)), f"{path} has no {symbol}"


def test_quoted_lines_stand_where_they_are_said_to():
    quotes = re.findall(rf"`([^`]+)` in {LINK}", PROSE)
    assert len(quotes) == PROSE.count("` in [") > 20
    for code, path, symbol, _ in quotes:
        assert squeezed(code) in squeezed(symbols(path)[symbol]), f"{path}: {symbol} does not have {code}"


def test_commands_and_options_exist():
    options = {f.name for sets in config.OPTIONS.values() for cls in sets for f in dataclasses.fields(cls)}
    commands = re.findall(r"main\.py ([\w]+)", PROSE)
    assert set(commands) <= set(main.COMMANDS) and len(commands) > 5
    named = [name for code in re.findall(r"`([^`]+)`", PROSE) for name in re.findall(r"--(\w+)", code)]
    assert len(named) > 20 and set(named) - options == {"logdir"}, set(named) - options


@pytest.mark.parametrize("number", range(len(CODE)))
def test_the_code_runs(number, tmp_path, monkeypatch):
    for name in ("checkpoints", "dataset"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)  # what it writes is not left in the project
    monkeypatch.syspath_prepend(ROOT)
    exec(compile(CODE[number], f"cookbook.md, block {number + 1}", "exec"), {"__name__": "cookbook"})
