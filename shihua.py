"""The project in Python, for the command line, the page, scripts and notebooks alike.

    poem = shihua.Poet().write("春江夜泊", form="七绝")[0]
    print(poem)
    shihua.Painter().paint("photo.jpg", style="great_wave").save("painting.png")
    shihua.postcard("photo.jpg", poem, style="great_wave").save("card.png")
    print(shihua.Classifier()("photo.jpg"))

Settings are the options of the command line (config.py): single ones by name, or all of them as one object. Photographs
are paths, open files, PIL images or arrays (H, W, 3) uint8. A model is loaded when it is first needed, once. Mistakes
are UserErrors. Nothing is printed: remarks go to the logger "shihua"; `progress` is called with the fraction of the
work that is done, and cancels it by raising.
"""

import dataclasses
import json
import logging
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config import MODEL, ClassifyConfig, GenerateConfig, PostcardConfig, StylizeConfig
from data.verse import Poem
from infer.painting.names import STYLES, both_names, chinese_name  # noqa: F401  for the page
from infer.postcard.text import Inscription, read_poem, section_starts
from infer.verse.check import Check, check
from infer.verse.check_ci import one_poem
from infer.verse.new_rhymes import NewRhymes
from infer.verse.rhyme import RhymeTable
from infer.verse.settings import PoemSettings, keep_verses, split_words
from infer.verse.tunes import tune_names  # noqa: F401  for the page
from options import CLASSIFIER, LOSS_NETWORK, PAINTER, POET, ROOT, is_missing, merge, option_names, shipped
from utils.errors import UserError
from utils.files import metadata_of, refuse_overwriting
from utils.photo import as_photo, decoding, read

if TYPE_CHECKING:  # torch is imported when something is done, not before: mistakes are answered at once
    from PIL import Image

    from infer.painting.files import Result
    from infer.photo.classify import Answer
    from infer.photo.describe import Description
    from infer.postcard.card import Card
    from infer.verse.compose import Composition

Progress = Callable[[float], object]
log = logging.getLogger("shihua")


class _Model:
    """A model file and its network, by the subclass's `_load`."""

    default = ""  # the file that comes with the project
    _load: Callable[[str], Any]

    def __init__(self, file: str | Path | None = None, use_gpu: bool = False):
        """Raises UserError if there is no such file (without a name: the shipped one)."""
        self.file, self.use_gpu = shipped(str(self.default if file is None else file)), use_gpu
        if is_missing(self.file):
            raise UserError(f"{self.file} does not exist: give {MODEL}")
        self._lock, self._network = threading.Lock(), None

    @property
    def network(self) -> Any:
        """The network, loaded once: whoever else asks for it meanwhile waits."""
        with self._lock:
            if self._network is None:
                from utils.hardware import pick_device

                self._network = self._load(pick_device(self.use_gpu))
            return self._network


