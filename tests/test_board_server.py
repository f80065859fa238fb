"""board/server.py and utils/visualize.py with a real visdom: live, late, killed and started anew, hanging, absent."""

import base64
import http.client
import http.server
import io
import json
import signal
import sys
import threading
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from board import server as board_server
from board.server import LiveBoard, replay, show
from tests.servers import HOST, OnlyAPage, Server, free_port, until
from training.recorder import Recorder
from utils.errors import UserError
from utils.visualize import Visualizer, env_name, to_pixels, visdom_answers

connected: list[int] = []  # the threads in which something was connected, or tried to be
sys.addaudithook(lambda event, _: connected.append(threading.get_ident()) if event == "socket.connect" else None)


@pytest.fixture
def start(tmp_path):
    """Starts servers that do not outlive the test."""
    servers: list[Server] = []

    def make(port: int, *run: str) -> Server:
        servers.append(Server(tmp_path / f"data{len(servers)}", port, *run))
        return servers[-1]

    yield make
    for server in servers:
        if server.process.poll() is None:
            server.stop(signal.SIGKILL)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One that several tests share, each with an environment of its own."""
    shared = Server(tmp_path_factory.mktemp("visdom"), free_port())
    yield shared
    shared.stop(signal.SIGKILL)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(board_server, "SEND_EVERY", 0.2)
    monkeypatch.setattr(board_server, "CONNECT_EVERY", 0.2)


def curve(windows: dict, window: str, legend: str) -> tuple[list, list]:
    traces = {trace["name"]: trace for trace in windows[window]["content"]["data"]}
    return traces[legend]["x"], traces[legend]["y"]


def record_everything(recorder: Recorder, folder: Path) -> None:
    recorder.config({"lr": 0.1, "data_root": "<script>"})
    for step in range(1, 6):
        recorder.batch(step, 0, loss=10.0 - step, lr=0.1, data_time=0.01, model_time=0.1)
    recorder.epoch(5, 0, "train", loss=7.0, perplexity=3.0)
    recorder.epoch(5, 0, "val", loss=6.5, perplexity=float("nan"))
    recorder.gradients(5, 0, {"lstm": (-1.0, 0.0, 1.0)})
    recorder.histogram(5, 0, "embed", np.arange(100))
    recorder.text(5, 0, "poems", "春眠不觉晓\n<img src=x onerror=alert(1)>")
    Image.fromarray(np.full((20, 30, 3), 200, np.uint8)).save(folder / "p.png")
    recorder.image(5, 0, "styled", folder / "p.png", "ink & oil")
    recorder.curve(5, 0, "roc", {"dog": ([0.0, 0.25, 1.0], [0.0, 0.75, 1.0])}, ("false", "true"))
    recorder.final(5, 0, {"loss": 6.5})


def check_everything(windows: dict) -> None:
    assert set(windows) == {
        "loss", "lr", "times", "perplexity", "gradients", "histograms", "text poems", "image styled", "curve roc", "run"
    }  # fmt: skip
    assert curve(windows, "loss", "train") == ([1, 2, 3, 4, 5], [9, 8, 7, 6, 5])
    assert curve(windows, "loss", "val") == ([5], [6.5])
    assert curve(windows, "perplexity", "val") == ([5], [None])
    poem = windows["text poems"]["content"]
    assert "春眠不觉晓\n&lt;img src=x onerror=alert(1)&gt;" in poem and "pre-wrap" in poem and "<img" not in poem
    assert "&lt;script&gt;" in windows["run"]["content"] and "<script" not in windows["run"]["content"]
    styled = windows["image styled"]["content"]
    assert "epoch 1, step 5" in styled and "ink &amp; oil" in styled
    picture = base64.b64decode(styled.split('src="data:image/png;base64,')[1].split('"')[0])
    assert (np.asarray(Image.open(io.BytesIO(picture))) == 200).all()


def test_a_run_is_shown_live_then_replayed_and_nothing_is_printed(tmp_path, server, capfd):
    folder = tmp_path / "诗 run'1"
    recorder = Recorder(folder, [LiveBoard(folder, folder.name, server.port)])
    record_everything(recorder, folder)
    env = "诗_run_1"
    until(lambda: server.has(env, "run"))  # before close: live
    recorder.close()
    check_everything(server.windows(env))

    Recorder(tmp_path / "again").close()
    (tmp_path / "again" / "log.jsonl").write_bytes((folder / "log.jsonl").read_bytes())
    (tmp_path / "again" / "p.png").write_bytes((folder / "p.png").read_bytes())
    replay(tmp_path / "again", port=server.port)
    check_everything(server.windows("again"))
    assert capfd.readouterr() == ("", "")


def test_a_server_that_dies_neither_delays_nor_talks_and_a_new_one_gets_all(tmp_path, start, capfd):
    port = free_port()
    first = start(port)
    capfd.readouterr()  # the files of visdom's page may have been fetched
    learner = Visualizer("lesson", port)
    recorder = Recorder(tmp_path / "run", [LiveBoard(tmp_path / "run", "run", port)])
    for steps in (range(1, 101), range(101, 301)):
        learner.plot("loss", 1.0)
        assert first.process.poll() is not None or first.has("lesson", "loss")
        connected.clear()
        for step in steps:
            recorder.batch(step, 0, loss=1.0 / step)
        assert threading.get_ident() not in connected  # it would wait for seconds
        if first.process.poll() is None:
            until(lambda: first.has("run", "loss"))
            first.stop(signal.SIGKILL)
    second = start(port)
    until(lambda: second.has("run", "loss") and len(curve(second.windows("run"), "loss", "train")[0]) == 300)
    recorder.close()
    assert curve(second.windows("run"), "loss", "train")[0] == list(range(1, 301))
    Visualizer(port=free_port()).plot("loss", 1.0)  # nobody listens there
    assert capfd.readouterr() == ("", "")


def test_windows_lost_while_nothing_was_sent_come_back(tmp_path, server):
    """An environment cleared on the page, or a server started anew between two sends."""
    recorder = Recorder(tmp_path / "run", [LiveBoard(tmp_path / "run", "lost", server.port)])
    recorder.batch(1, 0, loss=1.0)
    until(lambda: server.has("lost", "loss"))
    body = json.dumps({"win": None, "eid": "lost"}).encode()
    urllib.request.urlopen(f"http://{HOST}:{server.port}/close", body, timeout=60).close()
    until(lambda: server.has("lost", "loss"))
    recorder.close()


def test_a_server_that_hangs_does_not_delay(tmp_path, capfd):
    class Handler(OnlyAPage):
        def do_POST(self):
            asked.set()
            released.wait()

    asked, released = threading.Event(), threading.Event()
    with http.server.ThreadingHTTPServer((HOST, 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        board = LiveBoard(tmp_path, port=server.server_port)
        recorder, ends = Recorder(tmp_path, [board]), []
        assert asked.wait(300)

        def use() -> None:
            for step in range(2000):
                recorder.batch(step, 0, loss=1.0)
            ends.append(board.close(0.3))

        user = threading.Thread(target=use)
        user.start()
        user.join(300)
        assert ends == [False]  # though the server still hangs
        released.set()
        server.shutdown()
    recorder.close()
    assert capfd.readouterr() == ("", "")


def test_a_resumed_run_forgets_what_was_cut(tmp_path, server):
    recorder, size = Recorder(tmp_path / "run"), 0
    for step in range(1, 9):
        recorder.batch(step, 0, loss=1.0)
        size = recorder.size if step == 3 else size
    recorder.close()
    watcher = LiveBoard(tmp_path / "run", "resumed", server.port)
    until(lambda: server.has("resumed", "loss"))
    recorder = Recorder(tmp_path / "run", resume_size=size)
    recorder.batch(4, 0, loss=0.5)
    until(lambda: curve(server.windows("resumed"), "loss", "train") == ([1, 2, 3, 4], [1, 1, 1, 0.5]))
    watcher.close()
    recorder.close()


def test_without_a_server_close_is_quick_and_replay_says_what_to_do(tmp_path, capfd, monkeypatch):
    port = free_port()
    monkeypatch.setattr(board_server, "CONNECT_EVERY", 1e6)  # seconds: it does not wait for another try
    recorder = Recorder(tmp_path / "run", [LiveBoard(tmp_path / "run", port=port)])
    recorder.batch(1, 0, loss=1.0)
    recorder.close()
    assert capfd.readouterr() == ("", "")
    with pytest.raises(UserError, match=f"port={port}: no visdom server there: start one with python main.py visdom"):
        replay(tmp_path / "run", port=port)


# ------------------------------------------------------------------------------------------------- the command


def test_show_follows_a_run_until_ctrl_c(tmp_path, start):
    """For SIGTERM see test_board.py."""
    recorder = Recorder(tmp_path / "run")
    recorder.config({"env": ""})
    recorder.batch(1, 0, loss=1.0)
    server = start(free_port(), str(tmp_path / "run"))
    assert server.said.startswith(f"visdom: http://localhost:{server.port}/env/run")
    until(lambda: server.has("run", "loss"))
    recorder.batch(2, 0, loss=0.5)
    until(lambda: curve(server.windows("run"), "loss", "train")[0] == [1, 2])
    recorder.close()
    assert server.stop(signal.SIGINT) == 130
    assert server.rest == ""


def test_show_uses_a_server_that_runs_already(tmp_path, server, capfd):
    show(port=server.port)
    recorder = Recorder(tmp_path / "done")
    record_everything(recorder, tmp_path / "done")
    recorder.close()
    show(tmp_path / "done", port=server.port)  # returns: the run is finished
    check_everything(server.windows("done"))
    assert capfd.readouterr().err.count("visdom runs already") == 2


def test_show_tells_what_is_wrong_in_one_line(tmp_path):
    with pytest.raises(UserError, match="no log of a run"):
        show(tmp_path)
    handler = http.server.SimpleHTTPRequestHandler
    with http.server.ThreadingHTTPServer((HOST, 0), handler) as other:
        handler.log_message = lambda *args: None
        threading.Thread(target=other.serve_forever, daemon=True).start()
        with pytest.raises(UserError, match=f"^port={other.server_port}: cannot be used"):
            show(port=other.server_port)
        other.shutdown()


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's table of sockets")
def test_the_server_listens_on_loopback_only(server):
    port = server.port
    listening = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if Path(table).exists():
            rows = [line.split() for line in Path(table).read_text().splitlines()[1:]]
            listening += [row[1] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port]
    assert listening == [f"0100007F:{port:04X}"]


def test_pages_of_other_sites_cannot_use_the_board(server):
    """Neither by their own name (Origin), nor by a name of theirs that leads here (Host), also not by a web socket."""
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    upgrade["Sec-WebSocket-Key"] = "x3JJHMbDL1EzLkh9GBhXDw=="
    name = f"127.0.0.1:{server.port}"

    def status(method: str, path: str, body: str | None = None, **headers: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
        connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        return connection.getresponse().status

    other = {"Origin": "http://evil.example"}
    for foreign in ({"Host": "evil.example"}, {"Host": name, **other}, {"Host": name, "Origin": "null"}):
        assert status("POST", "/env_state", "{}", **foreign) == status("GET", "/", **foreign) == 403
        assert status("GET", "/socket", **foreign, **upgrade) == 403
    for ours in ({"Host": name}, {"Host": name, "Origin": f"http://{name}"}, {"Host": "localhost:9000"}):
        assert status("GET", "/", **ours) == status("POST", "/env_state", "{}", **ours) == 200
    assert status("GET", "/socket", Host=name, Origin=f"http://{name}", **upgrade) == 101


# ------------------------------------------------------------------------------------------------ utils/visualize.py


def test_everything_a_learner_may_plot(server, capfd):
    until(lambda: visdom_answers(server.port))
    board = Visualizer(env="lesson", port=server.port)
    until(lambda: board.log("ready", "") or server.has("lesson", "text ready"))  # on a busy machine not at once
    board.plot("loss", 3.0)
    board.plot("loss", 2.0)
    board.plot("loss", 2.5, x=1, legend="val")
    board.plot_many({"accuracy": np.float32(0.5), "recall": 0.25}, x=7)
    board.img("cat", np.full((8, 9, 3), 2.0))  # clamped to 1
    board.hist("weights", np.random.default_rng(0).normal(size=50))
    board.log("notes", "a < b")
    board.log("notes", "second")
    board.save()
    with pytest.raises(ValueError, match="shape"):
        board.img("bad", np.zeros((2, 3, 4, 5)))
    windows = server.windows("lesson")
    traces = {name: {t["name"]: t for t in windows[name]["content"]["data"]} for name in ("loss", "recall")}
    assert (traces["loss"]["train"]["x"], traces["loss"]["train"]["y"]) == ([0, 1], [3, 2])
    assert (traces["loss"]["val"]["x"], traces["loss"]["val"]["y"]) == ([1], [2.5])
    assert (traces["recall"]["train"]["x"], windows["recall"]["title"]) == ([7], "recall")
    picture = base64.b64decode(windows["image cat"]["content"]["src"].split(",")[1])
    assert (np.asarray(Image.open(io.BytesIO(picture))) == 255).all()
    assert "a &lt; b" in windows["text notes"]["content"] and "second" in windows["text notes"]["content"]
    assert sum(windows["histogram weights"]["content"]["data"][0]["y"]) == 50
    assert set(json.loads((server.folder / "lesson.json").read_text())["jsons"]) == set(windows)
    assert capfd.readouterr() == ("", "")


def test_pictures_of_any_layout():
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    for image in (rgb, rgb.transpose(2, 0, 1), torch.tensor(rgb).permute(2, 0, 1).float() / 255, rgb / 255):
        assert (to_pixels(image) == rgb.transpose(2, 0, 1)).all()
    for image in (rgb[:, :, 0], rgb[:, :, :1], rgb[None, :, :, 0]):
        assert (to_pixels(image) == rgb[None, :, :, 0]).all()
    assert to_pixels(np.array([[-3.0, 0.5, 7.0, np.nan]])).tolist() == [[[0, 128, 255, 0]]]
    with pytest.raises(ValueError, match="shape"):
        to_pixels(np.zeros((2, 5, 7)))


def test_env_name():
    assert env_name("poet-1.5_诗") == "poet-1.5_诗"
    assert env_name("a/b\\'<c>") == "a_b___c_"
    assert env_name("..") == env_name("") == "main"
