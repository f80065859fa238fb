"""Writing poems: decoding one character at a time, many poems in one batch. Form is kept here; tones and rhyme are not.

Shapes: B poems, V characters in the vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from data.poetry import AUTHOR, EOS, FORMS, PAUSES, SPECIALS, STOPS, TITLE, Vocabulary, form_of, to_lines
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
    """Writes `n` poems in one batch. Poem i depends on seed + i alone, whatever n is.

    With a form every poem has its number of verses and characters by construction. The characters of `prompt` and
    `acrostic` are kept as they are, also those the network does not know (it then reads the unknown sign). Raises
    UserError where prompt or acrostic do not fit the form.
    """
    vocabulary = Vocabulary(model.vocab)
    forms = model.metadata.get("forms", []) if forms is None else forms
    shape, form = _shape(form, acrostic, forms)
    plan = _plan(shape, prompt, acrostic, max_chars)
    device = model.device
    random = torch.stack([torch.rand(len(plan), generator=torch.Generator().manual_seed(seed + i)) for i in range(n)])
    masks = _masks(vocabulary, device)
    condition = _condition(vocabulary, form if form in forms else "", title, author)
    written: list[list[str]] = [[] for _ in range(n)]
    alive = torch.ones(n, dtype=torch.bool, device=device)
    score, length = torch.zeros(n, device=device), torch.zeros(n, device=device)
    with torch.inference_mode():
        output = model(torch.tensor([condition], device=device))  # the condition is read once, for all poems
        state = tuple(s.expand(-1, n, -1).contiguous() for s in output["state"])
        features = output["features"][:, -1].expand(n, -1)  # (B, E)
        for position, slot in enumerate(plan):
            logits = model.logits(features).float()  # (B, V)
            if slot in masks:
                allowed = logits.masked_fill(masks[slot], -torch.inf)
                chosen = _sample(allowed, temperature, top_k, top_p, random[:, position].to(device))
                signs = [vocabulary.characters[i] for i in chosen.tolist()]
            else:  # a character that is given
                chosen = torch.full((n,), vocabulary.encode(vocabulary.fold(slot)[0])[0], device=device)
                signs = [slot] * n
            log_p = logits.log_softmax(-1).gather(1, chosen[:, None])[:, 0]
            score += torch.where(alive, log_p, 0)
            length += alive
            ended = chosen == vocabulary.eos
            for row in (alive & ~ended).nonzero()[:, 0].tolist():
                written[row].append(signs[row])
            alive &= ~ended
            if not alive.any():
                break
            output = model(chosen[:, None], state)
            state, features = output["state"], output["features"][:, -1]
    poems = []
    for text, mean in zip(written, (score / length).tolist(), strict=True):
        lines = to_lines("".join(text).split("\n"))
        poems.append(Composition(form_of(lines), title, lines, mean))
    return poems


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
        return [*prompt, *[ANY] * max(1, max_chars - len(prompt))]
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
    """`text` without punctuation and spaces: the form puts its own."""
    return [c for c in text if c.isalnum()]


def _condition(vocabulary: Vocabulary, form: str, title: str, author: str) -> list[int]:
    ids = [vocabulary.ids[f"<{form}>"]] if form else []
    for sign, text in ((AUTHOR, author), (TITLE, title)):
        ids += [vocabulary.ids[sign], *vocabulary.encode(vocabulary.fold(text)[0])] if text else []
    return [*ids, vocabulary.bos]


def _masks(vocabulary: Vocabulary, device: torch.device) -> dict[str, Tensor]:
    """For each kind of slot, a (V,) mask of what may NOT stand there."""

    def mask(allowed) -> Tensor:
        return torch.tensor([not allowed(c) for c in vocabulary.characters], device=device)

    special = set(SPECIALS)
    masks = {
        CHARACTER: mask(lambda c: c not in special and c.isalnum()),
        PAUSE: mask(lambda c: c in PAUSES),
        STOP: mask(lambda c: c in STOPS),
        ANY: mask(lambda c: c not in special or c == EOS),
    }
    for kind, usual in ((PAUSE, "，"), (STOP, "。")):
        if masks[kind].all():  # a corpus without punctuation
            masks[kind] = mask(lambda c: c not in special)
            if usual in vocabulary.ids:
                masks[kind] = mask(lambda c, usual=usual: c == usual)
    return masks


def _sample(logits: Tensor, temperature: float, top_k: int, top_p: float, random: Tensor) -> Tensor:
    """Draws from logits (B, V) with one uniform number a row, so that a row does not depend on the others -> (B)."""
    if temperature == 0:
        return logits.argmax(-1)
    probabilities, order = (logits / temperature).softmax(-1).sort(descending=True, stable=True)
    total = probabilities.cumsum(-1)
    if 0 < top_p < 1:
        # Nucleus sampling (Holtzman et al. 2020): the smallest set that holds top_p of the probability.
        probabilities[total - probabilities >= top_p] = 0
    if top_k:
        probabilities[:, top_k:] = 0
    total = probabilities.cumsum(-1)
    point = random[:, None] * total[:, -1:]
    rank = torch.searchsorted(total, point, right=True).clamp_(max=logits.shape[-1] - 1)
    # Rounding may put the point behind the last sign that is allowed.
    rank = torch.minimum(rank, (probabilities > 0).sum(-1, keepdim=True) - 1)
    return order.gather(-1, rank)[:, 0]
