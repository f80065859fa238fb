"""The page's training tab: what it says of runs in every state. In a real browser: test_demo.py."""

import multiprocessing
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from demo import training
from demo.training import TrainingTab, list_runs, read_plots, read_samples, row, samples_html, stamp
from demo.words import both
from training.recorder import Recorder
from training.state import is_training, lock


def record_run(folder, epochs: int, finish: bool = False) -> None:
    """The log of a run of three epochs, two steps each, that has come so far."""
    recorder = Recorder(folder)
    recorder.config({"task": "poet", "max_epoch": 3}, monitor="bits_per_char", command="generate")
    for epoch in range(epochs):
        for step in (2 * epoch + 1, 2 * epoch + 2):
            recorder.batch(step, epoch, loss=9.0 - step, lr=0.1)
        recorder.epoch(2 * epoch + 2, epoch, "val", loss=8.0 - epoch, bits_per_char=9.5 - epoch)
        recorder.text(2 * epoch + 2, epoch, "poems", f"第{epoch + 1}首 <b>")
    if finish:
        recorder.final(2 * epochs, epochs, {"loss": 6.0, "bits_per_char": 7.5, "best_epoch": 2})
        (folder / "best.safetensors").write_bytes(b"")
    recorder.close()


def hold(folder, connection) -> None:
    """A training, as far as the lock of its run."""
    with lock(folder):
        connection.send("locked")
        connection.recv()


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
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=hold, args=(tmp_path / "going on", there))
    process.start()
    assert here.poll(60) and here.recv() == "locked"
    yield tmp_path
    here.send("the end")
    process.join()


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


def test_what_the_page_never_sends(runs):
    tab, names = TrainingTab(str(runs)), {run["run"] for run in list_runs(runs)}
    for shown in (None, [], "x", {"run": 3}, {"rows": [[]]}):
        for values in (0, -1, 99, [], None, "done"):
            tab.choose(shown, SimpleNamespace(index=values))
        assert tab.choose(shown, SimpleNamespace())[1]["run"] in names
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
