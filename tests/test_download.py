"""data/download.py against a real HTTP server on this machine that misbehaves as told. Nothing else is contacted."""

import hashlib
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from data import download as module
from data.download import Download, File, download, downloads, fetch_file, listing
from utils.errors import UserError

ROOT = Path(__file__).parent.parent
BODY = random.Random(0).randbytes(300_001)
HALF = 150_000
SHA256 = hashlib.sha256(BODY).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Honest, with Range, unless the next entry of `server.plan` is a function that answers in its own way."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.server.ranges.append(self.headers.get("Range"))
        self.server.encodings.append(self.headers.get("Accept-Encoding"))
        answer = self.server.plan.pop(0) if self.server.plan else honest
        answer(self, self.server.bodies[self.path])

    def start(self) -> int:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return int(asked[1]) if asked else 0

    def reply(self, status: int, body: bytes, sent: int | None = None, **headers: object) -> None:
        """Announces all of `body` and sends `sent` bytes of it; then the connection is closed if that is not all."""
        self.send_response(status)
        for name, value in {"Content_Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body[:sent])
        self.close_connection = sent is not None

    def log_message(self, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # clients that refuse a file hang up
            super().handle_error(request, client_address)


def honest(handler: Handler, body: bytes, sent: int | None = None) -> None:
    start = handler.start()
    if not start:
        handler.reply(200, body, sent)
    elif start >= len(body):
        handler.reply(416, b"", Content_Range=f"bytes */{len(body)}")
    else:
        handler.reply(206, body[start:], sent, Content_Range=f"bytes {start}-{len(body) - 1}/{len(body)}")


def breaks_after(count: int) -> Callable[[Handler, bytes], None]:
    return lambda handler, body: honest(handler, body, count)


def ignores_range(handler: Handler, body: bytes) -> None:
    handler.reply(200, body)


def status(code: int, **headers: object) -> Callable[[Handler, bytes], None]:
    return lambda handler, body: handler.reply(code, b"a page about it", **headers)


def chunked(handler: Handler, body: bytes) -> None:
    """Without a Content-Length."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "BACKOFF", 0.01)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    httpd = Server(("127.0.0.1", 0), Handler)
    httpd.plan, httpd.ranges, httpd.encodings, httpd.bodies = [], [], [], {"/file.bin": BODY}
    httpd.root = f"http://127.0.0.1:{httpd.server_port}"
    httpd.url = httpd.root + "/file.bin"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield httpd
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# ------------------------------------------------------------------------------------------------- good endings


def test_whole_file_with_bar_and_once_only(server, tmp_path, capsys):
    path = tmp_path / "new" / "file.bin"
    assert fetch_file(server.url, path, SHA256, len(BODY)) == path
    assert path.read_bytes() == BODY and names(path.parent) == ["file.bin"]
    out, err = capsys.readouterr()
    assert out == "" and "file.bin: 100%" in err and "300k/300k" in err
    assert server.encodings == ["identity"]  # packed bytes could not be resumed or counted
    fetch_file(server.url, path, SHA256, len(BODY))
    assert server.ranges == [None]  # the second call asked for nothing


def test_wrong_file_at_the_place_is_replaced(server, tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(BODY[:-1] + b"?")
    fetch_file(server.url, path, SHA256, len(BODY))
    assert path.read_bytes() == BODY


@pytest.mark.parametrize("known", [{"sha256": SHA256, "size": len(BODY)}, {"sha256": SHA256}, {}])
@pytest.mark.parametrize("breaks", [[HALF], [HALF, 70_000], [1] * 9])
def test_break_resumes_with_the_rest_only(server, tmp_path, capsys, known, breaks):
    server.plan = [breaks_after(count) for count in breaks]
    path = fetch_file(server.url, tmp_path / "file.bin", **known)
    starts = [sum(breaks[:i]) for i in range(1, len(breaks) + 1)]
    assert server.ranges == [None, *(f"bytes={start}-" for start in starts)]
    assert path.read_bytes() == BODY and names(tmp_path) == ["file.bin"]
    assert "trying again in" in capsys.readouterr().err


def test_break_without_ranges_starts_over(server, tmp_path):
    server.plan = [breaks_after(HALF), ignores_range]
    path = fetch_file(server.url, tmp_path / "file.bin", SHA256, len(BODY))
    assert server.ranges == [None, f"bytes={HALF}-"]
    assert path.read_bytes() == BODY


def test_rest_from_another_offset_is_not_appended(server, tmp_path):
    def elsewhere(handler, body):
        handler.reply(206, body[1000:], Content_Range=f"bytes 1000-{len(body) - 1}/{len(body)}")

    server.plan = [breaks_after(HALF), elsewhere]
    path = fetch_file(server.url, tmp_path / "file.bin")
    assert server.ranges == [None, f"bytes={HALF}-", None]
    assert path.read_bytes() == BODY


def test_part_of_an_earlier_call(server, tmp_path):
    part, path = tmp_path / "file.bin.part", tmp_path / "file.bin"
    part.write_bytes(BODY[:HALF])
    fetch_file(server.url, path, SHA256)
    path.unlink()
    part.write_bytes(BODY)  # whole, killed just before it got its name: nothing is left to ask for
    fetch_file(server.url, path, SHA256, len(BODY))
    assert server.ranges == [f"bytes={HALF}-"]
    path.unlink()
    part.write_bytes(BODY + b"too much")  # 416: starts over
    fetch_file(server.url, path, SHA256, len(BODY))
    assert server.ranges[1:] == [f"bytes={len(BODY) + 8}-", None]
    path.unlink()
    part.write_bytes(b"of yesterday's file")  # without a sum nothing would tell
    fetch_file(server.url, path)
    assert server.ranges[3:] == [None]
    assert path.read_bytes() == BODY and names(tmp_path) == ["file.bin"]


@pytest.mark.parametrize("code", [500, 503, 429, 408])
def test_passing_trouble_of_the_server(server, tmp_path, code):
    server.plan = [status(code)]
    assert fetch_file(server.url, tmp_path / "file.bin", SHA256).read_bytes() == BODY
    assert len(server.ranges) == 2


def test_no_content_length(server, tmp_path):
    server.plan = [chunked]
    assert fetch_file(server.url, tmp_path / "file.bin").read_bytes() == BODY


def test_redirect_within_http(server, tmp_path):
    server.plan = [status(302, Location="/file.bin")]
    assert fetch_file(server.url, tmp_path / "file.bin", SHA256).read_bytes() == BODY


def test_empty_file(server, tmp_path):
    server.bodies["/file.bin"] = b""
    assert fetch_file(server.url, tmp_path / "file.bin", hashlib.sha256(b"").hexdigest(), 0).read_bytes() == b""


# -------------------------------------------------------------------------------------------------- bad endings


def error_of(*args: object, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        fetch_file(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("known", [{}, {"size": len(BODY)}])
def test_wrong_bytes(server, tmp_path, known):
    wrong = server.bodies["/file.bin"] = BODY[::-1]
    message = error_of(server.url, tmp_path / "file.bin", SHA256, **known)
    assert all(s in message for s in ("file.bin", SHA256, hashlib.sha256(wrong).hexdigest()))
    assert names(tmp_path) == []


def test_wrong_bytes_leave_the_old_file(server, tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    server.bodies["/file.bin"] = BODY[::-1]
    error_of(server.url, path, SHA256)
    assert path.read_bytes() == b"old" and names(tmp_path) == ["file.bin"]


def test_length_is_not_the_known_one(server, tmp_path):
    message = error_of(server.url, tmp_path / "file.bin", SHA256, len(BODY) + 1)
    assert "300,001" in message and "300,002" in message
    assert len(server.ranges) == 1 and names(tmp_path) == []


@pytest.mark.parametrize("known", [{}, {"sha256": SHA256}])
def test_announces_more_than_it_sends(server, tmp_path, known):
    server.plan = [lambda handler, body: handler.reply(200, body + b"never", len(body))] * 20
    message = error_of(server.url, tmp_path / "file.bin", **known)
    assert "broke off after 300,001 bytes" in message
    assert names(tmp_path) == ["file.bin.part"]


def test_sends_less_than_the_known_size(server, tmp_path):
    server.plan = [chunked] * 20
    assert "broke off after 300,001 bytes" in error_of(server.url, tmp_path / "file.bin", size=len(BODY) + 1)
    assert len(server.ranges) == module.TRIES


def test_announces_less_than_it_sends(server, tmp_path):
    server.plan = [lambda handler, body: handler.reply(200, body, Content_Length=HALF)]
    assert hashlib.sha256(BODY[:HALF]).hexdigest() in error_of(server.url, tmp_path / "file.bin", SHA256)
    assert names(tmp_path) == []


def test_breaks_without_end(server, tmp_path):
    server.plan = [breaks_after(HALF)] + [breaks_after(0)] * 20
    message = error_of(server.url, tmp_path / "file.bin", SHA256)
    assert "127.0.0.1" in message and "kept for the next try" in message
    assert len(server.ranges) == module.TRIES  # the first brought something, the others did not
    assert (tmp_path / "file.bin.part").read_bytes() == BODY[:HALF]
    server.plan = []
    assert fetch_file(server.url, tmp_path / "file.bin", SHA256).read_bytes() == BODY
    assert server.ranges[-1] == f"bytes={HALF}-"


def test_starting_over_is_no_progress(server, tmp_path):
    """A server without ranges that breaks off sooner or later would else keep it busy for ever."""
    counts = [HALF, *range(10, 30)]
    server.plan = [lambda handler, body, n=count: handler.reply(200, body, n) for count in counts]
    error_of(server.url, tmp_path / "file.bin", SHA256)
    assert len(server.ranges) == module.TRIES


@pytest.mark.parametrize("code", [404, 403, 204])
def test_refusal_is_not_tried_again(server, tmp_path, code):
    server.plan = [status(code)]
    message = error_of(server.url, tmp_path / "file.bin")
    assert str(code) in message and server.url in message
    assert len(server.ranges) == 1 and names(tmp_path) == []


def test_nothing_but_trouble(server, tmp_path):
    server.plan = [status(500)] * 20
    assert "500" in error_of(server.url, tmp_path / "file.bin")
    assert len(server.ranges) == module.TRIES


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/file.bin", "data:text/plain,hello"])
def test_redirect_to_another_scheme(server, tmp_path, target):
    server.plan = [status(302, Location=target)]
    assert target in error_of(server.url, tmp_path / "file.bin")
    assert names(tmp_path) == []


def test_redirect_from_https_to_http():
    answer = requests.Response()
    answer.status_code, answer.url, answer.headers["Location"] = 302, "https://example.org/a", "http://example.org/a"
    with pytest.raises(UserError, match="http://example.org/a"):
        module._Session().get_redirect_target(answer)
    answer.headers["Location"] = "/b"
    assert module._Session().get_redirect_target(answer) == "/b"


def test_redirects_in_a_circle(server, tmp_path):
    server.plan = [status(302, Location="/file.bin")] * 40
    assert "redirects" in error_of(server.url, tmp_path / "file.bin")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/a", "/etc/passwd", "http://"])
def test_other_addresses(tmp_path, url):
    message = error_of(url, tmp_path / "file.bin")
    assert url in message and ("only http:// and https://" in message or url == "http://")
    assert names(tmp_path) == []


@pytest.mark.parametrize("answer", [honest, chunked])
@pytest.mark.parametrize("limits", [{"max_bytes": len(BODY) - 1}, {"max_bytes": 10**9, "size": len(BODY) - 1}])
def test_more_than_the_limit(server, tmp_path, answer, limits):
    server.plan = [answer]
    error_of(server.url, tmp_path / "file.bin", **limits)
    assert names(tmp_path) == [] and len(server.ranges) == 1


def test_announces_more_than_the_limit(server, tmp_path):
    server.plan = [lambda handler, body: handler.reply(200, body, 3, Content_Length=10**15)]
    assert "more than 1,000 bytes" in error_of(server.url, tmp_path / "file.bin", max_bytes=1000)
    assert len(server.ranges) == 1  # not a break, after which it would be tried again


def test_the_limit_itself_is_allowed(server, tmp_path):
    assert fetch_file(server.url, tmp_path / "file.bin", max_bytes=len(BODY)).read_bytes() == BODY


def test_no_connection(server, tmp_path):
    url = server.url.replace(str(server.server_port), "1")  # nothing listens there
    message = error_of(url, tmp_path / "file.bin")
    assert message == "cannot get file.bin from 127.0.0.1:1: Connection refused"


def test_place_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    assert "cannot write" in error_of(server.url, tmp_path / "file" / "file.bin", SHA256)


def test_ctrl_c_keeps_what_arrived(server, tmp_path):
    def stalls(handler: Handler, body: bytes) -> None:
        handler.reply(200, body, HALF)
        handler.wfile.flush()
        stalled.set()
        resumed.wait(120)

    stalled, resumed = threading.Event(), threading.Event()
    server.plan = [stalls]
    path = tmp_path / "file.bin"
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job ignores it
        f"from data.download import fetch_file; fetch_file({server.url!r}, {str(path)!r}, {SHA256!r})"
    )
    child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert stalled.wait(120)
    deadline = time.monotonic() + 120
    while module._length(tmp_path / "file.bin.part") == 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    err = child.communicate(timeout=120)[1]
    resumed.set()
    assert child.returncode == -signal.SIGINT and "file.bin.part: the same command goes on from there" in err
    kept = (tmp_path / "file.bin.part").stat().st_size
    assert 0 < kept <= HALF and names(tmp_path) == ["file.bin.part"]
    assert fetch_file(server.url, path, SHA256).read_bytes() == BODY
    assert server.ranges == [None, f"bytes={kept}-"]


# ------------------------------------------------------------------------------------------------- what there is


@pytest.fixture
def two_files(server, monkeypatch):
    """A NAME of two files on the local server, one with a Chinese folder in its address."""
    server.bodies |= {"/%E5%94%90/a.json": b"[1]" * 5000, "/LICENSE": b"free"}
    files = tuple(File(server.root + p, len(b), hashlib.sha256(b).hexdigest()) for p, b in server.bodies.items())
    entry = Download("a test", files[1:], "read {folder}", "it works without it")
    monkeypatch.setattr(module, "downloads", lambda: {"small": entry})
    return server


def test_download(two_files, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    two_files.plan = [breaks_after(6000)]
    folder = download("small")
    assert folder == Path("dataset/small") and names(folder) == ["LICENSE", "a.json"]
    assert (folder / "a.json").read_bytes() == b"[1]" * 5000 and (folder / "LICENSE").read_bytes() == b"free"
    out, err = capsys.readouterr()
    assert out == "" and "read dataset/small" in err and "small: 100%" in err
    asked = len(two_files.ranges)
    (folder / "LICENSE").unlink()
    download("small")
    assert len(two_files.ranges) == asked + 1 and (folder / "LICENSE").exists()
    assert "small: 100%" in capsys.readouterr().err
    assert download("small", str(tmp_path / "elsewhere")) == tmp_path / "elsewhere"


def test_download_without_connection(two_files, tmp_path):
    two_files.plan = [breaks_after(0)] * 20
    with pytest.raises(UserError, match="cannot get a.json from 127.0.0.1:.*; it works without it$"):
        download("small", str(tmp_path))


def test_unknown_name():
    with pytest.raises(UserError, match="no poety here, there is poetry, poetry-song; did you mean poetry?"):
        download("poety")


def test_listing_names_everything():
    assert [line.split()[0] for line in listing().splitlines()] == list(downloads())


@pytest.mark.parametrize("name, poems", [("poetry", range(0, 58000, 1000)), ("poetry-song", range(0, 255000, 1000))])
def test_manifest(name, poems):
    kind = {"poetry": "tang", "poetry-song": "song"}[name]
    entry = downloads()[name]
    assert [f.name for f in entry.files] == ["LICENSE", *(f"poet.{kind}.{i}.json" for i in poems)]
    base = r"https://raw\.githubusercontent\.com/chinese-poetry/chinese-poetry/[0-9a-f]{40}"
    for file in entry.files:
        assert re.fullmatch(base + r"/(%E5%85%A8%E5%94%90%E8%AF%97/poet\.\w+\.\d+\.json|LICENSE)", file.url)
        assert re.fullmatch("[0-9a-f]{64}", file.sha256) and 0 < file.size < module.MAX_BYTES
    sums = [f.sha256 for f in entry.files]
    assert len(set(sums)) == len(sums)
