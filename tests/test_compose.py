"""infer/compose.py: the form holds for any network, what is given is kept, and the score is the network's own."""

import re

import pytest
import torch

from data.poetry import AUTHOR, FORMS, PAUSES, SPECIALS, STOPS, TITLE, Vocabulary, verses
from infer.compose import BATCH, _sample, compose
from models.poet import Poet
from utils.errors import UserError

CHARACTERS = "春江花月夜山水云風门"  # 風 traditional, 门 simplified; 风 and 門 are not in it
SIGNS = "，、。？！；（）□\nA7"
ENGLISH = "abcdefghijklmnopqrstuvwxyz \n,.'"


def poet(characters: str = CHARACTERS + SIGNS, forms: tuple[str, ...] = tuple(FORMS), ending: float = 0.0) -> Poet:
    """A network of random weights; `ending` is the logit of the end mark, whatever was read."""
    torch.manual_seed(0)
    model = Poet(SPECIALS + list(characters), embed=8, hidden=12, layers=2, dropout=0.5, attention=0).eval()
    for parameter in model.parameters():  # far from the start: what was read matters, and no sign is like another
        torch.nn.init.normal_(parameter, std=0.7)
    eos = Vocabulary(model.vocab).eos
    model.embed.weight.data[eos], model.output_bias.data[eos] = 0.0, ending
    model.metadata = {"forms": list(forms)}
    return model


def recomputed_score(model: Poet, poem, condition: list[str], ended: bool = False) -> float:
    """Mean log-probability of the poem, by feeding it through the network in one piece."""
    vocabulary = Vocabulary(model.vocab)
    body = vocabulary.encode(vocabulary.fold("".join(poem.lines))[0]) + [vocabulary.eos] * ended
    head = [*(vocabulary.ids.get(sign, vocabulary.unknown) for sign in condition), vocabulary.bos]
    with torch.inference_mode():
        log_p = model.logits(model(torch.tensor([head + body]))["features"][0]).log_softmax(-1)
    return log_p[len(head) - 1 : -1].gather(1, torch.tensor(body)[:, None]).mean().item()


def train(model: Poet, text: str, steps: int = 150) -> Poet:
    """`model` after learning `text` by heart."""
    vocabulary = Vocabulary(model.vocab)
    ids = torch.tensor([[vocabulary.bos, *vocabulary.encode(text), vocabulary.eos]])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        model(ids[:, :-1], targets=ids[:, 1:])["nll"].backward()
        optimizer.step()
    return model


# ------------------------------------------------------------------------------------------------------- the form


@pytest.mark.parametrize("temperature", [0.0, 0.8, 100.0])
@pytest.mark.parametrize("form", FORMS)
def test_100_poems_have_the_verses_and_characters_of_the_form(form, temperature):
    count, width = FORMS[form]
    poems = compose(poet(), n=100, form=form, temperature=temperature, top_p=1.0)
    assert len(poems) == 100
    for poem in poems:
        text = "".join(poem.lines)
        assert poem.form == form and len(poem.lines) == count // 2
        assert re.fullmatch(f"([A7{CHARACTERS}]{{{width}}}[{PAUSES}][A7{CHARACTERS}]{{{width}}}[{STOPS}])+", text)
        assert len(verses(text)) == count


def test_no_poem_ever_holds_a_special_sign():
    signs = set(CHARACTERS + SIGNS)
    for form in ("free", *FORMS):
        for poem in compose(poet(), n=100, form=form, temperature=5.0, top_p=1.0, max_chars=40):
            assert poem.lines and set("".join(poem.lines)) <= signs


def test_auto_is_the_quatrain_or_what_the_network_has_learnt():
    assert compose(poet())[0].form == "七绝"
    assert compose(poet(forms=("五绝", "七绝")))[0].form == "七绝"
    assert compose(poet(forms=("五绝", "五律")))[0].form == "五绝"
    assert compose(poet(), forms=["五律"])[0].form == "五律"


def test_a_form_the_network_has_not_learnt_is_kept_all_the_same():
    assert len(verses("".join(compose(poet(forms=("七绝",)), form="五律")[0].lines))) == 8


def test_an_english_poet_writes_freely():
    poems = compose(poet(ENGLISH, forms=()), n=100, max_chars=50, temperature=2.0)
    for poem in poems:
        assert poem.form == "" and 0 < len("\n".join(poem.lines)) <= 50
        assert set("".join(poem.lines)) <= set(ENGLISH)
    assert any(len(poem.lines) > 1 for poem in poems)


@pytest.mark.parametrize("form", FORMS)
def test_without_punctuation_in_the_corpus_a_verse_is_a_line(form):
    count, width = FORMS[form]
    for characters in (CHARACTERS, CHARACTERS + "\n"):
        for poem in compose(poet(characters, forms=()), n=5, form=form):
            assert [len(line) for line in poem.lines] == [width] * count and poem.form == form
            assert set("".join(poem.lines)) <= set(CHARACTERS)


