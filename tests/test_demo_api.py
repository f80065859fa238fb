"""The demo's server as a process: its calls as an API, what it refuses, and that it keeps nothing."""

import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from gradio_client import Client, handle_file
from PIL import Image

import main
from demo.guard import INPUTS, OUTPUTS, UNCLAIMED, Uploads
from demo.service import Cores
from tests.servers import HOST, ROOT, free_port, until
from utils.errors import UserError

POEM = "白日依山尽，黄河入海流。\n欲穷千里目，更上一层楼。"


class Demo:
    """`main.py demo` as a process; `files` is where it may keep something while it works."""

    def __init__(self, folder: Path, *options: str):
        self.port, self.temporary, self.runs = free_port(), folder / "tmp", folder / "runs"
        self.temporary.mkdir()
        self.runs.mkdir()
        env = {**os.environ, "TMPDIR": str(self.temporary)}
        command = [sys.executable, "main.py", "demo", f"--port={self.port}", f"--save_path={self.runs}", *options]
        self.process = subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)
        self.said = [self.process.stderr.readline()]
        threading.Thread(target=lambda: self.said.extend(self.process.stderr), daemon=True).start()
        self.url = f"http://{HOST}:{self.port}/"
        until(self.answers, 240)

    def answers(self) -> bool:
        try:
            return self.ask("GET", "/")[0] == 200
        except OSError:
            return False

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=120)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, names)
        response = connection.getresponse()
        return response.status, response.read()

    def call(self, name: str, *data, session: str = "s") -> tuple[str, str]:
        """(event, its data) at the end of a call without gradio_client, which mends what it is given."""
        body = json.dumps({"data": data, "session_hash": session}).encode()
        status, answer = self.ask("POST", f"/gradio_api/call/{name}", body, Content_Type="application/json")
        assert status == 200, answer
        _, stream = self.ask("GET", f"/gradio_api/call/{name}/{json.loads(answer)['event_id']}")
        lines = stream.decode().strip().splitlines()
        return lines[-2].removeprefix("event: "), lines[-1].removeprefix("data: ")

    def upload(self, data: bytes, name: str = "photo.jpg") -> str:
        """The path that the server gives the file."""
        head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
        body = head + data + b"\r\n--x--\r\n"
        status, answer = self.ask("POST", "/gradio_api/upload", body, Content_Type="multipart/form-data; boundary=x")
        assert status == 200, answer
        return json.loads(answer)[0]

    def files(self) -> list[Path]:
        return [path for path in self.temporary.rglob("*") if path.is_file()]

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(120)


def jpeg(width: int = 320, height: int = 240, seed: int = 0) -> bytes:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


def file_data(path: str, **more) -> dict:
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    demo = Demo(tmp_path_factory.mktemp("demo"), "--max_file_size=0.5", "--max_megapixels=2")
    yield demo
    demo.stop()
    assert list(demo.temporary.glob("shihua_*")) == []  # the folder is gone, too
    assert "Traceback" not in "".join(demo.said)


@pytest.fixture(scope="module")
def client(demo):
    client = Client(demo.url, verbose=False, analytics_enabled=False)
    names = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(names) == {"/compose", "/paint", "/postcard", "/classify"}  # and no others
    return client


# --------------------------------------------------------------------------------------------------- the four calls


def test_a_poem(client, demo):
    (poem,) = client.predict(title="春江夜泊", form="五绝", seed=3, api_name="/compose")
    assert poem["form"] == "五绝" and poem["title"] == "春江夜泊"
    assert [len(line) for line in poem["lines"]] == [12, 12]
    again, other = (client.predict(title="春江夜泊", form="五绝", seed=s, api_name="/compose") for s in (3, 4))
    assert again == [poem] != other


def test_a_painting(client):
    photo = ROOT / "dataset" / "sample" / "photos" / "alps_noon.jpg"
    rgb = np.asarray(Image.open(photo)).astype(float)
    faint, full = (
        np.asarray(Image.open(client.predict(handle_file(str(photo)), style="wave:0.6,starry:0.4", strength=strength,
                                             api_name="/paint"))).astype(float)
        for strength in (0, 1)
    )  # fmt: skip
    assert full.shape == rgb.shape and np.abs(faint - rgb).mean() < np.abs(full - rgb).mean() / 3


