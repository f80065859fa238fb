"""The page's training tab: what it says of runs in every state, and a run that is watched in a real browser."""

import subprocess
import sys
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from demo import training
from demo.training import TrainingTab, list_runs, read_plots, read_samples, row, samples_html, stamp
from demo.words import both
from tests.servers import ROOT, until
from tests.test_board import make_run
from tests.test_demo import DESK, PHONE, Visitor
from tests.test_demo_api import Demo
from training.recorder import Recorder
from training.state import is_training, lock

HOLD = "import sys; from pathlib import Path; from training.state import lock\nwith lock(Path(sys.argv[1])): print(1, flush=True); input()"  # noqa: E501


def record_run(folder, epochs: int, finish: bool = False, **facts: str) -> None:
    """The log of a run of three epochs, two steps each, that has come so far."""
    recorder = Recorder(folder)
    recorder.config({"task": "poet", "max_epoch": 3}, monitor="bits_per_char", command="generate", **facts)
    for epoch in range(epochs):
        for step in (2 * epoch + 1, 2 * epoch + 2):
            recorder.batch(step, epoch, loss=9.0 - step, lr=0.1)
        recorder.epoch(2 * epoch + 2, epoch, "val", loss=8.0 - epoch, bits_per_char=9.5 - epoch)
        recorder.text(2 * epoch + 2, epoch, "poems", f"第{epoch + 1}首 <b>")
    if finish:
        recorder.final(2 * epochs, epochs, {"loss": 6.0, "bits_per_char": 7.5, "best_epoch": 2})
        (folder / "best.safetensors").write_bytes(b"")
    recorder.close()


@pytest.fixture
def runs(tmp_path):
    """One in each state."""
    record_run(tmp_path / "done", 3, finish=True)
    record_run(tmp_path / "stopped", 2)
    record_run(tmp_path / "going on", 1)
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "log.jsonl").write_text("")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "log.jsonl").write_text('no record\n{"kind": "epoch"}\n')
    (tmp_path / "no run").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "going on"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as training_process:
        assert training_process.stdout.readline() == b"1\n"
        yield tmp_path
        training_process.communicate(b"\n")


def test_each_run_has_its_state_its_best_metric_and_its_epoch(runs):
    rows = {name: rest for name, *rest in map(row, list_runs(runs))}
    assert rows == {
        "done": [both("finished"), "3/3", "bits per char 7.5000", "poet"],
        "stopped": [both("interrupted"), "2/3", "", "poet"],
        "going on": [both("running"), "1/3", "", "poet"],
        "begun": [both("interrupted"), "", "", ""],
        "broken": [both("broken"), "", "", ""],
    }
    assert is_training(runs / "going on") and not is_training(runs / "stopped")
    with lock(runs / "stopped"):  # looking has left it free
        pass
    assert list_runs(runs / "nowhere") == []


def look(tab: TrainingTab, name: str, shown: dict | None = None) -> dict:
    names = "chosen shown empty content runs about resume use samples".split()
    return dict(zip(names, tab.look(name, shown), strict=True))


def test_what_is_said_of_a_run(runs):
    tab = TrainingTab(str(runs))
    done, stopped, broken = (look(tab, name) for name in ("done", "stopped", "broken"))
    assert f"{training.epoch_html('3/3')} · bits per char 7.5000" in done["about"]
    file = runs / "done" / "best.safetensors"
    assert done["use"]["value"] == f"python main.py generate --load={file}" and not done["resume"]["visible"]
    assert stopped["resume"]["value"] == f"python main.py train --resume={runs / 'stopped'}"
    assert not stopped["use"]["visible"]
    assert both("broken_log") in broken["about"] and "log.jsonl cannot be read" in broken["about"]
    assert broken["samples"] == "" and not broken["use"]["visible"]
    assert both("no_samples") in look(tab, "begun")["samples"]
    assert look(tab, "no such run")["chosen"] == list_runs(runs)[0]["run"]


def test_only_what_has_changed_is_sent_again(runs):
    tab = TrainingTab(str(runs))
    first = look(tab, "stopped")
    assert all(update == gr.skip() for update in tab.look("stopped", first["shown"]))
    with open(runs / "stopped" / "log.jsonl", "a") as log:
        log.write('{"kind": "batch", "step": 5, "epoch": 2, "loss": 4.0}\n{"kind": "te')  # and half a line
    second = look(tab, "stopped", first["shown"])
    assert second["shown"] != first["shown"] and "epoch 3/3" in second["about"] and second["samples"] == gr.skip()
    with open(runs / "stopped" / "log.jsonl", "a") as log:
        log.write('xt", "step": 5, "epoch": 2, "name": "poems", "text": "新写的诗"}\n')
    third = look(tab, "stopped", second["shown"])
    assert "新写的诗" in third["samples"] and third["runs"] == gr.skip()


@pytest.mark.parametrize("shown", [None, [], "x", {"run": 3}, {"rows": [[]]}])
def test_what_the_page_never_sends(runs, shown):
    tab = TrainingTab(str(runs))
    for values in (0, -1, 99, [], None, "done"):
        tab.choose(shown, SimpleNamespace(index=values))
    assert tab.choose(shown, SimpleNamespace())[1]["run"] in {run["run"] for run in list_runs(runs)}
    assert look(TrainingTab(str(runs / "nowhere")), "../done", shown)["chosen"] == ""


