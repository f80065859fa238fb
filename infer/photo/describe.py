"""What a photograph shows, in words: things, place, season, hour, weather and colours, and the poem that it asks for.

Things are ImageNet's classes; the rest are scenes, for which the classifier has a last layer; colours come from the
pixels. Shapes: V views of a picture, S scenes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from data.photos import Source, read_source
from data.sights import Sight, imagenet_classes, scenes
from infer.photo.classify import Pictures, mean_chances, predict
from infer.photo.pixels import horizon, main_colors
from models.classifier import Classifier
from utils.errors import UserError

SIZE, VIEWS = 224, 6  # pixels at which the scenes were judged; views that show all of the picture, see `crops`
THING, CLEAR, SCENE = 0.35, 0.5, 0.6  # probability from which on a thing, a creature, a scene is named
POSSIBLE = 0.2  # probability from which on something may be there, so that a poem may speak of it
MOST_THINGS, MOST_WORDS = 3, 3

ABOUT = ("dog", "cat", "bird", "fish", "insect", "reptile", "sea", "animal", "plant", "instrument")
TIMES = {"snow": "雪中", "rain": "雨中", "fog": "雾中", "night": "夜", "dusk": "晚"}
TIMES |= {"spring": "春日", "summer": "夏日", "autumn": "秋日", "winter": "冬日"}
PLACES = {"boat": "泛舟", "sea": "望海", "mountain": "望山", "oldhouse": "登楼", "water": "临水", "flower": "看花"}
PLACES |= {"desert": "沙上", "forest": "入林", "field": "野望", "house": "村居", "street": "过城", "road": "道中"}
PLACES |= {"food": "尝新", "indoor": "闲居"}
SCENE_KINDS = {scene.kind for scene in scenes()}
HORIZON = Sight("horizon", "view", "地平线", ("极目",))
OPEN, CLOSED = {"sea", "water", "field", "desert"}, {"indoor", "house", "street"}  # scenes with a horizon, and without
LEVEL = 0.7  # of the picture's width that has to agree about the horizon
GLOOM = "病贫死鬼哭坟"  # not on a postcard
# Characters that verse is fond of, and that contradict a picture in which none of these scenes can be seen.
NEEDS = {"雪冰冻": ("snow", "winter"), "霜": ("snow", "winter", "autumn"), "夜宵更": ("night",), "雨": ("rain",)}
NEEDS |= {"月": ("moon", "night", "dusk"), "春": ("spring", "flower"), "夏": ("summer",), "秋": ("autumn",)}
NEEDS |= {"冬": ("winter", "snow"), "峰壑岭": ("mountain",), "海潮": ("sea", "boat")}
NEEDS |= {"舟船帆": ("sea", "water", "boat")}
DRY, LUSH = "枯黄荒", "绿翠"  # nor in a green picture, and in one that is yellow or orange without green
AZURE, BLOSSOM = "青碧苍", "花芳"  # nor in such a one without blue, and in snow without a flower

COLORS = {"red": "红", "orange": "橙", "yellow": "黄", "green": "绿", "blue": "青", "purple": "紫", "pink": "粉"}
COLORS |= {"white": "白", "black": "黑", "grey": "灰"}


@dataclass(frozen=True)
class Description:
    """What a picture shows.

    Args:
        seen: (what, probability), things before scenes, the likeliest first.
        colors: names in COLORS, the most frequent first.
        absent: characters of what is not to be seen.
        error: a line, and the rest empty, if the picture could not be read.
        note: what else was in the picture's file.
    """

    path: str
    seen: list[tuple[Sight, float]] = field(default_factory=list)
    colors: list[str] = field(default_factory=list)
    absent: str = ""
    error: str = ""
    note: str = ""

    @property
    def title(self) -> str:
        """The title of a poem about it, such as titles are: 咏鹤, 秋日望山, 雪中即事."""
        names = {text for sight, _ in self.seen for text in (sight.name, sight.kind)}
        for sight, _ in self.seen:
            if sight.kind in ABOUT and sight.words:
                return f"咏{sight.words[0]}"
        when = next((text for name, text in TIMES.items() if name in names), "")
        place = next((text for name, text in PLACES.items() if name in names), "")
        return when + (place or "即事")

    @property
    def words(self) -> list[str]:
        """Words of verse for it, the most telling first: one for each thing and scene, then second ones.

        No two of them share a character, and where a thing is named, what kind of thing it is says nothing new.
        """
        named = any(sight.kind not in SCENE_KINDS for sight, _ in self.seen)
        telling = [sight for sight, _ in self.seen if not (named and sight.kind == "subject")]
        ranked = [sight.words[place] for place in range(2) for sight in telling if place < len(sight.words)]
        words: list[str] = []
        for word in ranked:
            if not set(word) & set("".join([*words, self.avoid])):
                words.append(word)
        return words[:MOST_WORDS]

    @property
    def avoid(self) -> str:
        """Characters that a poem about it should not have: no moon at noon."""
        return "".join(dict.fromkeys(self.absent + "".join(sight.avoid for sight, _ in self.seen)))

    @property
    def subject(self) -> dict[str, Any]:
        """Settings of a poem about it."""
        return {"title": self.title, "keywords": self.words, "avoid": self.avoid}

    def subject_with(self, title: str, keywords: Sequence[str], avoid: str) -> dict[str, Any]:
        """The same where some is given: a title or keywords stay, and their characters may be written."""
        given = title + "".join(keywords)
        avoid += "".join(c for c in self.avoid if c not in given)
        return {"title": title, "keywords": keywords, "avoid": avoid} if given else self.subject | {"avoid": avoid}

    def __str__(self) -> str:
        if self.error:
            return self.error
        seen = [f"{sight} {min(chance, 0.99):.0%}" for sight, chance in self.seen] or ["nothing that is clear"]
        return f"{self.path}: {', '.join([*seen, *(f'{COLORS[name]} {name}' for name in self.colors)])}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON: path, seen, colors and the poem's title, words, avoid; or path and error."""
        if self.error:
            return {"path": self.path, "error": self.error}
        seen = [
            {"name": s.name, "chinese": s.chinese, "kind": s.kind, "probability": round(chance, 4)}
            for s, chance in self.seen
        ]
        poem = {"title": self.title, "words": self.words, "avoid": self.avoid}
        return {"path": self.path, "seen": seen, "colors": self.colors, "poem": poem}


