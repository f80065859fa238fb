"""visdom in one line a plot, for notebooks and scripts: v.plot("loss", 0.3); v.img("cat", array).

Start a server by `python main.py visdom`. Training runs do not use this, see board/server.py.
"""

import html
import http.client
import logging
import re
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HOST = "127.0.0.1"  # never another one: visdom's server lets everybody in
REQUEST_SECONDS = 10.0
RETRY_SECONDS = 4.0  # between two tries to reach a server


class Visualizer:
    """Draws into visdom's environment `env`. Without a server the functions do nothing, and never raise."""

    def __init__(self, env: str = "main", port: int = 8097):
        self.env, self.port = env_name(env), port
        self._client: Any = None
        self._next_try = 0.0
        self._steps: dict[tuple[str, str], int] = {}  # the next x of each curve

    def plot(self, name: str, y: float, x: float | None = None, legend: str = "train") -> None:
        """Adds a point to the curve `legend` in the window `name`; x counts up if it is not given."""
        x = self._steps.get((name, legend), 0) if x is None else x
        self._steps[name, legend] = int(x) + 1
        place = {"X": np.array([float(x)]), "Y": np.array([float(y)]), "win": name, "name": legend}
        opts = {"title": name, "showlegend": True, "xlabel": "step"}
        self._draw(lambda vis: vis.line(**place, opts=opts, update="append" if vis.has(name) else None))

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
                image = np.asarray(file.convert("RGB"))
        pixels = to_pixels(image)
        self._draw(lambda vis: vis.image(pixels, win=f"image {name}", opts={"title": name}))

    def hist(self, name: str, values: Any, bins: int = 64) -> None:
        """The distribution of an array of any shape."""
        array = np.asarray(values, np.float64).ravel()
        opts = {"title": name, "numbins": bins}
        self._draw(lambda vis: vis.histogram(array[np.isfinite(array)], win=f"histogram {name}", opts=opts))

    def text(self, name: str, text: str) -> None:
        """A line below those before it; it is shown as it is, HTML too, with its line breaks."""
        content, win = f'<div style="white-space:pre-wrap">{html.escape(text)}</div>', f"text {name}"
        self._draw(lambda vis: vis.text(content, win=win, opts={"title": name}, append=vis.has(win)))

    log = text

    def save(self) -> None:
        """Lets the server write the environment to its folder."""
        self._draw(lambda vis: vis.save([self.env]))

    def _draw(self, draw: Callable[[Any], object]) -> None:
        try:
            if self._client is None and time.monotonic() >= self._next_try:
                self._next_try = time.monotonic() + RETRY_SECONDS
                self._client = connect(self.env, self.port) if visdom_answers(self.port) else None
            if self._client is not None:
                draw(self._client)
        except ConnectionError:
            self._client = None


def to_pixels(image: Any) -> np.ndarray:
    """An array or tensor (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels -> (C, H, W) uint8.

    uint8 is 0~255; anything else is 0~1 and clamped. Raises ValueError for another shape.
    """
    array = np.asarray(image.detach().cpu() if hasattr(image, "detach") else image)
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim == 3 and array.shape[2] in (1, 3, 4):
        array = array.transpose(2, 0, 1)  # (H, W, C) -> (C, H, W)
    if array.ndim != 3 or array.shape[0] not in (1, 3, 4):
        raise ValueError(f"an image has the shape (H, W), (H, W, C) or (C, H, W), not {array.shape}")
    if array.dtype != np.uint8:
        array = (np.nan_to_num(array.astype(np.float32)).clip(0, 1) * 255).round().astype(np.uint8)
    return array


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


def connect(env: str, port: int) -> Any:
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

        def has(self, win: str) -> bool:
            """Whether there is such a window; visdom's `win_exists` would print."""
            return self._send({"win": win, "eid": self.env}, endpoint="win_exists", quiet=True) == "true"

    return Client(server=f"http://{HOST}", port=port, env=env, use_incoming_socket=False, raise_exceptions=True)
