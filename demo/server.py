"""The server of the page: a theme, the application with what guards it, and the command that serves it."""

import asyncio
import importlib
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from gradio.data_classes import GradioModel, GradioRootModel
from gradio.route_utils import MultiPartException, upload_fn
from jinja2 import ChoiceLoader, DictLoader, FileSystemLoader

from config import DemoConfig
from demo.guard import INPUTS, Guard, Uploads
from demo.page import build_page
from demo.service import Service
from demo.words import I18N
from utils.errors import UserError

STYLE, SCRIPT = (Path(__file__).parent / name for name in ("style.css", "page.js"))
# From light to dark.
PAPER = "#fbf8f1 #f5f0e4 #ece4d4 #ddd2bd #857a68 #6b6257 #645b50 #5c544a #453f38 #2b2622 #1d1a17".split()
RED = "#fbefed #f5dcd8 #e9bbb4 #d98f86 #c25f54 #a8322a #8b2822 #7c2420 #6d1f1b #521714 #3d110f".split()

COLORS = {  # by day and by night
    "body_background_fill": ("#f5f0e4", "#1d1a17"),
    "background_fill_primary": ("#fbf8f1", "#2b2622"),
    "background_fill_secondary": ("#f5f0e4", "#1d1a17"),
    "block_background_fill": ("#fbf8f1", "#2b2622"),
    "block_border_color": ("#ddd2bd", "#453f38"),
    "block_label_background_fill": ("#fbf8f1", "#2b2622"),
    "block_label_text_color": ("#5c544a", "#ddd2bd"),
    "block_title_text_color": ("#5c544a", "#ddd2bd"),
    "body_text_color": ("#2b2622", "#f5f0e4"),
    "body_text_color_subdued": ("#6b6257", "#c3b7a3"),
    "input_background_fill": ("#fffdf8", "#1d1a17"),
    "input_placeholder_color": ("#6b6257", "#b0a48f"),
    "checkbox_border_color": ("#857a68", "#b0a48f"),
    "button_primary_background_fill": ("#a8322a", "#a8322a"),
    "button_primary_background_fill_hover": ("#8b2822", "#c04238"),
    "button_primary_text_color": ("#fffdf8", "#fffdf8"),
    "button_secondary_background_fill": ("#ece4d4", "#453f38"),
    "button_secondary_text_color": ("#2b2622", "#f5f0e4"),
}


def theme() -> gr.themes.Base:
    """Paper, ink and one red; by day and by night."""
    font = ["Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", "system-ui", "sans-serif"]
    paper, red = gr.themes.Color(*PAPER), gr.themes.Color(*RED)
    made = gr.themes.Base(
        primary_hue=red,
        secondary_hue=red,
        neutral_hue=paper,
        radius_size="sm",
        font=font,
        font_mono=["ui-monospace", "monospace"],
    )
    day = {name: color for name, (color, _) in COLORS.items()}
    night = {f"{name}_dark": color for name, (_, color) in COLORS.items()}
    return made.set(slider_color="#a8322a", **day, **night)


def application(cfg: DemoConfig, root: Path) -> Guard:
    """The page as an ASGI application, with its files on their way in `root`."""
    os.environ["GRADIO_TEMP_DIR"] = str(root)
    gr.processing_utils.async_move_files_to_cache = _untouched
    _add_script()
    max_bytes = int(cfg.max_file_size * 1e6)
    uploads = Uploads(root, 20 * max_bytes)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        sweeper = asyncio.create_task(uploads.sweep())
        threading.Thread(target=_import_networks, daemon=True).start()
        yield
        sweeper.cancel()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    _add_uploads(app, uploads, max_bytes)
    gr.mount_gradio_app(
        app,
        build_page(Service(cfg), uploads),
        path="/",
        max_file_size=max_bytes,
        show_error=False,
        run_history=False,
        footer_links=[],
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        theme=theme(),
        i18n=I18N,
        head=f"<style>{STYLE.read_text(encoding='utf-8')}</style>",  # css= would rewrite the selectors
    )
    return Guard(app, cfg.host, 2 * max_bytes, uploads)


def _add_script() -> None:
    """Puts the script at the beginning of the page: what Gradio's head= adds comes after it has chosen the language."""
    folder = FileSystemLoader(gr.routes.STATIC_TEMPLATE_LIB)
    env, page = gr.routes.templates.env, "frontend/index.html"
    script = f"<head>{{% raw %}}<script>{SCRIPT.read_text(encoding='utf-8')}</script>{{% endraw %}}"
    source = folder.get_source(env, page)[0].replace("<head>", script, 1)
    env.loader = ChoiceLoader([DictLoader({page: source}), folder])


def _add_uploads(app: FastAPI, uploads: Uploads, max_bytes: int) -> None:
    """Takes uploads in Gradio's place, which would keep equal files of two visitors as one that neither may delete."""

    @app.post("/gradio_api/upload")
    async def upload(request: Request) -> Response:
        try:
            folder = uploads.new_folder(INPUTS)
            files, _, _ = await upload_fn(request, str(folder), max_bytes, None)
        except UserError as error:
            return JSONResponse({"error": str(error)}, 503)
        except MultiPartException as error:
            return JSONResponse({"error": error.message}, 413 if "maximum allowed size" in error.message else 400)
        return JSONResponse(files)

    @app.get("/gradio_api/upload_progress")
    async def upload_progress() -> Response:
        return Response('data: {"msg": "done"}\n\n', media_type="text/event-stream")


async def _untouched(data: Any, block: Any, **how: Any) -> Any:
    """In place of what Gradio does with every file that a message names, be it at /etc or at an address: copy it."""
    return data.model_dump() if isinstance(data, GradioModel | GradioRootModel) else data


def _import_networks() -> None:
    """What takes seconds and needs nobody: so the first poem does not wait for it, nor the first painting."""
    for name in ("verse.compose", "painting.styles", "photo.classify"):
        importlib.import_module(f"infer.{name}")


def serve(cfg: DemoConfig) -> None:
    """Serves the page until Ctrl+C. Raises UserError if the port cannot be had."""
    try:
        family = socket.AF_INET6 if ":" in cfg.host else socket.AF_INET
        listener = socket.create_server((cfg.host, cfg.port), family=family)
    except OSError as error:
        known = error.errno and error.errno > 0  # not so where a name is no address
        reason = os.strerror(error.errno) if known else error.strerror
        raise UserError(f"cannot listen there at {cfg.host} ({reason}): give another", port=cfg.port) from None
    logging.getLogger("shihua").setLevel(logging.WARNING)  # the page shows what its visitors should know
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the folder is removed
    with listener, tempfile.TemporaryDirectory(prefix="shihua_") as folder:
        app = application(cfg, Path(folder))
        name = f"[{cfg.host}]" if ":" in cfg.host else cfg.host
        print(f"http://{name}:{cfg.port}  (Ctrl+C ends it)", file=sys.stderr, flush=True)
        # critical: the connections of open pages, which end with the server, are no errors
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1, ws="none"))
        server.run(sockets=[listener])
