"""visdom's server on this machine, and what keeps a run's board on it up to date, live or afterwards.

Training never waits for visdom: a daemon thread reads the log and sends whole windows (charts.py), so that a server
that is late or restarted shows the whole run.
"""

import asyncio
import logging
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from tornado.httputil import HTTPServerRequest
from tornado.web import ErrorHandler

from board.charts import Board
from board.frontend import fetch_frontend, missing_files, static_folder
from training.recorder import LOG_NAME, parse_lines, read_log
from utils.errors import UserError
from utils.text import say
from utils.visualize import HOST, connect, env_name, visdom_answers

OURS = (HOST, "localhost", "::1")
DATA_FOLDER = Path(__file__).resolve().parent.parent / "tmp" / "visdom"
SEND_EVERY = 2.0  # seconds between two looks at what has changed
CONNECT_EVERY = 4.0  # seconds between two tries
CHUNK = 1 << 20  # bytes of the log at a time


class LiveBoard:
    """A sink of the recorder that shows the run in `folder`, from its beginning, in visdom's environment `env`."""

    def __init__(self, folder: Path, env: str = "", port: int = 8097):
        self._env, self._port = env_name(env or folder.name), port
        self._folder, self._board = folder, Board(folder)
        self._file: Any = None  # the log, as far as it was read
        self._rest = b""
        self._client: Any = None
        self._closing = threading.Event()
        self._complete = False
        self._thread = threading.Thread(target=self._run, name="visdom", daemon=True)
        self._thread.start()

    def handle(self, record: dict[str, Any]) -> None:
        """Nothing to do: the record is in the log."""

    def close(self, timeout: float = 2.0) -> bool:
        """Sends what is left, in `timeout` seconds at most. Says if a server has everything."""
        self._closing.set()
        self._thread.join(timeout)
        return self._complete

    def _run(self) -> None:
        try:
            self._loop()
        except Exception as error:  # never a traceback in the terminal of a training run
            say(f"warning: visdom is not used any more: {type(error).__name__}: {error}")

    def _loop(self) -> None:
        next_try = 0.0
        while True:
            closing = self._closing.wait(SEND_EVERY if next_try else 0)
            try:
                if self._client is None and (closing or time.monotonic() >= next_try):
                    next_try = time.monotonic() + CONNECT_EVERY
                    if visdom_answers(self._port):
                        self._client = connect(self._env, self._port)
                        self._board.touch_all()
                if self._client is not None:
                    self._send(closing)
            except ConnectionError:  # tried again later
                self._client = None
            if closing:
                return

    def _send(self, closing: bool) -> None:
        """Sends every window that has changed."""
        self._read_log()
        if self._board.first and not self._client.has(self._board.first):
            self._board.touch_all()  # the server was started anew, or somebody has cleared the environment
        for window in self._board.in_order():  # _send is what all of visdom's drawing functions end in
            self._client._send({"win": window, "eid": self._env, **self._board.message(window)})
            self._board.changed.discard(window)
        if closing:
            self._client.save([self._env])
        self._complete = closing

    def _read_log(self) -> None:
        """Puts on the board what was added to the log since the last look."""
        try:
            now = (self._folder / LOG_NAME).stat()
            if self._file is None or not os.path.samestat(os.fstat(self._file.fileno()), now):
                # not read yet, or replaced: the run is resumed at an earlier step
                self._file, self._rest = open(self._folder / LOG_NAME, "rb", buffering=0), b""
                self._board = Board(self._folder)
            while content := self._file.read(CHUNK):
                *lines, self._rest = (self._rest + content).split(b"\n")
                for record in parse_lines(b"\n".join(lines)):
                    self._board.handle(record)
        except OSError:
            return  # not there yet, or removed: what was read stays on the board


def replay(folder: str | Path, port: int = 8097) -> None:
    """Shows what a run has recorded until now. Raises UserError if there is no log or no server."""
    if not _follow(Path(folder), port).close(timeout=60):
        raise UserError("no visdom server there: start one with python main.py visdom", port=port)


