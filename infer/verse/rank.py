"""Rating candidates: fluency, theme, parallel couplets, keywords. Shapes: R candidates, T tokens."""

from collections.abc import Sequence

import torch
from torch import Tensor

from infer.verse.constraints import ends_word
from infer.verse.decoding import Draft
from infer.verse.images import Theme
from infer.verse.lexicon import Pairs
from infer.verse.plan import Shape
from models.poet import Poet

THEME, PARALLEL, KEYWORD, IMAGES, ATTESTED, UNSEEN = 3.0, 3.0, 0.5, 0.5, 1.0, 2.0  # weights


@torch.inference_mode()
def rate(
    model: Poet, draft: Draft, shape: Shape | None, texts: Sequence[str], theme: Theme, pairs: Pairs | None
) -> Tensor:
    """Ratings (R): fluency + THEME x theme + PARALLEL x parallelism in nats per character + KEYWORD for each keyword
    in the poem + IMAGES x the share of the images of modern words that is in it + `attestation`, if there are pairs.

    Fluency is minus the difference between how much the poem surprises the network and how much the network expects of
    its own poems. More likelihood is not better: the likeliest poems are the dullest (Zhang et al. 2021, Meister et al.
    2023).
    Theme is log p(poem | title, keywords) - log p(poem): of two poems equally likely under a title, the one that is
    less likely without it is more about it (Li et al. 2016).
    """
    surprise = draft.mean(-draft.log_probs - draft.entropy).abs()
    rating = THEME * draft.mean(draft.theme) - surprise
    if shape and shape[0] == 8:
        rating = rating + PARALLEL * parallelism(model, draft.ids, shape[1])
    if shape and pairs:
        rating = rating + attestation(pairs, draft.ids, shape[1])
    for words, weight in (theme.words, KEYWORD), (theme.images, IMAGES / max(1, len(theme.images))):
        found = [sum(word in text for word in words) for text in texts]
        rating = rating + weight * torch.tensor(found, device=rating.device)
    return rating


def parallelism(model: Poet, ids: Tensor, width: int) -> Tensor:
    """How parallel couplets 2 and 3 of poems of eight verses are (R), from ids (R, T) with punctuation.

    Mean cosine of the embeddings at the same place of the two verses, -1 for the same character: about 0.11 in real
    poems, 0.01 if the second verse comes from another poem.
    """
    middle = ids.view(len(ids), 8, width + 1)[:, 2:6, :-1]  # (R, 4, width)
    first, second = middle[:, 0::2], middle[:, 1::2]  # (R, 2, width)
    cosine = torch.cosine_similarity(model.embed(first), model.embed(second), -1)
    return torch.where(first == second, -1.0, cosine).mean((1, 2))


def attestation(pairs: Pairs, ids: Tensor, width: int) -> Tensor:
    """How far the pairs of neighbours of poems (R), ids (R, T) with punctuation, are those of verse.

    ATTESTED x the share of all that verse often has, - UNSEEN x the share of those at the places of words that it
    never has.
    """
    verses = ids.view(len(ids), -1, width + 1)[:, :, :-1]  # (R, verses, width)
    seen, common = pairs.attested(verses[:, :, :-1], verses[:, :, 1:])  # (R, verses, width - 1)
    words = [i for i in range(width - 1) if ends_word(i + 1)]
    return ATTESTED * common.float().mean((1, 2)) - UNSEEN * (~seen[:, :, words]).float().mean((1, 2))
