"""The house: imports go one way, as docs/decisions.md draws it, and nothing outgrows its file.

What still has to be mended stands in the lists of exceptions, which may only become shorter.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = {
    str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8"))
    for folder in (".", "board", "data", "demo", "infer", "models", "tasks", "training", "utils")
    for path in (ROOT.glob("*.py") if folder == "." else (ROOT / folder).rglob("*.py"))
}
SETTINGS = {"config", "options"}
# room -> the rooms that it may import, besides itself
ARROWS = {
    "main": {"cli", "shihua", "demo", "trainer", "prepare", "tasks", "training", "board", "infer", "data", "models"},
    "demo": {"shihua", "board", "training", "data"},
    "cli": {"data", "training"},
    "shihua": {"infer", "data", "models"},
    "trainer": {"prepare", "tasks", "training"},
    "prepare": {"tasks", "training", "board"},
    "board": {"training", "infer", "models"},
    "tasks": {"infer", "training", "data", "models"},
    "infer": {"training", "data", "models"},
    "training": {"data"},
    "data": {"models"},
    "models": set(),
    "utils": set(),
    "config": {"infer"},  # the settings of a poem, where their defaults stand
    "options": set(),
}
CRAFTS = ("infer/verse", "infer/painting", "infer/photo", "infer/postcard")
KNOW_NO_OPTIONS = ("models", "data", "infer", "training", "utils")
LONG_PARAMETER_LISTS = {"models/poet.py: __init__"}


def room(path: str) -> str:
    return path.split("/")[0].removesuffix(".py")


def imports(path: str) -> set[str]:
    """The modules of the project that a file imports, wherever in it, as paths without .py."""
    found = set()
    for node in ast.walk(SOURCES[path]):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        found |= {name.replace(".", "/") for name in names}
    return {name for name in found if f"{name}.py" in SOURCES or f"{name}/__init__.py" in SOURCES}


def wrong_arrows() -> set[str]:
    found = set()
    for path in SOURCES:
        own = room(path)
        craft = next((craft for craft in CRAFTS if path.startswith(craft)), "")
        for target in imports(path):
            other = room(target)
            settings = other in SETTINGS and own not in KNOW_NO_OPTIONS
            sideways = craft and any(target.startswith(c) for c in CRAFTS if c != craft)
            if sideways or not (other in {own, "utils"} | ARROWS[own] or settings):
                found.add(f"{path} -> {target}")
    return found


def functions() -> list[tuple[str, ast.FunctionDef]]:
    return [
        (f"{path}: {node.name}", node)
        for path, tree in SOURCES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def parameters(function: ast.FunctionDef) -> int:
    names = [a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def long_files() -> set[str]:
    return {path for path in SOURCES if len((ROOT / path).read_text(encoding="utf-8").splitlines()) > 400}


def long_functions() -> set[str]:
    return {name for name, node in functions() if node.end_lineno - node.lineno + 1 > 50}


def long_parameter_lists() -> set[str]:
    return {name for name, node in functions() if parameters(node) > 8}


@pytest.mark.parametrize(
    "found, exceptions",
    [
        (wrong_arrows, set()),
        (long_files, set()),
        (long_functions, set()),
        (long_parameter_lists, LONG_PARAMETER_LISTS),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_house_is_in_order(found, exceptions):
    """Nothing but the exceptions, and no exception that is not needed any more."""
    assert found() == exceptions


def test_tests_and_benchmarks_are_imported_by_nothing():
    for path, tree in SOURCES.items():
        names = {getattr(n, "module", None) or a.name for n in ast.walk(tree) for a in getattr(n, "names", [])
                 if isinstance(n, ast.Import | ast.ImportFrom)}  # fmt: skip
        assert not {name.split(".")[0] for name in names} & {"tests", "benchmarks"}, path
