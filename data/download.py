"""Fetches real data: pooch downloads each file and checks its sha256; what is whole stays when the rest fails."""

import json
import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from tqdm import tqdm

from utils.errors import UserError, did_you_mean

MANIFEST = Path(__file__).parent / "manifest_poetry.json"
RETRIES = 3
TIMEOUT = (10, 30)  # seconds to connect, seconds without a byte
CHUNK = 1 << 16  # bytes


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

    Files that are there already and right are left alone. Raises UserError for an unknown name, a failed or wrong
    download, or an unwritable folder; a file that was there before is unchanged then.
    """
    if name not in downloads():
        raise UserError(f"download: no {name} here, there is {', '.join(downloads())}{did_you_mean(name, downloads())}")
    wanted = downloads()[name]
    folder = Path(to or f"dataset/{name}")
    size = sum(file.size for file in wanted.files)
    try:
        with tqdm(desc=name, total=size, unit="B", unit_scale=True, unit_divisor=1000, file=sys.stderr) as bar:
            for file in wanted.files:
                _fetch(file, folder, wanted.without)
                bar.update(file.size)
    except KeyboardInterrupt:
        print(f"\nstopped; {folder} keeps what has arrived: the same command goes on from there", file=sys.stderr)
        raise
    print(f"{len(wanted.files)} files are in {folder}; {wanted.use.format(folder=folder)}", file=sys.stderr)
    return folder


class _Limit:
    """Takes the place of pooch's progress bar in a try: stops a server that sends more than the file has."""

    def __init__(self, file: File):
        self.file, self.count = file, 0

    def update(self, count: int) -> None:
        self.count += count
        if self.count > self.file.size + CHUNK:
            raise OverflowError(f"{self.file.url} has more than {self.file.size:,} bytes: it is not the right file")

    def reset(self) -> None:
        self.count = 0

    close = reset


def _fetch(file: File, folder: Path, without: str) -> None:
    import pooch
    from requests import RequestException

    pooch.get_logger().setLevel("WARNING")
    registry, urls = {file.name: f"sha256:{file.sha256}"}, {file.name: file.url}
    library = pooch.create(folder, base_url="", registry=registry, urls=urls, retry_if_failed=RETRIES)

    def downloader(*place: Any) -> None:
        pooch.HTTPDownloader(progressbar=_Limit(file), chunk_size=CHUNK, timeout=TIMEOUT)(*place)

    try:
        path = library.fetch(file.name, downloader=downloader)
        os.chmod(path, 0o644)  # pooch's temporary file was for its owner alone
    except RequestException as error:
        host = urlsplit(file.url).netloc
        raise UserError(f"cannot get {file.name} from {host}: {_reason(error)}; {without}") from error
    except OSError as error:
        raise UserError(f"cannot write {folder / file.name}: {error.strerror or error}") from error
    except OverflowError as error:
        raise UserError(str(error)) from error
    except ValueError as error:  # pooch's word for a wrong hash
        raise UserError(f"{file.name} from {file.url} is not the right file: {error}".splitlines()[0]) from error


def _reason(error: BaseException) -> str:
    """The words of the error at the root: "Connection refused", where requests prints three nested objects."""
    while error.__context__ is not None:
        error = error.__context__
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
