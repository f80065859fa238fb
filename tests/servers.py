"""What tests with real servers share: ports that nobody else gets, waiting, visdom's server as a process."""

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from board.frontend import fetch_frontend, missing_files, static_folder
from utils.errors import UserError
from utils.visualize import HOST

ROOT = Path(__file__).resolve().parent.parent
SHOW = """
import pathlib, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
import board.server, cli, main
board.server.DATA_FOLDER = pathlib.Path(sys.argv.pop(1))
sys.exit(cli.run(main.main))
"""


def lacking(what: str) -> None:
    """Skips the test, or fails it where everything has to be there."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(what)
    pytest.skip(what)


reserved: list[socket.socket] = []


def free_port() -> int:
    """A port that nobody else gets before the tests have ended: a socket is bound to it that does not listen.

    A server that the test starts may listen at it, by SO_REUSEADDR, which all servers here set.
    """
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((HOST, 0))
    reserved.append(sock)
    return sock.getsockname()[1]


def until(condition, seconds: float = 120.0):
    """The first true answer of `condition`, asked until it comes."""
    end = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.05)
    return answer


class Server:
    """`main.py visdom [RUN]` as a process of its own; its data in `folder`."""

    def __init__(self, folder: Path, port: int, *run: str):
        try:
            if missing_files(static_folder()):
                fetch_frontend()
        except UserError as error:
            lacking(str(error))
        self.folder, self.port = folder, port
        command = [sys.executable, "-c", SHOW, str(folder), "visdom", f"--port={port}", *run]
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        self.said = self.process.stderr.readline()
        assert "http://localhost:" in self.said, self.said

    def windows(self, env: str) -> dict[str, dict]:
        """What the server has in an environment, asked without our own client."""
        body = json.dumps({"win": None, "eid": env}).encode()
        with urllib.request.urlopen(f"http://{HOST}:{self.port}/win_data", body, timeout=60) as reply:
            return json.loads(reply.read() or b"{}")

    def has(self, env: str, window: str) -> bool:
        with urllib.request.urlopen(f"http://{HOST}:{self.port}/env_state", b"{}", timeout=60) as reply:
            environments = json.loads(reply.read())
        return env in environments and window in self.windows(env)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        code = self.process.wait(120)
        self.rest = self.process.stderr.read()
        self.process.stderr.close()
        return code


class OnlyAPage(http.server.BaseHTTPRequestHandler):
    """Of visdom's server no more than what it is known by."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<title>visdom</title>")

    def log_message(self, *words):
        pass
