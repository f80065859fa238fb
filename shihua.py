"""The project in Python, for the command line, the page, scripts and notebooks alike.

    poem = shihua.Poet().write("春江夜泊", form="七绝")[0]
    print(poem)
    shihua.Painter().paint("photo.jpg", style="great_wave").save("painting.png")
    shihua.postcard("photo.jpg", poem, style="great_wave").save("card.png")
    print(shihua.Classifier()("photo.jpg"))

Settings are the options of the command line, by name and with the defaults of config.py; a call takes single ones, or
all of them as one object. A model is loaded when it is first needed, once. Mistakes are UserErrors that carry the
argument's name. Nothing is printed: `progress` gets the share of the work that is done, and cancels it by raising;
`notify` gets remarks, a line each.
"""

import dataclasses
import io
import json
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from config import MODEL, ClassifyConfig, GenerateConfig, PostcardConfig, StylizeConfig
from options import CLASSIFIER, PAINTER, POET, ROOT, Config, is_missing, option_names, parse, shipped
from utils.errors import UserError, did_you_mean

if TYPE_CHECKING:  # torch is imported when something is done, not before: mistakes are answered at once
    import numpy as np
    from PIL import Image

    from infer.painting.files import Paint, Result
    from infer.photo.classify import Answer
    from infer.verse.check import Check
    from infer.verse.compose import Composition
    from infer.verse.rhyme import RhymeTable
    from utils.images import Picture

_DECODING = threading.Lock()  # one picture at a time: a large one takes a lot of memory
Progress = Callable[[float], object]
Notify = Callable[[str], object]


@dataclass(frozen=True)
class Photo:
    """A picture that is no file: its name in messages, and its bytes as they would be in a file."""

    name: str
    data: bytes = field(repr=False)

    def open(self) -> BinaryIO:
        return io.BytesIO(self.data)


class _Model:
    """A model file and its network."""

    default = ""  # the file that comes with the project

    def __init__(self, file: str | Path | None = None, use_gpu: bool = False):
        """Raises UserError if there is no such file (without a name: the shipped one)."""
        self.file, self.use_gpu = shipped(str(self.default if file is None else file)), use_gpu
        if is_missing(self.file):
            raise UserError(f"{self.file} does not exist: give {MODEL}")
        self._lock, self._network = threading.Lock(), None

    def _load(self, device: str) -> Any:
        raise NotImplementedError

    @property
    def network(self) -> Any:
        """The network, loaded once: whoever else asks for it meanwhile waits."""
        with self._lock:
            if self._network is None:
                from utils.hardware import pick_device

                self._network = self._load(pick_device(self.use_gpu))
            return self._network


# ----------------------------------------------------------------------------------------------------------- poems


