"""Makes anew what the tutorial and the notebook print: `python docs/make_tutorial.py [tutorial|notebook]`.

The blocks of docs/tutorial.md are gone through in their order, in a copy of the project and at a terminal, as a reader
does; what the commands print takes the place of what stands there, in both languages. A line `…` stands for any number
of lines, and stays; elsewhere `…` stands for what is not known yet. tests/test_tutorial.py goes through the same blocks
on a small scale. It takes two whole trainings of the poet, and a few short ones.
"""

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
TUTORIALS = tuple(ROOT / "docs" / name for name in ("tutorial.md", "tutorial.zh.md"))
NOTEBOOK = ROOT / "docs" / "tour.ipynb"
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.M | re.S)
COMMAND = re.compile(r"^\$ .*\n(?:(?!\$ |```).*\n)*", re.M)  # and what it prints
# What may differ from one run to the next: what is in brackets, the precision, figures, Chinese, bars of charts.
VARIES = re.compile(r"\([^()]*\)|precision[ =]\w+|[-+]?\d[\d.,:e+-]*|[\u4e00-\u9fff]+|#+|…")
AS_PATTERN = {"(": r"\(.*\)", "p": r"precision[ =]\w+", "#": r"#*", "…": ".*"}  # by the first character
FIGURE, CHINESE = r"[-+\d][\d.,:e+-]*", "[\u4e00-\u9fff]+"
PROMPT, CTRL_C = "(Pdb) ", "^C"
LONGEST = 600.0  # seconds in which a command may print nothing


@dataclass(frozen=True)
class Step:
    """A block, or one of the commands in it."""

    kind: str  # "command"; "file" to save; "quote" from the project; "code" to run
    name: str  # the command; the file's; "trainer.py: Run.train"; nothing
    lines: list[str]  # what the command prints; the block


def steps(text: str) -> Iterator[Step]:
    """What a tutorial asks its reader to do, in order."""
    for language, title, body in BLOCK.findall(text):
        if language == "console":
            for part in COMMAND.findall(body):
                command, *shown = part.removeprefix("$ ").splitlines()
                yield Step("command", command, shown)
        else:
            kind = "code" if not title else "quote" if ": " in title else "file"
            yield Step(kind, title, body.splitlines())


def pattern(lines: list[str]) -> re.Pattern[str]:
    """What the lines stand for as a regular expression, with a group for each of them but `…`."""
    return re.compile("".join(r"(?:.*\n)*?" if line == "…" else rf"({_line_pattern(line)})\n" for line in lines))


def _line_pattern(line: str) -> str:
    fixed, found = VARIES.split(line), [*VARIES.findall(line), ""]
    parts = []
    for text, varying in zip(fixed, found, strict=True):
        parts.append(re.sub(r"(?:\\ )+", " *", re.escape(text)))
        if varying:
            parts.append(AS_PATTERN.get(varying[0], CHINESE if varying[0] >= "\u4e00" else FIGURE))
    return "".join(parts)


def copy_project(folder: Path) -> None:
    """A copy of the project in `folder` to train in and to change: its code and its sample, and the shipped models."""
    for path in ROOT.iterdir():
        if path.suffix == ".py":
            shutil.copy(path, folder)
        elif (path / "__init__.py").exists() and path.name != "tests":
            shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "dataset" / "sample", folder / "dataset" / "sample")
    for name in ("tmp", "checkpoints"):
        (folder / name).mkdir()
    for model in (ROOT / "checkpoints").glob("*.safetensors"):
        (folder / "checkpoints" / model.name).symlink_to(model)


def take(step: Step, folder: Path) -> str:
    """Saves the file of a step, or runs its code or command; returns what that printed.

    `^C` and `(Pdb) …` among the lines are typed as soon as the line before them is there. RuntimeError if something
    else is printed than the step shows.
    """
    text = "\n".join([*step.lines, ""])
    if step.kind in ("file", "code"):
        (folder / (step.name or "tmp/code.py")).write_text(text, encoding="utf-8")
    if step.kind in ("file", "quote"):
        return ""
    command, shown = (step.name, step.lines) if step.kind == "command" else ("python < tmp/code.py", [])
    printed, code = run(command, folder, typed(shown))
    wanted = 130 if CTRL_C in shown else 2 if f"{PROMPT}q" in shown else 0
    if code != wanted or not pattern(shown).fullmatch(printed):
        raise RuntimeError(f"$ {command}\n{printed}(exit code {code}) is not what the tutorial shows:\n{text}")
    return printed


