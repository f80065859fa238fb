"""The same for programs (gradio_client): compose, paint, postcard, classify."""

from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.data_classes import FileData

from config import GenerateConfig
from demo.guard import OUTPUTS, Uploads
from demo.parts import AT_ONCE, encode, report
from demo.service import Service
from utils.errors import UserError
from utils.photo import Photo


def add_api(service: Service, uploads: Uploads) -> None:
    """Adds the four calls to the page that is being built."""

    def compose(
        title: str = "",
        form: str = "auto",
        keywords: str = "",
        acrostic: str = "",
        temperature: float = GenerateConfig.temperature,
        seed: int = -1,
        n: int = 1,
    ) -> list[dict]:
        """Writes n poems, the best first: form, title, lines, score, and what else `generate --json` has."""
        asked = {"form": form, "title": title, "keywords": keywords, "acrostic": acrostic}
        return [poem.as_dict() for poem in service.write(n, temperature=temperature, seed=seed, **asked)]

    def paint(photo: FileData, style: str = "", strength: float = 1.0, keep_color: bool = False) -> FileData:
        """Paints a photograph; style: a name or a mixture, as in wave:0.6,starry:0.4."""
        rgb = service.paint(_take(photo, uploads), style=style, strength=strength, keep_color=keep_color)[1]
        return _send(rgb, "painting", uploads)

    def postcard(
        photo: FileData, title: str = "", poem: str = "", style: str = "", strength: float = 0.8, seal: str = "诗画"
    ) -> tuple[FileData, str]:
        """A painted photograph with a poem on it, and the poem; without one, one is written."""
        asked = {"title": title, "style": style, "strength": strength, "seal": seal}
        rgb, poem = service.postcard(_take(photo, uploads), poem, **asked)
        return _send(rgb, "postcard", uploads), poem

    def classify(photo: FileData) -> dict:
        """What the photograph shows: label (cat, dog or neither), the probability of each; the breed or what it is."""
        found = service.classify(_take(photo, uploads), explain=False).as_dict()
        return {name: value for name, value in found.items() if name != "path"}

    for call in (compose, paint, postcard, classify):
        gr.api(report(call, str), api_name=call.__name__, concurrency_id="job", concurrency_limit=AT_ONCE)


def _take(photo: Any, uploads: Uploads) -> Photo:
    """The file that a client has uploaded."""
    if not isinstance(photo, dict) or not isinstance(photo.get("path"), str):
        raise UserError("give the picture with gradio_client's handle_file")
    path = photo["path"]
    return Photo(Path(str(photo.get("orig_name") or path)).name, uploads.take(path))


def _send(rgb: np.ndarray, name: str, uploads: Uploads) -> dict:
    """A picture as a file that the client fetches at once."""
    path = uploads.new_folder(OUTPUTS) / f"{name}.jpg"
    path.write_bytes(encode(rgb, "JPEG"))
    url = f"/gradio_api/file={path}"
    return {"path": str(path), "url": url, "orig_name": path.name, "meta": {"_type": "gradio.FileData"}}
