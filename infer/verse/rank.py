"""Rating candidates: fluency, theme, parallel couplets, keywords. Shapes: R candidates, T tokens."""

from collections.abc import Sequence

import torch
from torch import Tensor

from data.verse import PAIR
from infer.verse.constraints import ends_word
from infer.verse.decoding import Draft
from infer.verse.images import Theme
from infer.verse.lexicon import Pairs
from infer.verse.plan import Form
from infer.verse.shape import Shape
from models.poet import Poet

THEME, PARALLEL, KEYWORD, IMAGES = 3.0, 3.0, 0.5, 0.5  # weights
ATTESTED, UNSEEN, CIRCLES = 1.0, 2.0, 3.0


@torch.inference_mode()
def rate(model: Poet, draft: Draft, form: Form, texts: Sequence[str], theme: Theme, pairs: Pairs | None) -> Tensor:
    """Ratings (R): fluency + THEME x theme + PARALLEL x parallelism in nats per character + KEYWORD for each keyword
    in the poem + IMAGES x the share of the images of modern words that is in it + `attestation`, if there are pairs;
    of a poem without a form, whose characters no rule keeps from coming back, - CIRCLES x `repetition`.

    Fluency is minus the difference between how much the poem surprises the network and how much the network expects of
    its own poems. More likelihood is not better: the likeliest poems are the dullest (Zhang et al. 2021, Meister et al.
    2023).
    Theme is log p(poem | title, keywords) - log p(poem): of two poems equally likely under a title, the one that is
    less likely without it is more about it (Li et al. 2016).
    """
    surprise = draft.mean(-draft.log_probs - draft.entropy).abs()
    rating = THEME * draft.mean(draft.theme) - surprise
    shape = form.shape
    if form.name == PAIR:
        rating = rating + 2 * PARALLEL * parallelism(model, draft.ids, shape, [0])
    elif form.regulated and len(shape.widths) == 8:
        rating = rating + PARALLEL * parallelism(model, draft.ids, shape, [2, 4])
    if shape and pairs:
        rating = rating + attestation(pairs, draft.ids, shape)
    if not shape:
        rating = rating - CIRCLES * torch.tensor([repetition(text) for text in texts], device=rating.device)
    for words, weight in (theme.words, KEYWORD), (theme.images, IMAGES / max(1, len(theme.images))):
        found = [sum(word in text for word in words) for text in texts]
        rating = rating + weight * torch.tensor(found, device=rating.device)
    return rating


def parallelism(model: Poet, ids: Tensor, shape: Shape, firsts: Sequence[int]) -> Tensor:
    """How parallel the couplets are that begin with the verses `firsts` (R), from ids (R, T) with punctuation.

    Mean cosine of the embeddings at the same place of the two verses, -1 for the same character: about 0.11 in real
    couplets 2 and 3 of eight verses, 0.01 if the second verse comes from another poem. Of a pair with marks inside its
    lines the lines are compared.
    """
    half = len(shape.widths) // 2 if len(firsts) == 1 else 1  # verses of a side
    inside = [p for p in shape.characters if any(v <= shape.verses[p] < v + half for v in firsts)]
    shift = shape.starts[firsts[0] + half] - shape.starts[firsts[0]]
    first, second = ids[:, inside], ids[:, [p + shift for p in inside]]  # (R, places)
    cosine = torch.cosine_similarity(model.embed(first), model.embed(second), -1)
    return torch.where(first == second, -1.0, cosine).mean(1)


def repetition(text: str) -> float:
    """The share of the pairs of neighbours in a poem that have been there before: 我歌我歌 has one of three."""
    pairs = [text[i : i + 2] for i in range(len(text) - 1)]
    return (len(pairs) - len(set(pairs))) / max(1, len(pairs))


def attestation(pairs: Pairs, ids: Tensor, shape: Shape) -> Tensor:
    """How far the pairs of neighbours of poems (R), ids (R, T) with punctuation, are those of verse.

    ATTESTED x the share of all that verse often has, - UNSEEN x the share of those at the places of words that it
    never has.
    """
    seconds = [p for p, column in enumerate(shape.columns) if column > 0]
    words = [i for i, p in enumerate(seconds) if ends_word(shape.columns[p])]
    seen, common = pairs.attested(ids[:, [p - 1 for p in seconds]], ids[:, seconds])  # (R, pairs)
    return ATTESTED * common.float().mean(1) - UNSEEN * (~seen[:, words]).float().mean(1)
