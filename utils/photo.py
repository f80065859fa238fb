"""A picture from wherever it comes, as what can be opened and has a name. No torch here."""

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from utils.errors import UserError


@dataclass(frozen=True)
class Photo:
    """The bytes of a picture's file, and its name in messages. `path` is the file, if it is read from there."""

    name: str
    data: bytes = field(default=b"", repr=False)
    path: Path | None = None

    def open(self) -> BinaryIO:
        return open(self.path, "rb") if self.path else io.BytesIO(self.data)


def as_photo(given: Any) -> Photo:
    """A Photo from a path (not read yet), an open file, a PIL image or an array (H, W, 3) uint8. Or a UserError."""
    from PIL import Image

    if isinstance(given, Photo):
        return given
    if isinstance(given, str | Path):
        return Photo(str(given), path=Path(given))
    if hasattr(given, "read"):
        return Photo("the picture", given.read())
    try:
        image = given if isinstance(given, Image.Image) else Image.fromarray(given)
    except (TypeError, AttributeError, KeyError):
        raise UserError("must be a path, a file, a PIL image or an array (H, W, 3) of uint8", photo=None) from None
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return Photo("the picture", buffer.getvalue())