def test_a_corpus_without_letters_still_gives_no_special_sign():
    poem = compose(poet("…！—", forms=()), form="五绝")[0]
    assert set("".join(poem.lines)) <= set("…！—")


@pytest.mark.parametrize("characters", [CHARACTERS + SIGNS, ENGLISH])
def test_a_free_poem_is_never_empty_nor_longer_than_max_chars(characters):
    model = poet(characters, forms=(), ending=2.0)
    poems = compose(model, n=100, max_chars=9, temperature=1.0)
    lengths = {len("".join(p.lines)) for p in poems}
    assert min(lengths) >= 1 and max(lengths) <= 9 and len(lengths) > 3
    assert len("".join(compose(model, max_chars=1)[0].lines)) == 1


# ------------------------------------------------------------------------------------------------- what is given

GIVEN = ["春江", "门風", "門风", "Ab9", "龘", "😀月", "春😀A門龘"]  # known, unknown, other variants, Latin, emoji


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("form", ["五绝", "七律"])
def test_prompt_and_acrostic_are_kept_as_they_are(form, given):
    for poem in compose(poet(), n=3, form=form, prompt=given):
        text = "".join(poem.lines)
        assert text.replace("，", "").startswith(given)
        assert [len(v) for v in verses(text)] == [FORMS[form][1]] * FORMS[form][0]
    for poem in compose(poet(), n=3, form=form, acrostic=given[:4]):
        assert "".join(v[0] for v in verses("".join(poem.lines))).startswith(given[:4])


@pytest.mark.parametrize("given", GIVEN)
def test_a_free_poem_begins_with_its_prompt(given):
    for poem in compose(poet(), n=3, form="free", prompt=given + "，", max_chars=20):
        assert "".join(poem.lines).startswith(given + "，")


@pytest.mark.parametrize("acrostic", ["春", "春江", "春江花月夜", "春江花月夜山水云風"])
def test_an_acrostic_has_as_many_verses_as_characters(acrostic):
    for forms, width in ((tuple(FORMS), 7), (("五绝", "五律"), 5)):
        for poem in compose(poet(forms=forms), n=5, acrostic=acrostic):
            parts = verses("".join(poem.lines))
            assert "".join(v[0] for v in parts) == acrostic and {len(v) for v in parts} == {width}
            assert "".join(poem.lines)[-1] in STOPS


def test_an_acrostic_of_four_or_eight_is_a_named_form():
    assert compose(poet(), acrostic="春江花月")[0].form == "七绝"
    assert compose(poet(), acrostic="春江花月夜山水云")[0].form == "七律"
    assert compose(poet(), acrostic="春江花月", form="五绝")[0].form == "五绝"
    assert compose(poet(), acrostic="春江花月夜")[0].form == "七言"


def test_punctuation_in_a_prompt_gives_way_to_the_forms_own():
    text = "".join(compose(poet(), form="五绝", prompt="春江，花月！ 夜山水\n云")[0].lines)
    assert text.replace("，", "").replace("、", "").startswith("春江花月夜山水云")


def test_prompt_and_acrostic_together():
    text = "".join(compose(poet(), form="五绝", prompt="春花", acrostic="春江花月")[0].lines)
    assert text.startswith("春花") and [v[0] for v in verses(text)] == list("春江花月")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"form": "五绝", "prompt": "春" * 21}, "21 characters, the form only 20"),
        ({"form": "五绝", "acrostic": "春江花月夜"}, "五绝 has 4 verses, not 5"),
        ({"form": "五绝", "prompt": "月", "acrostic": "春江"}, "different characters"),
    ],
)
def test_what_does_not_fit_is_said(arguments, message):
    with pytest.raises(UserError, match=message):
        compose(poet(), **arguments)


def test_a_prompt_that_fills_the_form_or_max_chars_is_the_poem():
    text = "".join(compose(poet(), form="五绝", prompt="春江花月夜" * 4)[0].lines)
    assert "".join(verses(text)) == "春江花月夜" * 4
    assert "".join(compose(poet(), form="free", prompt="春江花月夜", max_chars=3)[0].lines) == "春江花月夜"


def test_title_and_author_are_read_and_the_title_is_handed_on():
    plain, titled = (compose(poet(), n=8, title=title, seed=1) for title in ("", "春江龘😀"))
    by_author = compose(poet(), n=8, author="山水", seed=1)
    assert titled[0].title == "春江龘😀" and str(titled[0]).startswith("《春江龘😀》\n")
    texts = [[p.lines for p in poems] for poems in (plain, titled, by_author)]
    assert texts[0] != texts[1] != texts[2] != texts[0]


# --------------------------------------------------------------------------------------------- chance, batch, score


@pytest.mark.parametrize("form", ["五律", "free"])
def test_a_batch_of_64_equals_one_at_a_time(form):
    model = train(poet(), "春江花月夜，山水云風门。", steps=20)
    batch = compose(model, n=64, form=form, seed=7, max_chars=30)
    for i in (0, 1, 31, 63):
        [alone] = compose(model, n=1, form=form, seed=7 + i, max_chars=30)
        assert alone.lines == batch[i].lines and alone.score == pytest.approx(batch[i].score, abs=1e-5)
    assert len({tuple(p.lines) for p in batch}) > 32