class Poet(_Model):
    """Writes poems, and checks them: Poet().write("春江夜泊", form="七绝")."""

    default = POET

    def _load(self, device: str) -> Any:
        from infer.verse.model_file import load_poet

        return load_poet(self.file, device)

    def write(
        self, title: str = "", settings: GenerateConfig | None = None, lines: Sequence[str] = (), **more: Any
    ) -> "list[Composition]":
        """`n` poems, the best first; str(poem) prints one. `lines` are verses that stay, "" for those to be written."""
        poems = list(self.write_each(title, settings, lines, **more))
        ratings: dict[int, float] = {}
        for poem in poems:  # the two poems of a long acrostic have one seed, and stay together
            ratings[poem.seed] = ratings.get(poem.seed, 0.0) + poem.rating
        return sorted(poems, key=lambda poem: -ratings[poem.seed])

    def write_each(
        self, title: str = "", settings: GenerateConfig | None = None, lines: Sequence[str] = (), **more: Any
    ) -> "Iterator[Composition]":
        """The same poems, each as soon as it is written."""
        settings = merge(GenerateConfig, settings, more)
        poem = one_poem(settings.poem)
        from infer.verse.compose import compose_each

        asked = _pick(settings, *(option_names(PoemSettings) - {"lines"}))
        asked |= {"title": title or settings.title, "keywords": split_words(settings.keywords)}
        asked = PoemSettings(lines=lines or keep_verses(poem, settings.lock), **asked)
        if settings.picture:
            seen = Classifier().describe(settings.picture)
            _tell([seen])
            asked = dataclasses.replace(asked, **seen.subject_with(asked.title, asked.keywords, asked.avoid))
        seed = settings.seed if settings.seed >= 0 else secrets.randbelow(2**31 - settings.n)
        for poem in compose_each(self.network, asked, settings.n, seed):
            yield poem.in_traditional() if settings.script == "traditional" else poem

    @cached_property
    def table(self) -> RhymeTable:
        """Tones and rhymes. Raises UserError if the poet has learnt without."""
        if not (table := RhymeTable.of(self.network.metadata)):
            raise UserError(f"{self.file} has no rhyme table: give a poet that was trained with one")
        return table

    def check(self, poem: str | Sequence[str], rhymes: str = "old") -> Check:
        """Tones, pattern, rhyme ("old": 平水韵, "new": 中华新韵) and faults of a poem. UserError: there is no verse."""
        return check(poem, NewRhymes() if rhymes == "new" else self.table)


class _Painting:
    """Painting pictures and files, with what `_brush` gives: `paint` for arrays, `label` in names of files, `str`."""

    _brush: Callable[[StylizeConfig], Any]

    def paint(
        self, photo: Any, settings: StylizeConfig | None = None, progress: Progress | None = None, **more: Any
    ) -> "Image.Image":
        """The painting of a photograph, of its size, transparent where it is. Raises UserError if it cannot be read."""
        settings = merge(StylizeConfig, settings, more)
        from PIL import Image

        from infer.painting.colors import stylize
        from infer.painting.files import read_mask

        picture = read(photo, settings.max_megapixels, settings.max_side)
        mask = read_mask(settings.mask, settings.max_megapixels) if settings.mask else None
        brush = self._brush(settings)
        _tell([brush])
        rgb = stylize(picture.rgb[None], brush.paint, settings.keep_color, mask, progress)[0]
        image = Image.fromarray(rgb)
        if picture.alpha is not None:
            image.putalpha(Image.fromarray(picture.alpha))
        return image

    def paint_files(
        self, paths: Sequence[str], settings: StylizeConfig | None = None, **more: Any
    ) -> "Iterator[Result]":
        """Paints pictures, folders, animations and videos into files (`out`); what is broken gives an error.

        Processes of torchrun share them. Raises UserError at once for a path that does not exist, or an input replaced.
        """
        settings = merge(StylizeConfig, settings, more)
        refuse_overwriting([settings.out] if settings.out else [], [*paths, *settings.inputs()])
        from infer.painting.files import paint_files, plan
        from utils.hardware import rank_and_world

        rank, world = rank_and_world()
        brush = self._brush(settings)
        jobs, remarks = plan(paths, settings.out, brush.label, settings.inputs())
        _tell((brush, *remarks) if rank == 0 else ())
        same = _pick(settings, "keep_color", "mask", "max_side", "max_megapixels", "batch", "quality")
        return paint_files(jobs[rank::world], brush.paint, **same)


