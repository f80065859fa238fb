"""Which style, how strongly, in which mixture: a painter is loaded, chosen from, and paints pictures.

A strength and a mixture are made of whole paintings, not within a network: mixed networks paint grey holes.
Shapes: N pictures, H x W pixels.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from infer.painting.colors import Progress, blend, ignore, part_of
from infer.painting.names import CHINESE
from infer.painting.stroke_size import paint_with_strokes
from infer.painting.tiles import Painter, painting_precision
from models.basemodule import is_own, read_state_dict
from models.transformer_net import StyleNetworks, from_examples
from utils.errors import UserError, did_you_mean

STRONGEST = 1.5


def load_painter(path: str | Path, device: str = "cpu") -> StyleNetworks:
    """A painter from our own file, or from weights of pytorch/examples' fast_neural_style or of pytorch-book.

    The style of the latter two has the file's name. Raises UserError if the file holds neither.
    """
    if is_own(path):
        return StyleNetworks.load(path, device)
    return from_examples(read_state_dict(path), Path(path).stem, str(path)).to(device)


class StylePainter:
    """Paints in one style, or in a mixture of several, as strongly as wanted.

    Args:
        model: the painter, on the device to compute on.
        style: as `choose_styles` takes it.
        strength: 0 is the photograph, 1 the painting; above 1 the painting is painted once more.
        stroke: size of the strokes, see stroke_size.py; 0: as the network paints.
        precision: "auto", "fp32" or "bf16".
        memory_limit, tile: as of tiles.Painter.

    Raises UserError for a style that the painter does not have, and a strength beyond STRONGEST.
    """

    def __init__(
        self,
        model: StyleNetworks,
        style: str = "",
        strength: float = 1.0,
        precision: str = "auto",
        memory_limit: int = 1000,
        tile: int = -1,
        stroke: float = 0.0,
    ):
        weights = choose_styles(style, model.styles)
        if not 0 <= strength <= STRONGEST:
            raise UserError(f"must lie between 0, the photograph, and {STRONGEST}", strength=strength)
        self.weights = {name: weight / sum(weights.values()) for name, weight in weights.items()}
        self.strength, self.stroke, self.label = strength, stroke, style_label(self.weights)
        self.precision, self.why = painting_precision(precision, model[next(iter(weights))])
        self.painters = [Painter(model[name], self.precision, memory_limit, tile) for name in weights]

    def __str__(self) -> str:
        styles = " + ".join(f"{name} {weight:.0%}" for name, weight in self.weights.items())
        return f"{styles}, strength {self.strength:g}; precision {self.precision} ({self.why})"

    def paint(self, rgb: np.ndarray, progress: Progress = ignore) -> np.ndarray:
        """(N, H, W, 3) uint8 -> a new (N, H, W, 3) uint8."""
        if not self.strength:
            return rgb.copy()
        if self.strength <= 1:
            return blend(rgb, self._mix(rgb, progress), self.strength)
        painting = self._mix(rgb, part_of(progress, 0, 2))
        return blend(painting, self._mix(painting, part_of(progress, 1, 2)), self.strength - 1)

    def _mix(self, rgb: np.ndarray, progress: Progress) -> np.ndarray:
        """The weighted mean of the paintings in all styles; no more than two of them are in memory."""
        mean, total = rgb, 0.0
        for number, (painter, weight) in enumerate(zip(self.painters, self.weights.values(), strict=True)):
            total += weight
            show = part_of(progress, number, len(self.painters))
            painting = paint_with_strokes(rgb, painter.paint, self.stroke, show)
            mean = blend(mean, painting, weight / total)
        return mean


def choose_styles(text: str, names: Sequence[str]) -> dict[str, float]:
    """{style: weight} of "wave:0.6,starry:0.4"; without a number the weight is 1, without a text it is the first style.

    A style may be called by its Chinese name, and by any part of a name that no other style has. Raises UserError for
    an unknown or ambiguous one, and for a weight that is none.
    """
    if not text or text in names:
        return {text or names[0]: 1.0}
    weights: dict[str, float] = {}
    for part in re.split("[,，]", text):
        if not part.strip():
            raise UserError("a part is empty; write names with commas between, as in wave:0.6,sea:0.4", style=text)
        name, colon, number = part.strip().replace("：", ":").rpartition(":")
        if not colon:
            name, number = number, "1"
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not 0 < weight < math.inf:
            raise UserError(f"{number!r} is no weight: write a number above 0, as in wave:0.6,sea:0.4", style=text)
        name = _choose(name.strip(), names, text)
        weights[name] = weights.get(name, 0.0) + weight
    return weights


def _choose(word: str, names: Sequence[str], text: str) -> str:
    called = {alias: name for name in names for alias in (*CHINESE.get(name, ()), name)}
    if word in called:
        return called[word]
    small = word.lower()
    starting = [name for alias, name in called.items() if alias.lower().startswith(small)]
    found = list(dict.fromkeys(starting or [name for alias, name in called.items() if small in alias.lower()]))
    if word and len(found) == 1:
        return found[0]
    if word and found:
        raise UserError(f"{word} may be {' or '.join(found)}; write more of the name", style=text)
    hint = "; commas part a mixture, as in wave:0.6,sea:0.4" if re.search("[+;:/ ]", word) else ""
    raise UserError(f"this network has {', '.join(names)}{hint or did_you_mean(word, names)}", style=text)


def style_label(names: Sequence[str] | Mapping[str, float]) -> str:
    """What names of paintings get: the styles' names, made fit for a file's."""
    return re.sub(r"[^\w.+-]", "_", "+".join(names))