def test_cats_and_what_is_neither(client, tmp_path):
    for name, label, seen in (("chelsea", "cat", ""), ("coffee", "neither", "espresso")):
        photo = tmp_path / f"{name}.png"
        Image.fromarray(getattr(skimage.data, name)()).save(photo)
        answer = client.predict(handle_file(str(photo)), api_name="/classify")
        assert answer["label"] == label and answer["cat"] + answer["dog"] == pytest.approx(1)
        assert not seen or (answer["seen"] == seen and answer["seen_probability"] > 0.5)


# ------------------------------------------------------------------------------------------------ nothing is kept


def test_nothing_is_kept_after_a_request(client, demo, tmp_path):
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(jpeg())
    client.predict(handle_file(str(photo)), api_name="/paint")
    client.predict(handle_file(str(photo)), poem=POEM, strength=0, api_name="/postcard")
    client.predict(handle_file(str(photo)), api_name="/classify")
    until(lambda: not demo.files(), 3)


def test_a_broken_upload_is_not_kept_either(demo):
    path = demo.upload(b"no picture", "x.jpg")
    assert len(demo.files()) == 1
    event, answer = demo.call("classify", file_data(path, orig_name="x.jpg"))
    assert event == "error" and "not a picture" in answer
    assert demo.files() == []


def test_equal_files_of_two_visitors_do_not_disturb_each_other(demo):
    first, second = demo.upload(jpeg()), demo.upload(jpeg())
    assert first != second
    assert [demo.call("classify", file_data(path))[0] for path in (first, second)] == ["complete"] * 2
    event, answer = demo.call("classify", file_data(first))  # it has been used
    assert event == "error" and "not here any more" in answer


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("name", ["/etc/passwd", "main.py", "", "x\0"])
def test_no_other_file_can_be_named_as_an_upload(demo, name):
    for path in (name, str(ROOT / name), f"{demo.temporary}/{name}"):
        event, answer = demo.call("classify", file_data(path))
        assert event == "error" and "not here any more" in answer
    assert demo.files() == []  # nor copied to where it could be fetched


def test_an_address_is_not_fetched(demo):
    with socket.create_server((HOST, 0)) as server:
        address = f"http://{HOST}:{server.getsockname()[1]}/x.jpg"
        for data in (file_data(address), file_data("x", url=address), {"path": address}):
            event, answer = demo.call("classify", data)
            assert event == "error" and json.loads(answer)["error"]
        server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            server.accept()


def test_a_poem_is_never_the_name_of_a_file(demo):
    event, answer = demo.call("postcard", file_data(demo.upload(jpeg())), "", "LICENSE", "", 0, "印")
    card, poem = json.loads(answer)
    assert event == "complete" and poem == "LICENSE"
    address = f"/gradio_api/file={card['path']}"
    assert demo.ask("GET", address)[0] == 200
    assert demo.ask("GET", address)[0] in (403, 404)  # it can be fetched once


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=main.py",
        f"/gradio_api/file={ROOT}/main.py",
        "/gradio_api/file=%2e%2e%2fmain.py",
        "/gradio_api/proxy=http://127.0.0.1:1/",
        "/static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/assets/..%2f..%2f..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/gradio_api/deep_link?session_hash=s",
        "/gradio_api/run-history/buckets",
    ],
)
def test_no_other_file_is_served(demo, path):
    status, answer = demo.ask("GET", path)
    assert status in (403, 404)
    assert b"root:" not in answer and b"import" not in answer


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "http://localhost:1"},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": ""},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"},
        {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "cors"},
    ],
)
def test_a_foreign_page_cannot_drive_it(demo, headers):
    body = json.dumps({"data": ["题", "五绝", "", "", 0.8, 1, 1]}).encode()
    for method, path in (("POST", "/gradio_api/call/compose"), ("GET", "/config"), ("OPTIONS", "/gradio_api/upload")):
        content = body if method == "POST" else None
        assert demo.ask(method, path, content, Content_Type="application/json", **headers)[0] == 403