class Painter(_Model, _Painting):
    """Paints in the styles of a network: Painter().paint("photo.jpg", style="great_wave", strength=0.8)."""

    default = PAINTER

    def __init__(self, file: str | Path | None = None, use_gpu: bool = False, memory_limit: int = 0):
        """`memory_limit` in MB holds whatever the settings say; 0: theirs does."""
        super().__init__(file, use_gpu)
        self.memory_limit = memory_limit

    def _load(self, device: str) -> Any:
        from infer.painting.styles import load_painter

        return load_painter(self.file, device)

    @property
    def styles(self) -> list[str]:
        """The names of the styles, without loading the network."""
        arguments = json.loads(metadata_of(self.file).get("arguments", "{}"))
        return list(arguments["styles"] if "styles" in arguments else self.network.styles)

    def _brush(self, settings: StylizeConfig) -> Any:
        from infer.painting.stroke_size import choose_stroke
        from infer.painting.styles import StylePainter

        limit, stroke = self.memory_limit or settings.memory_limit, choose_stroke(settings.stroke)
        same = _pick(settings, "style", "strength", "precision", "tile")
        return StylePainter(self.network, memory_limit=limit, stroke=stroke, **same)

    def export(self, out: str | Path, style: str = "") -> None:
        """Writes the network of a style (empty: the first one) as ONNX. Raises UserError for a mixture."""
        refuse_overwriting([out], [self.file])
        from infer.painting.styles import choose_styles
        from models.onnx import export_painter

        name, *others = choose_styles(style, self.network.styles)
        if others:
            raise UserError("one style is exported, no mixture", style=style)
        export_painter(self.network[name], out, name)


class Optimizer(_Painting):
    """Paints like any picture, without a network for its style: minutes of optimization a picture (Gatys et al.)."""

    def __init__(self, style_image: str | Path, use_gpu: bool = False):
        self.style_image, self.use_gpu = str(style_image), use_gpu

    def _brush(self, settings: StylizeConfig) -> Any:
        from infer.painting.optimize import OptimizingPainter
        from utils.hardware import pick_device

        same = _pick(settings, "style_size", "precision", "steps")
        same["weights"] = settings.content_weight, settings.style_weight, settings.tv_weight
        same |= {"network": settings.loss_network, "network_file": settings.vgg, "classifier": str(ROOT / LOSS_NETWORK)}
        return OptimizingPainter(self.style_image, device=pick_device(self.use_gpu), **same)


class Classifier(_Model):
    """Says what pictures show: Classifier()("photo.jpg") -> an Answer with label and probabilities."""

    default = CLASSIFIER

    def _load(self, device: str) -> Any:
        from infer.photo.classify import open_model

        return open_model(self.file, device)

    def __call__(self, photo: Any, settings: ClassifyConfig | None = None, **more: Any) -> "Answer":
        """The answer for one picture; with `explain` it has an overlay. Raises UserError if it cannot be read."""
        from infer.photo.classify import classify

        settings = self._chosen(merge(ClassifyConfig, settings, more), out=None)
        with decoding:
            (answer,) = classify(self.network, [as_photo(photo)], settings)
        if answer.error:
            raise UserError(answer.error)
        return answer

    def classify_files(
        self,
        paths: Sequence[str],
        settings: ClassifyConfig | None = None,
        progress: Progress | None = None,
        **more: Any,
    ) -> "Iterator[Answer]":
        """An answer for each picture at `paths` (files, folders, .tar files), and a table of them in the file `csv`.

        Processes of torchrun share them. Raises UserError if a path does not exist, or a file cannot be written.
        """
        settings = merge(ClassifyConfig, settings, more)
        from infer.photo.files import classify_files, plan_table

        overlays = settings.out if settings.explain else None
        table = plan_table(paths, settings.csv, settings.inputs(), overlays)  # before the model is read
        return classify_files(self.network, paths, self._chosen(settings, settings.out), table, progress)

    @property
    def recognises(self) -> bool:
        """Whether it sees more than its own classes, so that it can describe a picture."""
        return self.network.recognises

    def describe(self, photo: Any, max_megapixels: float = 0) -> "Description":
        """What a photograph shows in words, and the poem it asks for. Raises UserError if it cannot be read."""
        from infer.photo.describe import describe

        with decoding:
            [found] = describe(self.network, [as_photo(photo)], max_megapixels)
        if found.error:
            raise UserError(found.error)
        return found

    def describe_files(self, paths: Sequence[str], max_megapixels: float = 0) -> "Iterator[Description]":
        """A description of each picture at `paths`: files, folders, .tar files. Raises UserError as `describe` does."""
        from infer.photo.classify import find_pictures
        from infer.photo.describe import describe

        return describe(self.network, find_pictures(paths), max_megapixels)

    def export(self, out: str | Path) -> None:
        """Writes the network as ONNX. Raises UserError if that would replace the model's file."""
        refuse_overwriting([out], [self.file])
        from infer.photo.classify import calibration
        from models.classifier import Classifier as Network
        from models.onnx import export_classifier

        model = Network.load(self.file)
        export_classifier(model, out, calibration(model, 1)[0])

    def _chosen(self, settings: ClassifyConfig, out: str | None) -> Any:
        from infer.photo.classify import Settings, classifying_precision

        precision = classifying_precision(settings.precision, self.network)
        same = _pick(settings, "threshold", "max_megapixels", "explain")
        return Settings(settings.tta, precision, workers=settings.num_workers, out=out, **same)


