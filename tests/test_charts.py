"""Windows of the board: curves stay small and true, pictures have the right bytes, text stays text."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from board.charts import Board
from board.windows import GRADIENT_COLUMNS, GRADIENT_ROWS, HISTOGRAMS, POINTS, TEXTS, Curve, picture
from tests.test_security import huge_png


def points_of(values) -> tuple[list, list]:
    curve = Curve()
    for step, value in enumerate(values, 1):
        curve.add(step, value)
    return curve.points()


@pytest.mark.parametrize("count", [1, POINTS - 1, POINTS, POINTS + 1, 4096, 12345])
def test_a_curve_has_few_points_and_keeps_the_mean_and_the_end(count):
    values = np.random.default_rng(0).normal(size=count)
    x, y = points_of(values)
    assert len(x) == len(y) <= POINTS and x[-1] == count and x == sorted(set(x))
    weights = np.diff([0, *x])  # values behind each point
    assert np.isclose(np.dot(weights, y) / count, values.mean())
    assert len(x) >= min(count, POINTS / 2)
    assert points_of([1.0, np.nan, np.inf, 2.0]) == ([1, 2, 3, 4], [1.0, None, None, 2.0])  # gaps


def batch(step: int, **figures: float) -> dict:
    return {"kind": "batch", "step": step, "epoch": 0, "time": 0.0, **figures}


def gradients(step: int, layers: dict) -> dict:
    return {"kind": "gradients", "step": step, "epoch": 0, "layers": layers}


def record(kind: str, name: str = "", **content) -> dict:
    return {"kind": kind, "step": 5, "epoch": 0, "name": name, **content}


def curve(lines: dict, axes: tuple = ("recall", "precision"), epoch: int = 0) -> dict:
    return {"kind": "curve", "step": 5, "epoch": epoch, "name": "precision_recall", "lines": lines, "axes": axes}


def test_every_message_is_strict_json_and_marked_until_sent():
    board = Board(Path())
    board.handle(batch(1, loss=2.0, lr="nan"))
    board.handle(gradients(1, {"a": ["nan", 0, 1]}))
    assert board.changed == {"loss", "lr", "gradients"} and board.first == "loss"
    for window in board.in_order():
        json.dumps(board.message(window), allow_nan=False)
        board.changed.discard(window)
    board.handle(batch(2, loss=1.0))
    assert board.in_order() == ["loss"]
    board.touch_all()
    assert board.in_order()[0] == "loss" and len(board.in_order()) == 3


def test_a_figure_of_the_batches_is_not_drawn_again_as_their_mean():
    board = Board(Path())
    board.handle(batch(1, loss=2.0))
    epoch = {"kind": "epoch", "step": 1, "epoch": 0, "time": 0.0, "loss": 3.0, "perplexity": 9.0}
    board.handle({**epoch, "split": "train"})
    board.handle({**epoch, "split": "val"})
    traces = {trace["name"]: trace["y"] for trace in board.message("loss")["data"]}
    assert traces == {"train": [2.0], "val": [3.0]}
    assert [trace["name"] for trace in board.message("perplexity")["data"]] == ["train", "val"]


STRANGE = [
    {}, {"kind": "touch_all"}, {"kind": "config", "config": "none"},
    {"kind": "batch"}, {"kind": "image", "path": 3}, batch(1, loss="low"),
    gradients(1, {"a": [0]}), record("matrix", rows=1, labels=[]),
    curve({"a": [[0, 1], [1]]}), curve({"a": [[0]]}), curve({"a": [[0], [1]]}, ("x",)), curve({"a": 1}, (1, 2)),
]  # fmt: skip


@pytest.mark.parametrize("strange", STRANGE)
def test_a_record_of_another_version_is_left_out(strange, tmp_path):
    board = Board(tmp_path)
    board.handle(strange)
    assert board.changed == set()


def test_texts_and_histograms_are_bounded():
    board = Board(Path())
    for number in range(3 * TEXTS):
        board.handle(record("text", "poems", text=f"poem {number};"))
    content = board.message("text poems")["data"][0]["content"]
    assert content.count("poem ") == TEXTS and content.index("poem 29;") < content.index("poem 28;")
    for number in range(HISTOGRAMS + 5):
        board.handle(record("histogram", f"layer {number}", counts=[1, 2], edges=[0.0, 1.0, 2.0]))
    message = board.message("histograms")
    assert len(message["data"]) == HISTOGRAMS
    assert f"{HISTOGRAMS} of {HISTOGRAMS + 5}" in message["layout"]["title"]["text"]


def test_curves_over_something_else_are_the_newest_and_in_fixed_ranges():
    board = Board(Path())
    board.handle(curve({"cat": [[0, 1], [1, 0.2]]}))
    board.handle(curve({"dog": [[0, 0.5, 1], [1, "nan", 0.5]], "bird": [[0], [1]]}, epoch=1))
    assert board.in_order() == ["curve precision_recall"]
    message = board.message("curve precision_recall")
    json.dumps(message, allow_nan=False)
    lines = {trace["name"]: (trace["x"], trace["y"]) for trace in message["data"]}
    assert lines == {"dog": ([0, 0.5, 1], [1, None, 0.5]), "bird": ([0], [1])}
    assert len({trace["line"]["color"] for trace in message["data"]}) == 2
    layout = message["layout"]
    assert layout["title"]["text"] == "precision recall, epoch 2, step 5"
    assert (layout["xaxis"]["title"], layout["yaxis"]["title"]) == ("recall", "precision")
    for axis in ("xaxis", "yaxis"):
        low, high = layout[axis]["range"]
        assert -0.1 < low < 0 and 1 < high < 1.1
    assert all(trace["showlegend"] for trace in message["data"])
    board.handle(curve({str(i): [[0], [1]] for i in range(40)}))
    assert not any(trace["showlegend"] for trace in board.message("curve precision_recall")["data"])


def test_names_and_texts_are_escaped():
    evil = '<script>alert("$1$")</script>'
    board = Board(Path())
    board.handle(record("text", evil, text=evil))
    board.handle({"kind": "epoch", "step": 1, "epoch": 0, "split": evil, evil: 1.0})
    board.handle(record("histogram", evil, counts=[1], edges=[0.0, 1.0], nonfinite=1))
    board.handle({"kind": "config", "config": {evil: evil}})
    board.handle(gradients(1, {evil: [0, 0, 0]}))
    board.handle({**curve({evil: [[0], [1]]}, (evil, evil)), "name": evil})
    for window in board.in_order():
        message = board.message(window)
        message["opts"].pop("title", None)  # the page shows a window's title as text
        assert "<script" not in json.dumps(message), window
        if "layout" in message:
            assert "$" not in json.dumps(message), window  # plotly would typeset a formula


def test_a_log_shows_no_picture_outside_its_folder(tmp_path):
    (tmp_path / "run").mkdir()
    for place in (tmp_path / "secret.png", tmp_path / "run" / "mine.png"):
        Image.new("RGB", (4, 4)).save(place)
    (tmp_path / "run" / "broken.png").write_bytes(b"no picture")
    huge_png(tmp_path / "run" / "huge.png")
    board = Board(tmp_path / "run")
    for path in ("../secret.png", str(tmp_path / "secret.png"), "broken.png", "missing.png", "huge.png"):
        board.handle(record("image", "p", path=path))
    assert board.changed == set()
    board.handle(record("image", "p", path="mine.png"))
    assert board.changed == {"image p"}


@pytest.mark.parametrize("size", [(30, 20), (400, 50), (700, 90), (3000, 100), (50, 900)])
def test_a_picture_fits_its_window_and_says_what_it_shows(size):
    rgb = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    message = picture("worst <batch>", "epoch 2/20, step 40", "loss 1.2: <cat>.jpg", Image.fromarray(rgb))
    content = message["data"][0]["content"]
    for text in ("worst &lt;batch&gt;", "epoch 2/20, step 40", "loss 1.2: &lt;cat&gt;.jpg"):
        assert text in content
    source = content.split('src="data:image/png;base64,')[1].split('"')[0]
    shown = Image.open(io.BytesIO(base64.b64decode(source)))
    assert message["opts"]["width"] in (400, 810, 1220) and message["opts"]["width"] >= shown.width + 30
    assert message["opts"]["height"] >= shown.height + 90 and shown.height <= 600
    if size[0] <= 1180 and size[1] <= 600:
        assert (np.asarray(shown) == rgb).all()


def test_gradients_are_a_heat_map_of_blocks_over_the_steps():
    """160 layers in at most 40 rows, in the order of the network; the largest entry of a block decides."""
    head = ["head.weight", "head.bias"]
    layers = {f"blocks.{i // 10}.{i % 10}.weight": [-1e-3, 0, 1e-4] for i in range(158)}
    board = Board(Path())
    board.handle(gradients(1, {**layers, "head.weight": [0, 0, 0], "head.bias": [0, 0, "nan"]}))
    board.handle(gradients(101, {**layers, "blocks.3.7.weight": [-0.5, 0, 10.0]}))
    (data,) = board.message("gradients")["data"]
    assert data["x"] == ["1", "101"] and data["y"] == [*(f"blocks.{i}" for i in range(16)), *head]
    assert len(data["y"]) <= GRADIENT_ROWS
    assert [round(value, 6) for value in data["z"][2]] == [-3, -3] and data["z"][3] == [pytest.approx(-3), 1]
    assert data["z"][16:] == [[None, None]] * 2 and (data["zmin"], data["zmax"]) == (-3, 2)
    few = Board(Path())
    few.handle(gradients(1, {"lstm.weight": [-1, 0, 0.1], "lstm.bias": [0, 0, 0.01]}))
    (data,) = few.message("gradients")["data"]
    assert data["y"] == ["lstm.weight", "lstm.bias"] and data["z"] == [[0], [-2]]
    for number in range(3 * GRADIENT_COLUMNS):
        few.handle(gradients(100 * number + 1, {"a": [0, 0, 1]}))
    (data,) = few.message("gradients")["data"]
    assert len(data["x"]) <= GRADIENT_COLUMNS and data["x"][-1] == str(300 * GRADIENT_COLUMNS - 99)


def test_epochs_are_counted_as_the_console_counts_them():
    board = Board(Path())
    board.handle({"kind": "config", "config": {"max_epoch": 20}})
    board.handle(record("text", "poems", text="春"))
    board.handle({"kind": "final", "config": {"max_epoch": 20}, "figures": {"loss": 2.5, "best_epoch": 3}})
    assert "epoch 1/20, step 5" in board.message("text poems")["data"][0]["content"]
    assert "best_epoch</td><td>4<" in board.message("run")["data"][0]["content"]


def test_a_table_is_a_heat_map_of_shares_with_its_numbers():
    """Rows of unlike size are comparable; the first row is on top; many classes have no numbers."""
    board = Board(Path())
    rows, labels = [[3, 1], [0, 40]], ["<cat>", "dog"]
    board.handle(record("matrix", "confusion", rows=rows, labels=labels))
    message = board.message("matrix confusion")
    (data,) = message["data"]
    assert data["z"] == [[0.75, 0.25], [0.0, 1.0]] and data["x"] == data["y"] == ["&lt;cat&gt;", "dog"]
    numbers = {(note["y"], note["x"]): note["text"] for note in message["layout"]["annotations"]}
    cat, dog = data["x"]
    assert numbers == {(cat, cat): "3", (cat, dog): "1", (dog, cat): "0", (dog, dog): "40"}
    assert message["layout"]["yaxis"]["autorange"] == "reversed"
    many = [[0] * 13 for _ in range(13)]
    board.handle(record("matrix", "c", rows=many, labels=list("abcdefghijklm")))
    assert board.message("matrix c")["layout"]["annotations"] == []
