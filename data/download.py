"""Fetches real data and weights over http(s): resumable, of checked length and sha256. It reads and unpacks nothing."""

import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import quote, unquote, urljoin, urlsplit

import requests
from tqdm import tqdm
from urllib3.exceptions import HTTPError

from utils.errors import UserError, did_you_mean

MANIFEST = Path(__file__).parent / "manifest_poetry.json"
CHUNK = 1 << 16  # bytes
MAX_BYTES = 2 << 30  # more than any file worth fetching has; a server that sends without end must not fill the disk
TIMEOUT = (10, 30)  # seconds to connect, seconds without a byte
TRIES = 4  # in a row that bring nothing new
BACKOFF = 1.0  # seconds before the second try, doubled for each further one


@dataclass(frozen=True)
class File:
    """One file to fetch: its address, its size in bytes, its sha256 in hex."""

    url: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        return Path(unquote(urlsplit(self.url).path)).name


@dataclass(frozen=True)
class Download:
    """What a NAME gets: a line about it, its files, how to use them, and what works without them."""

    about: str
    files: tuple[File, ...]
    use: str  # {folder} stands for the folder it is in
    without: str


@cache
def downloads() -> dict[str, Download]:
    """Everything `download` knows, by NAME. Something new is one entry here."""
    use, without = "python main.py train --data_root={folder}", "training works without it, on the embedded poems"
    return {
        "poetry": Download("57,607 Tang poems (全唐诗 of chinese-poetry, MIT)", _poetry("tang"), use, without),
        "poetry-song": Download("254,248 Song poems (全宋诗 of chinese-poetry, MIT)", _poetry("song"), use, without),
    }


def _poetry(dynasty: str) -> tuple[File, ...]:
    manifest = json.loads(MANIFEST.read_text(encoding="utf-8"))
    return tuple(File(manifest["base"] + quote(path), size, sha256) for path, size, sha256 in manifest[dynasty])


def listing() -> str:
    """The table that `download` prints without a NAME."""
    rows = [(name, d, sum(f.size for f in d.files) / 1e6) for name, d in downloads().items()]
    return "\n".join(f"{name:12} {len(d.files):4} files {megabytes:7.1f} MB  {d.about}" for name, d, megabytes in rows)


def download(name: str, to: str = "") -> Path:
    """Fetches what `name` stands for into the folder `to` (dataset/NAME by default) and returns that folder.

    Files that are there already, whole and right, are left alone. Raises UserError for an unknown name and for
    everything fetch_file does.
    """
    if name not in downloads():
        raise UserError(f"download: no {name} here, there is {', '.join(downloads())}{did_you_mean(name, downloads())}")
    wanted = downloads()[name]
    folder = Path(to or f"dataset/{name}")
    try:
        with _Session() as session, _bar(name, sum(f.size for f in wanted.files)) as bar:
            for file in wanted.files:
                _fetch(session, bar, file.url, folder / file.name, file.sha256, file.size, MAX_BYTES)
    except Unreachable as error:
        raise UserError(f"{error}; {wanted.without}") from error
    print(f"{len(wanted.files)} files are in {folder}; {wanted.use.format(folder=folder)}", file=sys.stderr)
    return folder


def fetch_file(
    url: str, path: str | Path, sha256: str | None = None, size: int | None = None, max_bytes: int = MAX_BYTES
) -> Path:
    """Fetches one file to `path`; what has arrived so far is in `path`.part, and a later call goes on from there.

    A file that is at `path` already is kept if its sha256 and size (bytes) are those given, else replaced once the new
    one is whole. Without a sha256 nothing could tell that two halves belong together, so the .part of an earlier call
    is not used. Raises UserError for an address that is not http(s), no connection after some tries, a refusal of the
    server, a wrong length, a wrong sum or more than `max_bytes` (the .part is removed), a place that cannot be written.
    """
    path = Path(path)
    with _Session() as session, _bar(path.name, size) as bar:
        _fetch(session, bar, url, path, sha256, size, max_bytes)
    return path


class Unreachable(UserError):
    """No connection, or one that broke off again and again."""


class _Broken(Exception):
    """This try failed, the next one may not."""


