"""The page in the browser: five tabs, one file each, and the calls for programs. It computes nothing itself."""

import gradio as gr

from demo.api import add_api
from demo.classify import ClassifyTab
from demo.compose import ComposeTab
from demo.guard import Uploads
from demo.paint import PaintTab
from demo.parts import QUIET, Jobs, Photos, report, to_url
from demo.postcard import PostcardTab
from demo.service import Service
from demo.training import TrainingTab
from demo.words import both, in_both, text

WAITING = 100  # most jobs that wait
SWITCH = '<button lang="{code}" onclick="useLanguage(\'{code}\')">{name}</button>'
HEAD = (
    f'<header id="head"><h1 lang="zh-CN">诗画</h1><p>{both("subtitle")}</p>'
    f"{in_both(SWITCH.format(code='en', name='English'), SWITCH.format(code='zh-CN', name='中文'))}</header>"
)


def build_page(service: Service, uploads: Uploads) -> gr.Blocks:
    """The page, ready to be served; `uploads` is where files are on their way."""
    photos, jobs = Photos(service, uploads), Jobs()
    compose, paint, postcard = ComposeTab(service), PaintTab(photos, jobs), PostcardTab(photos, jobs)

    def thumbnails() -> str:
        """A style sheet with a painted sample for each style."""
        rules = (
            f'.styles label:nth-child({i}) {{ background-image: url("{to_url(rgb)}"); }}'
            for i, rgb in enumerate(service.thumbnails(), 1)
        )
        return f"<style>{' '.join(rules)}</style>"

    with gr.Blocks(title="诗画 Shihua", analytics_enabled=False) as blocks:
        add_api(service, uploads)  # first, to have the names that it wants
        gr.HTML(HEAD)
        styles_css = gr.HTML("", elem_id="thumbnails")
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab(text("compose"), id="compose"):
                compose.build()
            with gr.Tab(text("paint"), id="paint") as paint_tab:
                paint.build()
            with gr.Tab(text("postcard"), id="postcard") as postcard_tab:
                postcard.build()
            with gr.Tab(text("classify"), id="classify"):
                ClassifyTab(photos).build()
            with gr.Tab(text("training"), id="training") as training_tab:
                TrainingTab(service.cfg.save_path).build(training_tab)
        for tab in (paint_tab, postcard_tab):
            tab.select(report(thumbnails), None, styles_css, **QUIET)
        carried = [tabs, postcard.poem, postcard.title]
        compose.to_postcard.click(report(compose.carry), compose.poems, carried, **QUIET)
        carried = [tabs, *postcard.brush]  # how it was painted; the photograph is there already
        made = paint.to_postcard.click(
            lambda *asked: (gr.update(selected="postcard"), *asked), paint.brush, carried, **QUIET
        )
        made.then(None, None, None, js="() => press('start-postcard')", **QUIET)
        photos.share()
        blocks.unload(jobs.leave)
    blocks.queue(max_size=WAITING, default_concurrency_limit=4)
    return blocks