def typed(lines: list[str]) -> Iterator[tuple[re.Pattern[str], str]]:
    """What to type once something is there: (pattern, text)."""
    for before, line in pairwise(lines):
        if line == CTRL_C:
            yield pattern([before]), "\x03"
        elif line.startswith(PROMPT):
            yield re.compile(re.escape(PROMPT)), line.removeprefix(PROMPT) + "\n"


def run(command: str, folder: Path, typed: Iterator[tuple[re.Pattern[str], str]]) -> tuple[str, int]:
    """Runs a command in `folder`, at a terminal of its own and without progress bars.

    Returns what is to be read there at the end, and the exit code.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    plain = {"TERM": "dumb", "NO_COLOR": "1", "PYTHON_COLORS": "0", "TQDM_DISABLE": "1", "PATH": path}
    process, master = pty.fork()
    if not process:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl+C ends it, even if a background job has started it all
        os.chdir(folder)
        os.execvpe("bash", ["bash", "-c", command], {**os.environ, **plain})
    printed, seen, raw, waiting = "", 0, b"", next(typed, None)
    while chunk := _read(master):
        raw += chunk
        printed = tidy(raw.decode(errors="replace"))
        if waiting and (found := waiting[0].search(printed, seen)):
            seen = found.end()
            os.write(master, waiting[1].encode())
            waiting = next(typed, None)
    _, status = os.waitpid(process, 0)
    os.close(master)
    return printed, os.waitstatus_to_exitcode(status)


def _read(master: int) -> bytes:
    """What a terminal has to show next; nothing when its last process has ended. TimeoutError if none does."""
    if not select.select([master], [], [], LONGEST)[0]:
        raise TimeoutError(f"nothing was printed for {LONGEST:.0f} s")
    try:
        return os.read(master, 1 << 16)
    except OSError:  # Linux says the end like that
        return b""


def tidy(printed: str) -> str:
    """What is left on a terminal to read: no control sequences, no spaces at the ends of lines."""
    printed = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", printed).replace(CTRL_C, f"{CTRL_C}\n")
    return re.sub(r" +\n", "\n", printed)


def refreshed(step: Step, printed: str) -> list[str]:
    """The lines of a step as they were printed now; lines that are left out stay left out."""
    now = iter(pattern(step.lines).fullmatch(printed).groups())
    return [line if line == "…" else next(now) for line in step.lines]


def renew_tutorial() -> None:
    """Goes through the tutorial, and writes what each command has printed into both languages."""
    subprocess.run([sys.executable, "main.py", "download", "visdom"], cwd=ROOT, check=True)  # or the board says more
    number = 0
    with tempfile.TemporaryDirectory() as folder:
        copy_project(Path(folder))
        for step in steps(TUTORIALS[0].read_text(encoding="utf-8")):
            print(step.kind, step.name, flush=True)
            printed = take(step, Path(folder))
            if step.kind == "command":
                part = "\n".join([f"$ {step.name}", *refreshed(step, printed), ""])
                for path in TUTORIALS:
                    text = path.read_text(encoding="utf-8")
                    start, stop = list(COMMAND.finditer(text))[number].span()
                    path.write_text(text[:start] + part + text[stop:], encoding="utf-8")
                number += 1


def execute_notebook(folder: Path) -> nbformat.NotebookNode:
    """The notebook, executed in a copy of the project. Raises CellExecutionError for a cell that fails."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    place = {"metadata": {"path": str(folder)}}
    return NotebookClient(notebook, record_timing=False, coalesce_streams=True, resources=place).execute()


def renew_notebook() -> None:
    """Executes the notebook and keeps its outputs."""
    with tempfile.TemporaryDirectory() as folder:
        copy_project(Path(folder))
        nbformat.write(execute_notebook(Path(folder)), NOTEBOOK)


if __name__ == "__main__":
    for renew in (renew_notebook, renew_tutorial):
        if not sys.argv[1:] or renew.__name__.endswith(sys.argv[1]):
            renew()