def test_its_own_page_may(demo):
    for host in (f"127.0.0.1:{demo.port}", f"localhost:{demo.port}"):
        body = json.dumps({"data": ["题", "五绝", "", "", 0.8, 1, 1]}).encode()
        own = {"Host": host, "Origin": f"http://{host}", "Content_Type": "application/json"}
        assert demo.ask("POST", "/gradio_api/call/compose", body, Sec_Fetch_Site="same-origin", **own)[0] == 200
    assert demo.ask("GET", "/", None, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")[0] == 200  # a link


def test_too_much_is_refused(demo):
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
    content = head + b"x" * 600_000 + b"\r\n--x--\r\n"
    multipart = {"Content_Type": "multipart/form-data; boundary=x"}
    assert demo.ask("POST", "/gradio_api/upload", content, **multipart)[0] == 413
    try:
        status, _ = demo.ask("POST", "/gradio_api/call/compose", b"x" * 1_100_000, Content_Type="application/json")
    except (BrokenPipeError, ConnectionResetError):  # it was refused before it was sent
        status = 413
    assert status == 413 and demo.files() == []
    connection = http.client.HTTPConnection(HOST, demo.port, timeout=120)
    connection.request("POST", "/gradio_api/upload", iter([b"x"] * 3), encode_chunked=True)
    assert connection.getresponse().status == 411, "a request without length"


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(demo):
    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG")  # 400 megapixels in some kilobytes
    event, answer = demo.call("classify", file_data(demo.upload(buffer.getvalue(), "bomb.png")))
    assert event == "error" and "20000 x 20000" in answer


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (("题" * 31, "五绝", "", "", 0.8, 1, 1), "title: must be a text of at most 30 characters"),
        (("题", "sonnet", "", "", 0.8, 1, 1), "form=sonnet: choose auto,"),
        (("题", "五绝", "", "", 0.8, 1, 100_000), "n=100000: must be at most 8"),
    ],
)
def test_a_mistake_is_one_sentence(demo, data, sentence):
    event, answer = demo.call("compose", *data)
    message = json.loads(answer)["error"]
    assert event == "error" and sentence in message and "\n" not in message and "--" not in message


# ------------------------------------------------------------------------------------------------- without a server


def test_a_taken_port_is_one_line(capsys):
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
        assert main.main(["demo", f"--port={port}"]) == 2
    told = f"error: --port={port}: cannot listen there at {HOST} (Address already in use): give another\n"
    assert capsys.readouterr().err == told


def test_files_that_nobody_takes_are_swept(tmp_path):
    """Counted from their last byte: the folder of a file that grows was made long ago."""
    uploads, now = Uploads(tmp_path, 10), time.time()
    taken, left = (uploads.new_folder(INPUTS) / "a.jpg" for _ in range(2))
    taken.write_bytes(b"one")
    left.write_bytes(b"two")
    os.utime(left.parent, (now - 2 * UNCLAIMED, now - 2 * UNCLAIMED))
    assert uploads.take(str(taken)) == b"one"
    uploads.sweep_once(now + UNCLAIMED - 5)
    assert left.exists()
    uploads.sweep_once(now + UNCLAIMED + 5)
    assert list(tmp_path.iterdir()) == []


def test_there_is_room_for_so_many_bytes_only(tmp_path):
    uploads = Uploads(tmp_path, 10)
    (uploads.new_folder(INPUTS) / "a.jpg").write_bytes(b"x" * 11)
    with pytest.raises(UserError, match="too many pictures at once"):
        uploads.new_folder(INPUTS)


def test_a_file_stays_until_it_is_sent_and_what_was_made_is_sent_once(tmp_path):
    """The page fetches what it has uploaded, to show it, while a job takes the same file."""
    uploads = Uploads(tmp_path, 100)
    photo, card = (uploads.new_folder(kind) / "a.jpg" for kind in (INPUTS, OUTPUTS))
    photo.write_bytes(b"photo")
    card.write_bytes(b"card")
    with uploads.fetching(str(photo)) as first, uploads.fetching(str(photo)) as second:
        assert first == second == 200 and uploads.take(str(photo)) == b"photo" == photo.read_bytes()
        with pytest.raises(UserError, match="not here any more"):
            uploads.take(str(photo))
        with uploads.fetching(str(photo)) as third:
            assert third == 204
    with uploads.fetching(str(card)) as first, uploads.fetching(str(card)) as second:
        assert (first, second) == (200, 404) and card.exists()
    with uploads.fetching(str(photo)) as late:
        assert late == 204
    assert list(tmp_path.iterdir()) == []


def test_cores_are_shared():
    before, cores = torch.get_num_threads(), Cores()
    try:
        torch.set_num_threads(4)
        with cores.shared():
            counts = [torch.get_num_threads()]
            with cores.shared():
                counts.append(torch.get_num_threads())
        with cores.shared():
            assert [*counts, torch.get_num_threads()] == [4, 2, 4]
    finally:
        torch.set_num_threads(before)