class Poet(_Model):
    """Writes poems, and checks them: Poet().write("春江夜泊", form="七绝")."""

    default = POET

    def _load(self, device: str) -> Any:
        from infer.verse.model_file import load_poet

        return load_poet(self.file, device)

    def write(
        self, title: str = "", settings: GenerateConfig | None = None, lines: Sequence[str] = (), **more: Any
    ) -> "list[Composition]":
        """`n` poems, the best first; str(poem) prints one.

        `lines` are verses that stay, "" for those to be written (as do those of `poem` that `lock` names). Raises
        UserError where the settings do not fit each other.
        """
        settings = _settings(GenerateConfig, settings, more)
        poem = _given_poem(settings.poem)
        from infer.verse.compose import compose
        from infer.verse.settings import PoemSettings, keep_verses, split_words

        asked = {f.name: getattr(settings, f.name) for f in dataclasses.fields(PoemSettings) if f.name != "lines"}
        asked |= {"title": title or settings.title, "keywords": split_words(settings.keywords)}
        seed = settings.seed if settings.seed >= 0 else secrets.randbelow(2**31 - settings.n)
        lines = lines or keep_verses(poem, settings.lock)
        poems = compose(self.network, PoemSettings(lines=lines, **asked), settings.n, seed)
        return sorted(poems, key=lambda poem: -poem.rating)

    def unknown_characters(self, settings: GenerateConfig) -> Iterator[tuple[str, str]]:
        """(argument, remark) about each character of the settings that the poet reads as another, or not at all."""
        from data.vocabulary import Vocabulary
        from infer.verse.settings import split_words

        for name in ("prompt", "title", "author", "acrostic", "keywords"):
            given = "".join(split_words(settings.keywords)) if name == "keywords" else getattr(settings, name)
            folded, unknown = Vocabulary(self.network.vocab).fold(given)
            for old, new in sorted({(a, b) for a, b in zip(given, folded, strict=True) if a != b}):
                yield name, f"{old} is read as {new}"
            if unknown:
                yield name, f"the poet does not know {unknown} and reads over it"

    @cached_property
    def table(self) -> "RhymeTable":
        """Tones and rhymes. Raises UserError if the poet has learnt without."""
        from infer.verse.rhyme import RhymeTable

        if not (table := RhymeTable.of(self.network.metadata)):
            raise UserError(f"{self.file} has no rhyme table: give a poet that was trained with one")
        return table

    def check(self, poem: str | Sequence[str]) -> "Check":
        """Tones, pattern, rhyme and faults of a poem, text or lines. Raises UserError for a text without verse."""
        from infer.verse.check import check

        return check(poem, self.table)


# -------------------------------------------------------------------------------------------------------- pictures


@dataclass(frozen=True)
class Brush:
    """What paints arrays (infer/painting/files.py), its name in names of files, and a line about it."""

    paint: "Paint"
    label: str
    about: str


class _Painting:
    """Painting pictures and files with the brush of some settings."""

    def brush(self, settings: StylizeConfig) -> Brush:
        raise NotImplementedError

    def paint(
        self,
        photo: Any,
        settings: StylizeConfig | None = None,
        progress: Progress | None = None,
        notify: Notify | None = None,
        **more: Any,
    ) -> "Image.Image":
        """The painting of a photograph: a path, an open file, a Photo, an array (H, W, 3) uint8 or a PIL image.

        It has the photograph's size and transparency. Raises UserError for settings that do not fit, and for a picture
        that cannot be read.
        """
        settings = _settings(StylizeConfig, settings, more)
        from infer.painting.files import read_mask, stylized

        picture = read(photo, settings.max_megapixels, settings.max_side)
        mask = read_mask(settings.mask, settings.max_megapixels) if settings.mask else None
        brush = self.brush(settings)
        for remark in filter(None, (picture.note, brush.about)) if notify else ():
            notify(remark)
        rgb = stylized(picture.rgb[None], brush.paint, settings.keep_color, mask, progress)[0]
        return _to_pil(rgb, picture.alpha)

    def paint_files(
        self,
        paths: Sequence[str],
        settings: StylizeConfig | None = None,
        notify: Notify | None = None,
        part: tuple[int, int] = (0, 1),
        **more: Any,
    ) -> "Iterator[Result]":
        """Paints pictures, folders, animations and videos into files (`out`); what is broken gives an error.

        `part` is (number, of how many) where several processes share the work. Raises UserError before anything is
        written if a path does not exist, or a painting would replace one of the files that are read.
        """
        settings = _settings(StylizeConfig, settings, more)
        from utils.files import refuse_overwriting

        refuse_overwriting([settings.out] if settings.out else [], [*paths, *settings.inputs()])
        brush = self.brush(settings)
        from infer.painting.files import paint_files, plan

        jobs, remarks = plan(paths, settings.out, brush.label, settings.inputs())
        for remark in (brush.about, *remarks) if notify else ():
            notify(remark)
        names = ("keep_color", "mask", "max_side", "max_megapixels", "batch", "quality")
        more = {name: getattr(settings, name) for name in names}
        return paint_files(jobs[part[0] :: part[1]], brush.paint, **more)


