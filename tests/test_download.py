"""data/download.py against a real HTTP server on this machine that misbehaves as told. Nothing else is contacted."""

import hashlib
import random
import re
import stat
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from data import download as module
from data.download import Download, File, download, downloads, listing
from utils.errors import UserError

BODY = random.Random(0).randbytes(300_001)
SHA256 = hashlib.sha256(BODY).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Honest, unless the next entry of `server.plan` is a function that answers in its own way."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        answer = self.server.plan.pop(0) if self.server.plan else Handler.reply
        answer(self, self.server.bodies[self.path])

    def reply(self, body: bytes, sent: int | None = None, status: int = 200, **headers: object) -> None:
        """Announces all of `body` and sends `sent` bytes of it."""
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body[:sent])

    def log_message(self, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # clients that refuse a file hang up
            super().handle_error(request, client_address)


def breaks(handler: Handler, body: bytes) -> None:
    handler.reply(body, len(body) // 2)


def status(code: int, **headers: object) -> Callable[[Handler, bytes], None]:
    return lambda handler, body: handler.reply(b"a page about it", status=code, **headers)


@pytest.fixture
def server(monkeypatch):
    """Serves "small", a NAME of two files, one with a Chinese folder in its address."""
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    httpd = Server(("127.0.0.1", 0), Handler)
    httpd.plan, httpd.asked, httpd.bodies = [], [], {"/%E5%94%90/a.json": BODY, "/LICENSE": b"free"}
    httpd.root = f"http://127.0.0.1:{httpd.server_port}"
    files = tuple(File(httpd.root + p, len(b), hashlib.sha256(b).hexdigest()) for p, b in httpd.bodies.items())
    monkeypatch.setattr(
        module, "downloads", lambda: {"small": Download("a test", files, "read {folder}", "it works without it")}
    )
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield httpd
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_all_files_with_a_bar_and_once_only(server, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = download("small")
    assert folder == Path("dataset/small") and names(folder) == ["LICENSE", "a.json"]
    assert (folder / "a.json").read_bytes() == BODY and (folder / "LICENSE").read_bytes() == b"free"
    assert stat.S_IMODE((folder / "a.json").stat().st_mode) == 0o644
    out, err = capsys.readouterr()
    assert out == "" and "read dataset/small" in err and "small: 100%" in err and "300k/300k" in err
    download("small")
    assert len(server.asked) == 2  # the second call asked for nothing
    (folder / "LICENSE").unlink()
    (folder / "a.json").write_bytes(BODY[:-1] + b"?")
    download("small")
    assert (folder / "a.json").read_bytes() == BODY and names(folder) == ["LICENSE", "a.json"]
    assert download("small", str(tmp_path / "elsewhere")) == tmp_path / "elsewhere"


@pytest.mark.parametrize(
    "trouble",
    [breaks, status(500), status(302, Location="/%E5%94%90/a.json"), lambda h, b: h.reply(b[::-1])],
    ids=["break", "500", "redirect", "wrong bytes"],
)
def test_passing_trouble_is_overcome(server, tmp_path, trouble):
    server.plan = [trouble]
    assert (download("small", str(tmp_path)) / "a.json").read_bytes() == BODY
    assert names(tmp_path) == ["LICENSE", "a.json"]


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (breaks, "cannot get a.json from 127.0.0.1:.*; it works without it$"),
        (status(404), "cannot get a.json from .*404.*; it works without it$"),
        (status(302, Location="file:///etc/passwd"), "cannot get a.json from .*file:///etc/passwd"),
        (status(302, Location="/%E5%94%90/a.json"), "cannot get a.json from .*redirects"),
        (lambda h, b: h.reply(b[::-1]), f"a.json from http.* is not the right file: .*{SHA256}"),
        (lambda h, b: h.reply(b * 9), "more than 300,001 bytes: it is not the right file"),
    ],
    ids=["breaks", "404", "scheme", "circle", "wrong bytes", "too long"],
)
def test_lasting_trouble_is_one_line_and_leaves_the_old_file(server, tmp_path, trouble, message):
    (tmp_path / "a.json").write_bytes(b"old")
    server.plan = [trouble] * 200
    with pytest.raises(UserError, match=message) as caught:
        download("small", str(tmp_path))
    assert "\n" not in str(caught.value)
    assert (tmp_path / "a.json").read_bytes() == b"old" and names(tmp_path) == ["a.json"]


def test_no_connection_and_no_place(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match="cannot write"):
        download("small", str(tmp_path / "file" / "folder"))
    nobody = Download("", (File("http://127.0.0.1:1/a", 1, SHA256),), "", "without")  # nothing listens there
    monkeypatch.setattr(module, "downloads", lambda: {"small": nobody})
    with pytest.raises(UserError, match="cannot get a from 127.0.0.1:1: Connection refused; without"):
        download("small", str(tmp_path))


# ------------------------------------------------------------------------------------------------- what there is


def test_unknown_name_and_listing():
    with pytest.raises(UserError, match="no poety here, there is poetry, poetry-song; did you mean poetry?"):
        download("poety")
    assert [line.split()[0] for line in listing().splitlines()] == list(downloads())


@pytest.mark.parametrize("name, poems", [("poetry", range(0, 58000, 1000)), ("poetry-song", range(0, 255000, 1000))])
def test_manifest(name, poems):
    kind = {"poetry": "tang", "poetry-song": "song"}[name]
    entry = downloads()[name]
    assert [f.name for f in entry.files] == ["LICENSE", *(f"poet.{kind}.{i}.json" for i in poems)]
    base = r"https://raw\.githubusercontent\.com/chinese-poetry/chinese-poetry/[0-9a-f]{40}"
    for file in entry.files:
        assert re.fullmatch(base + r"/(%E5%85%A8%E5%94%90%E8%AF%97/poet\.\w+\.\d+\.json|LICENSE)", file.url)
        assert re.fullmatch("[0-9a-f]{64}", file.sha256) and 0 < file.size < 1e6
    assert len({f.sha256 for f in entry.files}) == len(entry.files)