class _Session(requests.Session):
    """Follows redirects to https, and from http to http; nothing else."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        target = super().get_redirect_target(resp)
        if target and urlsplit(urljoin(resp.url, target)).scheme not in ("https", urlsplit(resp.url).scheme):
            raise UserError(f"{resp.url} leads to {target}, which is not followed: only https, or http from http, is")
        return target


def _bar(name: str, size: int | None) -> tqdm:
    return tqdm(desc=name, total=size, unit="B", unit_scale=True, unit_divisor=1000, file=sys.stderr)


def _fetch(
    session: requests.Session, bar: tqdm, url: str, path: Path, sha256: str | None, size: int | None, max_bytes: int
) -> None:
    """fetch_file, with a session and a bar that serve several files."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise UserError(f"{url}: only http:// and https:// addresses are fetched")
    part = path.with_name(path.name + ".part")
    before = bar.n
    try:
        if _is_right(path, sha256, size):
            bar.update(path.stat().st_size)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if sha256 is None:
            part.unlink(missing_ok=True)
        _persist(session, url, part, size, max_bytes, lambda have: bar.update(before + have - bar.n))
        if sha256 is not None and (got := _sha256(part)) != sha256:
            part.unlink()
            raise UserError(
                f"{path.name} from {url} is not the right file: expected sha256 {sha256}, got {got}; removed"
            )
        with part.open("r+b") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    except KeyboardInterrupt:
        print(f"\nstopped; what has arrived is kept in {part}: the same command goes on from there", file=sys.stderr)
        raise


def _persist(
    session: requests.Session, url: str, part: Path, size: int | None, max_bytes: int, progress: Callable[[int], object]
) -> None:
    """Tries until `part` is whole, or until TRIES tries in a row have brought nothing new."""
    failures, farthest = 0, _length(part)
    while True:
        try:
            return _receive(session, url, part, size, max_bytes, progress)
        except _Broken as error:
            reason = str(error)
        except (requests.ConnectionError, requests.Timeout) as error:
            reason = _reason(error)
        except requests.RequestException as error:  # nothing that a second try would mend
            raise UserError(f"cannot fetch {url}: {_reason(error)}") from error
        failures = 1 if _length(part) > farthest else failures + 1
        farthest = max(farthest, _length(part))
        if failures == TRIES:
            kept = "; what has arrived is kept for the next try" if _length(part) else ""
            raise Unreachable(f"cannot get {part.stem} from {urlsplit(url).netloc}: {reason}{kept}")
        wait = BACKOFF * 2 ** (failures - 1)
        tqdm.write(f"{part.stem}: {reason}; trying again in {wait:g} s", file=sys.stderr)
        time.sleep(wait)


def _receive(
    session: requests.Session, url: str, part: Path, size: int | None, max_bytes: int, progress: Callable[[int], object]
) -> None:
    """One try: asks for what `part` still lacks and appends it; returns when `part` is whole, else raises."""
    have = _length(part)
    if have and have == size:
        return
    headers = {"Accept-Encoding": "identity"}  # offsets and lengths count the bytes of the file, not of a packed one
    if have:
        headers["Range"] = f"bytes={have}-"
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code in (408, 429) or response.status_code >= 500:
            raise _Broken(f"the server answers {response.status_code} {response.reason}")
        if response.status_code == 416 or response.status_code == 206 and _range_start(response) != have:
            part.unlink(missing_ok=True)
            raise _Broken("the server has no such rest of the file, so it starts over")
        if response.status_code not in (200, 206):
            raise UserError(f"cannot fetch {url}: the server answers {response.status_code} {response.reason}")
        if response.status_code == 200:  # the whole file, also where only the rest was asked for
            have = 0
        length = response.headers.get("Content-Length", "")
        total = have + int(length) if length.isdecimal() else size
        if size is not None and total != size:
            raise UserError(f"{url} has {total:,} bytes instead of {size:,}: it is not the right file")
        _check_limit(total or 0, url, part, max_bytes)
        progress(have)
        with part.open("ab" if have else "wb") as file:
            try:
                for chunk in response.raw.stream(CHUNK, decode_content=False):
                    have += len(chunk)
                    _check_limit(have, url, part, max_bytes if size is None else min(size, max_bytes))
                    file.write(chunk)
                    progress(have)
            except HTTPError as error:
                raise _Broken(f"the connection broke off after {have:,} bytes") from error
    if total is not None and have < total:
        raise _Broken(f"the connection broke off after {have:,} bytes")


def _check_limit(count: int, url: str, part: Path, limit: int) -> None:
    if count > limit:
        part.unlink(missing_ok=True)
        raise UserError(f"{url} has more than {limit:,} bytes, the most that is accepted: it is not the right file")


def _range_start(response: requests.Response) -> int:
    """Where the bytes of a 206 answer begin; -1 if it does not say so."""
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else -1


def _is_right(path: Path, sha256: str | None, size: int | None) -> bool:
    """Whether `path` is there and, as far as they are known, of the right size and sum."""
    if not path.is_file() or size is not None and _length(path) != size:
        return False
    return sha256 is None or _sha256(path) == sha256


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(error: BaseException) -> str:
    """The words of the error at the root: "Connection refused", where requests prints three nested objects."""
    while error.__context__ is not None:
        error = error.__context__
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