class Painter(_Model, _Painting):
    """Paints in the styles of a network: Painter().paint("photo.jpg", style="great_wave", strength=0.8)."""

    default = PAINTER

    def __init__(self, file: str | Path | None = None, use_gpu: bool = False, memory_limit: int = 0):
        """`memory_limit` in MB holds whatever the settings say; 0: theirs does."""
        super().__init__(file, use_gpu)
        self.memory_limit = memory_limit

    def _load(self, device: str) -> Any:
        from infer.painting.files import load_network

        return load_network(self.file, device)

    @property
    def styles(self) -> list[str]:
        """The names of the styles, without loading the network."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.file, framework="numpy") as file:
                header = file.metadata() or {}
        except (SafetensorError, OSError):
            return self.network.styles
        return json.loads(header["arguments"])["styles"] if "arguments" in header else [Path(self.file).stem]

    def brush(self, settings: StylizeConfig) -> Brush:
        from infer.painting import tiles
        from infer.painting.files import choose_styles, style_label

        model = self.network
        weights = choose_styles(settings.style, model.styles)
        style = model.mixture(weights, settings.strength)
        precision, why = tiles.painting_precision(settings.precision, model, style)
        limit = self.memory_limit or settings.memory_limit
        painter = tiles.Painter(model, style, precision, limit, settings.tile)
        text = " + ".join(f"{name} {weight / sum(weights.values()):.0%}" for name, weight in weights.items())
        about = f"{text}, strength {settings.strength:g}; precision {precision} ({why})"
        return Brush(painter.paint, style_label(weights), about)

    def export(self, out: str | Path) -> None:
        """Writes the network as ONNX, for other programs. Raises UserError if that would replace the model's file."""
        from utils.files import refuse_overwriting

        refuse_overwriting([out], [self.file])
        from models.onnx import export_onnx

        export_onnx(self.network, out)


class Optimizer(_Painting):
    """Paints like any picture, without a network for its style: minutes of optimization a picture (Gatys et al.)."""

    def __init__(self, style_image: str | Path, use_gpu: bool = False):
        self.style_image, self.use_gpu = str(style_image), use_gpu

    def brush(self, settings: StylizeConfig) -> Brush:
        import numpy as np

        from infer.painting.files import optimizing, read_style, style_label
        from models.perceptual import PerceptualLoss
        from models.vgg import choose_network
        from utils.hardware import choose_precision, pick_device

        device = pick_device(self.use_gpu)
        style = read_style(self.style_image, settings.style_size)
        classifier = str(ROOT / CLASSIFIER)
        network, file, reason = choose_network(settings.loss_network, settings.vgg, classifier)
        loss = PerceptualLoss(network, [style], file).to(device)

        def attempt(precision: str) -> None:
            optimizing(loss, steps=1, precision=precision)(np.zeros((1, 64, 64, 3), np.uint8))

        precision, why = choose_precision(settings.precision, device == "cuda", attempt)
        names = ("steps", "content_weight", "style_weight", "tv_weight")
        paint = optimizing(loss, precision=precision, **{name: getattr(settings, name) for name in names})
        name = Path(self.style_image).stem
        about = f"{name}, {settings.steps} steps; judged by {network} ({reason}); precision {precision} ({why})"
        return Brush(paint, style_label([name]), about)