def show(run: str | Path | None = None, port: int = 8097) -> None:
    """The command `visdom [RUN]`: starts the server unless it runs, and shows the run while its log grows.

    Returns after SIGTERM, or at once if the server runs and there is nothing to follow. Raises UserError if the run has
    no log, another program has the port, or the files of visdom's page cannot be had.
    """
    folder = Path(run).resolve() if run is not None else None
    records = read_log(folder) if folder is not None else []
    if not visdom_answers(port):
        if missing_files(static_folder()):
            say("getting the files of visdom's page, once")
            fetch_frontend()
        asyncio.run(_serve(port, folder))
        return
    say(f"visdom runs already, it is used: {_address(port, folder)}")
    if folder is None:
        return
    if records and records[-1].get("kind") == "final":
        replay(folder, port)
        return
    follower = _follow(folder, port)
    say("the run is followed; Ctrl-C ends it")
    try:
        asyncio.run(_until_sigterm())
    finally:  # of Ctrl-C, too
        follower.close()


async def _serve(port: int, folder: Path | None) -> None:
    """Runs visdom's server on 127.0.0.1 until Ctrl-C or SIGTERM, and shows the run in `folder`."""
    from visdom.server import app as visdom_app

    # visdom asks for tornado's debug mode, which would restart this program whenever a source file changes
    visdom_app.tornado_settings["autoreload"] = False
    for name in ("tornado.access", "tornado.general"):  # a missing style sheet of the user is not worth a line
        logging.getLogger(name).setLevel(logging.CRITICAL)
    DATA_FOLDER.mkdir(parents=True, exist_ok=True)

    class Application(visdom_app.Application):
        """Visdom's, but deaf to pages of other sites: any of them could otherwise draw on the board, or clear it."""

        def find_handler(self, request: HTTPServerRequest, **more: Any) -> Any:
            if is_foreign(request.headers.get("Host", ""), request.headers.get("Origin")):
                return self.get_handler_delegate(request, ErrorHandler, {"status_code": 403})
            return super().find_handler(request, **more)

    application = Application(port=port, env_path=f"{DATA_FOLDER}/")
    try:
        server = application.listen(port, address=HOST, max_buffer_size=1 << 30)
    except OSError as error:
        raise UserError(f"cannot be used ({os.strerror(error.errno or 0)}); choose another one", port=port) from error
    if folder is not None:  # else a page that is opened at once finds no environment and stays empty
        application.state.setdefault(_env_of(folder), {"jsons": {}, "reload": {}})
    say(f"visdom: {_address(port, folder)}  (Ctrl-C ends it)")
    follower = _follow(folder, port) if folder is not None else None
    try:
        await _until_sigterm()
    finally:  # of Ctrl-C, too
        if follower is not None:
            await asyncio.to_thread(follower.close)
        server.stop()


def is_foreign(host: str, origin: str | None) -> bool:
    """Whether a request comes from another site's page, or by a name that only leads here (DNS rebinding)."""
    return urlsplit(f"//{host}").hostname not in OURS or (origin is not None and urlsplit(origin).netloc != host)


async def _until_sigterm() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()


def _follow(folder: Path, port: int) -> LiveBoard:
    return LiveBoard(folder, _env_of(folder), port)


def _env_of(folder: Path) -> str:
    """The environment that the run itself uses: its option `env`, else its folder's name."""
    configs = [record.get("config") or {} for record in read_log(folder) if record.get("kind") == "config"]
    return env_name((configs[-1].get("env") if configs else "") or folder.resolve().name)


def _address(port: int, folder: Path | None) -> str:
    return f"http://localhost:{port}" if folder is None else env_address(_env_of(folder), port)


def env_address(env: str, port: int) -> str:
    """Where visdom shows an environment."""
    return f"http://localhost:{port}/env/{quote(env_name(env))}"
