"""What the painter's task begins with: networks, pictures of styles, and options that differ from style to style."""

import dataclasses
from pathlib import Path
from typing import Any

from config import StyleConfig
from data.photos import EMBEDDED, list_pictures
from models.transformer_net import StyleNetworks, join_styles
from options import PAINTER, ROOT
from utils.errors import UserError, did_you_mean
from utils.text import parse_named_numbers

EMBEDDED_STYLES = EMBEDDED.parent / "styles"
CHANNELS = (32, 64, 128)  # at width 1
BOUND = 8.0  # standard deviations: of normalised values


def with_start(cfg: StyleConfig) -> StyleConfig:
    """cfg whose `load` is the painter that a new style joins and starts from, as cfg.pretrained says."""
    start = cfg.pretrained
    if start == "auto":
        own = cfg.style_image and not {"width", "blocks"} & set(cfg.changed())
        start = str(ROOT / PAINTER) if own else "none"
    return cfg if cfg.load or start == "none" else dataclasses.replace(cfg, load=start)


def by_style(option: str, text: str, styles: list[str], wanted: list[str] | None = None) -> list[float]:
    """A number for each of the styles (or of those wanted) from `8,ink:2.5`: one for all (0 without), others by name.

    Raises UserError for what is no number, or no style.
    """
    numbers = dict(parse_named_numbers(text, option, "8,ink:2.5", plain=True))
    for name, number in numbers.items():
        if name and name not in styles:
            near = did_you_mean(name, styles)
            raise UserError(f"the styles are {', '.join(styles)}{near}", **{option: f"{name}:{number:g}"})
    return [numbers.get(name, numbers.get("", 0.0)) for name in wanted or styles]


def make_networks(cfg: StyleConfig, arguments: dict[str, Any] | None) -> tuple[StyleNetworks, list[str]]:
    """(the networks, which of the styles learn): as `arguments` say, from cfg.load, or new ones.

    If cfg.style_image has pictures of styles that the file lacks, these join the others, and only they learn; else
    those of its pictures do.
    """
    if arguments:
        return StyleNetworks(**arguments), list(arguments["styles"])
    given = list(style_pictures(cfg.style_image)) if cfg.style_image or not cfg.load else []
    if not cfg.load:
        network = {"channels": _channels(cfg.width), "blocks": cfg.blocks, "bound": BOUND}
        return StyleNetworks(dict.fromkeys(given, network)), given
    loaded = StyleNetworks.load(cfg.load)
    _refuse_other_network(cfg, loaded)
    if not (new := [name for name in given if name not in loaded.styles]):
        return loaded, given or loaded.styles
    first = loaded[loaded.styles[0]]
    added = StyleNetworks(dict.fromkeys(new, first.arguments))
    for name in new:
        added[name].load_state_dict(first.state_dict())
    return join_styles([loaded, added]), new


def choose(text: str, styles: list[str]) -> list[str]:
    """The styles that the option names, in the file's order."""
    names = [name for name in text.split(",") if name]
    if unknown := [name for name in names if name not in styles]:
        near = did_you_mean(unknown[0], styles)
        raise UserError(f"this network has {', '.join(styles)}{near}", styles=unknown[0])
    return [name for name in styles if name in names]


def _channels(width: float) -> list[int]:
    return [max(1, round(c * width)) for c in CHANNELS]


def _refuse_other_network(cfg: StyleConfig, model: StyleNetworks) -> None:
    for name, network in model.arguments["styles"].items():
        for option, argument, wanted in (("width", "channels", _channels(cfg.width)), ("blocks", "blocks", cfg.blocks)):
            if option in cfg.changed() and wanted != network[argument]:
                has = f"{cfg.load} has {argument} {network[argument]} of {name}; leave it out"
                raise UserError(has, **{option: getattr(cfg, option)})


def style_pictures(style_image: str) -> dict[str, Path]:
    """{name of the style: its picture} of the option --style_image."""
    place = Path(style_image or EMBEDDED_STYLES)
    if not place.exists():
        raise UserError("does not exist: give a picture, or a folder of pictures", style_image=place)
    if place.is_dir():
        return {Path(source.name).stem: source.path for source in list_pictures(place, "style_image")}
    return {place.stem: place}
