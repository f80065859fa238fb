"""What tests of the painting room share: a tiny painter, pictures of noise, the command stylize."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import main
from infer.painting.styles import StylePainter
from models.transformer_net import StyleNetworks
from tests.training import CONTEXT
from utils.images import read_image

STYLES = ["great_wave", "starry_night", "the_scream", "starfish"]


def vary(model: StyleNetworks, spread: float = 0.3) -> StyleNetworks:
    """Gives every style normalisations of its own."""
    with torch.no_grad():
        for network in model.networks:
            for norm in network.norms:
                norm.weight.add_(spread * torch.randn_like(norm.weight))
                norm.bias.add_(spread * torch.randn_like(norm.bias))
    return model


def tiny(*styles: str) -> StyleNetworks:
    """Styles that differ, of full contrast."""
    torch.manual_seed(0)
    model = vary(StyleNetworks(dict.fromkeys(styles or STYLES, {"channels": (4, 6, 8), "blocks": 1})), 0.5).eval()
    with torch.no_grad():
        for network in model.networks:
            network.deconv3.conv2d.weight *= 5
    return model


def called(capsys, *words: object) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of `python main.py stylize WORDS`, in this process."""
    code = main.main(["stylize", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err.strip()


def noise(height: int = 24, width: int = 32, seed: int = 0, low: int = 0, high: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, (height, width, 3), np.uint8)


def photo(path: Path, height: int = 24, width: int = 32, seed: int = 0) -> Path:
    Image.fromarray(noise(height, width, seed)).save(path)
    return path


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def invert(rgb: np.ndarray, progress: object = None) -> np.ndarray:
    return 255 - rgb


def painted(network: str, path: Path, style: str = "", strength: float = 1.0, stroke: float = 1.0) -> np.ndarray:
    """What the painter makes of the picture, by the engine alone."""
    painter = StylePainter(StyleNetworks.load(network), style, strength, "fp32", stroke=stroke)
    return painter.paint(read_image(path).rgb[None])[0]


def is_near(a: np.ndarray, b: np.ndarray) -> bool:
    """Pictures painted together may differ from those painted alone in the last bit."""
    return a.shape == b.shape and int(np.abs(a.astype(int) - b).max()) <= 1


def as_examples(model: StyleNetworks) -> dict[str, torch.Tensor]:
    """The weights of its first style as pytorch/examples' program saves them: for pixels of 0..255."""
    state = {key: tensor.clone() for key, tensor in model.networks[0].state_dict().items()}
    state["conv1.conv2d.weight"] /= 255
    for part in ("weight", "bias"):
        state[f"deconv3.conv2d.{part}"] *= 255
    return state


def in_new_process(function: Callable, *arguments: Any) -> Any:
    """What a function of a test's module gives in a process of its own, forked from one that has torch."""
    with ProcessPoolExecutor(1, CONTEXT) as pool:
        return pool.submit(function, *arguments).result(240)


def memory_peak(start: bool = False) -> float:
    """MB of memory that this process has had at most since the last call with `start`; Linux alone tells."""
    if start:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1000
