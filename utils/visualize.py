"""visdom: a run's figures, pictures and texts in the browser, live or afterwards; and the command for its server.

Training never waits for visdom. One daemon thread has all traffic; it tries to connect every few seconds, reads the
run's log once a server answers, and sends whole windows, so a server that is late or restarted shows the whole run.
What the windows look like is in board/charts.py.
"""

import asyncio
import http.client
import logging
import os
import queue
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from PIL import Image
from tornado.httputil import HTTPServerRequest
from tornado.web import ErrorHandler

from board.charts import Board, to_picture
from board.frontend import fetch_frontend, missing_files, static_folder
from training.recorder import LOG_NAME, histogram, parse_lines, read_log
from utils.errors import UserError

HOST = "127.0.0.1"  # never another one: visdom's server lets everybody in
OURS = ("127.0.0.1", "localhost", "::1")
DATA_FOLDER = Path(__file__).resolve().parent.parent / "tmp" / "visdom"
SEND_EVERY = 2.0  # seconds between two looks at what has changed
CONNECT_EVERY = 4.0  # seconds between two tries
REQUEST_SECONDS = 10.0
QUEUE_SIZE = 10_000


class Visualizer:
    """A sink of the recorder, and a board for whoever plots: v.plot("loss", 0.3); v.img("cat", array).

    Args:
        env: name of visdom's environment; characters that visdom cannot have in one become "_".
        port: of the server on this machine.
        folder: of the run. Its log is what is shown, from the beginning: `handle` has nothing left to do. Without a
            folder the records given to `handle` are shown.

    No function waits or raises when there is no server. What is plotted while the queue is full is left out.
    """

    def __init__(self, env: str = "main", port: int = 8097, folder: str | Path | None = None):
        self._env, self._port = env_name(env), port
        self._log = _LogReader(Path(folder)) if folder is not None else None
        self._board = Board(Path(folder) if folder is not None else None)
        self._client: Any = None
        self._steps: dict[tuple[str, str], int] = {}
        self._queue: queue.Queue[Callable[[Board], object]] = queue.Queue(QUEUE_SIZE)
        self._closing = threading.Event()
        self._save = threading.Event()
        self._complete = False
        self._thread = threading.Thread(target=self._run, name="visdom", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------------------------------------ what may be shown

    def handle(self, record: dict[str, Any]) -> None:
        """Shows one record of the recorder."""
        if self._log is None:
            self._put(lambda board: board.handle(record))

    def plot(self, name: str, y: float, x: float | None = None, legend: str = "train") -> None:
        """Adds a point to the curve `legend` in the window `name`; x counts up if it is not given."""
        place = float(self._steps.get((name, legend), 0) if x is None else x)
        value = float(y)
        self._steps[name, legend] = int(place) + 1
        self._put(lambda board: board.plot(name, value, place, legend))

    def plot_many(self, values: dict[str, float], x: float | None = None, legend: str = "train") -> None:
        """A point for each name."""
        for name, y in values.items():
            self.plot(name, y, x, legend)

    def img(self, name: str, image: Any) -> None:
        """A picture: a file, or an array (H, W), (H, W, C) or (C, H, W), uint8 0~255 or float 0~1 (clamped).

        Raises ValueError for an array of another shape, OSError if the file cannot be read.
        """
        if isinstance(image, (str, Path)):
            with Image.open(image) as file:
                picture = file.convert("RGB")
        else:
            picture = to_picture(image)
        self._put(lambda board: board.picture(name, picture, ""))

    def hist(self, name: str, values: Any) -> None:
        """The distribution of an array of any shape."""
        counts, edges, nonfinite = histogram(values)
        self._put(lambda board: board.hist(name, counts, edges, nonfinite, ""))

    def text(self, name: str, text: str) -> None:
        """A text on top of those before it; it is shown as it is, HTML too, with its line breaks."""
        self._put(lambda board: board.text(name, text, time.strftime("%H:%M:%S")))

    log = text

    def save(self) -> None:
        """Lets the server write the environment to its folder, with the next that is sent. `close` does it too."""
        self._save.set()

    def close(self, timeout: float = 2.0) -> bool:
        """Sends what is left, in `timeout` seconds at most. Says if a server has everything."""
        self._closing.set()
        self._thread.join(timeout)
        return self._complete

    def _put(self, show: Callable[[Board], object]) -> None:
        try:
            self._queue.put_nowait(show)
        except queue.Full:
            pass  # the server hangs; the curves do without these points

    # -------------------------------------------------------------------------------------------- the daemon thread

    def _run(self) -> None:
        try:
            self._loop()
        except Exception as error:  # never a traceback in the terminal of a training run
            _say(f"warning: visdom is not used any more: {type(error).__name__}: {error}")

    def _loop(self) -> None:
        next_try = 0.0
        while True:
            closing = self._closing.wait(SEND_EVERY if next_try else 0)
            self._drain()
            if self._client is None and (closing or time.monotonic() >= next_try):
                self._connect()
                next_try = time.monotonic() + CONNECT_EVERY
            if self._client is not None:
                self._send(closing)
            if closing:
                return

    def _drain(self) -> None:
        while True:
            try:
                show = self._queue.get_nowait()
            except queue.Empty:
                return
            show(self._board)

    def _connect(self) -> None:
        if visdom_answers(self._port):
            try:
                self._client = _client(self._env, self._port)
                self._board.touch_all()
            except ConnectionError:  # the server has died between the two
                pass

    def _send(self, closing: bool) -> None:
        """Sends every window that has changed; a server that does not answer is tried again later."""
        try:
            if self._log is not None:
                self._read_log()
            # `win_exists` would print; _send is what all of visdom's drawing functions end in
            first = {"win": self._board.first, "eid": self._env}
            if self._board.first and self._client._send(first, endpoint="win_exists", quiet=True) != "true":
                self._board.touch_all()  # the server was started anew, or somebody has cleared the environment
            for window in self._board.in_order():
                self._client._send({"win": window, "eid": self._env, **self._board.message(window)})
                self._board.changed.discard(window)
            if closing or self._save.is_set():
                self._save.clear()
                self._client.save([self._env])
            self._complete = closing
        except ConnectionError:
            self._client = None

    def _read_log(self) -> None:
        for records in self._log.new():
            if records is None:  # the log was replaced: the run is resumed at an earlier step
                self._board = Board(self._log.folder)
                continue
            for record in records:
                self._board.handle(record)


class _LogReader:
    """What was added to a run's log since the last look."""

    chunk = 1 << 20

    def __init__(self, folder: Path):
        self.folder = folder
        self._file: Any = None
        self._rest = b""

    def new(self) -> Any:
        """Yields lists of records, None before those of a new file that has taken the place of the old one."""
        try:
            now = (self.folder / LOG_NAME).stat()
            if self._file is not None and not self._is(now):
                self._file.close()
                self._file = None
                yield None
            if self._file is None:
                self._file, self._rest = open(self.folder / LOG_NAME, "rb", buffering=0), b""
            while content := self._file.read(self.chunk):
                *lines, self._rest = (self._rest + content).split(b"\n")
                yield parse_lines(b"\n".join(lines))
        except OSError:
            return  # not there yet, or removed: what was read stays on the board

    def _is(self, now: Any) -> bool:
        mine = os.fstat(self._file.fileno())
        return (mine.st_ino, mine.st_dev) == (now.st_ino, now.st_dev)


def env_name(name: str) -> str:
    """`name` as visdom can have it: it becomes a file name, a part of an address and of a script on the page."""
    return re.sub(r"[^\w.-]", "_", name).lstrip(".") or "main"


def visdom_answers(port: int) -> bool:
    """Whether a visdom server, and not something else or nothing, is at this port of this machine."""
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/")
        return b"<title>visdom</title>" in connection.getresponse().read(100_000)
    except (OSError, http.client.HTTPException, OverflowError):
        return False
    finally:
        connection.close()


def replay(folder: str | Path, port: int = 8097, timeout: float = 60.0) -> None:
    """Shows what a run has recorded until now. Raises UserError if there is no log or no server."""
    if not _follow(Path(folder), port).close(timeout):
        raise UserError(
            f"no visdom server at http://{HOST}:{port}; start one with `python main.py visdom --port={port}`"
        )


def show(run: str | Path | None = None, port: int = 8097) -> None:
    """The command `visdom [RUN]`: starts the server unless it runs, and shows the run while its log grows.

    Returns after SIGTERM (Ctrl-C is a KeyboardInterrupt); at once if the server runs already and there is nothing to
    follow. Raises UserError if the run has no log, another program has the port, or the files of visdom's page cannot
    be had.
    """
    if not 0 < port < 65536:
        raise UserError(f"--port={port}: choose one from 1 to 65535")
    folder = Path(run).resolve() if run is not None else None
    records = read_log(folder) if folder is not None else []
    if not visdom_answers(port):
        serve(port, folder)
        return
    _say(f"visdom runs already, it is used: {_address(port, folder)}")
    if folder is None:
        return
    if records and records[-1].get("kind") == "final":
        replay(folder, port)
        return
    follower = _follow(folder, port)
    _say("the run is followed; Ctrl-C ends it")
    try:
        asyncio.run(_until_sigterm())
    finally:  # of Ctrl-C, too
        follower.close()


def serve(port: int = 8097, folder: Path | None = None) -> None:
    """Runs visdom's server on 127.0.0.1 until Ctrl-C or SIGTERM, and shows the run in `folder`."""
    if missing_files(static_folder()):
        _say("getting the files of visdom's page, once")
        fetch_frontend()
    asyncio.run(_serve(port, folder))


async def _serve(port: int, folder: Path | None) -> None:
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
        raise UserError(
            f"port {port} cannot be used ({os.strerror(error.errno or 0)}); choose another one with --port"
        ) from error
    if folder is not None:  # else a page that is opened at once finds no environment and stays empty
        application.state.setdefault(_env_of(folder), {"jsons": {}, "reload": {}})
    _say(f"visdom: {_address(port, folder)}  (Ctrl-C ends it)")
    follower = _follow(folder, port) if folder is not None else None
    try:
        await _until_sigterm()
    finally:  # of Ctrl-C, too
        if follower is not None:
            await asyncio.to_thread(follower.close)
        server.stop()


def is_foreign(host: str, origin: str | None) -> bool:
    """Whether a request comes from another site's page, or by a name that only leads here (DNS rebinding).

    The port does not matter: that of an ssh tunnel is another one.
    """
    return urlsplit(f"//{host}").hostname not in OURS or (origin is not None and urlsplit(origin).netloc != host)


async def _until_sigterm() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()


def _follow(folder: Path, port: int) -> Visualizer:
    return Visualizer(env=_env_of(folder), port=port, folder=folder)


def _env_of(folder: Path) -> str:
    """The environment that the run itself uses: its option `env`, else its folder's name."""
    configs = [record.get("config") or {} for record in read_log(folder) if record.get("kind") == "config"]
    return env_name((configs[-1].get("env") if configs else "") or folder.resolve().name)


def _address(port: int, folder: Path | None) -> str:
    address = f"http://{HOST}:{port}"
    return address if folder is None else f"{address}/env/{quote(_env_of(folder))}"


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _client(env: str, port: int) -> Any:
    """A connection to visdom's server. Raises ConnectionError if it is not there."""
    warnings.filterwarnings("ignore", module=r"(.*[./\\])?visdom")  # its sources are full of old escapes
    import requests
    import visdom  # slow, therefore here: it is imported in the thread, and only if a server answers

    logging.getLogger("visdom").setLevel(logging.ERROR)
    session = requests.Session()
    session.trust_env = False  # a proxy is not asked for this machine

    class Client(visdom.Visdom):
        def _handle_post(self, url: str, data: Any = None) -> str:
            """visdom's own has no time limit and takes an error page for an answer."""
            reply = session.post(url, data=data, timeout=REQUEST_SECONDS)
            reply.raise_for_status()
            return reply.text

    return Client(server=f"http://{HOST}", port=port, env=env, use_incoming_socket=False, raise_exceptions=True)
