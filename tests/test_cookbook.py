"""docs/cookbook.md: every recipe is in it, what it names stands where it says, and its code runs."""

import ast
import dataclasses
import re
from functools import cache
from pathlib import Path

import pytest

import config
import main

ROOT = Path(main.__file__).parent
TEXT = (ROOT / "docs" / "cookbook.md").read_text(encoding="utf-8")
CODE = re.findall(r"```python\n(.*?)```", TEXT, re.S)
PROSE = re.sub(r"```.*?```", "", TEXT, flags=re.S)
LINK = r"\[([\w./]+)(?:: ([\w.]+))?\]\(\.\./([\w./]+)\)"

# What tutorials teach, as words that must stand together in the first cell of a row of the section.
RECIPES = {
    "Set-up and devices": """versions cuDNN, seeds workers, GPUs number, is CUDA, cuDNN fast,
        memory validation, CPU saved GPU""",
    "Tensors": """shape type, PIL ndarray, item graph, reshape shuffle flip clone detach cat stack expand, one-hot,
        non-zero, nearly equal, products batches element, pairwise Euclidean, single batch""",
    "Models": """nn.Module forward, autograd zero SGD hand, average pooling, bilinear, SyncBN there, buffer forward,
        parameter count, summary sizes, initialised, pretrained part, autograd Function,
        transposed size checkerboard, InstanceNorm2d(affine=True), Embedding one-hot, graph picture""",
    "Data": """None collate, workers pinned, validation normalisation undone, shuffle confusion,
        video TSN, one several pretrained, make_grid save_image""",
    "Fine-tuning": "head only, small body large head, freezing name optimizer, layer name, eval() requires_grad=False",
    "Training": """loop tqdm, smoothing, mixup, L1, decay biases, clipping norm value, current rate,
        plateau step multi-step cosine warm-up, decay param_groups, accuracy, checkpoint optimizer epoch resume best,
        half precision, activation checkpointing, in-place, profiler bottleneck, smallest mean largest,
        detect_anomaly NaN, torchnet""",
    "Watching": """visdom append legends histograms pictures text environments server, TensorBoard,
        learning data model time, batch epoch metrics, final hyper-parameters, best worst batch, predictions""",
    "Judging": """precision recall F1 confusion CSV five, curve AUC, distribution, Grad-CAM""",
    "Habits": """dicts named, shape assertions, softmax cross_entropy, train() eval(), framework GPUs precision""",
    "Layout": """README, checkpoints/, config.py DefaultConfig parse, data/ dataset/,
        main.py train val test process, models/ basemodule.py save load resnet34.py, requirements.txt, tmp/ debug,
        utils/visualize.py""",
}


def sections() -> dict[str, list[str]]:
    """{heading: the rows of its table}."""
    parts = re.split(r"^## (.+)$", PROSE, flags=re.M)[1:]
    return {
        name: [line for line in body.splitlines() if line.startswith("| ")][2:]
        for name, body in zip(parts[::2], parts[1::2], strict=True)
    }


@cache
def symbols(path: str) -> dict[str, str]:
    """{dotted name: source} of what a Python file defines: functions, classes, their methods, fields and constants."""
    source = (ROOT / path).read_text(encoding="utf-8")
    lines, found = source.split("\n"), {}

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            names = []
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names = [node.name]
            elif isinstance(node, ast.AnnAssign | ast.Assign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
            for name in names:
                found[prefix + name] = "\n".join(lines[node.lineno - 1 : node.end_lineno])
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{prefix}{node.name}.")

    visit(ast.parse(source).body, "")
    return found


def squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


def test_every_recipe_has_its_row_and_every_row_leads_somewhere():
    found = sections()
    assert list(found) == list(RECIPES)
    for name, rows in found.items():
        cells = [row.split(" | ")[0].lower() for row in rows]
        for recipe in RECIPES[name].split(","):
            words = recipe.split()
            assert any(all(word.lower() in cell for word in words) for cell in cells), f"{name}: {recipe.strip()}"
        for row in rows:
            assert row.count(" | ") == 2 and row.endswith(" |"), row
            assert re.search(LINK, row) or row.startswith("| pairwise"), f"no place here: {row}"


def test_files_and_symbols_are_there():
    links = re.findall(LINK, PROSE)
    assert len(links) == len(re.findall(r"\]\(\.\./", PROSE)) > 100
    for path, symbol, target in links:
        assert path == target and (ROOT / path).exists(), path
        assert not symbol or symbol in symbols(path), f"{path} has no {symbol}"
    for page in re.findall(r"\]\((\w+\.md)\)", PROSE):
        assert (ROOT / "docs" / page).exists(), page


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


def test_no_line_of_code_is_too_long():
    for block in CODE:
        assert max(map(len, block.splitlines())) <= 120


def test_the_list_that_the_project_was_given_is_covered():
    path = Path(__file__).parents[2] / "shared" / "recipes.md"
    if not path.exists():
        pytest.skip("the list is not part of the repository")
    given = re.findall(r"^\*\*(.+?)\*\* — (.+)$", path.read_text(encoding="utf-8"), re.M)
    assert [name for name, _ in given] == list(RECIPES)
    for name, items in given[:-1]:
        assert len(RECIPES[name].split(",")) >= len(items.split(" · ")), name
