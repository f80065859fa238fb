"""The files of visdom's page, which its package leaves out: what is missing, and getting it by npm or visdom's CDNs."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

from utils.errors import UserError, reason_of

# npm package -> {file in the package: file in visdom's static folder}; visdom 0.2.4, visdom/server/build.py
_MATHJAX = (
    "MathJax.js",
    "config/Safe.js",
    "config/TeX-AMS-MML_HTMLorMML.js",
    "extensions/Safe.js",
    "jax/output/SVG/config.js",
    "jax/output/SVG/jax.js",
    "jax/output/SVG/fonts/TeX/fontdata.js",
    "jax/output/SVG/fonts/TeX/Size1/Regular/Main.js",
)
_GLYPHS = "glyphicons-halflings-regular"
PACKAGES = {
    "jquery@3.1.1": {"dist/jquery.min.js": "js/jquery.min.js"},
    "bootstrap@3.3.7": {
        "dist/js/bootstrap.min.js": "js/bootstrap.min.js",
        "dist/css/bootstrap.min.css": "css/bootstrap.min.css",
        **{f"dist/fonts/{_GLYPHS}.{kind}": f"fonts/{_GLYPHS}.{kind}" for kind in ("eot", "ttf", "woff", "woff2")},
        f"dist/fonts/{_GLYPHS}.svg": f"fonts/{_GLYPHS}.svg#glyphicons_halflingsregular",  # visdom's name, "#" and all
    },
    "react@16.2.0": {"umd/react.production.min.js": "js/react-react.min.js"},
    "react-dom@16.2.0": {"umd/react-dom.production.min.js": "js/react-dom.min.js"},
    "react-modal@3.1.10": {"dist/react-modal.min.js": "js/react-modal.min.js"},
    "react-resizable@1.4.6": {"css/styles.css": "css/react-resizable-styles.css"},
    "react-grid-layout@0.16.3": {"css/styles.css": "css/react-grid-layout-styles.css"},
    "layout-bin-packer@1.4.0": {
        "dist/layout-bin-packer.js": "js/layout_bin_packer.js",
        "dist/layout-bin-packer.js.map": "js/layout-bin-packer.js.map",
    },
    "classnames@2.2.5": {"index.js": "fonts/classnames"},
    "plotly.js-dist-min@2.11.1": {"plotly.min.js": "js/plotly-plotly.min.js"},
    "sjcl@1.0.7": {"sjcl.js": "js/sjcl.js"},
    "d3@3.5.17": {"d3.min.js": "js/d3.v3.min.js"},
    "d3-selection-multi@1.0.1": {"build/d3-selection-multi.js": "js/d3-selection-multi.v1.js"},
    "save-svg-as-png@1.4.17": {"lib/saveSvgAsPng.js": "js/saveSvgAsPng.js"},
    "mathjax@2.7.5": {path: f"js/mathjax/2.7.5/{path}" for path in _MATHJAX},
}
NPM_SECONDS = 180  # for all packages together
CDN_SECONDS = 60
COMMAND = "python main.py download visdom"


def static_folder() -> Path:
    """Where visdom's server looks for the files of its page. Raises UserError if visdom is not installed."""
    found = importlib.util.find_spec("visdom")
    if found is None or found.origin is None:
        raise UserError("visdom is not installed: pip install -r requirements.txt")
    return Path(found.origin).parent / "static"


def missing_files(static: Path) -> list[str]:
    """The files of the page that are absent or empty in the folder `static`."""
    wanted = [target for files in PACKAGES.values() for target in files.values()]
    return [name for name in wanted if not (static / name).is_file() or (static / name).stat().st_size == 0]


def fetch_frontend() -> Path:
    """Puts what is missing into visdom's static folder, and returns that. Raises UserError if it cannot."""
    static = static_folder()
    if not missing_files(static):
        return static
    if not os.access(static, os.W_OK):
        raise UserError(f"{static} is not writable; run `{COMMAND}` as its owner, or install visdom in a venv")
    with tempfile.TemporaryDirectory(prefix="visdom-") as temporary:
        fetched = Path(temporary) / "static"
        errors = []
        for fetch in (_from_npm, _from_cdn):
            try:
                fetch(Path(temporary))
            except (OSError, subprocess.SubprocessError, tarfile.TarError, LookupError) as error:
                errors.append(_reason(error))
                continue
            if not (lacking := missing_files(fetched)):
                # so that visdom's own start command does not fetch them again
                (fetched / "version.built").write_text((static.parent / "VERSION").read_text().strip())
                shutil.copytree(fetched, static, dirs_exist_ok=True)
                return static
            errors.append(f"{len(lacking)} files could not be fetched, the first is {lacking[0]}")
    raise UserError(
        f"visdom's page lacks {missing_files(static)[0]} and others; npm: {errors[0]}; CDN: {errors[1]}; "
        f"run `{COMMAND}` where npm or unpkg.com can be reached"
    )


def _from_npm(folder: Path) -> None:
    """Packages through `npm pack` (which verifies them and runs none of their scripts) into folder/static."""
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("npm is not installed")
    options = ["--ignore-scripts", "--fetch-retries=1", "--fetch-timeout=20000"]
    end = time.monotonic() + NPM_SECONDS
    for package, files in tqdm(PACKAGES.items(), desc="visdom's page", unit="package", leave=False):
        command = [npm, "pack", package, *options]
        packed = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=max(1, end - time.monotonic()), check=True
        )
        with tarfile.open(folder / packed.stdout.split()[-1]) as archive:
            for member, target in files.items():
                content = archive.extractfile(f"package/{member}").read()
                place = folder / "static" / target
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)


def _from_cdn(folder: Path) -> None:
    """visdom's own download, in a process that can be ended."""
    code = "import sys; from visdom.server.build import download_scripts; download_scripts(install_dir=sys.argv[1])"
    command = [sys.executable, "-c", code, str(folder)]
    subprocess.run(command, capture_output=True, text=True, timeout=CDN_SECONDS, check=True)


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.TimeoutExpired):
        return f"no answer within {error.timeout:.0f} s"
    if isinstance(error, subprocess.CalledProcessError):
        lines = (error.stderr or error.stdout or "").strip().splitlines()
        # npm's first line says what is wrong, a Python traceback's last
        line = lines[0 if lines[0].startswith("npm") else -1] if lines else f"exit code {error.returncode}"
        return line.removeprefix("npm error ")[:100]
    return reason_of(error).rstrip(":")
