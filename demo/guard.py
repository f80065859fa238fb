"""What stands between the page and whoever calls it: which names and paths are answered, how much may be sent."""

import asyncio
import ipaddress
import secrets
import shutil
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from utils.errors import UserError

API = "/gradio_api/"
PAGES = {"/", "/config", "/theme.css", "/favicon.ico", "/robots.txt", "/manifest.json"}
CALLS = (
    "info queue/ call/ run/ upload file= cancel reset heartbeat/ startup-events app_id theme.css openapi.json".split()
)
PREFIXES = ("/assets/", "/static/", "/svelte/", *(API + call for call in CALLS))  # Gradio has more than a page needs
# With these the browser itself refuses whatever would leave this server.
HEADERS = {
    "Content-Security-Policy": "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; "
    "frame-ancestors 'none'; base-uri 'self'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
UNCLAIMED = 600.0  # seconds after which a file is deleted that no request has taken; it may wait in the queue so long
INPUTS, OUTPUTS = "in", "out"


class Guard:
    """An ASGI application that hands on to `app` what it should see, and no request of more than `max_bytes`."""

    def __init__(self, app: ASGIApp, host: str, max_bytes: int, uploads: "Uploads"):
        self.app, self.max_bytes, self.uploads = app, max_bytes, uploads
        name = socket.gethostname().lower()
        self.names = {"localhost", host.lower(), name, f"{name}.local"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":  # Gradio's page opens no web sockets
            return None
        headers, path = Headers(scope=scope), scope["path"]
        status, reason = self._refusal(scope["method"], path, headers)
        if status:
            return await PlainTextResponse(reason, status)(scope, receive, send)

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        file = unquote(path.removeprefix(f"{API}file=")) if scope["method"] == "GET" else ""
        with self.uploads.fetching(file) as status:
            if status == 200:
                return await self.app(scope, receive, send_safely)
        await Response(status_code=status)(scope, receive, send)

    def _refusal(self, method: str, path: str, headers: Headers) -> tuple[int, str]:
        """(HTTP status, reason) if it is refused, else (0, "")."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._is_ours(host):  # another name that leads here: DNS rebinding
            return 403, f"this server does not answer for {host[:100]}"
        if origin is not None and urlsplit(origin).netloc != host:
            return 403, f"pages of {origin[:100]} may not use this server"
        visits = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not visits:
            return 403, "pages of other sites may not use this server"
        if path not in PAGES and not path.startswith(PREFIXES):
            return 404, "there is no such page"
        size = headers.get("content-length", "")
        if method == "POST" and not size.isdecimal():
            return 411, "say how long the request is (Content-Length)"
        if size and int(size) > self.max_bytes:
            return 413, f"more than {self.max_bytes / 1e6:g} MB"
        return 0, ""

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name in self.names or bool(ipaddress.ip_address(name))  # an address cannot be made to lead elsewhere
        except ValueError:
            return False


class Uploads:
    """Files on their way in and out, `max_bytes` together, each in a folder of its own in `root`, for one request."""

    def __init__(self, root: Path, max_bytes: int):
        self.root, self.max_bytes = root.resolve(), max_bytes
        self._lock = threading.Lock()  # jobs take files in their threads while the server sends them
        self._fetchers: Counter[Path] = Counter()
        self._used: set[Path] = set()  # folders that go as soon as nobody fetches from them

    def new_folder(self, kind: str) -> Path:
        """A new, empty folder. Raises UserError while there is no room."""
        if self._bytes() > self.max_bytes:
            raise UserError("too many pictures at once; try again later")
        folder = self.root / f"{kind}-{secrets.token_hex(16)}"
        folder.mkdir(parents=True)
        return folder

    def take(self, path: str) -> bytes:
        """The content of an uploaded file, which is then gone. Raises UserError if it is none, or no longer there."""
        folder = self._folder_of(path, INPUTS)
        with self._lock, suppress(OSError):
            if folder and folder not in self._used:
                data = Path(path).read_bytes()
                self._use(folder)
                return data
        raise UserError("the picture is not here any more; choose it again")

    @contextmanager
    def fetching(self, path: str) -> Iterator[int]:
        """For as long as a client fetches a file: the HTTP status. What was made for a client can be fetched once.

        The page fetches an upload to show it, perhaps after a job has taken it (204: the page soon has its answer).
        """
        made = self._folder_of(path, OUTPUTS)
        folder = made or self._folder_of(path, INPUTS)
        with self._lock:
            there = folder is None or (folder.exists() and folder not in self._used)
            if there and folder:
                self._fetchers[folder] += 1
            if there and made:
                self._use(made)
        try:
            yield 200 if there else 404 if made else 204
        finally:
            with self._lock:
                if there and folder:
                    self._fetchers -= Counter([folder])  # which leaves no zeros
                    if folder in self._used:
                        self._use(folder)

    def _use(self, folder: Path) -> None:
        """Deletes a folder, as soon as nobody fetches from it."""
        if self._fetchers[folder]:
            self._used.add(folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)
            self._used.discard(folder)

    async def sweep(self) -> None:
        """For ever: deletes what nobody has taken."""
        while True:
            await asyncio.sleep(UNCLAIMED / 10)
            self.sweep_once(time.time())

    def sweep_once(self, now: float) -> None:
        """Deletes what has not been taken in UNCLAIMED seconds, counted from when its last byte came."""
        for folder in self.root.iterdir():
            with suppress(FileNotFoundError):
                # a file that grows leaves its folder's time as it was
                newest = max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
                if now - newest > UNCLAIMED:
                    shutil.rmtree(folder, ignore_errors=True)

    def _folder_of(self, path: str, kind: str) -> Path | None:
        """The folder of a file, if it is one of ours and of that kind."""
        try:
            inside = Path(path).resolve().relative_to(self.root).parts
        except ValueError:  # elsewhere, or no path at all
            return None
        return self.root / inside[0] if len(inside) > 1 and inside[0].startswith(f"{kind}-") else None

    def _bytes(self) -> int:
        total = 0
        for path in self.root.rglob("*"):
            with suppress(FileNotFoundError):  # deleted in the meantime
                total += path.stat().st_size if path.is_file() else 0
        return total