class Classifier(_Model):
    """Says what pictures show: Classifier()("photo.jpg") -> an Answer with label and probabilities."""

    default = CLASSIFIER

    def _load(self, device: str) -> Any:
        from infer.photo.classify import open_model

        return open_model(self.file, device)

    def __call__(self, photo: Any, settings: ClassifyConfig | None = None, **more: Any) -> "Answer":
        """The answer for one picture, given as `paint` wants it; with `explain` it has an overlay of its reasons.

        Raises UserError if the picture cannot be read.
        """
        settings = _settings(ClassifyConfig, settings, more)
        with _DECODING:
            (answer,) = self._answers([_source(photo)], settings, out=None)
        if answer.error:
            raise UserError(answer.error)
        return answer

    def classify_files(
        self,
        paths: Sequence[str],
        settings: ClassifyConfig | None = None,
        progress: Progress | None = None,
        part: tuple[int, int] = (0, 1),
        **more: Any,
    ) -> "Iterator[Answer]":
        """An answer for each picture at `paths` (files, folders, .tar files), and a table of them in the file `csv`.

        A picture that cannot be read has an error. `part` is (number, of how many) where several processes share the
        work, each with a table of its own. Raises UserError if a path does not exist or a file cannot be written.
        """
        settings = _settings(ClassifyConfig, settings, more)
        from infer.photo.classify import find_pictures, write_table
        from utils.files import is_inside, refuse_overwriting
        from utils.hardware import check_workers

        table = Path(settings.csv) if settings.csv else None
        if part[1] > 1:
            table = table and table.with_suffix(f".{part[0]}{table.suffix}")
            if settings.explain and (not settings.out or any(is_inside(settings.out, path) for path in paths)):
                raise UserError(
                    "several processes need a folder for explanations outside of the input", out=settings.out
                )
        check_workers(settings.num_workers)
        refuse_overwriting(filter(None, [table]), [*paths, *settings.inputs()], "csv")
        sources = find_pictures(paths)
        share = range(part[0], len(sources), part[1])
        answers = []
        write_table(table, self.network.classes, answers)  # it should be known now if the place cannot be written
        for answer in self._answers(sources, settings, share, settings.out):
            answers.append(answer)
            if progress:
                progress(len(answers) / len(share))
            yield answer
        write_table(table, self.network.classes, answers)

    def _answers(
        self, sources: Sequence[Any], settings: ClassifyConfig, share: Sequence[int] | None = None, out: str | None = ""
    ) -> "Iterator[Answer]":
        import torch

        from infer.photo.classify import Settings, classify, logits_of
        from utils.hardware import choose_precision

        blank = torch.zeros(1, 3, 64, 64, dtype=torch.uint8, device=self.network.device)
        gpu = self.network.device.type == "cuda"
        precision, _ = choose_precision(settings.precision, gpu, lambda name: logits_of(self.network, blank, name))
        same = {name: getattr(settings, name) for name in ("threshold", "max_megapixels", "explain")}
        more = Settings(settings.tta, precision, workers=settings.num_workers, out=out, **same)
        return classify(self.network, sources, more, share)


# ------------------------------------------------------------------------------------------------------- postcards


@dataclass(frozen=True)
class Card:
    """A finished postcard: its picture, and what is on it."""

    image: "Image.Image"
    title: str
    poem: str  # as it was given, or written
    lines: list[str]  # its verses
    seed: int | None  # with which the poet writes the poem again; None: it was given
    font: str
    place: str  # of the poem: picture or paper
    contrast: float  # of ink and background, by WCAG
    path: Path | None  # where `save` puts it; None: the photograph was no file

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        facts = {"title": self.title, "lines": self.lines, "seed": self.seed, "font": self.font, "place": self.place}
        return facts | {"contrast": round(self.contrast, 2), "width": self.image.width, "height": self.image.height}

    def save(self, path: str | Path | None = None, quality: int = PostcardConfig.quality) -> Path:
        """Writes a .jpg, .png, .webp, .tif, .bmp or .pdf, and returns where. Raises UserError if it cannot."""
        import numpy as np

        from infer.postcard.card import save_postcard

        if not (path := path or self.path):
            raise UserError("name the file to write", path=None)
        save_postcard(path, np.asarray(self.image), quality)
        return Path(path)