def postcard(
    photo: Any,
    poem: Any = "",
    settings: PostcardConfig | None = None,
    painter: Painter | None = None,
    poet: Poet | None = None,
    classifier: Classifier | None = None,
    progress: Progress | None = None,
    **more: Any,
) -> "Card":
    """A photograph, painted, with a poem on it: a text, or a new one to the title and keywords, or what is to be seen.

    Raises UserError for words that a card has no room for, before anything is written or painted.
    """
    settings = merge(PostcardConfig, settings, more)
    text = str(poem).strip() or one_poem(settings.poem)
    paints = settings.style != "none" and settings.strength > 0
    painter = painter or (Painter(settings.load, settings.use_gpu) if paints else None)
    poet = poet or (None if text else Poet(settings.poet, settings.use_gpu))

    from infer.postcard import card
    from infer.postcard.fonts import choose_face
    from infer.postcard.ink import PAPER

    given, seed = read_poem(text) if text else Poem([]), None
    title, signature = settings.title or given.title, settings.signature or given.author
    words = Inscription(given.lines, title, signature, settings.seal, section_starts(text))
    named = isinstance(photo, str | Path)
    path = card.destination(str(photo), settings.out, settings.inputs()) if named else None
    picture = read(photo, settings.max_megapixels, settings.max_side)
    if not text:
        written = _poem_for(photo, title, settings, poet, classifier)
        text, seed, given = written.body, written.seed, read_poem(str(written))
        words = dataclasses.replace(words, lines=given.lines, title=given.title, starts=section_starts(text))
    face, remarks = choose_face(words.characters, settings.font)
    _tell(remarks)
    if paints:
        brush = _pick(settings, "style", "strength", "stroke", "keep_color")
        picture = read(painter.paint(picture, progress=progress, **brush))
    made = card.postcard(picture.on(PAPER), words, face, settings.place)
    place = "paper" if made.on_paper else "picture"
    return card.Card(made.rgb, words.title, text, words.lines, seed, face.name, place, made.contrast, path)


def _poem_for(
    photo: Any, title: str, settings: PostcardConfig, poet: Poet, classifier: Classifier | None
) -> "Composition":
    """A poem for a card: to the title and the keywords, or else about what the classifier sees in the photograph."""
    subject: dict[str, Any] = {"title": title, "keywords": settings.keywords}
    if not title and not settings.keywords and (classifier or not is_missing(shipped(CLASSIFIER))):
        classifier = classifier or Classifier(use_gpu=settings.use_gpu)
        if classifier.recognises:
            found = classifier.describe(photo)
            _tell([found])
            subject = found.subject | {"keywords": ",".join(found.words)}
    [written] = poet.write(form=settings.form, seed=settings.seed, **subject)
    _tell(written.remarks)
    return written


def _tell(remarks: Iterable[Any]) -> None:
    for remark in remarks:
        log.info(str(remark))


def _pick(settings: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in names}


def style_names() -> list[str]:
    """The styles of the shipped painter, such as "starry_night 星月夜"; none without its file."""
    return list(map(both_names, Painter().styles)) if not is_missing(shipped(PAINTER)) else []
