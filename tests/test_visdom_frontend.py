"""The files of visdom's page: the list is visdom's own, and every way of not getting them ends in one line."""

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import board.frontend as frontend
from board.frontend import PACKAGES, fetch_frontend, missing_files
from utils.errors import UserError

WANTED = {target for files in PACKAGES.values() for target in files.values()}


@pytest.fixture
def static(tmp_path, monkeypatch):
    """An installation of visdom without the files, no npm, and no network."""
    folder = tmp_path / "site-packages" / "visdom" / "static"
    folder.mkdir(parents=True)
    (folder.parent / "VERSION").write_text("0.2.4\n")
    monkeypatch.setattr(frontend, "static_folder", lambda: folder)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    return folder


def fake_npm(folder: Path, body: str) -> None:
    (folder / "npm").write_text(f"#!/bin/sh\n{body}\n")
    (folder / "npm").chmod(0o755)


def test_the_list_is_what_visdom_itself_would_download(tmp_path):
    """Oracle: visdom's own function, with a network that has one byte for every address."""
    code = (
        "import sys, io, requests; from urllib import request; from visdom.server.build import download_scripts\n"
        "request.OpenerDirector.open = lambda *a, **k: io.BytesIO(b'x')\n"
        "requests.get = lambda url: type('Reply', (), {'content': b'x'})\n"
        "download_scripts(install_dir=sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True)
    found = {path.relative_to(tmp_path / "static").as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert found - {"version.built"} == WANTED
    assert missing_files(tmp_path / "static") == []


def test_files_come_through_npm(tmp_path, static):
    source = tmp_path / "tarballs"
    source.mkdir()
    for package, files in PACKAGES.items():
        with tarfile.open(source / f"{package}.tgz", "w:gz") as archive:
            for member in files:
                info = tarfile.TarInfo(f"package/{member}")
                info.size = len(content := f"{package} {member}".encode())
                archive.addfile(info, io.BytesIO(content))
    fake_npm(tmp_path / "bin", f'/bin/cp "{source}/$2.tgz" a.tgz && echo a.tgz')
    assert len(missing_files(static)) == len(WANTED)
    assert fetch_frontend() == static
    assert missing_files(static) == []
    assert (static / "js" / "plotly-plotly.min.js").read_text() == "plotly.js-dist-min@2.11.1 plotly.min.js"
    assert (static / "version.built").read_text() == "0.2.4"  # visdom's own mark that nothing is to be downloaded

    (tmp_path / "bin" / "npm").unlink()
    assert fetch_frontend() == static  # nothing is missing, nobody is asked


@pytest.mark.parametrize(
    ("npm", "reason"),
    [
        (None, "npm is not installed"),
        ("/usr/bin/head -c 10240 /dev/zero >a.tgz; echo a.tgz", "js/jquery.min.js"),  # an archive of nothing
        ("echo npm error code ENOTFOUND >&2; echo npm error more >&2; exit 1", "npm: code ENOTFOUND;"),
        ("echo no archive >a.tgz; echo a.tgz", "not be opened"),
        ("exec /bin/sleep 60", "no answer within"),
    ],
)
def test_nothing_to_be_had_is_one_line_and_changes_nothing(npm, reason, tmp_path, static, monkeypatch):
    monkeypatch.setattr(frontend, "NPM_SECONDS", 0.5 if "sleep" in str(npm) else 300)
    if npm:
        fake_npm(tmp_path / "bin", npm)
        monkeypatch.setattr(frontend, "CDN_SECONDS", 0.1)  # visdom's own way is tried in earnest where there is no npm
    with pytest.raises(UserError) as error:
        fetch_frontend()
    message = str(error.value)
    assert reason in message and "python main.py download visdom" in message and "\n" not in message
    assert list(static.iterdir()) == []