def test_more_than_a_batch_goes_on_in_the_next():
    poems = compose(poet(), n=BATCH + 2, form="五绝", seed=3)
    assert len(poems) == BATCH + 2
    assert [p.lines for p in poems[-2:]] == [p.lines for p in compose(poet(), n=2, form="五绝", seed=3 + BATCH)]


def test_the_global_generator_is_left_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    compose(model := poet(), n=2)
    torch.manual_seed(5)
    compose(model, n=2)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "narrow", [{"temperature": 0.0}, {"temperature": 1e-40}, {"top_k": 1}, {"top_p": 1e-9}, {"top_p": 0.0}]
)
def test_every_way_of_taking_the_likeliest_is_argmax(narrow):
    model = poet()
    wanted = argmax_poem(model, "五绝")
    for poem in compose(model, n=3, form="五绝", seed=11, **narrow):
        assert "".join(poem.lines) == wanted


def argmax_poem(model: Poet, form: str) -> str:
    """The likeliest allowed sign at each place, the whole text fed anew for each."""
    vocabulary, (count, width) = Vocabulary(model.vocab), FORMS[form]
    ids = [vocabulary.ids[f"<{form}>"], vocabulary.bos]
    for place in range(count * (width + 1)):
        verse, column = divmod(place, width + 1)
        allowed = CHARACTERS + "A7" if column < width else STOPS if verse % 2 else PAUSES
        with torch.inference_mode():
            logits = model.logits(model(torch.tensor([ids]))["features"][0, -1])
        ids.append(max((vocabulary.ids[c] for c in allowed), key=lambda i: logits[i].item()))
    return vocabulary.decode(ids)


def test_the_score_is_what_the_network_says_of_the_poem():
    model = poet()
    for poem in compose(model, n=5, form="七绝", title="春龘", author="山"):
        condition = ["<七绝>", AUTHOR, "山", TITLE, "春", "龘"]
        assert poem.score == pytest.approx(recomputed_score(model, poem, condition), abs=1e-5)
    for poem in compose(model, n=5, form="五绝", prompt="春龘門风", temperature=0.3):
        assert poem.score == pytest.approx(recomputed_score(model, poem, ["<五绝>"]), abs=1e-5)


def test_the_score_of_a_free_poem_counts_its_end_mark():
    model = poet(CHARACTERS, ending=2.0)  # no line breaks, so that the lines are the text
    ended = 0
    for poem in compose(model, n=30, form="free", max_chars=8, temperature=1.5):
        short = len("".join(poem.lines)) < 8
        ended += short
        assert poem.score == pytest.approx(recomputed_score(model, poem, [], ended=short), abs=1e-5)
    assert 0 < ended < 30


@pytest.mark.parametrize("form", ["free", "五绝"])
def test_a_poem_known_by_heart_is_recited(form):
    text = "春江花月夜，山水云風门。夜月花江春，门風云水山。"
    torch.manual_seed(0)
    model = train(Poet(SPECIALS + list(CHARACTERS + SIGNS), 16, 32, 1, 0.0, attention=0), text).eval()
    [poem] = compose(model, form=form, temperature=0.0, prompt="春江" if form == "free" else "")
    assert "".join(poem.lines) == text and poem.form == "五绝" and poem.score > -0.5
    assert poem.as_dict() == {"form": "五绝", "title": "", "lines": poem.lines, "score": round(poem.score, 4)}


def test_sampling_draws_each_sign_as_often_as_its_probability():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(10_000, 4)
    points = (torch.arange(10_000) + 0.5) / 10_000  # evenly, so that the counts are exact

    def shares(temperature=1.0, top_k=0, top_p=1.0) -> list[float]:
        drawn = _sample(logits, temperature, top_k, top_p, points)
        return (torch.bincount(drawn, minlength=4) / 10_000).tolist()

    assert shares() == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=2e-4)
    assert shares(top_k=2) == pytest.approx([0.625, 0.375, 0, 0], abs=2e-4)
    assert shares(top_k=99) == shares()
    assert shares(top_p=0.79) == pytest.approx([0.625, 0.375, 0, 0], abs=2e-4)
    assert shares(top_p=0.81) == pytest.approx([10 / 19, 6 / 19, 3 / 19, 0], abs=2e-4)
    assert shares(top_k=1, top_p=0.99) == [1, 0, 0, 0]
    assert shares(temperature=0.5) == pytest.approx([x / 0.365 for x in (0.25, 0.09, 0.0225, 0.0025)], abs=2e-4)


def test_sampling_never_takes_a_forbidden_sign_even_at_the_edge():
    logits = torch.full((2, 5), -torch.inf)
    logits[:, 1:3] = torch.tensor([1.0, -30.0])
    drawn = _sample(logits, 1.0, 0, 1.0, torch.tensor([0.0, 1.0]))  # rand() is below 1; rounding may reach it
    assert set(drawn.tolist()) <= {1, 2}