def postcard(
    photo: Any,
    poem: Any = "",
    settings: PostcardConfig | None = None,
    painter: Painter | None = None,
    poet: Poet | None = None,
    progress: Progress | None = None,
    notify: Notify | None = None,
    **more: Any,
) -> Card:
    """A photograph (as `paint` wants it), painted, with a poem on it: a text, a poem of the poet's, or a new one.

    Raises UserError for words that a card has no room for, before anything is written or painted.
    """
    settings = _settings(PostcardConfig, settings, more)
    notify = notify or (lambda remark: None)
    text = str(poem).strip() or _given_poem(settings.poem)
    poet = poet or (None if text else Poet(settings.poet, settings.use_gpu))
    if settings.style == "none" or not settings.strength:
        painter = None
    else:
        painter = painter or Painter(settings.load, settings.use_gpu)
    from data.verse import Poem
    from infer.postcard.card import destination, on_paper
    from infer.postcard.card import postcard as set_poem
    from infer.postcard.fonts import choose_face
    from infer.postcard.text import Inscription, read_poem

    path = None
    if isinstance(photo, str | Path):
        path = destination(str(photo), settings.out, settings.inputs())
    given, seed = read_poem(text) if text else Poem([]), None
    title, signature = settings.title or given.title, settings.signature or given.author
    words = Inscription(given.lines, title, signature, settings.seal)
    picture = read(photo, settings.max_megapixels, settings.max_side)
    if not words.lines:
        written = poet.write(title, form=settings.form, keywords=settings.keywords, seed=settings.seed)[0]
        text, seed = "\n".join(written.lines), written.seed
        words = dataclasses.replace(words, lines=read_poem(text).lines)
    face, remarks = choose_face(words.characters, settings.font)
    for remark in filter(None, (*remarks, picture.note)):
        notify(remark)
    if painter:
        picture = dataclasses.replace(picture, note="")
        picture = read(
            painter.paint(picture, progress=progress, notify=notify, style=settings.style, strength=settings.strength)
        )
    card = set_poem(on_paper(picture), words, face, settings.place)
    place = "paper" if card.on_paper else "picture"
    return Card(_to_pil(card.rgb), title, text, words.lines, seed, face.name, place, card.contrast, path)


# --------------------------------------------------------------------------------------------------------- helpers


def read(photo: Any, max_megapixels: float = 0, max_side: int = 0) -> "Picture":
    """A picture, upright: from a path, an open file, a Photo, an array (H, W, 3) uint8 or a PIL image.

    Raises UserError as `utils.images.read_image` does, and for anything else.
    """
    from utils.images import Picture, decode, read_image

    if isinstance(photo, Picture):
        return photo
    with _DECODING:
        if isinstance(photo, Photo):
            return read_image(photo.open(), max_megapixels, max_side, photo.name)
        if isinstance(photo, str | Path) or hasattr(photo, "read"):
            return read_image(photo, max_megapixels, max_side)
        return decode(_to_pil(photo), max_side)


def _source(photo: Any) -> Any:
    """What the classifier reads a picture from."""
    from data.photos import Source

    if isinstance(photo, Photo):
        return photo
    if isinstance(photo, str | Path):
        return Source(str(photo), Path(photo))
    if hasattr(photo, "read"):
        return Photo("the picture", photo.read())
    buffer = io.BytesIO()
    _to_pil(photo).save(buffer, "PNG")
    return Photo("the picture", buffer.getvalue())


def _to_pil(pixels: Any, alpha: "np.ndarray | None" = None) -> "Image.Image":
    """From an array (H, W, 3) uint8 and its alpha (H, W), if it has one. Raises UserError for what is no picture."""
    from PIL import Image

    if isinstance(pixels, Image.Image):
        return pixels
    try:
        image = Image.fromarray(pixels)
    except (TypeError, AttributeError, KeyError):
        raise UserError("must be a path, a file, a PIL image or an array (H, W, 3) of uint8", photo=None) from None
    if alpha is not None:
        image.putalpha(Image.fromarray(alpha))
    return image


def _settings(cls: type[Config], settings: Config | None, more: dict[str, Any]) -> Config:
    """The checked settings of a call, of which `more` are named one by one. Raises UserError for a wrong one."""
    names = option_names(cls)
    for name in more:
        if name not in names:
            raise UserError(f"there is no such setting{did_you_mean(name, names)}", **{name: None})
    if settings and not more:
        return settings
    values = {**(settings.as_dict() if settings else {}), **more}
    return parse(cls, values)


def _given_poem(text: str) -> str:
    """The one poem of a text, or of the file that it names."""
    from data.verse import one_poem

    return one_poem(text, "poem") if text else ""
