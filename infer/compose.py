"""Writing poems: decoding one character at a time, many poems in one batch. Form is kept here; tones and rhyme are not.

Shapes: B poems, V characters in the vocabulary.
"""

import unicodedata
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data.poetry import EOS, FORMS, PAUSES, SPECIALS, STOPS, Vocabulary, form_of, to_lines
from models.poet import Poet
from utils.errors import UserError


@dataclass
class Composition:
    """A written poem; `score` is its mean log-probability per character in nats under the network, conditions given."""

    form: str
    title: str
    lines: list[str]
    score: float

    def as_dict(self) -> dict:
        return {"form": self.form, "title": self.title, "lines": self.lines, "score": round(self.score, 4)}

    def __str__(self) -> str:
        head = f"《{self.title}》\n" if self.title else ""
        return head + "\n".join(self.lines)


def compose(
    model: Poet,
    n: int = 1,
    form: str = "auto",
    prompt: str = "",
    title: str = "",
    author: str = "",
    acrostic: str = "",
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 0.95,
    max_chars: int = 200,
    seed: int = 0,
    forms: list[str] | None = None,
) -> list[Composition]:
    """Writes `n` poems, BATCH at a time. Poem i depends on seed + i alone, whatever n is.

    With a form every poem has its number of verses and characters by construction. The characters of `prompt` and
    `acrostic` are kept as they are, also those the network does not know (it then reads the unknown sign). `forms`
    are the forms the network has learnt (None: as its file says). Raises UserError where prompt or acrostic do not
    fit the form.
    """
    vocabulary = Vocabulary(model.vocab)
    forms = model.metadata.get("forms", []) if forms is None else forms
    shape, form = _shape(form, acrostic, forms)
    plan = _plan(shape, prompt, acrostic, max_chars)
    readable = [vocabulary.fold(text)[0] for text in (author, title)]
    parts = vocabulary.condition(form if form in forms else "", *readable)
    condition = [*(i for part in parts for i in part), vocabulary.bos]
    poems = []
    for first in range(0, n, BATCH):
        seeds = range(seed + first, seed + min(first + BATCH, n))
        random = torch.stack([torch.rand(len(plan), generator=torch.Generator().manual_seed(s)) for s in seeds])
        for text, score in _write(model, vocabulary, plan, condition, random, temperature, top_k, top_p):
            lines = to_lines(text.split("\n"))
            poems.append(Composition(form or form_of(lines), title, lines, score))
    return poems


BATCH = 256  # more at once are no faster, but need more memory


@torch.inference_mode()
def _write(
    model: Poet,
    vocabulary: Vocabulary,
    plan: list[str],
    condition: list[int],
    random: Tensor,
    temperature: float,
    top_k: int,
    top_p: float,
) -> list[tuple[str, float]]:
    """(text, score) of B poems, sign by sign: `plan` says what may stand where, random (B, len(plan)) draws it."""
    n, device = len(random), model.device
    masks = _masks(vocabulary, device)
    written: list[list[str]] = [[] for _ in range(n)]
    alive = torch.ones(n, dtype=torch.bool, device=device)
    score, length = torch.zeros(n, device=device), torch.zeros(n, device=device)
    output = model(torch.tensor([condition], device=device))  # the condition is read once, for all poems
    state = tuple(s.expand(-1, n, -1).contiguous() for s in output["state"])
    features = output["features"][:, -1].expand(n, -1)  # (B, E)
    for position, slot in enumerate(plan):
        logits = model.logits(features).float()  # (B, V)
        if slot in masks:
            allowed = logits.masked_fill(masks[slot], -torch.inf)
            chosen = _sample(allowed, temperature, top_k, top_p, random[:, position].to(device))
            signs = [vocabulary.characters[i] for i in chosen.tolist()]
        else:  # a character that is given, or a line break where the corpus has no punctuation
            sign = "\n" if slot in (PAUSE, STOP) else slot
            chosen = torch.full((n,), vocabulary.encode(vocabulary.fold(sign)[0])[0], device=device)
            signs = [sign] * n
        log_p = logits.log_softmax(-1).gather(1, chosen[:, None])[:, 0]
        score += torch.where(alive, log_p, 0)
        length += alive
        alive &= chosen != vocabulary.eos
        for row in alive.nonzero()[:, 0].tolist():
            written[row].append(signs[row])
        if not alive.any():
            break
        output = model(chosen[:, None], state)
        state, features = output["state"], output["features"][:, -1]
    return [("".join(signs), mean) for signs, mean in zip(written, (score / length).tolist(), strict=True)]


