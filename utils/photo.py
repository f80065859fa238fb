"""A picture from wherever it comes, as what can be opened and has a name. No torch here."""

import io
import logging
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from utils.errors import UserError

if TYPE_CHECKING:
    from utils.images import Picture

log = logging.getLogger("shihua")
decoding = threading.Lock()  # one picture at a time: a large one takes a lot of memory


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


def read(photo: Any, max_megapixels: float = 0, max_side: int = 0) -> "Picture":
    """A photograph as a Picture, upright, reduced to `max_side`. Raises UserError as `utils.images.read_image` does."""
    from utils.images import Picture, read_image

    if isinstance(photo, Picture):
        return photo
    photo = as_photo(photo)
    with decoding:
        picture = read_image(photo.path or photo.open(), max_megapixels, max_side, photo.name)
    if picture.note:
        log.info(picture.note)
    return picture
