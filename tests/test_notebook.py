"""docs/tour.ipynb: every cell runs, and gives what is kept in the notebook.

Figures and Chinese may differ, and the size of drawn charts; in cells tagged "form" only the characters, in those
tagged "exact" nothing.
"""

import base64
import io
import re

import nbformat
import pytest
from PIL import Image

from docs.make_tutorial import NOTEBOOK, VARIES, copy_project, execute_notebook

KEPT = nbformat.read(NOTEBOOK, as_version=4)
CODE = [cell for cell in KEPT.cells if cell.cell_type == "code"]


def outcome(cell: nbformat.NotebookNode) -> list:
    """What must be the same of a cell's outputs: texts, kinds of pictures, and the sizes of those that are exact."""
    tags, found, text = cell.metadata.get("tags", ()), [], ""
    for output in cell.outputs:
        assert output.get("name") != "stderr", output.text
        if output.output_type == "stream":
            text += output.text
        elif "image/jpeg" in output.data:
            with Image.open(io.BytesIO(base64.b64decode(output.data["image/jpeg"]))) as picture:
                found.append(picture.size if "exact" in tags else "picture")
        else:
            text += output.data["text/plain"]
    if "form" in tags:
        text = re.sub("[\u4e00-\u9fff]", "字", text)
    elif "exact" not in tags:
        text = re.sub(" +", " ", VARIES.sub("0", text))
    return [text, *found]


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    copy_project(folder)
    return execute_notebook(folder)


def test_every_cell_gives_what_is_kept(executed):
    new = [cell for cell in executed.cells if cell.cell_type == "code"]
    for was, now in zip(CODE, new, strict=True):
        assert outcome(now) == outcome(was), was.source


def test_outputs_are_kept():
    assert 25 <= len(KEPT.cells) <= 40
    assert [cell.execution_count for cell in CODE] == list(range(1, len(CODE) + 1))
    kinds = [outcome(cell) for cell in CODE]
    assert sum(len(kind) > 1 for kind in kinds) >= 8 and sum(bool(kind[0]) for kind in kinds) >= 8


def test_it_is_small_and_tells_nothing_of_the_machine():
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text.encode()) < 1_500_000
    assert not re.search(r"/(tmp|home|root|work|usr)/", re.sub(r'"image/jpeg": "[^"]*"', "", text))


def test_links_lead_somewhere():
    for cell in KEPT.cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\(([^)#:]+)\)", cell.source):
                assert (NOTEBOOK.parent / target).exists(), target