def test_curves_are_points_by_step_and_a_single_one_is_a_dash(runs):
    plots = {title: points for title, _, points in read_plots(runs / "stopped", stamp(runs / "stopped"))}
    assert list(plots) == ["loss", "bits per char", "lr"]
    loss = plots["loss"]
    assert loss[loss["curve"] == "train"][["x", "y"]].values.tolist() == [[1, 8], [2, 7], [3, 6], [4, 5]]
    assert loss[loss["curve"] == "val"][["x", "y"]].values.tolist() == [[2, 8], [4, 7]]
    recorder = Recorder(runs / "one")
    recorder.epoch(50, 0, "val", loss=2.5)
    recorder.curve(50, 0, "roc", {"dog": ([0.0, 1.0], [0.0, float("nan")])}, ("false", "true"))
    recorder.close()
    (_, _, loss), (title, axes, roc) = read_plots(runs / "one", stamp(runs / "one"))
    assert loss[["x", "y"]].values.tolist() == [[49, 2.5], [50, 2.5]]
    recorder = Recorder(runs / "two")
    recorder.batch(1, 0, loss=2.5, lr=0.1)
    recorder.close()
    (_, _, loss), (_, _, lr) = read_plots(runs / "two", stamp(runs / "two"))
    assert set(loss["curve"]) == {"train", "val"} and set(lr["curve"]) == {"train"}
    assert loss[loss["curve"] == "val"]["y"].isna().all()
    assert (title, axes) == ("roc, epoch 1", ("false", "true")) and roc["y"].isna().tolist() == [False, True]


def test_samples_are_by_epoch_the_newest_first(tmp_path):
    folder = tmp_path / "run"
    record_run(folder, 3)
    Image.fromarray(np.full((20, 30, 3), 200, np.uint8)).save(folder / "p.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    with open(folder / "log.jsonl", "a") as log:
        for path in ("p.png", "../secret.png", "gone.png"):
            log.write(f'{{"kind": "image", "epoch": 1, "name": "{path}", "path": "{path}", "caption": "ink & oil"}}\n')
        log.write('{"kind": "matrix", "epoch": 1, "name": "confusion", "rows": [[3, 1]], "labels": ["<cat>"]}\n')
        log.write('{"kind": "matrix", "epoch": 1, "name": "good", "rows": [[3]], "labels": ["<cat>"]}\n')
    (run,) = list_runs(tmp_path)
    page = samples_html(folder, read_samples(folder, stamp(folder)), run)
    places = [page.index(text) for text in (training.epoch_html("3/3"), "第3首", "第 2/3 轮", "第2首", "第 1/3 轮")]
    assert places == sorted(places) and "<b>" not in page
    assert page.count("data:image/jpeg") == 1 and "ink &amp; oil" in page and "secret" not in page
    assert "&lt;cat&gt;" in page and "<cat>" not in page and "confusion" not in page


def test_a_run_is_watched_while_it_goes_on(browser, tmp_path):
    demo = Demo(tmp_path)
    desk = Visitor(browser, demo, DESK)
    try:
        page = desk.page
        desk.tab("训练")
        page.get_by_text("python main.py train").locator("visible=true").wait_for()
        desk.screen("training_none")
        make_run(demo.runs / "poet_one")  # it comes by itself
        page.get_by_text("夜来风雨声，花落知多少。").first.wait_for()
        page.locator("[role=tabpanel]:visible .vega-embed").nth(3).wait_for()
        assert page.get_by_text("onerror=").first.is_visible()  # as text
        with open(demo.runs / "poet_one" / "log.jsonl", "a", encoding="utf-8") as log:
            log.writelines(f'{{"kind": "batch", "step": {n}, "epoch": 3, "loss": 3.5}}\n' for n in range(1501, 2501))
            log.write('{"kind": "text", "step": 1501, "epoch": 3, "name": "poems", "text": "新写的诗"}\n')
        page.get_by_text("新写的诗").first.wait_for()
        page.locator("[role=tabpanel]:visible .vega-embed text", has_text="2,500").first.wait_for()  # the longer axis
        record_run(demo.runs / "two", 1)
        page.get_by_role("button", name="two", exact=True).click()
        page.get_by_text("继续训练", exact=True).wait_for()
        command = page.locator("[role=tabpanel]:visible textarea").first
        until(lambda: command.input_value() == f"python main.py train --resume={demo.runs / 'two'}")
        page.get_by_text("第1首 <b>").first.wait_for()
        desk.screen("training")
        assert page.evaluate("window.hacked") is None
        desk.close()
        phone = Visitor(browser, demo, PHONE)
        phone.tab("训练")
        phone.page.locator("[role=tabpanel]:visible .vega-embed").first.wait_for()
        phone.screen("training_phone")
        phone.close()
    finally:
        demo.stop()
    assert "Traceback" not in "".join(demo.said)