CHARACTER, PAUSE, STOP, ANY = "<character>", "<pause>", "<stop>", "<any>"  # what a slot of the plan may take


def _shape(form: str, acrostic: str, forms: list[str]) -> tuple[tuple[int, int] | None, str]:
    """((verses, characters in each) or None for a free poem, the form's name)."""
    count = len(_characters(acrostic))
    if count and form in ("auto", "free"):
        width = 7 if any(FORMS[f][1] == 7 for f in forms) or not forms else 5
        named = [name for name, shape in FORMS.items() if shape == (count, width)]
        return (count, width), named[0] if named else {5: "五言", 7: "七言"}[width]
    if form == "auto":
        form = next((f for f in ("七绝", *forms) if f in forms), "free")
    if form == "free":
        return None, ""
    verses, width = FORMS[form]
    if count > verses:
        raise UserError(f"--acrostic={acrostic}: {form} has {verses} verses, not {count}; leave out --form for {count}")
    return (verses, width), form


def _plan(shape: tuple[int, int] | None, prompt: str, acrostic: str, max_chars: int) -> list[str]:
    """One slot a sign: a given character, or the kind of sign that may stand there."""
    if shape is None:
        given = list(prompt) or [CHARACTER]  # an empty poem is none
        return [*given, *[ANY] * (max_chars - len(given))]
    verses, width = shape
    plan = [
        sign for v in range(verses) for sign in [CHARACTER] * width + [PAUSE if v % 2 == 0 and v < verses - 1 else STOP]
    ]
    for verse, character in enumerate(_characters(acrostic)):
        plan[verse * (width + 1)] = character
    given = _characters(prompt)
    if len(given) > verses * width:
        raise UserError(
            f"--prompt has {len(given)} characters, the form only {verses * width}: shorten it, or --form=free"
        )
    slots = [i for i, slot in enumerate(plan) if slot not in (PAUSE, STOP)]
    for i, character in zip(slots, given, strict=False):
        if plan[i] not in (CHARACTER, character):
            raise UserError(f"--prompt={prompt} and --acrostic={acrostic} want different characters at the same place")
        plan[i] = character
    return plan


def _characters(text: str) -> list[str]:
    """`text` without punctuation and spaces: the form puts its own. Emoji are characters too."""
    return [c for c in text if c.isalnum() or unicodedata.category(c) == "So"]


def _masks(vocabulary: Vocabulary, device: torch.device) -> dict[str, Tensor]:
    """For each kind of slot that some sign may take, a (V,) mask of what may NOT stand there."""
    letters = [c not in SPECIALS and c.isalnum() for c in vocabulary.characters]
    kinds = {
        CHARACTER: letters if any(letters) else [c not in SPECIALS for c in vocabulary.characters],
        PAUSE: [c in PAUSES for c in vocabulary.characters],
        STOP: [c in STOPS for c in vocabulary.characters],
        ANY: [c not in SPECIALS or c == EOS for c in vocabulary.characters],
    }
    return {kind: ~torch.tensor(allowed, device=device) for kind, allowed in kinds.items() if any(allowed)}


def _sample(logits: Tensor, temperature: float, top_k: int, top_p: float, random: Tensor) -> Tensor:
    """Draws from logits (B, V) with one uniform number a row, so that a row does not depend on the others -> (B)."""
    if temperature < 1e-3:  # smaller ones overflow
        return logits.argmax(-1)
    p = (logits / temperature).softmax(-1)
    # Only the values are sorted, and by numpy: torch.sort takes 25 times as long (25 ms for 64 x 7,000), topk 10 times.
    ranked = torch.from_numpy(np.sort(p.cpu().numpy(), axis=-1)).to(p.device)  # the smallest first
    # Nucleus sampling (Holtzman et al. 2020): the smallest set that holds top_p of the probability, one at the least.
    outside = (ranked.cumsum(-1) <= 1 - top_p).sum(-1, keepdim=True)  # (B, 1)
    if top_k:
        outside = outside.clamp(min=p.shape[-1] - top_k)
    smallest = ranked.gather(-1, outside.clamp(max=p.shape[-1] - 1))
    total = p.masked_fill(p < smallest, 0).cumsum(-1)
    whole = total[:, -1:]
    # Rounding must not put the point behind the last sign that is kept.
    point = torch.minimum(random[:, None] * whole, torch.nextafter(whole, torch.zeros_like(whole)))
    return torch.searchsorted(total, point, right=True)[:, 0]
