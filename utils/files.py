"""Files that are never half-written: whoever reads `path` sees the old content or the new one, nothing between."""

import csv
import io
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from utils.errors import UserError

QUALITY = 95  # of JPEG and other lossy files
MODEL_FORMAT = "shihua-1"  # in the header of our own model files


def atomic_save(path: str | Path, write: Callable[[str], object]) -> None:
    """Lets `write(temporary_path)` make the file, then puts it in the place of `path` (fsync, os.replace).

    If anything fails (a full disk, an unwritable folder), the file that stood at `path` is untouched, the temporary one
    beside it is removed, and a UserError says so.
    """
    temporary = _make_temporary(Path(path))
    try:
        write(temporary)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp gives 0600, which others could not read
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; the file before is unchanged") from error
    except (RuntimeError, SafetensorError) as error:  # what torch.save and safetensors make of a full disk
        raise UserError(f"cannot write {path}: is the disk full? ({error}); the file before is unchanged") from error
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def check_writable(path: str | Path) -> None:
    """Raises UserError if nothing can be written at `path`: to be known before something slow."""
    os.unlink(_make_temporary(Path(path)))


def _make_temporary(path: Path) -> str:
    """A new empty file beside `path`, its folder made if need be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(handle)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    return temporary


def atomic_write(path: str | Path, data: bytes | str) -> None:
    """Writes `data` to `path`, whole or not at all. Raises UserError if the place cannot be written."""
    content = data.encode() if isinstance(data, str) else data
    atomic_save(path, lambda temporary: Path(temporary).write_bytes(content))


def write_csv(path: str | Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a table, whole or not at all. Raises UserError if the place cannot be written."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    atomic_write(path, text.getvalue())


def refuse_overwriting(targets: Iterable[str | Path], inputs: Iterable[str | Path], option: str = "out") -> None:
    """Raises UserError if a file to write is one of the inputs, under whatever name: a link, x/../a, another case.

    `option` is what chooses another place. Inputs that are no files (a style's name, a poem) are passed over.
    """
    read = {identity: path for path in inputs if (identity := _identity(path))}
    for target in targets:
        # through links, and through .. in folders that are not there yet
        if (identity := _identity(os.path.realpath(target))) in read:
            raise UserError(f"{target} would overwrite {read[identity]}, which is an input: give another {option}=…")


def _identity(path: str | Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return None if stat.S_ISDIR(status.st_mode) else (status.st_dev, status.st_ino)


def is_inside(path: str | Path, folder: str | Path) -> bool:
    """Whether `path` is `folder` or something in it, links followed."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def remove_temporaries(folder: str | Path) -> None:
    """Removes what killed processes left of `atomic_save`, at any depth of a folder that nobody else writes to now."""
    for path in Path(folder).rglob(".*.part"):
        path.unlink()


def metadata_of(path: str | Path) -> dict[str, str]:
    """What stands in the header of a .safetensors file besides the tensors, none of which is read; else nothing."""
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            return dict(json.loads(file.read(length) if length < 10**8 else b"")["__metadata__"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def class_and_task(path: str | Path) -> tuple[str, str]:
    """(class of the network, task that has trained it) of a model file, without reading the network; or empty."""
    metadata = metadata_of(path)
    if metadata.get("format") != MODEL_FORMAT:
        return "", ""
    return metadata["class"], json.loads(metadata.get("metadata", "{}")).get("config", {}).get("task", "")