def describe(model: Classifier, sources: Sequence[Source], max_megapixels: float = 0) -> Iterator[Description]:
    """What each of the pictures shows, in order. Raises UserError for a network that knows its own classes only."""
    if not model.recognises:
        raise UserError("this classifier knows its own classes only; the shipped one describes pictures", load=None)
    for index, outputs, remark in predict(model, Pictures(sources, SIZE, VIEWS, max_megapixels)):
        name = sources[index].name
        if outputs is None:
            yield Description(name, error=remark)
        else:
            rgb = read_source(sources[index], SIZE, max_megapixels).on("white")
            yield replace(describe_outputs(name, outputs, main_colors(rgb), horizon(rgb)), note=remark)


def describe_outputs(path: str, outputs: dict[str, Tensor], colors: list[str], level: float = 0.0) -> Description:
    """From the outputs {"imagenet": (V, 1000), "scenes": (V, S)} of the views of a picture; `level`: `horizon`."""
    things = mean_chances(outputs["imagenet"]).tolist()  # 1000
    chances = outputs["scenes"].mean(0).sigmoid().tolist()  # S
    seen = []
    for sights, found, least, most in (
        (imagenet_classes(), things, THING, MOST_THINGS),
        (scenes(), chances, SCENE, len(scenes())),
    ):
        ranked = sorted(zip(sights, found, strict=True), key=lambda pair: -pair[1])[:most]
        seen += [(s, chance) for s, chance in ranked if chance >= (CLEAR if s.kind in ABOUT else least)]
    named = {sight.name for sight, _ in seen}
    if level >= LEVEL and "sky" in named and named & OPEN and not named & CLOSED:
        seen.append((HORIZON, level))
    possible = {sight.name for sight, chance in zip(scenes(), chances, strict=True) if chance >= POSSIBLE}
    possible |= {sight.kind for sight, _ in seen}  # a boat, food
    absent = GLOOM + "".join(text for text, needed in NEEDS.items() if not possible & set(needed))
    if "green" in colors:
        absent += DRY
    elif {"yellow", "orange"} & set(colors):
        absent += LUSH if "blue" in colors else LUSH + AZURE
    if named & {"snow", "winter"} and "flower" not in possible:
        absent += BLOSSOM
    return Description(path, seen, colors, absent)
