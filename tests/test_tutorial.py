"""docs/tutorial.md and its Chinese twin: the commands are typed at a terminal, and print what the tutorial shows."""

import re
from itertools import islice
from pathlib import Path

import pytest

import main
from board.frontend import fetch_frontend, missing_files, static_folder
from docs.make_tutorial import TUTORIALS, copy_project, pattern, refreshed, steps, take
from tests.quotes import LINK, squeezed, symbols
from tests.servers import free_port, lacking
from utils.errors import UserError

TEXTS = [path.read_text(encoding="utf-8") for path in TUTORIALS]
STEPS = [list(steps(text)) for text in TEXTS]
SMALL = {"embed": 12, "hidden": 16, "layers": 1, "attention": 0, "max_epoch": 40, "use_gpu": False}


def shrink(folder: Path) -> None:
    """A little network by default, a few poems to learn from, and ports where nothing runs."""
    config = (folder / "config.py").read_text(encoding="utf-8")
    for name, value in {**SMALL, "port": free_port(), "vis_port": free_port()}.items():
        config, count = re.subn(rf"(    {name}: \w+ = option\()[^,]+", rf"\g<1>{value}", config)
        assert count, f"no option {name}"
    (folder / "config.py").write_text(config, encoding="utf-8")
    corpus = folder / "dataset" / "sample" / "poetry"
    (corpus / "written.jsonl.xz").unlink()
    poems = corpus / "quatrains.jsonl"
    with open(poems, encoding="utf-8") as file:
        few = list(islice(file, 120))
    poems.write_text("".join(few), encoding="utf-8")


def test_the_reader_sees_what_the_tutorial_shows(tmp_path):
    try:
        if missing_files(static_folder()):
            fetch_frontend()
    except UserError as error:
        lacking(str(error))
    copy_project(tmp_path)
    shrink(tmp_path)
    for step in STEPS[0]:
        printed = take(step, tmp_path)
        if step.kind == "command":
            assert pattern(refreshed(step, printed)).fullmatch(printed), "what is printed anew has the same form"


@pytest.mark.parametrize("shown", [s for s in STEPS[0] if s.kind == "quote"], ids=lambda step: step.name)
def test_quoted_lines_stand_in_the_function_in_this_order(shown):
    path, symbol = shown.name.split(": ")
    source = squeezed(symbols(path)[symbol])
    for part in "\n".join(shown.lines).split("…"):
        before, found, source = source.partition(squeezed(part))
        assert found, f"{shown.name} does not have {part}"


def test_both_languages_show_the_same():
    assert STEPS[0] == STEPS[1]
    assert sum(step.kind == "command" for step in STEPS[0]) > 15
    assert sum(step.kind == "quote" for step in STEPS[0]) > 4


@pytest.mark.parametrize("text", TEXTS, ids=("english", "chinese"))
def test_what_it_names_is_there(text):
    for path, symbol, _ in re.findall(LINK, text):
        assert not symbol or symbol in symbols(path), f"{path} has no {symbol}"
    assert set(re.findall(r"main\.py (\w+)", text)) <= set(main.COMMANDS)


@pytest.mark.parametrize(
    "shown, printed, same",
    [
        (["loss 1.5  (3 s)"], "loss 12.75  (1,000 s)\n", True),
        (["loss 1.5"], "los 1.5\n", False),
        (["《春》", "…", "a 1", "…"], "《江夜》\nx\ny\na 2\nb\n", True),
        (["a", "b"], "a\nx\nb\n", False),
        (["a", "…"], "x\na\n", False),
        (["  1e-06 7.1 ##", "lr=3"], "  1.0e-06 7.2\nlr=4e-3\n", True),
        (["precision=fp32, run=a"], "precision=bf16, run=b\n", False),
    ],
)
def test_what_may_differ_from_what_is_shown(shown, printed, same):
    assert bool(pattern(shown).fullmatch(printed)) == same
